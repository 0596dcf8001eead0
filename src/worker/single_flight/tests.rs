use super::*;
use crate::http::{Candidate, ETag};
use crate::redis::Dialect;
use crate::surfaces::posthog::PostHog;
use crate::surfaces::posthog::definitions::Need;
use crate::surfaces::posthog::reads::PostHogRead;
use crate::surfaces::posthog::request::Request;
use crate::tenant::Tenant;
use crate::worker::calls::Expected;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

type Flights = SingleFlight<PostHog>;

const PATIENCE: Duration = Duration::from_millis(500);

fn read(tenant: u32) -> PostHogRead {
    PostHogRead::Definitions(Need {
        team: Tenant(tenant),
        held: None,
    })
}

fn sent(flights: &mut Flights, tenant: u32, call: u32, now: u64) {
    let call = Call {
        id: CallId(call),
        expected: Expected::Redis(Dialect::Webdis, None),
    };
    let callout = ReadCallout {
        call,
        largest_reply: 100,
        purpose: Purpose::Definitions,
        sent: SentRead {
            at: Monotonic::from_millis(now),
            known: None,
        },
    };
    flights.sent(&read(tenant), callout);
}

fn join(flights: &mut Flights, stream: u32, tenant: u32, now: u64) -> Join {
    let request = Request::parse([]);
    let now = Monotonic::from_millis(now);
    flights.join(stream, request, None, read(tenant), now, PATIENCE)
}

fn streams(waiters: &[Waiter<PostHog>]) -> Vec<u32> {
    waiters.iter().map(|waiter| waiter.stream).collect()
}

fn landed(flights: &mut Flights, call: u32) -> Option<Vec<u32>> {
    let (flight, _) = flights.land(CallId(call))?;
    Some(streams(&flight.waiters))
}

#[test]
fn equal_reads_share_one_callout() {
    let mut flights = Flights::default();
    assert_eq!(join(&mut flights, 1, 7, 0), Join::Send);
    sent(&mut flights, 7, 100, 0);
    assert_eq!(join(&mut flights, 2, 7, 0), Join::UnderWay);
    assert_eq!(join(&mut flights, 3, 8, 0), Join::Send);
    assert_eq!(landed(&mut flights, 100), Some(vec![1, 2]));
    assert_eq!(landed(&mut flights, 100), None);
    assert!(!flights.is_empty());
}

#[test]
fn of_one_tenant_at_most_two_reads_are_under_way() {
    let mut flights = Flights::default();
    let held = |tag: &str| {
        PostHogRead::Definitions(Need {
            team: Tenant(7),
            held: ETag::new(tag.as_bytes()).map(Candidate::Tag),
        })
    };
    let now = Monotonic::from_millis(0);
    let join = |flights: &mut Flights, stream, read| {
        flights.join(stream, Request::parse([]), None, read, now, PATIENCE)
    };
    assert_eq!(flights.joined_by(held("a")), held("a"));
    join(&mut flights, 1, held("a"));
    for other in [held("a"), held("b"), read(7)] {
        assert_eq!(flights.joined_by(other), held("a"));
    }
    assert_eq!(flights.joined_by(read(8)), read(8), "another tenant");
    // A request that was not served by it needs one of its own, and that serves all who come later.
    join(&mut flights, 2, read(7));
    for other in [held("a"), held("b"), read(7)] {
        assert_eq!(flights.joined_by(other), read(7));
    }
    flights.leave(2);
    assert_eq!(flights.joined_by(read(7)), held("a"));
    assert!(flights.take(&held("a")).is_some());
    assert_eq!(flights.joined_by(held("b")), held("b"));
    join(&mut flights, 3, held("b"));
    assert_eq!(flights.joined_by(held("a")), held("b"));
    flights.overdue(Monotonic::from_millis(10_000));
    assert_eq!(flights.joined_by(held("a")), held("a"));
    assert!(flights.is_empty() && flights.conditional.is_empty());
}

#[test]
fn a_read_whose_reply_is_lost_is_sent_again_and_nobody_is_lost() {
    let mut flights = Flights::default();
    join(&mut flights, 1, 7, 0);
    sent(&mut flights, 7, 100, 0);
    join(&mut flights, 2, 7, 0);
    flights.leave(1);
    flights.lost(CallId(100));
    flights.lost(CallId(99));
    assert_eq!(flights.unsent(), [read(7)]);
    assert_eq!(landed(&mut flights, 100), None, "the reply is void");
    sent(&mut flights, 7, 101, 5);
    assert!(flights.unsent().is_empty());
    assert_eq!(landed(&mut flights, 101), Some(vec![2]));
    assert!(flights.is_empty() && flights.calls.is_empty());
}

#[test]
fn a_waiter_that_leaves_does_not_disturb_the_read() {
    let mut flights = Flights::default();
    join(&mut flights, 1, 7, 0);
    sent(&mut flights, 7, 100, 0);
    join(&mut flights, 2, 7, 0);
    flights.leave(2);
    flights.leave(99);
    assert!(flights.unsent().is_empty());
    assert_eq!(landed(&mut flights, 100), Some(vec![1]));
}

#[test]
fn the_last_one_out_ends_the_read() {
    let mut flights = Flights::default();
    join(&mut flights, 1, 7, 0);
    sent(&mut flights, 7, 100, 0);
    flights.leave(1);
    assert!(flights.is_empty() && flights.land(CallId(100)).is_none());
}

#[test]
fn waiters_are_bounded_in_time() {
    let mut flights = Flights::default();
    join(&mut flights, 1, 7, 0);
    sent(&mut flights, 7, 100, 0);
    join(&mut flights, 2, 7, 400);
    assert!(flights.overdue(Monotonic::from_millis(499)).is_empty());
    assert_eq!(streams(&flights.overdue(Monotonic::from_millis(500))), [1]);
    assert_eq!(streams(&flights.overdue(Monotonic::from_millis(900))), [2]);
    assert!(flights.is_empty());
    // Both of the last read at once.
    for stream in [3, 4] {
        join(&mut flights, stream, 7, 0);
    }
    let overdue = flights.overdue(Monotonic::from_millis(900));
    assert_eq!(streams(&overdue), [3, 4]);
    assert!(!flights.is_waiting(3) && !flights.is_waiting(4));
}

#[test]
fn waiters_are_bounded_in_number() {
    let mut flights = Flights::default();
    let small = Request::parse([]);
    for stream in 0..MAX_WAITERS {
        assert!(!flights.is_full(&small, &Default::default()));
        join(&mut flights, stream as u32, 7, 0);
    }
    assert!(flights.is_full(&small, &Default::default()));
    flights.leave(0);
    assert!(!flights.is_full(&small, &Default::default()));
}

#[test]
fn what_waiters_keep_is_bounded_and_given_back() {
    let mut flights = Flights::default();
    let tags = vec![b'x'; 60_000];
    let large = Request::parse([(&b"if-none-match"[..], &tags[..])]);
    let mut streams = 0..1_000;
    let kept = streams.by_ref().take_while(|stream| {
        let full = flights.is_full(&large, &Default::default());
        if !full {
            let now = Monotonic::from_millis(0);
            flights.join(*stream, large.clone(), None, read(7), now, PATIENCE);
        }
        !full
    });
    assert!((200..300).contains(&kept.count()));
    flights.overdue(Monotonic::from_millis(10_000));
    assert_eq!(flights.bytes, 0);
}
