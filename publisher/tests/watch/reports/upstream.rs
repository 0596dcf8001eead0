//! An upstream of reports in memory, and what filters would have counted.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_filter::usage::batch::field_key;
use flag_definitions_publisher::sources::WatchedSources;
use flag_definitions_publisher::sources::documents::{DocumentSource, TellDocuments};
use flag_definitions_publisher::sources::usage::{
    TellUsage, UsageAnswer, UsageBatch, UsageNews, UsageReports,
};
use flag_definitions_publisher::watch::status::UsageFigures;

use crate::document_source::PREFIX;
use crate::instance::{Instance, eventually, settings};
use crate::support::{PUBLISHER_PASSWORD, Redis};

/// A source that hands every batch to the test.
struct Reporting {
    batches: Sender<UsageBatch>,
    tell: Arc<Mutex<Option<TellUsage>>>,
}

impl DocumentSource for Reporting {
    fn surface(&self) -> &'static str {
        "flagsmith"
    }

    fn reports(&mut self, tell: TellUsage) -> Option<UsageReports> {
        *self.tell.lock().unwrap() = Some(tell);
        Some(UsageReports {
            name: "flagsmith",
            interval: Duration::from_millis(100),
            send: self.batches.clone(),
        })
    }

    fn start(self: Box<Self>, _: TellDocuments, _: &Arc<AtomicBool>) {}
}

/// An upstream, and the publisher that reports to it.
pub struct Upstream {
    pub instance: Instance,
    batches: Receiver<UsageBatch>,
    tell: TellUsage,
}

impl Upstream {
    /// With the publisher's permissions alone.
    pub fn of(redis: &Redis) -> Self {
        let (batches, received) = channel();
        let tell = Arc::default();
        let source = Reporting {
            batches,
            tell: Arc::clone(&tell),
        };
        let port = redis.port;
        let url = format!("redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{port}");
        let sources = WatchedSources {
            documents: vec![Box::new(source)],
            ..WatchedSources::default()
        };
        let instance = Instance::of(settings(&url), sources);
        eventually("the source", || tell.lock().unwrap().is_some());
        let tell = tell.lock().unwrap().clone().unwrap();
        Self {
            instance,
            batches: received,
            tell,
        }
    }

    pub fn say(&self, news: UsageNews) {
        (self.tell)(news).unwrap();
    }

    /// Reports these tenants from now on, each by its name.
    pub fn report(&self, tenants: &[(u32, &str)]) {
        let tenants = tenants.iter();
        let tenants = tenants.map(|(tenant, name)| (Tenant(*tenant), hash(name)));
        self.say(UsageNews::Tenants(tenants.collect()));
    }

    #[track_caller]
    pub fn next(&self) -> UsageBatch {
        let batch = self.batches.recv_timeout(Duration::from_secs(20));
        batch.expect("a batch")
    }

    #[track_caller]
    pub fn nothing_comes(&self) {
        let batch = self.batches.recv_timeout(Duration::from_millis(700));
        assert!(batch.is_err(), "{batch:?}");
    }

    pub fn answer(&self, batch: &UsageBatch, answer: UsageAnswer) {
        self.say(UsageNews::Answered {
            id: batch.id.clone(),
            reported: batch.requests(),
            unknown: 0,
            answer,
        });
    }

    #[track_caller]
    pub fn figures(&self, expected: UsageFigures) {
        let what = format!("{expected:?}");
        self.instance
            .wait(&what, |figures| figures.usage == expected);
    }
}

pub fn hash(name: &str) -> Sha256Hash {
    Sha256Hash::of(name.as_bytes())
}

pub fn kept() -> UsageAnswer {
    UsageAnswer::Kept("answered 500".to_owned())
}

/// Hours since 1970. A test that runs over the turn of an hour sees two of them, so it waits for the next one near its end.
pub fn hour() -> u32 {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        if now.as_secs() % 3_600 < 3_570 {
            return u32::try_from(now.as_secs() / 3_600).unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

pub fn count(redis: &mut Redis, hour: u32, tenant: u32, resource: u8, requests: u64) {
    let key = field_key(PREFIX, "flagsmith", hour);
    let field = format!("{tenant}:{resource}");
    let _: i64 = redis.command("HINCRBY", &[key, field, requests.to_string()]);
}

/// Rows of a batch: whose, resource and count.
pub fn rows(batch: &UsageBatch) -> Vec<(Sha256Hash, u8, u64)> {
    let rows = batch.rows.iter();
    let mut rows: Vec<_> = rows
        .map(|row| (row.reported_as, row.resource, row.count))
        .collect();
    rows.sort_by_key(|row| (row.1, row.2));
    rows
}
