//! `log` records go to Envoy's log. A status other than "ok" is dropped: there is nowhere to tell it.

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::abi::{self, Severity};

/// The level below which nothing is written: one for a VM.
#[cfg(not(test))]
mod level {
    pub use log::{max_level as get, set_max_level as set};
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
