//! Somebody who listens to a Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_publisher::sources::posthog::database::Database;
use flag_definitions_publisher::sources::{Announcement, Heard, Source};

use crate::support::Postgres;

/// A thread that listens.
pub struct Ear {
    heard: Receiver<Heard>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub database: Arc<Database>,
}

impl Ear {
    pub fn new(database: Database) -> Self {
        let (tell, heard) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let database = Arc::new(database);
        let thread = std::thread::spawn({
            let (stop, database) = (Arc::clone(&stop), Arc::clone(&database));
            move || database.listen(&stop, &mut |heard| drop(tell.send(heard)))
        });
        Self {
            heard,
            stop,
            thread: Some(thread),
            database,
        }
    }

    /// One that listens already.
    #[track_caller]
    pub fn listening(postgres: &Postgres) -> Self {
        let ear = Self::new(postgres.database());
        ear.expect_listening();
        ear
    }

    /// That it listens, and does not know what happened before.
    #[track_caller]
    pub fn expect_listening(&self) {
        assert_eq!(self.next(), Heard::Listening);
        assert_eq!(self.next(), Heard::Overflow);
    }

    #[track_caller]
    pub fn next(&self) -> Heard {
        loop {
            match self.heard.recv_timeout(Duration::from_secs(60)).unwrap() {
                Heard::UpTo(_) => {}
                heard => return heard,
            }
        }
    }

    /// Until when everything was told, as said next.
    #[track_caller]
    pub fn up_to(&self) -> Instant {
        loop {
            let heard = self.heard.recv_timeout(Duration::from_secs(60));
            if let Heard::UpTo(moment) = heard.unwrap() {
                return moment;
            }
        }
    }

    /// What is said within two seconds.
    pub fn wait_a_moment(&self) -> Result<Heard, std::sync::mpsc::RecvTimeoutError> {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(Heard::UpTo(_)) => {}
                other => return other,
            }
        }
    }

    /// The next problem.
    #[track_caller]
    pub fn problem(&self) -> String {
        match self.next() {
            Heard::NotListening(problem) => problem.to_string(),
            heard => panic!("{heard:?}"),
        }
    }

    #[track_caller]
    pub fn announcement(&self) -> Announcement {
        match self.next() {
            Heard::Announced(announcement) => announcement,
            heard => panic!("{heard:?}"),
        }
    }

    /// What is announced next, by hash.
    #[track_caller]
    pub fn changes(&self) -> BTreeMap<Sha256Hash, Option<Record>> {
        let changed = self.announcement().changed.into_iter();
        changed
            .map(|(hash, record)| (hash, record.map(|bytes| Record::decode(&bytes).unwrap())))
            .collect()
    }

    /// That nothing is said for a while, but up to when all was told.
    #[track_caller]
    pub fn expect_silence(&self) {
        let end = Instant::now() + Duration::from_millis(600);
        while let Ok(heard) = self
            .heard
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            assert!(matches!(heard, Heard::UpTo(_)), "{heard:?}");
        }
    }

    /// That one of three such ears stops at once: a busy machine may hold up the others.
    #[track_caller]
    pub fn expect_to_stop_at_once(ear: impl Fn() -> Self) {
        let mut took = Vec::new();
        for _ in 0..3 {
            took.push(ear().stop());
            if took.last() < Some(&Duration::from_millis(200)) {
                return;
            }
        }
        panic!("{took:?}");
    }

    /// Stops, and says how long that took.
    pub fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        began.elapsed()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
