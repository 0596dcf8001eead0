//! Requests that wait for the same read share one callout.
//!
//! Whoever needs a team's definitions joins a read of them that is under way, whatever he holds himself. Only who
//! was not served by such a read needs one in which nothing is held. So of one team at most two are under way.
//!
//! The first that needs a read sends it. The SDK delivers a reply to the context in whose callback that happened,
//! the leader: the stream that asked, or, where one reply makes another read necessary, the stream that the
//! first reply was for, whoever needs the second. When the leader is gone the flight is grounded, and the root
//! context sends it again on its tick. Waiters are bounded in number and in time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::callouts::Callout;
use crate::documents::Confirmed;
use crate::hash::Sha256Hash;
use crate::surfaces::posthog::definitions::Need;
use crate::surfaces::posthog::pipeline::Fetch;
use crate::surfaces::posthog::request::Request;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most requests of one worker that may wait at a time.
pub const MAX_WAITERS: usize = 8_192;

/// Most bytes that waiting requests may keep: a VM never gives memory back.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// A paused request.
#[derive(Debug)]
pub struct Waiter {
    /// Its stream.
    pub stream: u32,
    /// What it asks.
    pub request: Request<'static>,
    /// Hash of its team's public token, where that is known.
    pub token: Option<Sha256Hash>,
    deadline: Monotonic,
}

/// A read under way, or about to be sent again.
#[derive(Debug)]
pub struct Flight {
    /// What is read.
    pub fetch: Fetch,
    /// What was known of the team's ETag when it was sent.
    pub known: Option<Confirmed>,
    /// When it was sent.
    pub sent_at: Monotonic,
    /// Who waits for it.
    pub waiters: Vec<Waiter>,
    callout: Option<Callout>,
    leader: u32,
}

/// What a new waiter has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Nothing: the callout is on its way.
    Aboard,
    /// Send it.
    Lead,
}

/// All reads of one root context.
#[derive(Debug, Default)]
pub struct Flights {
    by_need: HashMap<Fetch, Flight>,
    /// Of each team the read in which something is held.
    conditional: HashMap<Tenant, Fetch>,
    tokens: FxHashMap<u32, Fetch>,
    streams: FxHashMap<u32, Fetch>,
    /// What each leader's replies are for.
    led: HashMap<u32, HashSet<Fetch>>,
    bytes: usize,
}

impl Flights {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_need.is_empty()
    }

    /// Whether a stream waits.
    pub fn is_waiting(&self, stream: u32) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Whether there is no room for another request.
    pub fn is_full(&self, request: &Request<'_>) -> bool {
        self.streams.len() >= MAX_WAITERS
            || self.bytes.saturating_add(request.weight()) > MAX_WAITING_BYTES
    }

    /// Whether this read is under way, or about to be sent.
    pub fn has(&self, fetch: &Fetch) -> bool {
        self.by_need.contains_key(fetch)
    }

    /// The read that a request joins which needs this one: one of the same team's definitions that is under way, or
    /// this. What was read without anything held serves everybody.
    pub fn joined_by(&self, fetch: Fetch) -> Fetch {
        let Fetch::Definitions(Need { team, .. }) = fetch else {
            return fetch;
        };
        let unconditional = Fetch::Definitions(Need { team, held: None });
        if self.has(&unconditional) {
            return unconditional;
        }
        self.conditional.get(&team).cloned().unwrap_or(fetch)
    }

    /// Adds a request. It waits `patience` at most.
    pub fn join(
        &mut self,
        stream: u32,
        request: Request<'_>,
        token: Option<Sha256Hash>,
        fetch: Fetch,
        now: Monotonic,
        patience: Duration,
    ) -> Join {
        self.bytes = self.bytes.saturating_add(request.weight());
        let waiter = Waiter {
            stream,
            request: request.into_owned(),
            token,
            deadline: now.plus(patience),
        };
        self.streams.insert(stream, fetch.clone());
        if let Some(flight) = self.by_need.get_mut(&fetch) {
            flight.waiters.push(waiter);
            return Join::Aboard;
        }
        if let Some(team) = conditional(&fetch) {
            self.conditional.insert(team, fetch.clone());
        }
        self.by_need.insert(
            fetch.clone(),
            Flight {
                fetch,
                known: None,
                sent_at: now,
                waiters: vec![waiter],
                callout: None,
                leader: stream,
            },
        );
        Join::Lead
    }

    /// Notes that a flight was sent. `leader` is the context that its reply is delivered to.
    /// `known` is what was known of the team's ETag then.
    pub fn sent(
        &mut self,
        fetch: &Fetch,
        callout: Callout,
        leader: u32,
        known: Option<Confirmed>,
        now: Monotonic,
    ) {
        if let Some(flight) = self.by_need.get_mut(fetch) {
            self.tokens.insert(callout.token, fetch.clone());
            flight.callout = Some(callout);
            flight.leader = leader;
            flight.known = known;
            flight.sent_at = now;
            self.led.entry(leader).or_default().insert(fetch.clone());
        }
    }

    /// Takes the flight that this reply belongs to, and its callout.
    pub fn land(&mut self, token: u32) -> Option<(Flight, Callout)> {
        let need = self.tokens.remove(&token)?;
        let mut flight = self.take(&need)?;
        let callout = flight.callout.take()?;
        Some((flight, callout))
    }

    /// Takes a flight that could not be sent.
    pub fn take(&mut self, need: &Fetch) -> Option<Flight> {
        let flight = self.remove(need)?;
        for waiter in &flight.waiters {
            self.streams.remove(&waiter.stream);
            self.bytes = self.bytes.saturating_sub(waiter.request.weight());
        }
        self.void(&flight);
        Some(flight)
    }

    fn remove(&mut self, need: &Fetch) -> Option<Flight> {
        if let Some(team) = conditional(need)
            && self.conditional.get(&team) == Some(need)
        {
            self.conditional.remove(&team);
        }
        self.by_need.remove(need)
    }

    /// Forgets the callout of a flight.
    fn void(&mut self, flight: &Flight) {
        let Some(callout) = &flight.callout else {
            return;
        };
        self.tokens.remove(&callout.token);
        if let Some(led) = self.led.get_mut(&flight.leader) {
            led.remove(&flight.fetch);
            if led.is_empty() {
                self.led.remove(&flight.leader);
            }
        }
    }

    /// A stream is gone. Whoever waited with it waits on.
    pub fn leave(&mut self, stream: u32) {
        // Most streams never waited.
        if self.by_need.is_empty() && self.led.is_empty() {
            return;
        }
        // The SDK drops the replies of a stream that is gone.
        for fetch in self.led.remove(&stream).unwrap_or_default() {
            let flight = self.by_need.get_mut(&fetch);
            if let Some(callout) = flight.and_then(|flight| flight.callout.take()) {
                self.tokens.remove(&callout.token);
            }
        }
        let Some(need) = self.streams.remove(&stream) else {
            return;
        };
        let Some(flight) = self.by_need.get_mut(&need) else {
            return;
        };
        for waiter in flight
            .waiters
            .extract_if(.., |waiter| waiter.stream == stream)
        {
            self.bytes = self.bytes.saturating_sub(waiter.request.weight());
        }
        if flight.waiters.is_empty()
            && let Some(flight) = self.remove(&need)
        {
            self.void(&flight);
        }
    }

    /// Flights that have to be sent again.
    pub fn grounded(&self) -> Vec<Fetch> {
        self.by_need
            .values()
            .filter(|flight| flight.callout.is_none())
            .map(|flight| flight.fetch.clone())
            .collect()
    }

    /// Takes the waiters whose time is up. Their flights go on for the others.
    pub fn overdue(&mut self, now: Monotonic) -> Vec<Waiter> {
        let mut overdue = Vec::new();
        for flight in self.by_need.values_mut() {
            overdue.extend(
                flight
                    .waiters
                    .extract_if(.., |waiter| now >= waiter.deadline),
            );
        }
        for waiter in &overdue {
            self.bytes = self.bytes.saturating_sub(waiter.request.weight());
            self.leave(waiter.stream);
        }
        overdue
    }
}

/// The team whose definitions are read with something held.
fn conditional(fetch: &Fetch) -> Option<Tenant> {
    match fetch {
        Fetch::Definitions(Need {
            team,
            held: Some(_),
        }) => Some(*team),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Candidate;
    use crate::http::ETag;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn fetch(team: u32) -> Fetch {
        Fetch::Definitions(Need {
            team: Tenant(team),
            held: None,
        })
    }

    fn sent(flights: &mut Flights, team: u32, token: u32, leader: u32, now: u64) {
        let now = Monotonic::from_millis(now);
        flights.sent(&fetch(team), Callout::untagged(token), leader, None, now);
    }

    fn join(flights: &mut Flights, stream: u32, team: u32, now: u64) -> Join {
        let request = Request::parse([]);
        let now = Monotonic::from_millis(now);
        flights.join(stream, request, None, fetch(team), now, PATIENCE)
    }

    fn streams(waiters: &[Waiter]) -> Vec<u32> {
        waiters.iter().map(|waiter| waiter.stream).collect()
    }

    #[test]
    fn equal_needs_share_one_callout() {
        let mut flights = Flights::default();
        assert_eq!(join(&mut flights, 1, 7, 0), Join::Lead);
        sent(&mut flights, 7, 100, 1, 0);
        assert_eq!(join(&mut flights, 2, 7, 0), Join::Aboard);
        assert_eq!(join(&mut flights, 3, 8, 0), Join::Lead);
        assert_eq!(streams(&flights.land(100).unwrap().0.waiters), [1, 2]);
        assert!(flights.land(100).is_none());
        assert!(!flights.is_empty());
    }

    #[test]
    fn of_one_team_at_most_two_reads_are_under_way() {
        let mut flights = Flights::default();
        let held = |tag: &str| {
            Fetch::Definitions(Need {
                team: Tenant(7),
                held: ETag::new(tag.as_bytes()).map(Candidate::Tag),
            })
        };
        let now = Monotonic::from_millis(0);
        let join = |flights: &mut Flights, stream, fetch| {
            flights.join(stream, Request::parse([]), None, fetch, now, PATIENCE)
        };
        assert_eq!(flights.joined_by(held("a")), held("a"));
        join(&mut flights, 1, held("a"));
        for other in [held("a"), held("b"), fetch(7)] {
            assert_eq!(flights.joined_by(other), held("a"));
        }
        assert_eq!(flights.joined_by(fetch(8)), fetch(8), "another team");
        // Who was not served by it needs one of his own, and that serves all who come later.
        join(&mut flights, 2, fetch(7));
        for other in [held("a"), held("b"), fetch(7)] {
            assert_eq!(flights.joined_by(other), fetch(7));
        }
        flights.leave(2);
        assert_eq!(flights.joined_by(fetch(7)), held("a"));
        assert!(flights.take(&held("a")).is_some());
        assert_eq!(flights.joined_by(held("b")), held("b"));
        join(&mut flights, 3, held("b"));
        assert_eq!(flights.joined_by(held("a")), held("b"));
        flights.overdue(Monotonic::from_millis(10_000));
        assert_eq!(flights.joined_by(held("a")), held("a"));
        assert!(flights.is_empty() && flights.conditional.is_empty());
    }

    #[test]
    fn a_leader_that_leaves_grounds_the_flight_and_nobody_is_lost() {
        let mut flights = Flights::default();
        join(&mut flights, 1, 7, 0);
        sent(&mut flights, 7, 100, 1, 0);
        join(&mut flights, 2, 7, 0);
        flights.leave(1);
        assert_eq!(flights.grounded(), [fetch(7)]);
        assert!(flights.land(100).is_none(), "the leader's reply is void");
        sent(&mut flights, 7, 101, 0, 5);
        assert!(flights.grounded().is_empty());
        assert_eq!(streams(&flights.land(101).unwrap().0.waiters), [2]);
        assert!(flights.is_empty());
    }

    #[test]
    fn a_leader_need_not_wait_for_what_it_leads() {
        let mut flights = Flights::default();
        join(&mut flights, 1, 7, 0);
        sent(&mut flights, 7, 100, 1, 0);
        join(&mut flights, 2, 8, 0);
        sent(&mut flights, 8, 101, 1, 0);
        assert_eq!(streams(&flights.land(100).unwrap().0.waiters), [1]);
        flights.leave(1);
        assert_eq!(flights.grounded(), [fetch(8)]);
        sent(&mut flights, 8, 102, 0, 5);
        assert!(flights.land(101).is_none(), "the reply is void");
        assert_eq!(streams(&flights.land(102).unwrap().0.waiters), [2]);
        assert!(flights.is_empty() && flights.led.is_empty());
    }

    #[test]
    fn a_waiter_that_leaves_does_not_disturb_the_leader() {
        let mut flights = Flights::default();
        join(&mut flights, 1, 7, 0);
        sent(&mut flights, 7, 100, 1, 0);
        join(&mut flights, 2, 7, 0);
        flights.leave(2);
        flights.leave(99);
        assert!(flights.grounded().is_empty());
        assert_eq!(streams(&flights.land(100).unwrap().0.waiters), [1]);
    }

    #[test]
    fn the_last_one_out_ends_the_flight() {
        let mut flights = Flights::default();
        join(&mut flights, 1, 7, 0);
        sent(&mut flights, 7, 100, 1, 0);
        flights.leave(1);
        assert!(flights.is_empty() && flights.land(100).is_none());
    }

    #[test]
    fn waiters_are_bounded_in_time() {
        let mut flights = Flights::default();
        join(&mut flights, 1, 7, 0);
        sent(&mut flights, 7, 100, 1, 0);
        join(&mut flights, 2, 7, 400);
        assert!(flights.overdue(Monotonic::from_millis(499)).is_empty());
        assert_eq!(streams(&flights.overdue(Monotonic::from_millis(500))), [1]);
        assert_eq!(streams(&flights.overdue(Monotonic::from_millis(900))), [2]);
        assert!(flights.is_empty());
    }

    #[test]
    fn waiters_are_bounded_in_number() {
        let mut flights = Flights::default();
        let small = Request::parse([]);
        for stream in 0..MAX_WAITERS {
            assert!(!flights.is_full(&small));
            join(&mut flights, stream as u32, 7, 0);
        }
        assert!(flights.is_full(&small));
        flights.leave(0);
        assert!(!flights.is_full(&small));
    }

    #[test]
    fn what_waiters_keep_is_bounded_and_given_back() {
        let mut flights = Flights::default();
        let tags = vec![b'x'; 60_000];
        let large = Request::parse([(&b"if-none-match"[..], &tags[..])]);
        let mut streams = 0..1_000;
        let kept = streams.by_ref().take_while(|stream| {
            let full = flights.is_full(&large);
            if !full {
                let now = Monotonic::from_millis(0);
                flights.join(*stream, large.clone(), None, fetch(7), now, PATIENCE);
            }
            !full
        });
        assert!((200..300).contains(&kept.count()));
        flights.overdue(Monotonic::from_millis(10_000));
        assert_eq!(flights.bytes, 0);
    }
}
