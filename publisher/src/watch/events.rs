//! What the threads around the writer tell it. One channel, so that everything has one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel};
use std::time::{Duration, Instant};

use flag_definitions_filter::http::ETag;
use flag_definitions_filter::tenant::Tenant;
use tracing::info;

use super::source::{Heard, Reading, Source};

/// Most events that wait for the writer. Whoever has more to say waits too.
pub const WAITING: usize = 256;

/// While a long read goes on, a line tells of it this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Something the writer has to know.
#[derive(Debug)]
pub enum Event {
    /// The database said something by itself.
    Heard(Heard),
    /// A full read of the database ended.
    Read {
        /// When it began.
        began: Instant,
        /// What it brought.
        result: Result<Reading, String>,
    },
    /// ETags that are not what they were at the look before; `None`: there is none.
    ETags {
        /// The [`super::sweep::Order::Watch`] that asked for it.
        epoch: u64,
        /// In the order of their teams.
        etags: Vec<(Tenant, Option<ETag>)>,
    },
    /// All ETags were looked at, and what differed was told before this.
    Swept(Swept),
    /// The Redis of the ETags failed.
    SweepFailed(String),
}

/// A complete check of all ETags.
#[derive(Clone, Copy, Debug)]
pub struct Swept {
    /// The [`super::sweep::Order::Watch`] that asked for it.
    pub epoch: u64,
    /// When it began, by the clock of the Redis that holds the stream: Unix milliseconds.
    pub at: u64,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// Teams that have an ETag.
    pub etags: u64,
}

/// Starts the threads that talk to the database. A message to the sender asks for a full read.
pub fn start_source(
    source: Arc<impl Source + 'static>,
    stop: Arc<AtomicBool>,
    events: SyncSender<Event>,
) -> std::sync::mpsc::Sender<()> {
    let (ask, asked) = channel();
    let (reading, to_writer) = (Arc::clone(&source), events.clone());
    std::thread::spawn(move || read_when_asked(&*reading, &asked, &to_writer));
    std::thread::spawn(move || {
        source.listen(&stop, &mut |heard| {
            // Without a writer the program is about to end.
            if events.send(Event::Heard(heard)).is_err() {
                stop.store(true, Ordering::Relaxed);
            }
        });
    });
    ask
}

fn read_when_asked(source: &impl Source, asked: &Receiver<()>, events: &SyncSender<Event>) {
    while asked.recv().is_ok() {
        let began = Instant::now();
        let mut told = began;
        let result = source.read_all(&mut |rows| {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                info!(rows, "reading the database");
            }
        });
        if events.send(Event::Read { began, result }).is_err() {
            break;
        }
    }
}
