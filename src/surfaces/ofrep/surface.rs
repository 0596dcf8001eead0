//! The surface as a worker drives it: what one worker knows, and what a read teaches. The order of checks is
//! [`super::pipeline`]'s.

use std::borrow::Cow;
use std::time::Duration;

use super::added::ContextAdditions;
use super::answers::OfrepAnswer;
use super::counts::OfrepCount;
use super::document::{OfrepLanded, OfrepRead};
use super::flagd::Selection;
use super::health::NAME;
use super::keys::SelectionDirectory;
use super::long::{LongName, LongWork};
use super::pipeline::{holds, invalid_context};
use super::repeated::RepeatedRequests;
use super::request::{Evaluand, OfrepRequest};
use super::settings::OfrepSettings;
use super::steps::{Asker, OfrepCarried, answered, replied};
use crate::documents::{Documents, Outflow};
use crate::http::{Cors, ETag};
use crate::limits::LocalBudgets;
use crate::records::Buckets;
use crate::redis::{Failure, Gateway, Purpose};
use crate::shared::{Ambient, BUSY, IDLE, Machinery, Scope, Store, Table};
use crate::snapshot::settings::Snapshot;
use crate::snapshot::status::Status;
use crate::surfaces::evaluated::kept_answers::KeptAnswers;
use crate::surfaces::evaluated::library::{COMPILING, DocumentBounds, Library, WORKING, reason};
use crate::surfaces::evaluated::reads::{KnownVersion, LandedDocument};
use crate::surfaces::evaluated::slices::Slices;
use crate::surfaces::{
    Decided, Fetch, Question, Reason, Receipt, Received, SentRead, ShowJob, StepOf, Surface, Terms,
    Upstream,
};
use crate::tenant::Tenant;
use crate::time::{Monotonic, UnixMillis};

/// Bytes of large answers that one worker hands over in a second: anybody may ask, and who does not read them lets Envoy keep
/// them.
const LARGE_PER_SECOND: u32 = 32 << 20;

/// Most selections whose rates are kept apart exactly.
const BUDGETS: usize = 4_096;

/// Entries of shared data with versions that callouts confirmed. Selections are few.
pub const SLOTS: u32 = 64;

/// OFREP's surface, of one worker.
pub struct Ofrep {
    pub(super) settings: OfrepSettings,
    pub(super) library: Library<Selection>,
    pub(super) directory: SelectionDirectory,
    pub(super) budgets: Option<LocalBudgets<Tenant>>,
    pub(super) answers: KeptAnswers,
    pub(super) added: ContextAdditions,
    pub(super) repeated: RepeatedRequests,
    pub(super) long: LongWork,
    /// Of that, what is done, and what was done before this tick.
    done: Vec<(OfrepRead, OfrepLanded)>,
    due: Vec<(OfrepRead, OfrepLanded)>,
    outflow: Outflow,
}

impl Ofrep {
    /// A surface that has done nothing yet. `gateway` leads to the Redis of the snapshot, and `scope` is its.
    pub fn new(
        settings: OfrepSettings,
        snapshot: Snapshot,
        gateway: Gateway,
        scope: Scope,
        ambient: &dyn Ambient,
    ) -> Self {
        let buckets = Buckets::new(&scope, snapshot.buckets);
        let slots = Table::new(&scope, "oe:", SLOTS);
        let bounds = DocumentBounds {
            kept: settings.documents_bytes,
            text: settings.max_document_bytes,
        };
        Self {
            library: Library::new(bounds, snapshot, gateway, scope, slots),
            directory: SelectionDirectory::new(buckets, ambient),
            budgets: settings.rate_limit.map(|_| LocalBudgets::new(BUDGETS)),
            answers: {
                let bytes = settings.answers_bytes as usize;
                KeptAnswers::new(bytes, bytes / 4)
            },
            added: ContextAdditions::new(&settings.context),
            repeated: RepeatedRequests::new(ambient.random_bytes()),
            long: LongWork::default(),
            done: Vec::new(),
            due: Vec::new(),
            outflow: Outflow::default(),
            settings,
        }
    }

    /// Whether this answer is being made, or is about to be given to those who wait for it.
    pub(super) fn is_under_way(&self, name: &LongName) -> bool {
        let is_own = |(read, _): &(OfrepRead, _)| *read == OfrepRead::Answer(*name);
        self.long.has(name) || self.done.iter().any(is_own)
    }

    /// What CORS answers say to this request: nothing to origins that may not ask, and what a preflight asks for to a preflight.
    fn cors<'a>(&self, cors: Cors<'a>, is_preflight: bool) -> Cors<'a> {
        let any = self.settings.allows_any_origin();
        let listed = |origin: &[u8]| {
            let mut origins = self.settings.cors_origins.iter();
            origins.any(|own| own.as_bytes() == origin)
        };
        let origin = match cors.origin {
            Some(_) if any => Some(Cow::Borrowed(&b"*"[..])),
            origin => origin.filter(|origin| listed(origin)),
        };
        let answers_preflight = is_preflight && origin.is_some();
        Cors {
            origin,
            request_headers: cors.request_headers.filter(|_| answers_preflight),
            request_method: answers_preflight.then_some(Cow::Borrowed(b"POST")),
        }
    }
}

impl Surface for Ofrep {
    type Request<'a> = OfrepRequest<'a>;
    type Read = OfrepRead;
    type Known = KnownVersion;
    type Landed = OfrepLanded;
    type Carried = OfrepCarried;
    type Answer = OfrepAnswer;
    type Count = OfrepCount;

    fn owns(&self, path: &[u8]) -> bool {
        self.settings.enabled && Evaluand::of(path).is_some()
    }

    fn parse<'a>(
        &mut self,
        path: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> OfrepRequest<'a> {
        let evaluand = evaluand(path);
        let mut request = OfrepRequest::parse(evaluand, fields, &self.added.fields());
        let cors = std::mem::take(&mut request.cors);
        request.cors = self.cors(cors, request.is_preflight);
        request
    }

    fn unread(&self, path: &[u8]) -> OfrepRequest<'static> {
        OfrepRequest::unread(evaluand(path))
    }

    fn start<'r, S: Store>(
        &mut self,
        request: &'r OfrepRequest<'_>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        self.decide(request, machinery)
    }

    fn body<'r, S: Store>(
        &mut self,
        request: &'r OfrepRequest<'_>,
        carried: &OfrepCarried,
        body: &[u8],
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        match carried.chosen.clone() {
            Some(chosen) => self.read_body(request, chosen, body, machinery),
            None => self.undecided_for(request, Reason::SharedData, None),
        }
    }

    fn forwards(&self, _: &[u8]) -> bool {
        self.settings.upstream == Upstream::Forward
    }

    fn too_long<'r>(&self, request: &'r OfrepRequest<'_>) -> StepOf<'r, Self> {
        answered(request, OfrepAnswer::BodyTooLong, None).step
    }

    fn resume<'r, S: Store>(
        &mut self,
        request: &'r OfrepRequest<'_>,
        carried: &OfrepCarried,
        landed: &OfrepLanded,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> Decided<'r, Self> {
        let Some(chosen) = carried.chosen.clone() else {
            return self.undecided_for(request, Reason::SharedData, None);
        };
        let tenant = chosen.tenant;
        let asker = Asker {
            request,
            chosen,
            context: carried.context.clone(),
            bytes: carried.bytes,
            name: carried.name,
        };
        use crate::documents::Document as _;
        match landed {
            OfrepLanded::Context(Ok(context), bytes) => {
                let (context, bytes) = (context.clone(), *bytes);
                let asker = Asker {
                    context,
                    bytes,
                    ..asker
                };
                let version = self.version(tenant, machinery);
                self.for_version(asker, version, machinery)
            }
            OfrepLanded::Context(Err(_), _) => invalid_context(request, tenant),
            OfrepLanded::Answer(forms, digest) => {
                let etag = ETag::long(*digest);
                if holds(request, &etag) {
                    let response = OfrepAnswer::not_modified(request, etag);
                    return replied(response, OfrepAnswer::NotModified, tenant);
                }
                let response = OfrepAnswer::Bulk.with_body(request, forms.body(), Some(etag));
                replied(response, OfrepAnswer::Bulk, tenant)
            }
            OfrepLanded::Document(landed) => match (landed, tenant) {
                (LandedDocument::Read(document), _) => {
                    self.answer(asker, document.etag(), Some(document), machinery)
                }
                (LandedDocument::Same(version), _) => self.answer(asker, version, None, machinery),
                (LandedDocument::Compiling(version), Some(tenant)) => {
                    self.meanwhile(asker, tenant, version, machinery)
                }
                (LandedDocument::Failed(failure), _) => {
                    self.undecided_for(request, reason(*failure), tenant)
                }
                _ => self.undecided_for(request, Reason::Redis, tenant),
            },
        }
    }

    fn undecided<'r>(&self, request: &'r OfrepRequest<'_>, reason: Reason) -> StepOf<'r, Self> {
        self.undecided_for(request, reason, None).step
    }

    fn refuses<'r>(
        &mut self,
        _: &OfrepRead,
        _: &'r OfrepRequest<'_>,
        _: Monotonic,
    ) -> Option<StepOf<'r, Self>> {
        None
    }

    fn fetch(&self, read: &OfrepRead) -> Option<Fetch<'_>> {
        Some(match read {
            OfrepRead::Document(read) => self.library.fetch(read),
            OfrepRead::Context(_) | OfrepRead::Answer(_) => Fetch {
                question: Question::Own,
                largest_reply: 0,
            },
        })
    }

    fn terms(&self, read: &OfrepRead) -> Terms {
        match read {
            OfrepRead::Document(read) => self.library.terms(read),
            OfrepRead::Context(_) | OfrepRead::Answer(_) => Terms {
                timeout: COMPILING,
                purpose: Purpose::Documents,
                reason: Reason::Overloaded,
            },
        }
    }

    fn known<S: Store>(&self, read: &OfrepRead, store: &S) -> KnownVersion {
        match read {
            OfrepRead::Document(read) => self.library.known(read, store),
            OfrepRead::Context(_) | OfrepRead::Answer(_) => None,
        }
    }

    fn landed<S: Store>(
        &mut self,
        read: &OfrepRead,
        sent: SentRead<KnownVersion>,
        received: Received<'_>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) -> (OfrepLanded, Result<(), Failure>) {
        let (landed, counts_as) = match read {
            OfrepRead::Document(read) => self.library.landed(read, sent, received, machinery),
            // Nobody was asked.
            OfrepRead::Context(_) | OfrepRead::Answer(_) => (LandedDocument::Missing, Ok(())),
        };
        (OfrepLanded::Document(landed), counts_as)
    }

    fn finished(&mut self) -> Option<(OfrepRead, OfrepLanded)> {
        let of_document = |(read, landed)| {
            let read = OfrepRead::Document(read);
            (read, OfrepLanded::Document(landed))
        };
        self.due
            .pop()
            .or_else(|| self.library.finished().map(of_document))
    }

    fn abandoned(&mut self, read: &OfrepRead) {
        self.long.abandon(read);
    }

    fn length(&self, request: &OfrepRequest<'_>, landed: &OfrepLanded) -> usize {
        match landed {
            OfrepLanded::Document(LandedDocument::Read(document))
                if request.evaluand == Evaluand::Flags =>
            {
                document.text_length()
            }
            OfrepLanded::Answer(forms, _) => forms.body().bytes().len(),
            _ => 0,
        }
    }

    fn tenant_word(_: &OfrepAnswer) -> &'static str {
        "selection"
    }

    fn carried_weight(carried: &OfrepCarried) -> usize {
        carried.bytes
    }

    fn may_leave(&mut self, _: &OfrepRequest<'_>, length: usize, now: Monotonic) -> bool {
        self.outflow.admits(length, LARGE_PER_SECOND, now)
    }

    fn sent<S: Store>(
        &mut self,
        receipt: &Receipt<OfrepAnswer>,
        _: &OfrepRequest<'_>,
        machinery: &mut Machinery<'_, S, OfrepCount>,
    ) {
        machinery.count(OfrepCount::Answer(receipt.answer));
    }

    fn tick<S: Store>(&mut self, _: bool, machinery: &mut Machinery<'_, S, OfrepCount>) {
        self.outflow.tick(LARGE_PER_SECOND, machinery.now);
        let mut slices = Slices::new(machinery.ambient);
        // A long answer takes time to be sent: a tick does slices, or ends in answers.
        self.due.append(&mut self.done);
        while self.due.is_empty()
            && let Some((read, landed)) = self.long.work(&mut slices)
        {
            // One that rests on the time is asked for by no digest again.
            if let (OfrepRead::Answer(name), OfrepLanded::Answer(forms, digest)) = (&read, &landed)
                && name.digest == *digest
            {
                self.answers.put_forms(*digest, forms.clone());
            }
            self.done.push((read, landed));
            if !slices.goes_on() {
                break;
            }
        }
        self.library.release(self.long.take_outgoing());
        self.library.tick(machinery, &mut slices);
    }

    fn loaded<S: Store>(&mut self, machinery: &mut Machinery<'_, S, OfrepCount>) {
        self.library.loaded(machinery);
    }

    fn each_job<S: Store>(&mut self, _: &mut ShowJob<'_, S, OfrepCount>) {}

    fn due_in(&self) -> Duration {
        let outflow = if self.outflow.is_busy() { BUSY } else { IDLE };
        let is_idle = self.long.is_empty() && self.done.is_empty();
        let long = if is_idle { IDLE } else { WORKING };
        self.library.due_in().min(outflow).min(long)
    }

    fn each_documents(
        &self,
        store: &impl Store,
        ambient: &dyn Ambient,
        show: &mut dyn FnMut(Documents),
    ) {
        if !self.settings.enabled {
            return;
        }
        let since = |(at, unix): (u64, UnixMillis)| unix.as_millis().saturating_sub(at);
        let read_at = self.directory.read_at(store).zip(ambient.unix());
        show(Documents {
            surface: NAME,
            kept: self.library.kept.len(),
            age: read_at.map(since).map(Duration::from_millis),
        });
    }

    fn status(&self) -> &Status {
        self.library.status.get()
    }
}

/// What a path names, beyond its request.
fn evaluand(path: &[u8]) -> Evaluand<'static> {
    Evaluand::of(path).map_or(Evaluand::Nothing, Evaluand::into_owned)
}

#[cfg(test)]
mod tests;
