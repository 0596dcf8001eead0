//! The worker before a host in memory, with a surface that is no product's.

use std::cell::Cell;

use super::fake::HostInMemory;
use super::*;
use crate::http::Late;
use crate::redis::Failure;
use crate::shared::{Held, Scope};
use crate::tenant::Tenant;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use toy::{Number, Toy};

mod toy;

type ToyWorker = Worker<HostInMemory, Toy>;

thread_local! {
    /// The registry is of the whole VM, which is the thread here: each test has workers of its own.
    static WORKERS: Cell<u32> = const { Cell::new(0) };
}

fn worker(surface: Toy) -> ToyWorker {
    let id = WORKERS.with(|workers| {
        workers.set(workers.get() + 1);
        workers.get()
    });
    let clusters = Clusters::new(Scope::new("", &[]), Vec::new());
    let host = HostInMemory::new(100_000, u64::from(id) << 32);
    let mut worker = Worker::new(id, host, surface, None, Recorder::new(&[]), clusters);
    worker.start().unwrap();
    worker
}

impl ToyWorker {
    fn ask(&mut self, stream: u32, number: u32) -> Served {
        self.host.entered = stream;
        self.on_request(stream, Number(number), BodyAhead::No)
    }

    /// Answers the callout that is under way for longest.
    fn deliver(&mut self, body: &str) {
        let (call, _) = self.host.calls.remove(0);
        self.host.reply = Some(("200", body.as_bytes().to_vec()));
        self.on_reply(call, body.len());
        self.host.reply = None;
    }

    fn pass(&mut self, millis: u64) {
        self.host.millis += millis;
        self.on_tick();
    }

    fn answered(&mut self) -> Vec<fake::Answered> {
        std::mem::take(&mut self.host.answered)
    }

    fn asked(&self) -> Vec<&str> {
        let calls = self.host.calls.iter();
        calls.map(|(_, asked)| asked.as_str()).collect()
    }
}

/// A reply of webdis.
const FOUND: &str = "$4\r\ntext\r\n";

#[test]
fn what_needs_no_read_is_answered_or_forwarded_at_once() {
    let mut worker = worker(Toy::default());
    assert_eq!(worker.ask(1, 0), Served::Answered(Late::Nothing));
    assert_eq!(worker.ask(2, 1), Served::Passes);
    assert_eq!(worker.answered(), [(1, 200, "at_once")]);
    assert_eq!(worker.surface.sent, [200]);
    assert_eq!(
        worker.host.forwarded,
        [(2, "unknown_credential".to_owned())]
    );
    worker.pass(600);
    assert_eq!(worker.host.counted("flag_definitions_forwarded_total"), 1);
}

#[test]
fn who_needs_the_same_shares_a_read() {
    let mut worker = worker(Toy::default());
    for (stream, number) in [(1, 7), (2, 7), (3, 8)] {
        assert_eq!(worker.ask(stream, number), Served::Waits);
        assert!(worker.is_waiting(stream));
    }
    assert_eq!(worker.host.calls.len(), 2);
    worker.deliver(FOUND);
    assert_eq!(worker.answered(), [(1, 200, "read"), (2, 200, "read")]);
    assert!(!worker.is_waiting(2) && worker.is_waiting(3));
    assert_eq!(worker.surface.landed, [(7, Ok(()))], "taught once");
    worker.deliver("nonsense");
    assert_eq!(worker.answered(), [(3, 503, "redis")]);
}

#[test]
fn a_reply_that_is_lost_is_asked_for_again_and_who_left_gets_nothing() {
    let mut worker = worker(Toy::default());
    worker.ask(1, 7);
    worker.ask(2, 7);
    worker.on_stream_done(1);
    let (lost, _) = worker.host.calls.remove(0);
    worker.lost(lost);
    worker.pass(10);
    assert_eq!(worker.host.calls.len(), 1 + 1, "and the job's");
    worker
        .host
        .calls
        .retain(|(_, asked)| !asked.contains("job"));
    worker.deliver(FOUND);
    assert_eq!(worker.answered(), [(2, 200, "read")]);
    // The host knows before the worker does.
    worker.ask(3, 7);
    worker.host.gone.insert(3);
    worker.deliver(FOUND);
    assert_eq!(worker.answered(), []);
}

#[test]
fn nobody_waits_longer_than_two_callouts_take() {
    let mut worker = worker(Toy::default());
    worker.ask(1, 7);
    worker.pass(599);
    assert_eq!(worker.answered(), []);
    worker.pass(1);
    assert_eq!(worker.answered(), [(1, 503, "timeout")]);
    assert!(!worker.is_waiting(1));
}

#[test]
fn a_read_that_cannot_be_sent_is_no_wait() {
    let mut worker = worker(Toy::default());
    for (number, refuses_calls, answer) in [
        (7, true, (9, 503, "redis")),
        (98, false, (9, 503, "redis")),
        (99, false, (9, 429, "too_many_reads")),
    ] {
        worker.host.refuses_calls = refuses_calls;
        let served = worker.ask(9, number);
        assert_eq!(served, Served::Answered(Late::Nothing), "{number}");
        assert_eq!(worker.answered(), [answer]);
        assert!(!worker.is_waiting(9));
    }
    worker.host.refuses_calls = false;
    worker.pass(600);
    let unsent = "flag_definitions_callouts_total;store=definitions;outcome=not_sent";
    assert_eq!(worker.host.counted(unsent), 2);
}

impl ToyWorker {
    /// Asks with a body ahead.
    fn ask_with_body(&mut self, stream: u32) -> Served {
        self.host.entered = stream;
        self.on_request(stream, Number(60), BodyAhead::Yes)
    }
}

#[test]
fn a_request_waits_for_its_body_and_no_longer_than_it_comes() {
    let mut worker = worker(Toy::default());
    assert_eq!(worker.ask(1, 60), Served::Answered(Late::Nothing));
    assert_eq!(worker.surface.bodies, [b""], "none is ahead");
    assert_eq!(worker.ask_with_body(2), Served::Waits);
    assert!(worker.is_waiting(2) && worker.awaits_body(2));
    assert_eq!(worker.on_body_part(2, 10), Served::Waits);
    assert_eq!(
        worker.on_body_part(9, 10),
        Served::Passes,
        "of somebody else"
    );
    assert_eq!(
        worker.on_body(2, Some(b"0123456789")),
        Served::Answered(Late::Nothing)
    );
    assert!(!worker.is_waiting(2));
    assert_eq!(worker.on_body(2, Some(b"again")), Served::Passes);
    // One that goes on to a read waits for that.
    assert_eq!(worker.ask_with_body(3), Served::Waits);
    assert_eq!(worker.on_body(3, Some(b"read")), Served::Waits);
    assert!(worker.is_waiting(3) && !worker.awaits_body(3));
    assert_eq!(worker.on_body_part(3, 99), Served::Waits);
    worker.deliver(FOUND);
    let answers: Vec<_> = worker
        .answered()
        .into_iter()
        .map(|answer| answer.2)
        .collect();
    assert_eq!(answers, ["body", "body", "read"]);
}

#[test]
fn a_body_that_is_too_long_or_cannot_be_read_or_stops_is_given_up() {
    let mut worker = worker(Toy::default());
    for stream in [1, 2, 3, 4] {
        worker.ask_with_body(stream);
    }
    worker.host.entered = 1;
    assert_eq!(worker.on_body_part(1, 11), Served::Answered(Late::Nothing));
    worker.host.entered = 2;
    assert_eq!(worker.on_body(2, None), Served::Answered(Late::Nothing));
    worker.on_stream_done(3);
    assert_eq!(
        worker.answered(),
        [(1, 413, "too_long"), (2, 503, "shared_data")]
    );
    worker.pass(14_000);
    worker.on_body_part(4, 5);
    worker.pass(999);
    assert_eq!(worker.answered(), [], "each part gives no more time");
    worker.pass(1);
    assert_eq!(worker.answered(), [(4, 503, "timeout")]);
    assert!(worker.surface.bodies.is_empty() && !worker.is_waiting(4));
}

#[test]
fn bodies_that_are_awaited_are_bounded() {
    let mut worker = worker(Toy::default());
    for stream in 0..1_024 {
        worker.surface.tenant = Tenant(stream / 128);
        assert_eq!(worker.ask_with_body(stream), Served::Waits);
    }
    worker.surface.tenant = Tenant(9);
    assert_eq!(worker.ask_with_body(2_000), Served::Answered(Late::Nothing));
    assert_eq!(worker.answered(), [(2_000, 503, "overloaded")]);
    worker.on_stream_done(7);
    assert_eq!(worker.ask_with_body(2_000), Served::Waits);
}

#[test]
fn one_tenant_leaves_half_of_all_room_for_bodies_to_the_others() {
    let mut worker = worker(Toy::default());
    worker.surface.body_bytes = 3 << 20;
    for stream in 0..512 {
        assert_eq!(worker.ask_with_body(stream), Served::Waits);
    }
    assert_eq!(worker.ask_with_body(600), Served::Answered(Late::Nothing));
    assert_eq!(worker.answered(), [(600, 503, "overloaded")]);
    worker.on_stream_done(7);
    assert_eq!(worker.ask_with_body(600), Served::Waits, "one has left");
    for stream in 1..=2 {
        assert_eq!(worker.on_body_part(stream, 3 << 20), Served::Waits);
    }
    worker.host.entered = 3;
    assert_eq!(
        worker.on_body_part(3, 3 << 20),
        Served::Answered(Late::Nothing)
    );
    assert_eq!(worker.answered(), [(3, 503, "overloaded")]);
    worker.surface.tenant = Tenant(2);
    for stream in 700..828 {
        assert_eq!(worker.ask_with_body(stream), Served::Waits, "another's");
    }
    assert_eq!(worker.ask_with_body(900), Served::Answered(Late::Nothing));
    assert_eq!(worker.answered(), [(900, 503, "overloaded")]);
    assert_eq!(worker.on_body_part(700, 3 << 20), Served::Waits);
}

#[test]
fn bodies_that_are_on_their_way_have_a_bound_in_bytes_all_together() {
    let mut worker = worker(Toy::default());
    worker.surface.body_bytes = 4 << 20;
    for stream in 1..=5 {
        worker.surface.tenant = Tenant(stream);
        worker.ask_with_body(stream);
    }
    for stream in 1..=4 {
        worker.host.entered = stream;
        let served = worker.on_body_part(stream, (4 << 20) - 100);
        assert_eq!(served, Served::Waits, "{stream}");
    }
    worker.host.entered = 5;
    assert_eq!(
        worker.on_body_part(5, 1_000),
        Served::Answered(Late::Nothing)
    );
    assert_eq!(worker.answered(), [(5, 503, "overloaded")]);
    worker.on_stream_done(1);
    worker.surface.tenant = Tenant(6);
    worker.ask_with_body(6);
    assert_eq!(worker.on_body_part(6, (4 << 20) - 100), Served::Waits);
}

#[test]
fn what_a_surface_works_on_by_itself_is_not_sent_and_answers_all_who_wait() {
    let mut worker = worker(Toy::default());
    worker.ask(1, 61);
    worker.ask(2, 61);
    worker.pass(100);
    assert!(worker.asked().iter().all(|asked| !asked.contains("61")));
    assert_eq!(worker.answered(), []);
    worker.surface.is_done = true;
    worker.pass(10);
    assert_eq!(worker.answered(), [(1, 200, "read"), (2, 200, "read")]);
    assert!(worker.surface.abandoned.is_empty());
    // What nobody waits for is no harm.
    worker.surface.is_done = true;
    worker.pass(10);
    assert_eq!(worker.answered(), []);
}

#[test]
fn a_surface_is_told_what_nobody_waits_for() {
    let mut worker = worker(Toy::default());
    worker.ask(1, 61);
    worker.ask(2, 61);
    worker.on_stream_done(1);
    assert!(worker.surface.abandoned.is_empty());
    worker.on_stream_done(2);
    assert_eq!(worker.surface.abandoned, [61]);
    worker.ask(3, 61);
    worker.pass(600);
    assert_eq!(worker.surface.abandoned, [61; 2]);
    // There is no room.
    for stream in 0..single_flight::MAX_WAITERS as u32 {
        worker.ask(10 + stream, 7);
    }
    worker.answered();
    worker.ask(4, 61);
    assert_eq!(worker.answered(), [(4, 503, "overloaded")]);
    assert_eq!(worker.surface.abandoned, [61; 3]);
}

#[test]
fn an_object_store_is_asked_by_its_path() {
    let mut worker = worker(Toy::default());
    worker.ask(1, 97);
    assert_eq!(worker.asked(), ["/97"]);
    worker.deliver("any bytes");
    assert_eq!(worker.answered(), [(1, 200, "read")]);
}

#[test]
fn a_callback_gives_a_bounded_number_of_answers_and_large_ones_count_for_more() {
    for (number, at_once) in [(7, 64), (50, 64 / 5)] {
        let mut worker = worker(Toy::default());
        for stream in 0..100 {
            worker.ask(stream, number);
        }
        worker.deliver(FOUND);
        let first = worker.answered().len();
        assert!((at_once..=at_once + 1).contains(&first), "{first}");
        assert_eq!(worker.host.tick, Duration::from_millis(1));
        let mut given = first;
        for _ in 0..20 {
            worker.pass(1);
            given += worker.answered().len();
        }
        assert_eq!(given, 100);
        assert!(worker.host.tick >= Duration::from_millis(20));
    }
}

#[test]
fn what_could_not_be_sent_owes_nothing() {
    let mut worker = worker(Toy::default());
    worker.host.refuses_answers = true;
    assert_eq!(worker.ask(1, 0), Served::Passes);
    assert!(worker.surface.sent.is_empty());
}

#[test]
fn a_job_is_handed_its_reply_or_told_why_there_is_none() {
    let mut worker = worker(Toy::default());
    worker.pass(0);
    assert_eq!(worker.asked().len(), 1);
    worker.deliver(FOUND);
    worker.pass(1_000);
    worker.deliver("nonsense");
    worker.host.refuses_calls = true;
    worker.pass(1_000);
    worker.host.refuses_calls = false;
    let expected = [
        (1, Ok(())),
        (2, Err(Failure::Malformed)),
        (3, Err(Failure::NotSent)),
    ];
    assert_eq!(worker.surface.asker.replies, expected);
    worker.pass(600);
    for outcome in ["ok", "malformed", "not_sent"] {
        let name = format!("flag_definitions_callouts_total;store=quota;outcome={outcome}");
        assert_eq!(worker.host.counted(&name), 1, "{outcome}");
    }
}

#[test]
fn a_job_does_not_wait_for_a_reply_that_never_comes() {
    let mut worker = worker(Toy::default());
    worker.surface.asker.lease = None;
    worker.pass(0);
    let (never, _) = worker.host.calls.remove(0);
    // What it asks next ends the wait for the last reply.
    worker.pass(1_000);
    worker.host.reply = Some(("200", FOUND.as_bytes().to_vec()));
    worker.on_reply(never, FOUND.len());
    assert_eq!(worker.surface.asker.replies, []);
    worker.host.refuses_calls = true;
    for _ in 0..34 {
        worker.host.millis += 1_000;
    }
    worker.on_tick();
    assert_eq!(worker.surface.asker.replies.len(), 1, "refused");
    worker.pass(1_001);
    let late = worker.surface.asker.replies[1];
    assert_eq!(late, (2, Err(Failure::Timeout)));
}

fn leased() -> Toy {
    let mut toy = Toy::default();
    toy.asker.lease = Some("lease".to_owned());
    toy
}

#[test]
fn one_of_two_workers_does_a_job_that_has_a_lease() {
    let (mut first, mut second) = (worker(leased()), worker(leased()));
    // Another VM: the registry is not shared with it.
    registry::leave(WORKERS.with(Cell::get));
    first.pass(0);
    std::mem::swap(&mut second.host.store, &mut first.host.store);
    second.pass(0);
    assert_eq!(first.surface.asker.held, [Held::Yes]);
    assert_eq!(second.surface.asker.held, [Held::No]);
    std::mem::swap(&mut second.host.store, &mut first.host.store);
    first.stop();
    assert_eq!(first.surface.asker.stopped, 1);
    std::mem::swap(&mut second.host.store, &mut first.host.store);
    second.pass(0);
    assert_eq!(second.surface.asker.held, [Held::No, Held::Yes]);
}

#[test]
fn a_newer_worker_of_the_same_vm_takes_over() {
    let mut old = worker(leased());
    old.pass(0);
    let _new = worker(leased());
    old.pass(10);
    old.pass(10);
    assert_eq!(old.surface.asker.held, [Held::Yes, Held::No, Held::No]);
    assert_eq!(old.surface.asker.stopped, 1, "told once");
    // What it had asked before is its own still.
    old.deliver(FOUND);
    assert_eq!(old.surface.asker.replies, [(1, Ok(()))]);
    registry::leave(WORKERS.with(Cell::get));
    old.pass(10);
    assert_eq!(old.surface.asker.held.last(), Some(&Held::Yes));
}
