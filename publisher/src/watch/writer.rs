//! The writer between its sessions: takes the lock, and starts over when something broke.
//!
//! A session ([`Session`]) lasts as long as Redis answers and the lock is ours. What it published is kept for the
//! next one, in case Redis comes back empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::WatchSettings;
use super::events::WriterEvent;
use super::freshness::SourceFreshness;
use super::pages::SourcesTold;
use super::restore::{self, Inherited};
use super::session::{Following, Session};
use super::shelf::Shelf;
use super::state::PublishedState;
use super::status::WatchStatus;
use super::usage::Reporter;
use crate::redis::error::SnapshotStoreError;
use crate::redis::lock::{LockToken, Taken};
use crate::redis::store::{SnapshotPlace, SnapshotStore};
use crate::sources::kinds::RecordOwner;
use crate::sources::usage::UsageNews;
use crate::sources::{Heard, Order, SourceError, SourceNature};

/// Between two attempts to take a lock that another publisher holds.
const LOCK_RETRY: Duration = Duration::from_millis(250);

/// Before the first attempt after Redis failed, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How the writer reaches the sources that it writes for.
pub struct Wires {
    /// What they tell.
    pub inbox: Receiver<WriterEvent>,
    /// Asks for a full read. `None`: there is no source of records.
    pub ask: Option<Sender<()>>,
    /// Tells who watches ETags whose. `None`: nobody watches any.
    pub orders: Option<Sender<Order>>,
    /// Where what sources of documents say is kept.
    pub shelf: Shelf,
    /// Reports of what was served.
    pub reporters: Vec<Reporter>,
    /// What manifests tell of the sources.
    pub told: SourcesTold,
    /// What the source of records is.
    pub nature: SourceNature,
}

/// What all sessions share.
pub struct Writer<'a> {
    pub(super) settings: &'a WatchSettings,
    pub(super) stop: &'a AtomicBool,
    pub(super) status: &'a Arc<WatchStatus>,
    pub(super) inbox: Receiver<WriterEvent>,
    /// Asks for a full read. `None`: there is no source of records.
    pub(super) ask: Option<Sender<()>>,
    /// Tells the sweeper whom to look at. `None`: nobody watches ETags.
    pub(super) orders: Option<Sender<Order>>,
    /// What sources of documents said last.
    pub(super) shelf: Shelf,
    /// Reports of what was served.
    pub(super) reporters: Vec<Reporter>,
    /// What manifests tell of the sources.
    pub(super) told: SourcesTold,
    /// What the source of records is.
    pub(super) nature: SourceNature,
    /// Why the source of records could not be read the last time.
    pub(super) problem: Option<SourceError>,
    pub(super) freshness: SourceFreshness,
    /// When a full read was asked for that has not come yet.
    pub(super) asked: Option<Instant>,
    /// What new generations and ids must lie above, whatever Redis still knows.
    pub(super) floor: SnapshotPlace,
    /// Number of the session, for the sweeper.
    pub(super) epoch: u64,
    token: LockToken,
    fence: u64,
    /// What the last session had published when Redis failed.
    memory: Option<PublishedState>,
    is_waiting: bool,
}

impl<'a> Writer<'a> {
    /// One that has not begun.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        settings: &'a WatchSettings,
        stop: &'a AtomicBool,
        status: &'a Arc<WatchStatus>,
        wires: Wires,
    ) -> Result<Self, SnapshotStoreError> {
        let Wires {
            inbox,
            ask,
            orders,
            shelf,
            reporters,
            told,
            nature,
        } = wires;
        Ok(Self {
            settings,
            stop,
            status,
            inbox,
            ask,
            orders,
            shelf,
            reporters,
            told,
            nature,
            problem: None,
            freshness: SourceFreshness::new(settings.diff_interval),
            asked: None,
            floor: SnapshotPlace::default(),
            epoch: 0,
            token: LockToken::random()?,
            fence: 0,
            memory: None,
            is_waiting: false,
        })
    }

    /// Runs until it is to stop.
    pub fn run(mut self) {
        let mut backoff = BACKOFF.0;
        while !self.must_stop() {
            let started = Instant::now();
            let result = self.attempt();
            let was_active = self.status.figures().active;
            self.status.update(|figures| figures.active = false);
            if let Some(orders) = &self.orders {
                let _ = orders.send(Order::Rest);
            }
            let problem = match result {
                Ok(()) => continue,
                Err(problem) => problem,
            };
            if matches!(problem, SnapshotStoreError::LockLost) {
                warn!("the lock is lost; another publisher took over, or Redis was flushed");
                continue;
            }
            self.status.update(|figures| figures.errors.redis += 1);
            error!(%problem, "Redis failed; trying again");
            if was_active && started.elapsed() > BACKOFF.1 {
                backoff = BACKOFF.0;
            }
            self.idle(backoff);
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    pub(super) fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One session, from the lock to its end. Without an error it ended because it was to stop.
    fn attempt(&mut self) -> Result<(), SnapshotStoreError> {
        let settings = self.settings;
        let mut store = SnapshotStore::connect(&settings.redis, &settings.prefix, &self.token)?;
        let Some(fence) = self.wait_for_lock(&mut store)? else {
            return Ok(());
        };
        if fence != self.fence + 1 {
            // Somebody held it meanwhile.
            self.memory = None;
            self.shelf.forget_published();
        }
        self.fence = fence;
        self.epoch += 1;
        self.freshness.forget_read();
        self.status.update(|figures| figures.active = true);
        info!(fence, "holding the lock");

        let mut session = self.session(store, fence)?;
        let result = session.run();
        let is_stopped = result.is_ok();
        let (state, mut store) = session.into_parts();
        self.memory = state;
        if is_stopped && store.release_lock().is_ok() {
            info!("released the lock");
        }
        result
    }

    /// Waits until the lock is ours, and returns the fencing number. `None`: it is to stop.
    fn wait_for_lock(
        &mut self,
        store: &mut SnapshotStore<'_>,
    ) -> Result<Option<u64>, SnapshotStoreError> {
        loop {
            if self.must_stop() {
                return Ok(None);
            }
            match store.take_lock(self.fence)? {
                Taken::Fence(fence) => {
                    self.is_waiting = false;
                    return Ok(Some(fence));
                }
                Taken::Held => {
                    if !std::mem::replace(&mut self.is_waiting, true) {
                        info!("another publisher holds the lock; waiting for it to end");
                    }
                    // What it publishes is not what we had.
                    self.memory = None;
                    self.shelf.forget_published();
                    self.idle(LOCK_RETRY);
                }
            }
        }
    }

    /// A session that goes on from what an earlier publisher left, as far as that can be continued.
    fn session(
        &mut self,
        mut store: SnapshotStore<'a>,
        fence: u64,
    ) -> Result<Session<'_, 'a>, SnapshotStoreError> {
        Ok(match restore::find(&mut store, fence)? {
            Inherited::Lineage(restored) => {
                info!(
                    generation = restored.manifest.generation,
                    lineage = restored.manifest.lineage,
                    last_id = %restored.end.previous,
                    "continuing what was published before"
                );
                self.memory = None;
                let following = Following::restored(&restored);
                let are_others = SourcesTold::of(&restored.manifest) != self.told;
                let mut session = Session::new(self, store, fence, restored.state, Some(following));
                // Filters are to know what the records rest on from now on.
                session.is_incomplete = are_others;
                session
            }
            Inherited::Nothing {
                reason,
                above,
                remains,
                is_whole,
            } => {
                info!(reason, "a new lineage begins");
                self.raise_floor(above);
                let memory = self.memory.take();
                let is_remembered = memory.is_some();
                let (state, remains) = match (memory, &self.ask) {
                    (Some(memory), _) => (memory, None),
                    // What no source here reads stays, if nothing of it is missing.
                    (None, None) if is_whole => (remains, None),
                    (None, Some(_)) if is_whole => (remains.of_others(), Some(remains)),
                    (None, ask) => {
                        let remains = Some(remains).filter(|_| ask.is_some());
                        (PublishedState::default(), remains)
                    }
                };
                let mut session = Session::new(self, store, fence, state, None);
                session.is_whole = is_remembered;
                session.remains = remains;
                session
            }
        })
    }

    pub(super) fn raise_floor(&mut self, above: SnapshotPlace) {
        self.floor.generation = self.floor.generation.max(above.generation);
        self.floor.stream_id = self.floor.stream_id.max(above.stream_id);
    }

    /// Waits without the lock. What is said meanwhile counts for nothing but whether the database announces changes: with the
    /// lock all of it is read again. What sources of documents say is kept.
    fn idle(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while !self.must_stop() {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left.min(LOCK_RETRY)) {
                Ok(WriterEvent::Heard(heard)) => {
                    self.note_listening(&heard);
                }
                Ok(WriterEvent::Read { .. }) => self.asked = None,
                Ok(WriterEvent::Documents { owner, news }) => self.shelf.note(owner, news),
                Ok(WriterEvent::Usage { owner, news }) => {
                    // Without Redis this cannot fail.
                    let _ = self.handle_usage(owner, news, None);
                }
                Ok(WriterEvent::ETags(_)) => (),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return,
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(left);
                    return;
                }
            }
        }
    }

    /// Takes what a source says of its reports. `store`: with the lock.
    pub(super) fn handle_usage(
        &mut self,
        owner: RecordOwner,
        news: UsageNews,
        store: Option<&mut SnapshotStore<'_>>,
    ) -> Result<(), SnapshotStoreError> {
        let mut reporters = self.reporters.iter_mut();
        match reporters.find(|reporter| reporter.owner() == owner) {
            Some(reporter) => reporter.handle(news, store, self.status),
            None => Ok(()),
        }
    }

    /// Remembers whether changes are announced.
    pub(super) fn note_listening(&mut self, heard: &Heard) {
        let is_listening = match heard {
            Heard::Listening => {
                self.freshness.listening(Instant::now());
                match self.nature {
                    SourceNature::Database => info!("the database announces its changes"),
                    SourceNature::Document => info!("the source document is followed"),
                }
                true
            }
            Heard::NotListening(problem) => {
                self.freshness.not_listening();
                self.status.update(|figures| figures.errors.postgres += 1);
                warn!(
                    problem,
                    "the database does not announce its changes at present"
                );
                false
            }
            Heard::Overflow => {
                self.freshness.overflowed(Instant::now());
                return;
            }
            Heard::UpTo(moment) => {
                self.freshness.heard(*moment);
                return;
            }
            Heard::Announced(_) => return,
        };
        self.status
            .update(|figures| figures.listening = is_listening);
    }
}
