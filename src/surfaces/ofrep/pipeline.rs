//! The order of checks: gRPC → preflight → method → path → key → selector → rate limit → length of the body → context → current
//! version → what the client holds → kept answer, or rules → 200.
//!
//! A key is refused, and a selection is empty, by fresh and complete knowledge alone. Who holds the answer is told so before
//! anything is evaluated, unless a rule reads the time.

use std::rc::Rc;

use super::admission::{NOBODY, selector};
use super::answers::OfrepAnswer;
use super::counts::OfrepCount;
use super::document::{EMPTY, OfrepRead, SelectionDocument};
use super::flagd::{EvaluationContext, FlagAnswer, PartialContext, Selection, tag};
use super::long::{LongAnswer, LongName};
use super::repeated::LONGEST;
use super::request::{Evaluand, OfrepRequest};
use super::steps::{Asker, Chosen, OfrepCarried, answered, replied, waits};
use super::surface::Ofrep;
use crate::hash::Sha256Hash;
use crate::http::{ETag, IfNoneMatch, Method};
use crate::shared::{Machinery, Store, StoreError};
use crate::surfaces::evaluated::bodies;
use crate::surfaces::evaluated::counts::Evaluation;
use crate::surfaces::evaluated::kept_answers::AnswerForms;
use crate::surfaces::evaluated::library::Meanwhile;
use crate::surfaces::{Decided, Reason, Step, Upstream};
use crate::tenant::Tenant;

impl Ofrep {
    /// Decides a request up to its body.
    pub(super) fn decide<'r, S: Store>(
        &mut self,
        request: &'r OfrepRequest<'_>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        if request.claims_grpc {
            return answered(request, OfrepAnswer::UnsupportedMediaType, None);
        }
        if !request.is_read {
            return self.undecided_for(request, Reason::SharedData, None);
        }
        if request.is_preflight {
            return answered(request, OfrepAnswer::Preflight, None);
        }
        if request.method != Method::Post {
            return answered(request, OfrepAnswer::MethodNotAllowed, None);
        }
        if request.evaluand == Evaluand::Nothing {
            return answered(request, OfrepAnswer::NoFlagNamed, None);
        }
        let selector = selector(request);
        let hash = selector.as_ref().ok().map(|own| self.directory.hash(own));
        match self.authenticate(request, hash.as_ref(), machinery) {
            Ok(()) => {}
            Err(Ok(answer)) => return answered(request, answer, None),
            Err(Err(reason)) => return self.undecided_for(request, reason, None),
        }
        let (selector, hash) = match (selector, hash) {
            (Ok(selector), Some(hash)) => (selector, hash),
            (Err(problem), _) => {
                let refusal = FlagAnswer::bad_selector(request.evaluand.key(), &problem);
                let answer = OfrepAnswer::InvalidSelector;
                return replied(answer.with_text(request, refusal.body), answer, None);
            }
            (Ok(_), None) => return self.undecided_for(request, Reason::SharedData, None),
        };
        let tenant = match self.selected(&hash, machinery) {
            Ok(tenant) => tenant,
            Err(reason) => return self.undecided_for(request, reason, None),
        };
        if let Some(decided) = self.limited(request, tenant, machinery.now) {
            return decided;
        }
        let max_bytes = self.settings.max_body_bytes;
        let is_long = |length: u64| length > u64::from(max_bytes);
        if request.content_length.is_some_and(is_long) {
            return answered(request, OfrepAnswer::BodyTooLong, tenant);
        }
        Decided {
            step: Step::Body {
                max_bytes: max_bytes as usize,
                tenant: tenant.unwrap_or(NOBODY),
            },
            carried: OfrepCarried {
                chosen: Some(Chosen { selector, tenant }),
                ..OfrepCarried::default()
            },
            reads_alone: false,
        }
    }

    /// Goes on with a request whose body is there.
    pub(super) fn read_body<'r, S: Store>(
        &mut self,
        request: &'r OfrepRequest<'_>,
        chosen: Chosen,
        body: &[u8],
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        let version = self.version(chosen.tenant, machinery);
        let name = self.repeated.name(request, &chosen.selector, body);
        if let (Some(name), Ok(Some(version))) = (&name, &version)
            && let Some(digest) = self.repeated.digest(name, version)
            && let Some(decided) = self.again(request, digest, chosen.tenant, machinery)
        {
            return decided;
        }
        let Some(bytes) = bodies::cost(body) else {
            return answered(request, OfrepAnswer::BodyTooLong, chosen.tenant);
        };
        let additions = self.added.of(request);
        let mut asker = Asker {
            context: EvaluationContext::default(),
            request,
            chosen,
            bytes,
            name,
        };
        if body.len() > LONGEST {
            // The body is kept where it is read.
            asker.bytes = 0;
            let context = PartialContext::new(body, additions);
            let read = self.long.add_context(context, bytes);
            return self.waits_long(asker, read);
        }
        let Ok(context) = EvaluationContext::parse(body) else {
            return invalid_context(request, asker.chosen.tenant);
        };
        asker.context = context.with(additions);
        self.for_version(asker, version, machinery)
    }

    /// The version that is known to be current of a selection; `None`: Redis has to be asked.
    pub(super) fn version<S: Store>(
        &mut self,
        tenant: Option<Tenant>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Result<Option<ETag>, StoreError> {
        match tenant {
            Some(tenant) => self.library.current_version(tenant, machinery),
            None => Ok(Some(ETag::of_text(EMPTY))),
        }
    }

    /// Goes on with a request whose context is known, by what is known of the current version.
    pub(super) fn for_version<'r, S: Store>(
        &mut self,
        asker: Asker<'r, '_>,
        version: Result<Option<ETag>, StoreError>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        let tenant = asker.chosen.tenant;
        match (version, tenant) {
            (Ok(Some(version)), _) => self.answer(asker, &version, None, machinery),
            (Ok(None), Some(tenant)) => {
                let read = self.library.read(tenant, machinery.now);
                waits(asker, OfrepRead::Document(read))
            }
            _ => self.undecided_for(asker.request, Reason::SharedData, tenant),
        }
    }

    /// Waits for what is done in slices. `None`: there is too much to do.
    fn waits_long<'r>(&self, asker: Asker<'r, '_>, read: Option<OfrepRead>) -> Decided<'r, Self> {
        match read {
            Some(read) => waits(asker, read),
            None => self.undecided_for(asker.request, Reason::Overloaded, asker.chosen.tenant),
        }
    }

    /// The answer of this digest, where the client holds it or it is kept.
    fn again<'r, S: Store>(
        &mut self,
        request: &'r OfrepRequest<'_>,
        digest: Sha256Hash,
        tenant: Option<Tenant>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Option<Decided<'r, Self>> {
        let etag = ETag::long(digest);
        if holds(request, &etag) {
            machinery.count(OfrepCount::Evaluation(Evaluation::NotModified));
            let response = OfrepAnswer::not_modified(request, etag);
            return Some(replied(response, OfrepAnswer::NotModified, tenant));
        }
        let body = self.answers.get(&digest, request.accepts_gzip)?;
        machinery.count(OfrepCount::Evaluation(Evaluation::Kept));
        let response = OfrepAnswer::Bulk.with_body(request, body, Some(etag));
        Some(replied(response, OfrepAnswer::Bulk, tenant))
    }

    /// Answers when this version is current. `at_hand`: that version, where it was just read.
    pub(super) fn answer<'r, S: Store>(
        &mut self,
        asker: Asker<'r, '_>,
        version: &ETag,
        at_hand: Option<&Rc<SelectionDocument>>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        let (request, tenant) = (asker.request, asker.chosen.tenant);
        let document = match (tenant, at_hand) {
            (None, _) => None,
            (Some(_), Some(document)) => Some(Rc::clone(document)),
            (Some(tenant), None) => match self.library.kept.get(tenant, version) {
                Some(document) => Some(document),
                None => return self.meanwhile(asker, tenant, version, machinery),
            },
        };
        let empty = Selection::default();
        let selection = match &document {
            None => &empty,
            // What another selection has under this number is as no document.
            Some(document) => match document.rules() {
                Some(selection) if selection.is_of(&asker.chosen.selector) => selection,
                _ => return self.undecided_for(request, Reason::Redis, tenant),
            },
        };
        let unix = match selection.reads_time() {
            // No rule sees it.
            false => 0,
            true => match machinery.ambient.unix() {
                Some(unix) => unix.as_millis() / 1_000,
                None => return self.undecided_for(request, Reason::SharedData, tenant),
            },
        };
        let (selector, fractional) = (&asker.chosen.selector, self.settings.fractional);
        if let Some(key) = request.evaluand.key() {
            machinery.count(OfrepCount::Evaluation(Evaluation::Evaluated));
            let found = selection.single(key, selector, &asker.context, fractional, unix);
            let answer = match found.status {
                200 => OfrepAnswer::Flag,
                404 => OfrepAnswer::FlagNotFound,
                _ => OfrepAnswer::FlagFailed,
            };
            return replied(answer.with_text(request, found.body), answer, tenant);
        }
        let context = asker.context.hash();
        let tag = |text: Option<&Sha256Hash>| tag(fractional, selector, version, &context, text);
        let digest = tag(None);
        if !selection.reads_time() {
            if let Some(name) = asker.name {
                self.repeated.note(name, version.clone(), digest);
            }
            if let Some(decided) = self.again(request, digest, tenant, machinery) {
                return decided;
            }
        }
        let accepts_gzip = request.accepts_gzip;
        let name = LongName {
            digest,
            unix,
            accepts_gzip,
        };
        if self.is_under_way(&name) {
            return waits(asker, OfrepRead::Answer(name));
        }
        machinery.count(OfrepCount::Evaluation(Evaluation::Evaluated));
        let text = match &document {
            None => {
                selection
                    .bulk(selector, &asker.context, fractional, unix)
                    .body
            }
            Some(document) => {
                let of = (&asker.context, context);
                let mut answer = LongAnswer::new(document, selector, fractional, of, unix);
                let Some(text) = answer.evaluate(selection) else {
                    let read = self.long.add_answer(name, answer, asker.bytes);
                    return self.waits_long(asker, read);
                };
                text
            }
        };
        let (body, digest) = if selection.reads_time() {
            let digest = tag(Some(&Sha256Hash::of(&text)));
            if holds(request, &ETag::long(digest)) {
                let response = OfrepAnswer::not_modified(request, ETag::long(digest));
                return replied(response, OfrepAnswer::NotModified, tenant);
            }
            (AnswerForms::of(text, accepts_gzip).body(), digest)
        } else {
            (self.answers.put(digest, text, accepts_gzip), digest)
        };
        let response = OfrepAnswer::Bulk.with_body(request, body, Some(ETag::long(digest)));
        replied(response, OfrepAnswer::Bulk, tenant)
    }

    /// Answers out of the version that is kept while the current one is being compiled, or reads that one.
    pub(super) fn meanwhile<'r, S: Store>(
        &mut self,
        asker: Asker<'r, '_>,
        tenant: Tenant,
        version: &ETag,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        let library = &self.library;
        match library.meanwhile(tenant, version, true, machinery.now) {
            Meanwhile::Unusable => self.undecided_for(asker.request, Reason::Redis, Some(tenant)),
            Meanwhile::With(kept) => self.answer(asker, &kept, None, machinery),
            Meanwhile::Reads(read) => waits(asker, OfrepRead::Document(read)),
        }
    }

    pub(super) fn undecided_for<'r>(
        &self,
        request: &'r OfrepRequest<'_>,
        reason: Reason,
        selection: Option<Tenant>,
    ) -> Decided<'r, Self> {
        match self.settings.upstream {
            Upstream::Forward if !request.forwarded_before => Decided {
                step: Step::Forward(reason),
                carried: OfrepCarried::default(),
                reads_alone: false,
            },
            Upstream::Forward => {
                answered(request, OfrepAnswer::Unavailable(Reason::Loop), selection)
            }
            Upstream::None => answered(request, OfrepAnswer::Unavailable(reason), selection),
        }
    }
}

/// 400: the body is no context.
pub(super) fn invalid_context<'r>(
    request: &'r OfrepRequest<'_>,
    selection: Option<Tenant>,
) -> Decided<'r, Ofrep> {
    let refusal = FlagAnswer::invalid_context(request.evaluand.key());
    let answer = OfrepAnswer::InvalidContext;
    replied(answer.with_text(request, refusal.body), answer, selection)
}

/// Whether the client holds the answer, and its query does not say that the answer is another one.
pub(super) fn holds(request: &OfrepRequest<'_>, etag: &ETag) -> bool {
    let is_current = |tag: &[u8]| {
        let mut told = IfNoneMatch::default();
        told.add(tag);
        told.matches(etag)
    };
    request.if_none_match.matches(etag) && request.config_etag.as_deref().is_none_or(is_current)
}
