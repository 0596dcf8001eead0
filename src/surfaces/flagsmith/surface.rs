//! The surface as a worker drives it: what one worker knows, and what a read teaches. The order of checks is
//! [`super::pipeline`]'s.

use std::time::Duration;

use super::answers::FlagsmithAnswer;
use super::counts::FlagsmithCount;
use super::document::{EnvironmentDocument, Workshop};
use super::engine::{IdentityRequest, parse_identity};
use super::health::NAME;
use super::intake::{TOLD, UNUSABLE, WORKING};
use super::kept_answers::KeptAnswers;
use super::keys::{EdgeReader, KeyDirectory};
use super::reads::{FlagsmithLanded, FlagsmithRead, KnownVersion, StoredDocument, command};
use super::request::{FlagsmithRequest, Route};
use super::settings::{EdgeUpstream, FlagsmithSettings};
use super::steps::{Asker, answered, replied};
use super::usage;
use crate::documents::{Confirmations, Confirmed, Document, Documents, Kept, Outflow};
use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::limits::LocalBudgets;
use crate::recent::{OncePerSecond, Recent};
use crate::records::Buckets;
use crate::redis::{Failure, Gateway, Purpose, wire_size};
use crate::shared::{Ambient, BUSY, IDLE, Machinery, Scope, Store, Table};
use crate::snapshot::KnownStatus;
use crate::snapshot::settings::Snapshot;
use crate::snapshot::status::Status;
use crate::surfaces::{
    self, Decided, Fetch, Reason, Receipt, Received, SentRead, ShowJob, StepOf, Surface, Terms,
};
use crate::tenant::Tenant;
use crate::time::{Monotonic, UnixMillis};
use crate::usage::UsageJob;

/// Half of the longest wait for a document that is being compiled: the longest takes somewhat more than a second.
const COMPILING: Duration = Duration::from_millis(1_500);

/// For how long a version answers while the next one is being compiled.
const MEANWHILE: Duration = Duration::from_secs(3);

/// What a reply has around a document's text.
const FRAMING: usize = 1 << 10;

/// Most values of a body, counted by what stands before each: a comma or an opening bracket. With more it is too long.
const MAX_BODY_VALUES: usize = 50_000;

/// What a value of a body takes at most.
const VALUE_BYTES: usize = 400;

/// Bytes of large answers to client-side keys that one worker hands over in a second: they are as large as the traits that a
/// client sends, and who does not read them lets Envoy keep them.
const ECHO_PER_SECOND: u32 = 4 << 20;

/// Most environments whose rates are kept apart exactly.
const BUDGETS: usize = 4_096;

/// Flagsmith's surface, of one worker.
pub struct Flagsmith {
    pub(super) settings: FlagsmithSettings,
    pub(super) snapshot: Snapshot,
    pub(super) gateway: Gateway,
    pub(super) scope: Scope,
    pub(super) status: KnownStatus,
    pub(super) directory: KeyDirectory,
    pub(super) confirmations: Confirmations,
    pub(super) budgets: Option<LocalBudgets<Tenant>>,
    pub(super) kept: Kept<EnvironmentDocument>,
    pub(super) workshop: Workshop,
    /// Versions that are kept and were current a moment ago.
    pub(super) current: Recent<Tenant, ETag>,
    /// Versions that were read and are of no use.
    pub(super) unusable: Recent<Tenant, ETag>,
    /// Versions of which it was told that an evaluation was cut short.
    pub(super) cut_short: Recent<Tenant, ETag>,
    pub(super) finished: Vec<(FlagsmithRead, FlagsmithLanded)>,
    pub(super) answers: KeptAnswers,
    /// Digests of the question for all flags, by environment and kind of key, and the version that they are of.
    pub(super) digests: Recent<(Tenant, bool), (ETag, Sha256Hash, ETag)>,
    outflow: Outflow,
    usage: Option<UsageJob>,
    pub(super) problems: OncePerSecond,
}

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
        Self {
            status: KnownStatus::default(),
            directory: KeyDirectory::new(buckets, ambient),
            confirmations: Confirmations::new(slots),
            budgets: settings.rate_limit.map(|_| LocalBudgets::new(BUDGETS)),
            kept: Kept::new(settings.documents_bytes as usize),
            workshop: Workshop::default(),
            current: Recent::new(BUDGETS, MEANWHILE),
            unusable: Recent::new(BUDGETS, UNUSABLE),
            cut_short: Recent::new(BUDGETS, TOLD),
            finished: Vec::new(),
            answers: KeptAnswers::new(settings.answers_bytes as usize),
            digests: Recent::new(BUDGETS, Duration::MAX),
            outflow: Outflow::default(),
            usage: usage.filter(|_| settings.enabled),
            problems: OncePerSecond::default(),
            settings,
            snapshot,
            gateway,
            scope,
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
        // Each of these becomes some hundred bytes, whatever it stands for.
        let is_structural = |byte: &&u8| matches!(byte, b',' | b'{' | b'[');
        let values = body.iter().filter(is_structural).count();
        if values > MAX_BODY_VALUES {
            return answered(request, FlagsmithAnswer::BodyTooLong, Some(reader));
        }
        match parse_identity(body) {
            Ok(identity) => {
                let asker = Asker {
                    request,
                    reader,
                    identity: Some(identity.into_owned()),
                    bytes: body
                        .len()
                        .saturating_add(values.saturating_mul(VALUE_BYTES)),
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

    fn forwards(&self) -> bool {
        self.settings.enabled && self.settings.upstream == EdgeUpstream::Forward
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
                let reason = match failure {
                    Failure::Timeout => Reason::Timeout,
                    // Longer than is read, or too much is being compiled: Redis is well.
                    Failure::TooBig => Reason::Overloaded,
                    _ => Reason::Redis,
                };
                self.undecided_for(request, reason, Some(reader))
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
        Some(match read {
            FlagsmithRead::Document { environment, held } => {
                let command = command(&self.snapshot.prefix, *environment, held.as_ref());
                let length = self.settings.max_document_bytes as usize;
                let largest = wire_size(self.gateway.dialect, length);
                Fetch {
                    question: surfaces::Question::Redis(&self.gateway, command),
                    largest_reply: largest.saturating_add(FRAMING),
                }
            }
            FlagsmithRead::Compiled { .. } => Fetch {
                question: surfaces::Question::Own,
                largest_reply: 0,
            },
        })
    }

    fn terms(&self, read: &FlagsmithRead) -> Terms {
        Terms {
            timeout: match read {
                FlagsmithRead::Document { .. } => self.gateway.timeout,
                FlagsmithRead::Compiled { .. } => COMPILING,
            },
            purpose: Purpose::Documents,
            reason: Reason::Redis,
        }
    }

    fn known<S: Store>(&self, read: &FlagsmithRead, store: &S) -> KnownVersion {
        let FlagsmithRead::Document { environment, .. } = read else {
            return None;
        };
        self.confirmations.read(store, *environment).ok().flatten()
    }

    fn landed<S: Store>(
        &mut self,
        read: &FlagsmithRead,
        sent: SentRead<KnownVersion>,
        received: Received<'_>,
        machinery: &mut Machinery<'_, S, FlagsmithCount>,
    ) -> (FlagsmithLanded, Result<(), Failure>) {
        let FlagsmithRead::Document { environment, .. } = read else {
            return (FlagsmithLanded::Missing, Ok(()));
        };
        let environment = *environment;
        let reply = received.redis();
        let counts_as = match &reply {
            Ok(_) => Ok(()),
            Err(failure) => Err(*failure),
        };
        let (version, landed) = match StoredDocument::of(&reply) {
            StoredDocument::Same(version) => (version.clone(), FlagsmithLanded::Same(version)),
            StoredDocument::Full(version, gzip) => {
                let landed = self.take_in(environment, version.clone(), gzip, machinery);
                (version, landed)
            }
            StoredDocument::Missing => return (FlagsmithLanded::Missing, counts_as),
            StoredDocument::Failed(failure) => {
                return (FlagsmithLanded::Failed(failure), counts_as);
            }
        };
        let confirmed = Confirmed {
            etag: version,
            at: sent.at,
        };
        let before = sent.known.as_ref();
        self.confirmations
            .note(machinery.store, environment, before, &confirmed);
        (landed, counts_as)
    }

    fn finished(&mut self) -> Option<(FlagsmithRead, FlagsmithLanded)> {
        self.finished.pop()
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
        let (store, now) = (machinery.store, machinery.now);
        self.status.refresh(store, &self.scope, now);
        self.outflow.tick(ECHO_PER_SECOND, now);
        self.work(machinery);
    }

    fn loaded<S: Store>(&mut self, machinery: &mut Machinery<'_, S, FlagsmithCount>) {
        let (store, now) = (machinery.store, machinery.now);
        self.status.read(store, &self.scope, now);
    }

    fn each_job<S: Store>(&mut self, show: &mut ShowJob<'_, S, FlagsmithCount>) {
        if let Some(usage) = &mut self.usage {
            show(usage);
        }
    }

    fn due_in(&self) -> Duration {
        match (self.workshop.is_empty(), self.outflow.is_busy()) {
            (false, _) => WORKING,
            (true, true) => BUSY,
            (true, false) => IDLE,
        }
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
            kept: self.kept.len(),
            age: oldest
                .zip(ambient.unix())
                .map(since)
                .map(Duration::from_millis),
        });
    }

    fn status(&self) -> &Status {
        self.status.get()
    }
}

#[cfg(test)]
mod tests;
