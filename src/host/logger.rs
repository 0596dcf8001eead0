//! `log` records go to Envoy's log. A status other than "ok" is dropped: there is nowhere to tell it.

use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::abi::{self, Severity};
use crate::time::Monotonic;

/// How often a line of one kind is written at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The level below which nothing is written: one for a VM.
#[cfg(not(test))]
mod level {
    pub use log::{max_level as get, set_max_level as set};
}

/// Tests share a process, and each has a fake host of its own on its thread: there it is off until it is installed.
#[cfg(test)]
mod level {
    use log::LevelFilter;
    use std::cell::Cell;

    thread_local! {
        static LEVEL: Cell<Option<LevelFilter>> = const { Cell::new(None) };
    }

    pub fn install() {
        log::set_max_level(LevelFilter::Trace);
        LEVEL.set(Some(LevelFilter::Info));
    }

    pub fn get() -> LevelFilter {
        LEVEL.get().unwrap_or(LevelFilter::Off)
    }

    pub fn set(level: LevelFilter) {
        LEVEL.set(LEVEL.get().map(|_| level));
    }
}

struct EnvoyLog;

impl Log for EnvoyLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= level::get()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let severity = match record.level() {
            Level::Error => Severity::Error,
            Level::Warn => Severity::Warn,
            Level::Info => Severity::Info,
            Level::Debug => Severity::Debug,
            Level::Trace => Severity::Trace,
        };
        // Envoy puts the plugin's name in front.
        let _ = abi::log(severity, &record.args().to_string());
    }

    fn flush(&self) {}
}

/// Lets through one line a second of a kind that a flood of requests can cause.
#[derive(Debug, Default)]
pub struct Pace(Option<Monotonic>);

impl Pace {
    /// Whether a line may be written now.
    pub fn admits(&mut self, now: Monotonic) -> bool {
        let recent = |at| now.since(at) < INTERVAL;
        let admitted = !self.0.is_some_and(recent);
        if admitted {
            self.0 = Some(now);
        }
        admitted
    }
}

/// The last problem of a job that is done again and again: it is written once, not with each attempt.
#[derive(Debug)]
pub struct LastProblem<P>(Option<P>);

impl<P> Default for LastProblem<P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<P: PartialEq> LastProblem<P> {
    /// Whether this is another one than the last, and so worth a line.
    pub fn is_new(&mut self, problem: P) -> bool {
        let is_new = self.0.as_ref() != Some(&problem);
        self.0 = Some(problem);
        is_new
    }

    /// The job is done: the next problem is a new one.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

/// Follows Envoy's log level, so that lines which nobody would see are not even written.
pub fn follow_host() {
    let level = match abi::log_level() {
        Ok(0) => LevelFilter::Trace,
        Ok(1) => LevelFilter::Debug,
        Ok(2) | Err(_) => LevelFilter::Info,
        Ok(3) => LevelFilter::Warn,
        Ok(4) => LevelFilter::Error,
        Ok(_) => LevelFilter::Off,
    };
    level::set(level);
}

/// Installs the logger, and a panic hook that says where a trap came from. The panic's message is left
/// out: it could repeat what a client sent.
pub fn install() {
    #[cfg(test)]
    level::install();
    // Only the first root context of a VM installs it.
    if log::set_logger(&EnvoyLog).is_ok() {
        level::set(LevelFilter::Info);
        std::panic::set_hook(Box::new(|panic| {
            let place = panic
                .location()
                .map_or_else(String::new, ToString::to_string);
            let _ = abi::log(Severity::Critical, &format!("trap at {place}"));
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_until_it_was_told_and_after_it_went_away() {
        let mut problem = LastProblem::default();
        assert!(problem.is_new("readonly"));
        assert!(!problem.is_new("readonly"));
        assert!(problem.is_new("timeout"));
        assert!(problem.is_new("readonly"));
        problem.clear();
        assert!(problem.is_new("readonly"));
    }
}
