//! The surface as a worker drives it: what one worker knows, and what a read teaches. The order of checks is
//! [`super::pipeline`]'s.

use std::time::Duration;

use super::answers::FlagsmithAnswer;
use super::counts::FlagsmithCount;
use super::document::{FlagsmithLanded, FlagsmithRead};
use super::engine::{Environment, IdentityRequest, parse_identity};
use super::health::NAME;
use super::keys::{EdgeReader, KeyDirectory};
use super::request::{FlagsmithRequest, Route};
use super::settings::FlagsmithSettings;
use super::steps::{Asker, answered, replied};
use super::usage;
use crate::documents::{Document, Documents, Outflow};
use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::limits::LocalBudgets;
use crate::recent::Recent;
use crate::records::Buckets;
use crate::redis::{Failure, Gateway};
use crate::shared::{Ambient, BUSY, IDLE, Machinery, Scope, Store, Table};
use crate::snapshot::settings::Snapshot;
use crate::snapshot::status::Status;
use crate::surfaces::evaluated::bodies;
use crate::surfaces::evaluated::kept_answers::KeptAnswers;
use crate::surfaces::evaluated::library::{DocumentBounds, Library, reason};
use crate::surfaces::evaluated::reads::KnownVersion;
use crate::surfaces::evaluated::slices::Slices;
use crate::surfaces::{
    Decided, Fetch, Reason, Receipt, Received, SentRead, ShowJob, StepOf, Surface, Terms, Upstream,
};
use crate::tenant::Tenant;
use crate::time::{Monotonic, UnixMillis};
use crate::usage::UsageJob;

/// For how long it is remembered what was told of a version.
const TOLD: Duration = Duration::from_secs(3_600);

/// Bytes of large answers to client-side keys that one worker hands over in a second: they are as large as the traits that a
/// client sends, and who does not read them lets Envoy keep them.
const ECHO_PER_SECOND: u32 = 4 << 20;

/// Most environments whose rates are kept apart exactly.
const BUDGETS: usize = 4_096;

/// Flagsmith's surface, of one worker.
pub struct Flagsmith {
    pub(super) settings: FlagsmithSettings,
    pub(super) library: Library<Environment>,
    pub(super) directory: KeyDirectory,
    pub(super) budgets: Option<LocalBudgets<Tenant>>,
    /// Versions of which it was told that an evaluation was cut short.
    pub(super) cut_short: Recent<Tenant, ETag>,
    pub(super) answers: KeptAnswers,
    /// Digests of the question for all flags, by environment and kind of key, and the version that they are of.
    pub(super) digests: Recent<(Tenant, bool), (ETag, Sha256Hash, ETag)>,
    outflow: Outflow,
    usage: Option<UsageJob>,
}

/// Largest answer that is kept, in bytes: one of an identity with long traits is not asked for again.
const LARGEST_KEPT: usize = 256 << 10;

/// What a request that waits takes along.
#[derive(Default)]
pub struct FlagsmithCarried {
    pub(super) reader: Option<EdgeReader>,
    pub(super) identity: Option<IdentityRequest<'static>>,
    /// What the identity takes at most, in bytes.
    pub(super) bytes: usize,
}

impl Flagsmith {
    /// A surface that has done nothing yet. `gateway` leads to the Redis of the snapshot, and `scope` is its. `usage` as
    /// [`usage::job`] makes it; `None`: nothing is counted for a report.
    pub fn new(
        settings: FlagsmithSettings,
        snapshot: Snapshot,
        gateway: Gateway,
        scope: Scope,
        usage: Option<UsageJob>,
        ambient: &dyn Ambient,
    ) -> Self {
        let buckets = Buckets::new(&scope, snapshot.buckets);
        let slots = Table::new(&scope, "fe:", 1_024);
        let bounds = DocumentBounds {
            kept: settings.documents_bytes,
            text: settings.max_document_bytes,
        };
        Self {
            directory: KeyDirectory::new(buckets, ambient),
            budgets: settings.rate_limit.map(|_| LocalBudgets::new(BUDGETS)),
            cut_short: Recent::new(BUDGETS, TOLD),
            answers: KeptAnswers::new(settings.answers_bytes as usize, LARGEST_KEPT),
            digests: Recent::new(BUDGETS, Duration::MAX),
            outflow: Outflow::default(),
            usage: usage.filter(|_| settings.enabled),
            library: Library::new(bounds, snapshot, gateway, scope, slots),
            settings,
        }
    }
}

impl Surface for Flagsmith {
    type Request<'a> = FlagsmithRequest<'a>;
    type Read = FlagsmithRead;
    type Known = KnownVersion;
    type Landed = FlagsmithLanded;
    type Carried = FlagsmithCarried;
    type Answer = FlagsmithAnswer;
    type Count = FlagsmithCount;

    fn owns(&self, path: &[u8]) -> bool {
        self.settings.enabled && Route::of(path).is_some()
    }

    fn parse<'a>(
        &mut self,
        path: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> FlagsmithRequest<'a> {
        let route = Route::of(path).unwrap_or(Route::Flags);
        FlagsmithRequest::parse(route, fields)
    }

    fn unread(&self, path: &[u8]) -> FlagsmithRequest<'static> {
        FlagsmithRequest::unread(Route::of(path).unwrap_or(Route::Flags))
    }

    fn start<'r, S: Store>(
        &mut self,
        request: &'r FlagsmithRequest<'_>,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        self.decide(request, machinery)
    }

    fn body<'r, S: Store>(
        &mut self,
        request: &'r FlagsmithRequest<'_>,
        carried: &FlagsmithCarried,
        body: &[u8],
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        let Some(reader) = carried.reader else {
            return self.undecided_for(request, Reason::SharedData, None);
        };
        let Some(bytes) = bodies::cost(body) else {
            return answered(request, FlagsmithAnswer::BodyTooLong, Some(reader));
        };
        match parse_identity(body) {
            Ok(identity) => {
                let asker = Asker {
                    request,
                    reader,
                    identity: Some(identity.into_owned()),
                    bytes,
                };
                self.ask(asker, machinery)
            }
            Err(problem) => {
                let answer = match problem.status() {
                    422 => FlagsmithAnswer::BodyShape,
                    _ => FlagsmithAnswer::BodyUnparsed,
                };
                let response = answer.bad_body(request, problem.text());
                replied(response, answer, Some(reader))
            }
        }
    }

    fn forwards(&self, _: &[u8]) -> bool {
        self.settings.upstream == Upstream::Forward
    }

    fn too_long<'r>(&self, request: &'r FlagsmithRequest<'_>) -> StepOf<'r, Self> {
        answered(request, FlagsmithAnswer::BodyTooLong, None).step
    }

    fn resume<'r, S: Store>(
        &mut self,
        request: &'r FlagsmithRequest<'_>,
        carried: &FlagsmithCarried,
        landed: &FlagsmithLanded,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> Decided<'r, Self> {
        let Some(reader) = carried.reader else {
            return self.undecided_for(request, Reason::SharedData, None);
        };
        let asker = Asker {
            request,
            reader,
            identity: carried.identity.clone(),
            bytes: carried.bytes,
        };
        match landed {
            FlagsmithLanded::Read(document) => {
                let version = document.etag();
                self.answer(asker, version, Some(document), machinery)
            }
            FlagsmithLanded::Same(version) => self.answer(asker, version, None, machinery),
            FlagsmithLanded::Compiling(version) => self.meanwhile(asker, version, machinery),
            FlagsmithLanded::Missing => answered(request, FlagsmithAnswer::NotLoaded, Some(reader)),
            FlagsmithLanded::Failed(failure) => {
                self.undecided_for(request, reason(*failure), Some(reader))
            }
        }
    }

    fn undecided<'r>(&self, request: &'r FlagsmithRequest<'_>, reason: Reason) -> StepOf<'r, Self> {
        self.undecided_for(request, reason, None).step
    }

    fn refuses<'r>(
        &mut self,
        _: &FlagsmithRead,
        _: &'r FlagsmithRequest<'_>,
        _: Monotonic,
    ) -> Option<StepOf<'r, Self>> {
        None
    }

    fn fetch(&self, read: &FlagsmithRead) -> Option<Fetch<'_>> {
        Some(self.library.fetch(read))
    }

    fn terms(&self, read: &FlagsmithRead) -> Terms {
        self.library.terms(read)
    }

    fn known<S: Store>(&self, read: &FlagsmithRead, store: &S) -> KnownVersion {
        self.library.known(read, store)
    }

    fn landed<S: Store>(
        &mut self,
        read: &FlagsmithRead,
        sent: SentRead<KnownVersion>,
        received: Received<'_>,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> (FlagsmithLanded, Result<(), Failure>) {
        self.library.landed(read, sent, received, machinery)
    }

    fn finished(&mut self) -> Option<(FlagsmithRead, FlagsmithLanded)> {
        self.library.finished()
    }

    fn length(&self, _: &FlagsmithRequest<'_>, landed: &FlagsmithLanded) -> usize {
        match landed {
            FlagsmithLanded::Read(document) => document.text_length(),
            _ => 0,
        }
    }

    fn tenant_word(_: &FlagsmithAnswer) -> &'static str {
        "environment"
    }

    fn carried_weight(carried: &FlagsmithCarried) -> usize {
        carried.bytes
    }

    fn may_leave(&mut self, request: &FlagsmithRequest<'_>, length: usize, now: Monotonic) -> bool {
        // A document goes to who has a server-side key.
        request.route == Route::Document || self.outflow.admits(length, ECHO_PER_SECOND, now)
    }

    fn sent<S: Store>(
        &mut self,
        receipt: &Receipt<FlagsmithAnswer>,
        request: &FlagsmithRequest<'_>,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) {
        machinery.count(FlagsmithCount::Answer(receipt.answer));
        let environment = receipt.tenant.filter(|_| receipt.billed);
        if let Some((job, environment)) = self.usage.as_mut().zip(environment) {
            let counter = usage::request(environment, request.route, job.unix(machinery));
            job.count(counter, machinery);
        }
    }

    fn tick<S: Store>(&mut self, _: bool, machinery: &mut Machinery<'_, S, FlagsmithCount>) {
        self.outflow.tick(ECHO_PER_SECOND, machinery.now);
        let mut slices = Slices::new(machinery.ambient);
        self.library.tick(machinery, &mut slices);
    }

    fn loaded<S: Store>(&mut self, machinery: &mut Machinery<'_, S, FlagsmithCount>) {
        self.library.loaded(machinery);
    }

    fn each_job<S: Store>(&mut self, show: &mut ShowJob<'_, S, FlagsmithCount>) {
        if let Some(usage) = &mut self.usage {
            show(usage);
        }
    }

    fn due_in(&self) -> Duration {
        let outflow = if self.outflow.is_busy() { BUSY } else { IDLE };
        self.library.due_in().min(outflow)
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
        let polled = self.directory.polled(store);
        let oldest = polled.map(|polled| polled.oldest).filter(|at| *at > 0);
        let since = |(oldest, unix): (u64, UnixMillis)| unix.as_millis().saturating_sub(oldest);
        show(Documents {
            surface: NAME,
            kept: self.library.kept.len(),
            age: oldest
                .zip(ambient.unix())
                .map(since)
                .map(Duration::from_millis),
        });
    }

    fn status(&self) -> &Status {
        self.library.status.get()
    }
}

#[cfg(test)]
mod tests;
