//! What a poll proved is told to all workers, and what it showed of the manifest decides what comes next.

use std::time::Duration;

use super::{Loader, Shown};
use crate::shared::{Store, Update};
use crate::snapshot::event::LoaderEvent;
use crate::snapshot::incoming::Incoming;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::status::{Live, Status};

/// When all Envoys have to load the same snapshot again, they begin within this time.
const RELOAD_SPREAD: Duration = Duration::from_secs(3);

/// What is to be done about a manifest.
enum Verdict {
    /// It is the live one.
    Verified,
    /// It describes what is here already.
    Adopt(Manifest),
    /// It is to be loaded now.
    Load(Manifest),
    /// Nothing, for now.
    Wait,
    /// Nothing, and an operator may want to know.
    Problem(LoaderEvent),
}

impl Loader {
    /// Tells all workers what a poll proved, and begins to load what is new.
    pub(super) fn settle(
        &mut self,
        store: &impl Store,
        incoming: Option<&Incoming>,
        shown: Option<Shown>,
        events: &mut Vec<LoaderEvent>,
    ) {
        let Ok(status) = Status::read(store, self.buckets.scope()) else {
            events.push(LoaderEvent::StoreFailed);
            return;
        };
        let verdict = match &shown {
            None => Verdict::Problem(LoaderEvent::ManifestMissing),
            Some(shown) => self.judge(&status, incoming, shown),
        };
        let at = self.polled_at.as_millis();
        let told = Status::change(store, self.buckets.scope(), |status| {
            status.unpublished = shown.is_none();
            if let Some(incoming) = incoming {
                status.advance(&incoming.follow);
            }
            let (Some(live), Some(shown)) = (&mut status.live, &shown) else {
                return;
            };
            // Whatever the manifest says, Redis was there and showed one.
            live.contact_at = live.contact_at.max(at);
            match &verdict {
                Verdict::Verified if live.manifest == shown.digest => {
                    live.verified_at = live.verified_at.max(at);
                }
                Verdict::Adopt(manifest) => live.adopt(&shown.digest, manifest, at),
                _ => {}
            }
        });
        if told != Ok(Update::Written) {
            events.push(LoaderEvent::StoreFailed);
            return;
        }
        match verdict {
            Verdict::Verified | Verdict::Wait => {}
            Verdict::Problem(event) => events.push(event),
            Verdict::Adopt(_) => events.push(LoaderEvent::Adopted),
            Verdict::Load(manifest) => {
                let digest = shown.map(|shown| shown.digest).unwrap_or_default();
                let buckets_first = self.creates_buckets(&status, &manifest);
                self.begin(store, digest, manifest, buckets_first, events);
            }
        }
    }

    /// What is to be done about the manifest.
    fn judge(&mut self, status: &Status, incoming: Option<&Incoming>, shown: &Shown) -> Verdict {
        let live = status.live.as_ref();
        if live.is_some_and(|live| live.manifest == shown.digest) {
            // With newer records already in shared data the live snapshot is not the current one again.
            return match status.applying {
                None => Verdict::Verified,
                Some(_) if self.load.is_some() => Verdict::Wait,
                Some(_) => Verdict::Problem(LoaderEvent::RolledBack),
            };
        }
        let Some(json) = &shown.json else {
            return Verdict::Wait;
        };
        if self.load.is_some() || status.shuns(&shown.digest, self.polled_at) {
            return Verdict::Wait;
        }
        let Ok(manifest) = Manifest::parse(json) else {
            return Verdict::Problem(LoaderEvent::ManifestInvalid);
        };
        let applying = status.applying.as_ref();
        let older = live.is_some_and(|live| {
            // A snapshot that was written again without a change in between describes the same moment.
            let again = live.lineage != 0 && live.lineage == manifest.lineage;
            manifest.stream_id < live.stream_id || (manifest.stream_id == live.stream_id && !again)
        });
        if older || applying.is_some_and(|next| manifest.stream_id < next.stream_id) {
            return Verdict::Problem(LoaderEvent::ManifestOlder);
        }
        if let (Some(live), Some(incoming)) = (live, incoming)
            && incoming.follow.lineage == manifest.lineage
            && incoming.follow.leads_from(live)
        {
            return self.judge_own_lineage(incoming, manifest);
        }
        self.load_soon(live, manifest)
    }

    /// The manifest is one of the chain that is followed, from a snapshot that is complete.
    fn judge_own_lineage(&mut self, incoming: &Incoming, manifest: Manifest) -> Verdict {
        let follow = &incoming.follow;
        match follow.gap {
            None if follow.position >= manifest.stream_id => Verdict::Adopt(manifest),
            None if incoming.more => Verdict::Wait,
            Some(gap) if manifest.stream_id < gap => Verdict::Wait,
            _ => self.load_later(manifest),
        }
    }

    fn load_soon(&mut self, live: Option<&Live>, manifest: Manifest) -> Verdict {
        if live.is_some_and(|live| live.lineage != 0) && manifest.lineage != 0 {
            self.load_later(manifest)
        } else {
            Verdict::Load(manifest)
        }
    }

    /// All Envoys have to load it: each begins at a moment of its own.
    fn load_later(&mut self, manifest: Manifest) -> Verdict {
        let spread = u64::try_from(RELOAD_SPREAD.as_millis()).unwrap_or(u64::MAX);
        let own = Duration::from_millis(self.owner.checked_rem(spread).unwrap_or(0));
        let at = *self.reload_at.get_or_insert(self.polled_at.plus(own));
        if self.polled_at < at {
            return Verdict::Wait;
        }
        Verdict::Load(manifest)
    }

    /// Whether all buckets are to be created before the first load, since most will be filled: Envoy's map visits all
    /// of its entries when it grows, which takes a fraction of the time while they lie side by side in memory. Beside
    /// a live snapshot they exist.
    fn creates_buckets(&self, status: &Status, manifest: &Manifest) -> bool {
        status.live.is_none() && manifest.records.hashes() > u64::from(self.buckets.count())
    }
}
