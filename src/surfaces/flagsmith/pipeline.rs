//! The order of checks: gRPC → method → query → key → rate limit → type and length of a body → body → current version → what
//! the client holds → kept answer, or rules → 200.
//!
//! A key is checked before any of a body is taken, and is refused by fresh knowledge alone. The answer to who holds the
//! current version costs no document.

use std::borrow::Cow;
use std::rc::Rc;

use super::answers::FlagsmithAnswer;
use super::counts::FlagsmithCount;
use super::document::{EnvironmentDocument, FlagsmithLanded, FlagsmithRead};
use super::engine::IdentityRequest;
use super::keys::EdgeReader;
use super::question::{FlagQuestion, Subject};
use super::request::{FlagsmithRequest, Parameter, Route};
use super::steps::{Asker, answered, not_modified, replied, waits};
use super::surface::{Flagsmith, FlagsmithCarried};
use crate::documents::{Document, Kept};
use crate::hash::Sha256Hash;
use crate::http::{Body, ETag, Method, imf_fixdate, rfc3339_rounded_up};
use crate::shared::{Ambient, Machinery, Store};
use crate::surfaces::evaluated::admission::Denial;
use crate::surfaces::evaluated::counts::Evaluation;
use crate::surfaces::evaluated::library::Meanwhile;
use crate::surfaces::{Decided, Reason, Step, Upstream};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// As of when flags are: browser SDKs read it.
const UPDATED_AT: &str = "x-flagsmith-document-updated-at";

/// Most bytes of a request's body: 2 MiB, as the Edge Proxy's framework takes.
const MAX_BODY_BYTES: usize = 2 << 20;

impl Flagsmith {
    /// Decides a request up to its body.
    pub(super) fn decide<'r, S: Store>(
        &mut self,
        request: &'r FlagsmithRequest<'_>,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        if request.claims_grpc {
            return answered(request, FlagsmithAnswer::UnsupportedMediaType, None);
        }
        let allowed = match (request.method, request.route) {
            (Method::Options, _) => return answered(request, FlagsmithAnswer::Preflight, None),
            (Method::Get | Method::Head, _) => true,
            (Method::Post, route) => route == Route::Identities,
            (Method::Other, _) => false,
        };
        if !request.is_read {
            return self.undecided_for(request, Reason::SharedData, None);
        }
        if !allowed {
            return answered(request, FlagsmithAnswer::MethodNotAllowed, None);
        }
        if let Some(answer) = bad_query(request) {
            return answered(request, answer, None);
        }
        let reader = match self.authenticate(request, machinery) {
            Ok(reader) => reader,
            Err(Denial::Refused) => return answered(request, FlagsmithAnswer::UnknownKey, None),
            Err(Denial::Undecided(reason)) => return self.undecided_for(request, reason, None),
        };
        if let Some(decided) = self.limited(request, reader, machinery.now) {
            return decided;
        }
        let asker = Asker {
            request,
            reader,
            identity: None,
            bytes: 0,
        };
        if request.method != Method::Post {
            let identity = match (&request.parameter, request.route) {
                (Parameter::Value(identifier), Route::Identities) => Some(IdentityRequest {
                    identifier: Cow::Owned(identifier.clone().into_owned()),
                    traits: Vec::new(),
                }),
                _ => None,
            };
            return self.ask(Asker { identity, ..asker }, machinery);
        }
        if !request.is_json {
            return answered(request, FlagsmithAnswer::BodyType, Some(reader));
        }
        let is_long = |length: u64| length > MAX_BODY_BYTES as u64;
        if request.content_length.is_some_and(is_long) {
            return answered(request, FlagsmithAnswer::BodyTooLong, Some(reader));
        }
        Decided {
            step: Step::Body {
                max_bytes: MAX_BODY_BYTES,
                tenant: reader.environment,
            },
            carried: FlagsmithCarried {
                reader: Some(reader),
                ..FlagsmithCarried::default()
            },
            reads_alone: false,
        }
    }

    /// Goes on with a request that is admitted and whose body, if any, is read.
    pub(super) fn ask<'r, S: Store>(
        &mut self,
        asker: Asker<'r, '_>,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        let environment = asker.reader.environment;
        let version = match self.library.current_version(environment, machinery) {
            Ok(Some(version)) => version,
            Ok(None) => {
                let read = self.library.read(environment, machinery.now);
                return waits(asker, read);
            }
            Err(_) => {
                let reader = Some(asker.reader);
                return self.undecided_for(asker.request, Reason::SharedData, reader);
            }
        };
        self.answer(asker, &version, None, machinery)
    }

    /// Answers when this version is current. `at_hand`: that version, where it was just read.
    pub(super) fn answer<'r, S: Store>(
        &mut self,
        asker: Asker<'r, '_>,
        version: &ETag,
        at_hand: Option<&Rc<EnvironmentDocument>>,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        let environment = asker.reader.environment;
        let find = |kept: &mut Kept<EnvironmentDocument>| match at_hand {
            Some(document) => Some(Rc::clone(document)),
            None => kept.get(environment, version),
        };
        if asker.request.route == Route::Document {
            if asker.request.if_none_match.names(version) {
                return not_modified(&asker, version.clone());
            }
            return match find(&mut self.library.kept) {
                Some(document) if is_unmodified(asker.request, &document, machinery.ambient) => {
                    not_modified(&asker, version.clone())
                }
                Some(document) => self.with_document(asker, &document, machinery),
                None => self.meanwhile(asker, version, machinery),
            };
        }
        let hides = self.settings.hide_disabled_flags;
        let is_server = asker.reader.is_server;
        let Some(question) =
            FlagQuestion::of(asker.request, asker.identity.as_ref(), is_server, hides)
        else {
            return self.undecided_for(asker.request, Reason::SharedData, Some(asker.reader));
        };
        let (digest, etag) = self.digest(&question, &asker.reader, version, machinery.now);
        if asker.request.if_none_match.names(&etag) {
            machinery.count(FlagsmithCount::Evaluation(Evaluation::NotModified));
            return not_modified(&asker, etag);
        }
        let Some(document) = find(&mut self.library.kept) else {
            return self.meanwhile(asker, version, machinery);
        };
        let Some(rules) = document.rules() else {
            return answered(
                asker.request,
                FlagsmithAnswer::NotLoaded,
                Some(asker.reader),
            );
        };
        // Only `*` is left.
        if asker.request.if_none_match.matches(&etag) && question.has_answer(rules) {
            machinery.count(FlagsmithCount::Evaluation(Evaluation::NotModified));
            return not_modified(&asker, etag);
        }
        let accepts_gzip = asker.request.accepts_gzip;
        let body = match self.answers.get(&digest, accepts_gzip) {
            Some(body) => {
                machinery.count(FlagsmithCount::Evaluation(Evaluation::Kept));
                body
            }
            None => {
                let Some((text, is_cut_short)) = question.answer(rules) else {
                    let name = match &asker.request.parameter {
                        Parameter::Value(name) => name.as_ref(),
                        _ => "",
                    };
                    let response = FlagsmithAnswer::feature_not_found(asker.request, name);
                    let answer = FlagsmithAnswer::FeatureNotFound;
                    return replied(response, answer, Some(asker.reader));
                };
                machinery.count(FlagsmithCount::Evaluation(Evaluation::Evaluated));
                if is_cut_short {
                    self.tell_cut_short(environment, version, machinery.now);
                }
                self.answers.put(digest, text, accepts_gzip)
            }
        };
        let answer = match asker.request.route {
            Route::Identities => FlagsmithAnswer::Identity,
            _ => FlagsmithAnswer::Flags,
        };
        // A document may say anything there.
        let is_plain =
            |at: &&str| at.len() <= 64 && at.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let mut extra = Vec::new();
        if let Some(at) = rules.updated_at().filter(is_plain) {
            let at = at.as_bytes().to_vec();
            extra.push((UPDATED_AT, Cow::Owned(at)));
            // Pages of another origin see no other field of ours.
            if asker.request.cors.origin.is_some() {
                let exposed = Cow::Borrowed(UPDATED_AT.as_bytes());
                extra.push(("access-control-expose-headers", exposed));
            }
        }
        let response = answer.with_body(asker.request, body, etag, extra);
        replied(response, answer, Some(asker.reader))
    }

    /// The digest of a question, and the entity tag of its answer. That for all flags, which nearly all ask, is remembered.
    fn digest(
        &mut self,
        question: &FlagQuestion<'_>,
        reader: &EdgeReader,
        version: &ETag,
        now: Monotonic,
    ) -> (Sha256Hash, ETag) {
        let is_usual = matches!(question.subject, Subject::All);
        let of = (reader.environment, reader.is_server);
        if is_usual
            && let Some((of_version, digest, etag)) = self.digests.get(&of, now)
            && of_version == version
        {
            return (*digest, etag.clone());
        }
        let digest = question.digest(version);
        let etag = ETag::of_hash(digest);
        if is_usual {
            let known = (version.clone(), digest, etag.clone());
            self.digests.note(of, known, now);
        }
        (digest, etag)
    }

    /// Answers out of the version that is kept while the current one is being compiled, or reads that one. The whole document is
    /// waited for.
    pub(super) fn meanwhile<'r, S: Store>(
        &mut self,
        asker: Asker<'r, '_>,
        version: &ETag,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        let environment = asker.reader.environment;
        let is_flags = asker.request.route != Route::Document;
        let library = &self.library;
        match library.meanwhile(environment, version, is_flags, machinery.now) {
            Meanwhile::Unusable => {
                let answer = FlagsmithAnswer::NotLoaded;
                answered(asker.request, answer, Some(asker.reader))
            }
            Meanwhile::With(kept) => self.answer(asker, &kept, None, machinery),
            Meanwhile::Reads(read) => waits(asker, read),
        }
    }

    /// Tells of a version, once, that an evaluation left conditions out.
    fn tell_cut_short(&mut self, environment: Tenant, version: &ETag, now: Monotonic) {
        if self.cut_short.get(&environment, now) != Some(version) {
            self.cut_short.note(environment, version.clone(), now);
            log::warn!(
                "environment {environment}: the document takes more work than one evaluation may: conditions that came later matched nothing"
            );
        }
    }

    fn with_document<'r>(
        &mut self,
        asker: Asker<'r, '_>,
        document: &Rc<EnvironmentDocument>,
        machinery: &Machinery<'_, impl Store, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        let (request, reader) = (asker.request, Some(asker.reader));
        // Inflating a text that nobody wants would cost more than all else of the answer.
        let text = match request.accepts_gzip {
            true => None,
            false => document.text_at_hand(),
        };
        let body = match (request.accepts_gzip, text) {
            (true, _) => Body::Gzip(Rc::clone(document.gzip())),
            (false, Some(text)) => Body::Text(text),
            (false, None) => {
                let environment = asker.reader.environment;
                let library = &mut self.library;
                let begun = library.workshop.inflate(environment, document);
                match library.taken_in(environment, document.etag(), begun, machinery.now) {
                    FlagsmithLanded::Compiling(version) => {
                        return waits(
                            asker,
                            FlagsmithRead::Compiled {
                                tenant: environment,
                                version,
                            },
                        );
                    }
                    FlagsmithLanded::Read(document) => match document.text_at_hand() {
                        Some(text) => Body::Text(text),
                        None => return answered(request, FlagsmithAnswer::NotLoaded, reader),
                    },
                    _ => return self.undecided_for(request, Reason::Overloaded, reader),
                }
            }
        };
        let answer = FlagsmithAnswer::Document;
        let etag = document.etag().clone();
        let response = answer.with_body(request, body, etag, Vec::new());
        replied(response, answer, reader)
    }

    pub(super) fn undecided_for<'r>(
        &self,
        request: &'r FlagsmithRequest<'_>,
        reason: Reason,
        reader: Option<EdgeReader>,
    ) -> Decided<'r, Self> {
        match self.settings.upstream {
            Upstream::Forward if !request.forwarded_before => Decided {
                step: Step::Forward(reason),
                carried: FlagsmithCarried::default(),
                reads_alone: false,
            },
            Upstream::Forward => {
                answered(request, FlagsmithAnswer::Unavailable(Reason::Loop), reader)
            }
            Upstream::None => answered(request, FlagsmithAnswer::Unavailable(reason), reader),
        }
    }
}

/// Whether a client that holds a document as of a date, or any at all (`*`), holds this one. A date that lies ahead says
/// nothing, and an entity tag says more (RFC 9110 §13.1.3).
fn is_unmodified(
    request: &FlagsmithRequest<'_>,
    document: &EnvironmentDocument,
    ambient: &dyn Ambient,
) -> bool {
    if request.if_none_match.is_present() {
        return request.if_none_match.matches(document.etag());
    }
    let since = request.if_modified_since.as_deref().and_then(imf_fixdate);
    let Some(since) = since else {
        return false;
    };
    let now = ambient.unix().map(|unix| unix.as_millis() / 1_000);
    let updated_at = document.rules().and_then(|rules| rules.updated_at());
    let updated_at = updated_at.and_then(|at| rfc3339_rounded_up(at.as_bytes()));
    let is_past = now.is_some_and(|now| since <= now);
    is_past && updated_at.is_some_and(|at| at <= since)
}

fn bad_query(request: &FlagsmithRequest<'_>) -> Option<FlagsmithAnswer> {
    if request.method == Method::Post {
        return None;
    }
    match (request.route, &request.parameter) {
        (Route::Flags, Parameter::Repeated) => Some(FlagsmithAnswer::FeatureRepeated),
        (Route::Identities, Parameter::Repeated) => Some(FlagsmithAnswer::IdentifierRepeated),
        (Route::Identities, Parameter::Absent) => Some(FlagsmithAnswer::IdentifierMissing),
        _ => None,
    }
}
