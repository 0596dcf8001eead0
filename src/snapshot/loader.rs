//! Keeps shared data as published: a state machine that is told the time, asks for Redis commands and is handed
//! their replies.
//!
//! One VM of the process does it: the caller holds a lease. Once per `poll_interval` it asks for the manifest and the changes
//! ([`super::poll`]). Changes are applied as they come ([`super::incoming`]); another manifest is loaded
//! ([`super::load`]), unless it only describes what the changes have brought already. Each call does a bounded slice
//! of work, so that a worker which has to load keeps serving.

use std::time::Duration;

use super::attempt;
use super::attempt::Attempt;
use super::event::LoaderEvent;
use super::follow::Follow;
use super::incoming::Incoming;
use super::load::{Load, Step};
use super::manifest::Manifest;
use super::pace::Pace;
use super::poll::{self, Poll};
use super::settings::Snapshot;
use super::status::{Bad, Status};
use crate::records::{Buckets, Check};
use crate::redis::{Command, Failure, Reply};
use crate::shared::{Held, Scope, Store, Update};
use crate::time::Monotonic;

/// What a reply is expected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Poll,
    Page,
}

/// What a poll said of the manifest.
#[derive(Debug)]
struct Shown {
    digest: String,
    /// Its text, unless it is known.
    json: Option<Vec<u8>>,
}

/// The lease of whoever loads.
pub(super) fn lease_name(scope: &Scope) -> String {
    scope.name("lease")
}

/// The loader of one worker.
#[derive(Debug)]
pub struct Loader {
    owner: u64,
    prefix: String,
    poll_interval: Duration,
    buckets: Buckets,
    check: Check,
    awaiting: Option<Asked>,
    incoming: Option<(Incoming, Option<Shown>)>,
    load: Option<Box<Load>>,
    next_poll: Monotonic,
    asked_at: Monotonic,
    /// When the last poll was sent.
    polled_at: Monotonic,
    pace: Pace,
    reload_at: Option<Monotonic>,
    longest_slice: Duration,
}

impl Loader {
    /// A loader that has done nothing yet. What `check` refuses does not get into `buckets`; `owner` tells it from all other loaders of the process; not 0.
    pub fn new(settings: &Snapshot, buckets: Buckets, check: Check, owner: u64) -> Self {
        Self {
            owner: owner.max(1),
            prefix: settings.prefix.clone(),
            poll_interval: settings.poll_interval,
            buckets,
            check,
            awaiting: None,
            incoming: None,
            load: None,
            next_poll: Monotonic::default(),
            asked_at: Monotonic::default(),
            polled_at: Monotonic::default(),
            pace: Pace::new(settings.poll_interval),
            reload_at: None,
            longest_slice: Duration::ZERO,
        }
    }

    /// Whether there is work that should not wait for the next poll.
    pub fn is_busy(&self) -> bool {
        let loads = self.load.as_ref().is_some_and(|load| load.is_busy());
        self.incoming.is_some() || (loads && self.awaiting.is_none())
    }

    /// How long until the next poll; `None` when this loader does not wait for one.
    pub fn due_in(&self, now: Monotonic) -> Option<Duration> {
        self.awaiting.is_none().then(|| self.next_poll.since(now))
    }

    /// Tells how long the last slice held the VM.
    pub fn took(&mut self, time: Duration) {
        self.longest_slice = self.longest_slice.max(time);
    }

    /// Does a slice of work; returns a command to send, if one is due. Its reply goes to
    /// [`Loader::reply`].
    pub fn tick(
        &mut self,
        store: &impl Store,
        now: Monotonic,
        held: Held,
        events: &mut Vec<LoaderEvent>,
    ) -> Option<Command> {
        match held {
            Held::Yes => {}
            Held::No => {
                self.lose(store, events);
                return None;
            }
            Held::Failed => {
                self.give_up(store, LoaderEvent::StoreFailed, events);
                return None;
            }
        }
        if self.incoming.is_some() {
            self.apply_changes(store, events);
        } else {
            self.go_on_loading(store, now, events);
        }
        self.ask(store, now)
    }

    /// What is to be asked now: at most one question is under way.
    fn ask(&mut self, store: &impl Store, now: Monotonic) -> Option<Command> {
        if self.awaiting.is_some() || self.incoming.is_some() {
            return None;
        }
        let (asked, command) = if now >= self.next_poll {
            self.next_poll = now.plus(self.poll_interval);
            self.polled_at = now;
            (Asked::Poll, self.poll(store, now))
        } else {
            (Asked::Page, self.load.as_mut()?.ask(&self.prefix)?)
        };
        self.asked_at = now;
        self.awaiting = Some(asked);
        Some(command)
    }

    fn poll(&self, store: &impl Store, now: Monotonic) -> Command {
        // What cannot be read is asked for in full.
        let status = Status::read(store, self.buckets.scope()).unwrap_or_default();
        let bad = status.bad.as_ref().map(|bad| &bad.manifest);
        let bad = bad.filter(|digest| status.shuns(digest, now));
        let loading = self.load.as_ref().map(|load| &load.digest);
        let live = status.live.as_ref().map(|live| &live.manifest);
        let known = loading.or(bad).or(live).map_or("", String::as_str);
        let position = status.follow.as_ref().map(|follow| follow.position);
        poll::command(&self.prefix, known, position)
    }

    /// Whether it loads nothing and waits for nothing.
    pub fn is_idle(&self) -> bool {
        self.awaiting.is_none() && self.incoming.is_none() && self.load.is_none()
    }

    /// Stops without harm: ends the load, if there is one.
    pub fn stop(&mut self, store: &impl Store, events: &mut Vec<LoaderEvent>) {
        if !self.is_idle() {
            self.give_up(store, LoaderEvent::LeaseLost, events);
        }
    }

    /// Takes the reply to the command that [`Loader::tick`] returned.
    pub fn reply(
        &mut self,
        store: &impl Store,
        reply: Result<Reply<'_>, Failure>,
        events: &mut Vec<LoaderEvent>,
    ) {
        match self.awaiting.take() {
            // A late reply to what was given up.
            None => {}
            Some(Asked::Poll) => match reply.as_ref().ok().and_then(Poll::of) {
                Some(poll) => self.polled(store, poll, events),
                None => events.push(LoaderEvent::ReadFailed),
            },
            Some(Asked::Page) => {
                let Some(load) = &mut self.load else {
                    return;
                };
                match load.take(reply) {
                    Ok(()) => self.saw_redis(store),
                    Err(event) => self.end(store, event, events),
                }
            }
        }
    }

    /// The live snapshot must not expire while a newer one is loaded.
    fn saw_redis(&self, store: &impl Store) {
        let at = self.asked_at.as_millis();
        // If it cannot be stored, the next page tries again.
        let _ = Status::change(store, self.buckets.scope(), |status| {
            if let Some(live) = &mut status.live {
                live.contact_at = live.contact_at.max(at);
            }
        });
    }

    fn polled(&mut self, store: &impl Store, poll: Poll<'_>, events: &mut Vec<LoaderEvent>) {
        let Ok(status) = Status::read(store, self.buckets.scope()) else {
            events.push(LoaderEvent::StoreFailed);
            return;
        };
        let shown = poll.digest.map(|digest| Shown {
            digest: digest.to_owned(),
            json: poll.manifest.map(<[u8]>::to_vec),
        });
        match status.follow {
            Some(follow) => {
                // One that another VM began and did not finish counts as well.
                let beside_load = self.load.is_some() || status.applying.is_some();
                let incoming = Incoming::new(
                    (self.owner, self.check),
                    follow,
                    poll,
                    self.polled_at,
                    beside_load,
                );
                self.incoming = Some((incoming, shown));
                self.apply_changes(store, events);
            }
            None => self.settle(store, None, shown, events),
        }
    }

    /// Applies a slice of the changes; when they are all in, looks at the manifest that came with them.
    fn apply_changes(&mut self, store: &impl Store, events: &mut Vec<LoaderEvent>) {
        let Some((mut incoming, shown)) = self.incoming.take() else {
            return;
        };
        match incoming.slice(store, &self.buckets, events) {
            Ok(false) => self.incoming = Some((incoming, shown)),
            Ok(true) => {
                self.schedule(&incoming);
                self.settle(store, Some(&incoming), shown, events);
            }
            // They are read again.
            Err(event) => events.push(event),
        }
    }

    /// Asks again at once when there are more changes.
    fn schedule(&mut self, incoming: &Incoming) {
        let wait = if incoming.more {
            Duration::ZERO
        } else {
            self.pace.wait(incoming.redis_now, incoming.marked_at())
        };
        self.next_poll = self.polled_at.plus(wait);
    }

    fn begin(
        &mut self,
        store: &impl Store,
        digest: String,
        manifest: Manifest,
        buckets_first: bool,
        events: &mut Vec<LoaderEvent>,
    ) {
        self.reload_at = None;
        let Ok(attempt) = Attempt::begin(
            store,
            &attempt::name(self.buckets.scope()),
            self.owner,
            &digest,
        ) else {
            events.push(LoaderEvent::StoreFailed);
            return;
        };
        let bad = attempt.is_bad();
        let follow = Follow::begin(&manifest);
        self.load = Some(Box::new(Load::new(
            digest,
            manifest,
            attempt,
            self.polled_at,
            buckets_first,
            self.check,
        )));
        if bad {
            self.end(store, LoaderEvent::MarkedBad, events);
            return;
        }
        // Changes are applied while it loads: what is revoked meanwhile stays revoked, since its id is newer.
        let told = Status::change(store, self.buckets.scope(), |status| {
            status.follow = follow.clone()
        });
        if told != Ok(Update::Written) {
            self.end(store, LoaderEvent::StoreFailed, events);
            return;
        }
        events.push(LoaderEvent::Started);
        self.longest_slice = Duration::ZERO;
    }

    fn go_on_loading(&mut self, store: &impl Store, now: Monotonic, events: &mut Vec<LoaderEvent>) {
        let Some(load) = &mut self.load else {
            return;
        };
        let outcome = load.slice(store, &self.buckets);
        if let Err(event) = outcome {
            self.end(store, event, events);
        } else if matches!(load.step, Step::Complete) {
            self.complete(store, now, events);
        }
    }

    fn complete(&mut self, store: &impl Store, now: Monotonic, events: &mut Vec<LoaderEvent>) {
        let Some(load) = &self.load else {
            return;
        };
        let longest = u64::try_from(self.longest_slice.as_micros()).unwrap_or(u64::MAX);
        let live = load.live(now, longest);
        let written = Status::change(store, self.buckets.scope(), |status| {
            // An owner that was held up for longer than its lease must not bring an older snapshot back.
            let newest = status.live.as_ref().map(|known| known.stream_id);
            if newest.is_none_or(|newest| newest < live.stream_id) {
                status.live = Some(live.clone());
                status.bad = None;
            }
            status
                .applying
                .take_if(|applying| applying.manifest == live.manifest);
        });
        let event = match written {
            Ok(Update::Written) => LoaderEvent::Loaded,
            _ => LoaderEvent::StoreFailed,
        };
        // What was verified when the load began may have aged meanwhile: ask again at once.
        self.next_poll = now;
        self.end(store, event, events);
    }

    /// Ends a load; the VM came to no harm.
    fn end(&mut self, store: &impl Store, event: LoaderEvent, events: &mut Vec<LoaderEvent>) {
        events.push(event);
        let Some(mut load) = self.load.take() else {
            return;
        };
        let mut stored = load
            .attempt
            .end(store, &attempt::name(self.buckets.scope()));
        if matches!(event, LoaderEvent::PageCorrupt | LoaderEvent::MarkedBad) {
            stored = stored.and_then(|()| {
                Status::change(store, self.buckets.scope(), |status| {
                    status.bad = Some(Bad {
                        manifest: load.digest.clone(),
                        at: self.asked_at.as_millis(),
                    });
                })
                .map(drop)
            });
        }
        if stored.is_err() && event != LoaderEvent::StoreFailed {
            events.push(LoaderEvent::StoreFailed);
        }
    }

    /// Gives up whatever is under way.
    fn give_up(&mut self, store: &impl Store, event: LoaderEvent, events: &mut Vec<LoaderEvent>) {
        self.awaiting = None;
        self.incoming = None;
        self.end(store, event, events);
    }

    /// Another VM has the lease. This one was held up, not gone.
    fn lose(&mut self, store: &impl Store, events: &mut Vec<LoaderEvent>) {
        if self.is_idle() {
            return;
        }
        (self.awaiting, self.incoming, self.load) = (None, None, None);
        events.push(LoaderEvent::LeaseLost);
        let scope = self.buckets.scope();
        for entry in [attempt::name(scope), attempt::change_name(scope)] {
            if Attempt::withdraw(store, &entry, self.owner).is_err() {
                events.push(LoaderEvent::StoreFailed);
            }
        }
    }
}

mod settle;
#[cfg(test)]
mod tests;
