//! Counts what is billed, and adds it to PostHog's hashes in batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::ConnectionManager;
use serde::Deserialize;

use crate::endpoint::Service;
use crate::teams::Tenant;

const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds that one field of PostHog's hashes stands for.
const BUCKET: u64 = 120;

/// Counts by team, SDK and bucket.
#[derive(Default)]
pub struct Usage(Mutex<HashMap<(Tenant, &'static str, u64), u64>>);

#[derive(Deserialize)]
struct Definitions<'a> {
    #[serde(borrow)]
    flags: Vec<Flag<'a>>,
}

#[derive(Deserialize)]
struct Flag<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
}

/// Whether the payload has a flag that the team made itself.
fn is_billed(payload: &str) -> bool {
    let made_by_posthog = ["survey-targeting-", "product-tour-targeting-"];
    serde_json::from_str::<Definitions<'_>>(payload).is_ok_and(|definitions| {
        definitions
            .flags
            .iter()
            .any(|flag| !made_by_posthog.iter().any(|p| flag.key.starts_with(p)))
    })
}

/// The name in PostHog's keys of the SDK with this user agent.
fn sdk(user_agent: &str) -> &'static str {
    const SDKS: [&str; 5] = [
        "posthog-python",
        "posthog-node",
        "posthog-ruby",
        "posthog-go",
        "posthog-java",
    ];
    let (name, _) = user_agent.split_once('/').unwrap_or_default();
    SDKS.into_iter().find(|sdk| *sdk == name).unwrap_or("other")
}

impl Usage {
    /// Counts a 200 with this payload, if it is billed.
    pub fn count(&self, team: Tenant, user_agent: &str, payload: &str) {
        if !is_billed(payload) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let bucket = now.unwrap_or_default().as_secs() / BUCKET;
        if let Ok(mut counts) = self.0.lock() {
            *counts.entry((team, sdk(user_agent), bucket)).or_default() += 1;
        }
    }

    fn take(&self) -> HashMap<(Tenant, &'static str, u64), u64> {
        self.0
            .lock()
            .map(|mut counts| std::mem::take(&mut *counts))
            .unwrap_or_default()
    }
}

/// Sends what was counted. A batch that fails is lost: who lives through an outage is not measured.
pub async fn flush_for_ever(service: Arc<Service>, mut redis: ConnectionManager) {
    loop {
        tokio::time::sleep(FLUSH_INTERVAL).await;
        let counts = service.usage.take();
        if counts.is_empty() {
            continue;
        }
        let mut batch = redis::pipe();
        for ((team, sdk, bucket), count) in counts {
            let total = format!("posthog:local_evaluation_requests:{team}");
            let by_sdk = format!("posthog:local_evaluation_requests:sdk:{team}:{sdk}");
            batch.hincr(total, bucket, count).ignore();
            batch.hincr(by_sdk, bucket, count).ignore();
        }
        if let Err(error) = batch.exec_async(&mut redis).await {
            eprintln!("usage was not written: {error}");
        }
    }
}
