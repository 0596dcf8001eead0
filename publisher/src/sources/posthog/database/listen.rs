//! The connection that hears of changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::Type;

use super::Counters;
use super::notice::{Burst, echo};
use super::position::Lsn;
use super::problem::Problem;
use super::reread::reread;
use super::schema::Schema;
use super::session::{CHANNEL, Fault, Runner, Session};
use super::url::Endpoint;
use crate::sources::Heard;

/// How long a wait for notifications lasts.
const WAIT: Duration = Duration::from_millis(100);

/// How long after a notification the next one still belongs to the same burst.
const GAP: Duration = Duration::from_millis(5);

/// Longest time to gather a burst.
const MAX_BURST: Duration = Duration::from_secs(1);

/// How often a silent server is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(4);

/// How often tables and triggers are looked at: a migration may replace them.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// How long a notification to oneself may take.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whoever listened for this long had no lasting problem.
const STEADY: Duration = Duration::from_secs(60);

pub(super) fn listen(
    endpoint: &Endpoint,
    counters: &Counters,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Heard),
) {
    let mut pause = FIRST_PAUSE;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let fault = match hear(endpoint, counters, stop, tell) {
            Ok(never) => match never {},
            Err(Fault::Stopped) => return,
            Err(fault) => fault,
        };
        tell(Heard::NotListening(
            Problem::new(endpoint, &fault).to_string(),
        ));
        if began.elapsed() > STEADY {
            pause = FIRST_PAUSE;
        }
        wait(pause, stop);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn wait(pause: Duration, stop: &AtomicBool) {
    let end = Instant::now() + pause;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        sleep(WAIT.min(pause));
    }
}

/// Ends only with a fault.
fn hear(
    endpoint: &Endpoint,
    counters: &Counters,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Heard),
) -> Result<std::convert::Infallible, Fault> {
    let runner = Runner::new(stop)?;
    let mut ear = Session::open(&runner, endpoint)?;
    let reader = Session::open(&runner, endpoint)?;
    ear.execute(&format!("LISTEN {CHANNEL}"))?;
    hear_oneself(&mut ear, &reader)?;
    let mut schema = checked_schema(&reader)?;
    tell(Heard::Listening);
    overflow(&reader, counters, tell)?;
    let mut pinged = Instant::now();
    let mut answered = None;
    let mut checked = Instant::now();
    loop {
        let burst = next_burst(&mut ear, schema)?;
        counters.ignored.fetch_add(burst.ignored, Ordering::Relaxed);
        if burst.overflow {
            overflow(&reader, counters, tell)?;
        } else if !burst.is_empty() {
            let announcement = reread(&reader, schema, &burst)?;
            if !announcement.changed.is_empty() {
                tell(Heard::Announced(announcement));
            }
        }
        // Notifications come before the answer to a ping that was sent after their commit.
        if burst.drained
            && let Some(up_to) = answered.take()
        {
            tell(Heard::UpTo(up_to));
        }
        if pinged.elapsed() >= PING_EVERY {
            let began = Instant::now();
            ear.ping(PING_TIMEOUT)?;
            answered = Some(began);
            reader.ping(PING_TIMEOUT)?;
            pinged = Instant::now();
        }
        if checked.elapsed() >= CHECK_EVERY {
            schema = checked_schema(&reader)?;
            checked = Instant::now();
        }
    }
}

/// Asks for a full read that sees all that happened until now.
fn overflow(
    reader: &Session<'_>,
    counters: &Counters,
    tell: &mut dyn FnMut(Heard),
) -> Result<(), Fault> {
    let Lsn(position) = Lsn::read(reader)?;
    counters.read_from.store(position, Ordering::Relaxed);
    tell(Heard::Overflow);
    Ok(())
}

fn checked_schema(reader: &Session<'_>) -> Result<Schema, Fault> {
    let schema = Schema::read(reader)?;
    schema.check_triggers(reader)?;
    Ok(schema)
}

/// Proves that notifications arrive, which they do not through a pooler in transaction mode. What else arrives meanwhile
/// needs no look: a full read follows.
fn hear_oneself(ear: &mut Session<'_>, reader: &Session<'_>) -> Result<(), Fault> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let payload = echo(&format!("{}.{}", std::process::id(), now.as_nanos()));
    let parameters: [super::session::Parameter<'_>; 2] =
        [(&CHANNEL, Type::TEXT), (&payload, Type::TEXT)];
    reader.query("SELECT pg_notify($1, $2)", &parameters)?;
    let deadline = Instant::now() + ECHO_TIMEOUT;
    while Instant::now() < deadline {
        if ear.notification(WAIT)?.as_ref() == Some(&payload) {
            return Ok(());
        }
    }
    Err(Fault::Deaf)
}

/// Waits a moment for a notification, and gathers those that come with it.
fn next_burst(ear: &mut Session<'_>, schema: Schema) -> Result<Burst, Fault> {
    let mut burst = Burst::default();
    let end = Instant::now() + MAX_BURST;
    let mut patience = WAIT;
    while Instant::now() < end {
        let Some(payload) = ear.notification(patience)? else {
            burst.drained = true;
            break;
        };
        burst.add(&payload, schema);
        patience = GAP;
    }
    burst.overflow |= ear.lost_notifications();
    Ok(burst)
}
