//! The documents of one surface, as one worker has them: which version is current, what has to be read for it, and what
//! answers meanwhile.

use std::rc::Rc;
use std::time::Duration;

use super::CompiledRules;
use super::document::{EvaluatedDocument, Unusable, Workshop};
use super::reads::{DocumentRead, KnownVersion, LandedDocument, StoredDocument, command};
use super::slices::Slices;
use crate::documents::current::{Current, POLL_TAKES, Published, Rule, current};
use crate::documents::{Confirmations, Confirmed, Kept};
use crate::http::{ETag, IfNoneMatch};
use crate::recent::{OncePerSecond, Recent};
use crate::records::{self, Buckets, CorruptRecord, LookupError, StreamId, VERSION};
use crate::redis::{Failure, Gateway, Purpose, wire_size};
use crate::shared::{IDLE, Machinery, Scope, Store, StoreError, Table};
use crate::snapshot::KnownStatus;
use crate::snapshot::follow::Confirmation;
use crate::snapshot::settings::Snapshot;
use crate::surfaces::{Fetch, Question, Reason, Received, SentRead, Terms};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Half of the longest wait for a document that is being compiled: the longest takes somewhat more than a second.
pub(in crate::surfaces) const COMPILING: Duration = Duration::from_millis(1_500);

/// For how long a version answers while the next one is being compiled.
const MEANWHILE: Duration = Duration::from_secs(3);

/// Tick while there are slices to do: requests come in between.
pub(in crate::surfaces) const WORKING: Duration = Duration::from_millis(2);

/// For how long a version that was of no use is not read again.
pub(in crate::surfaces) const UNUSABLE: Duration = Duration::from_secs(10);

/// What a reply has around a document's text.
const FRAMING: usize = 1 << 10;

/// How long what shared data said counts: a removed record counts for so much longer.
pub const REMEMBERED: Duration = Duration::from_millis(10);

/// Most tenants, or keys, of which a worker remembers something.
pub const PLACES: usize = 4_096;

/// How many bytes documents may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentBounds {
    /// All that one worker keeps.
    pub kept: u32,
    /// The text of one.
    pub text: u32,
}

/// The documents of one surface, of one worker.
pub struct Library<R: CompiledRules> {
    pub(in crate::surfaces) snapshot: Snapshot,
    pub(in crate::surfaces) scope: Scope,
    pub(in crate::surfaces) status: KnownStatus,
    pub(in crate::surfaces) confirmations: Confirmations,
    pub(in crate::surfaces) kept: Kept<EvaluatedDocument<R>>,
    pub(in crate::surfaces) workshop: Workshop<R>,
    /// What the publisher said last of versions.
    pub(in crate::surfaces) versions: Recent<Tenant, Option<(ETag, StreamId)>>,
    /// Versions that are kept and were current a moment ago.
    pub(in crate::surfaces) current: Recent<Tenant, ETag>,
    /// Versions that were read and are of no use.
    pub(in crate::surfaces) unusable: Recent<Tenant, ETag>,
    pub(super) bounds: DocumentBounds,
    pub(super) finished: Vec<(DocumentRead, LandedDocument<R>)>,
    pub(super) problems: OncePerSecond,
    /// Documents that newer versions took the place of, and the rules of one of them that are taken apart.
    pub(super) outgoing: Vec<Rc<EvaluatedDocument<R>>>,
    pub(super) clearing: Option<R>,
    gateway: Gateway,
    buckets: Buckets,
}

/// How a request goes on whose version is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// That version is of no use.
    Unusable,
    /// With this one, which is kept and was current a moment ago.
    With(ETag),
    /// When this is read.
    Reads(DocumentRead),
}

impl<R: CompiledRules> Library<R> {
    /// Nothing is read yet. `gateway` leads to the Redis of the snapshot, and `scope` is its; `slots` are this surface's own.
    pub fn new(
        bounds: DocumentBounds,
        snapshot: Snapshot,
        gateway: Gateway,
        scope: Scope,
        slots: Table,
    ) -> Self {
        Self {
            status: KnownStatus::default(),
            confirmations: Confirmations::new(slots),
            kept: Kept::new(bounds.kept as usize),
            workshop: Workshop::default(),
            versions: Recent::new(PLACES, REMEMBERED),
            current: Recent::new(PLACES, MEANWHILE),
            unusable: Recent::new(PLACES, UNUSABLE),
            bounds,
            finished: Vec::new(),
            problems: OncePerSecond::default(),
            outgoing: Vec::new(),
            clearing: None,
            buckets: Buckets::new(&scope, snapshot.buckets),
            snapshot,
            scope,
            gateway,
        }
    }

    /// Records in shared data.
    pub const fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// The version that is known to be current; `None`: Redis has to be asked.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn current_version<S: Store, C>(
        &mut self,
        tenant: Tenant,
        machinery: &Machinery<'_, S, C>,
    ) -> Result<Option<ETag>, StoreError> {
        let (store, now) = (machinery.store, machinery.now);
        let rule = Rule {
            max_age: self.snapshot.etag_max_age,
            poll_takes: POLL_TAKES.max(self.gateway.timeout),
            since: None,
            now,
        };
        let published = match self.status.confirmation() {
            Some(confirmation) => self
                .published_version(tenant, store, now)?
                .and_then(|version| published(version, confirmation)),
            None => None,
        };
        // Who holds the published version need not be asked about: it is as good as held by the client.
        let mut held = IfNoneMatch::default();
        if let Some(published) = &published {
            held.add(published.etag.as_bytes());
        }
        let confirmations = &mut self.confirmations;
        let callout = || confirmations.find(store, tenant, &held, &rule);
        let Current::Known(version) = current(&held, published.as_ref(), callout, &rule)? else {
            return Ok(None);
        };
        if self.kept.etag(tenant) == Some(&version) {
            self.current.note(tenant, version.clone(), now);
        }
        Ok(Some(version))
    }

    /// What the publisher said last of a document's version. `None`: it never read one.
    fn published_version(
        &mut self,
        tenant: Tenant,
        store: &impl Store,
        now: Monotonic,
    ) -> Result<Option<(ETag, StreamId)>, StoreError> {
        if let Some(known) = self.versions.get(&tenant, now) {
            return Ok(known.clone());
        }
        let hash = R::version_hash(tenant);
        let version = match records::find(store, &self.buckets, &hash, version_of) {
            Ok(found) => found,
            // A tombstone, or another surface's.
            Err(LookupError::Corrupt(_)) => None,
            Err(LookupError::Store(error)) => return Err(error),
        };
        self.versions.note(tenant, version.clone(), now);
        Ok(version)
    }

    /// Reads a tenant's document.
    pub fn read(&self, tenant: Tenant, now: Monotonic) -> DocumentRead {
        let kept = || self.kept.etag(tenant).cloned();
        // What was of no use is not brought again.
        let held = self.unusable(tenant, now).cloned().or_else(kept);
        DocumentRead::Document { tenant, held }
    }

    /// How a request goes on while this version, which is current, is not kept. `by_recent`: one that was current a moment ago
    /// is good enough; of an older one nobody may be told again.
    pub fn meanwhile(
        &self,
        tenant: Tenant,
        version: &ETag,
        by_recent: bool,
        now: Monotonic,
    ) -> Meanwhile {
        if self.unusable(tenant, now) == Some(version) {
            return Meanwhile::Unusable;
        }
        if !self.workshop.has(tenant, version) {
            return Meanwhile::Reads(self.read(tenant, now));
        }
        let recent = self.current.get(&tenant, now);
        let kept = self.kept.etag(tenant);
        match kept.filter(|kept| by_recent && recent == Some(kept)) {
            Some(kept) => Meanwhile::With(kept.clone()),
            None => Meanwhile::Reads(DocumentRead::Compiled {
                tenant,
                version: version.clone(),
            }),
        }
    }

    /// The read as data.
    pub fn fetch(&self, read: &DocumentRead) -> Fetch<'_> {
        match read {
            DocumentRead::Document { tenant, held } => {
                let max_bytes = self.bounds.text as usize;
                let prefix = &self.snapshot.prefix;
                let command = command::<R>(prefix, *tenant, held.as_ref(), max_bytes);
                let largest = wire_size(self.gateway.dialect, max_bytes);
                Fetch {
                    question: Question::Redis(&self.gateway, command),
                    largest_reply: largest.saturating_add(FRAMING),
                }
            }
            DocumentRead::Compiled { .. } => Fetch {
                question: Question::Own,
                largest_reply: 0,
            },
        }
    }

    /// The terms of a read.
    pub const fn terms(&self, read: &DocumentRead) -> Terms {
        Terms {
            timeout: match read {
                DocumentRead::Document { .. } => self.gateway.timeout,
                DocumentRead::Compiled { .. } => COMPILING,
            },
            purpose: Purpose::Documents,
            reason: Reason::Redis,
        }
    }

    /// What is known now of what a read will bring.
    pub fn known(&self, read: &DocumentRead, store: &impl Store) -> KnownVersion {
        let DocumentRead::Document { tenant, .. } = read else {
            return None;
        };
        self.confirmations.read(store, *tenant).ok().flatten()
    }

    /// Takes what a read brought, once. Also says what the callout counts as.
    pub fn landed<S: Store, C>(
        &mut self,
        read: &DocumentRead,
        sent: SentRead<KnownVersion>,
        received: Received<'_>,
        machinery: &Machinery<'_, S, C>,
    ) -> (LandedDocument<R>, Result<(), Failure>) {
        let DocumentRead::Document { tenant, .. } = read else {
            return (LandedDocument::Missing, Ok(()));
        };
        let tenant = *tenant;
        let reply = received.redis();
        let counts_as = match &reply {
            Ok(_) => Ok(()),
            Err(failure) => Err(*failure),
        };
        let (version, landed) = match StoredDocument::of(&reply) {
            StoredDocument::Same(version) => (version.clone(), LandedDocument::Same(version)),
            StoredDocument::Full(version, gzip) => {
                let landed = self.take_in(tenant, version.clone(), gzip, machinery.now);
                (version, landed)
            }
            StoredDocument::TooLong(version) => {
                let unusable = Err(Unusable::TooLong);
                let landed = self.keep(tenant, &version, unusable, machinery.now);
                (version, landed)
            }
            StoredDocument::Missing => return (LandedDocument::Missing, counts_as),
            StoredDocument::Failed(failure) => {
                return (LandedDocument::Failed(failure), counts_as);
            }
        };
        let confirmed = Confirmed {
            etag: version,
            at: sent.at,
        };
        let before = sent.known.as_ref();
        self.confirmations
            .note(machinery.store, tenant, before, &confirmed);
        (landed, counts_as)
    }

    /// The next read that asked nobody and is done.
    pub fn finished(&mut self) -> Option<(DocumentRead, LandedDocument<R>)> {
        self.finished.pop()
    }

    /// Regular work.
    pub fn tick<S: Store, C>(&mut self, machinery: &Machinery<'_, S, C>, slices: &mut Slices<'_>) {
        let (store, now) = (machinery.store, machinery.now);
        self.status.refresh(store, &self.scope, now);
        self.work(now, slices);
    }

    /// A snapshot became live in this worker.
    pub fn loaded<S: Store, C>(&mut self, machinery: &Machinery<'_, S, C>) {
        let (store, now) = (machinery.store, machinery.now);
        self.status.read(store, &self.scope, now);
    }

    /// How long until it wants the next tick.
    pub fn due_in(&self) -> Duration {
        match self.has_work() {
            true => WORKING,
            false => IDLE,
        }
    }
}

fn version_of(record: &[u8]) -> Result<ETag, CorruptRecord> {
    match record {
        [VERSION, tag @ ..] => ETag::new(tag).ok_or(CorruptRecord),
        _ => Err(CorruptRecord),
    }
}

/// A version as the publisher published it, in this clock's time.
fn published(version: (ETag, StreamId), confirmation: Confirmation) -> Option<Published> {
    let (etag, id) = version;
    (id >= confirmation.since).then(|| Published {
        etag,
        at: confirmation.moment(id),
        confirmed_at: confirmation.at,
    })
}

/// Why a request cannot be decided whose read failed.
pub const fn reason(failure: Failure) -> Reason {
    match failure {
        Failure::Timeout => Reason::Timeout,
        // Longer than is read, or too much is being compiled: Redis is well.
        Failure::TooBig => Reason::Overloaded,
        _ => Reason::Redis,
    }
}
