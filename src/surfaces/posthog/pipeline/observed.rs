//! What a decision teaches the dashboards, the log, and PostHog.

use crate::hash::Sha256Hash;
use crate::labels::labels;
use crate::limits::{Budget, Mode};
use crate::shared::Machinery;
use crate::surfaces::posthog::counts::PostHogCount;
use crate::surfaces::posthog::directory::access::AuthMethod;
use crate::tenant::Tenant;

/// What a request's validators were worth. The label of `flag_definitions_etag_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ETagResult {
    /// The client's version is current.
    Hit,
    /// It is not.
    Miss,
    /// The request has no validators.
    None,
    /// There is a payload without an ETag.
    RedisMissing,
    /// The ETag could not be read.
    RedisError,
}

labels! {
    ETagResult {
        Hit: "hit",
        Miss: "miss",
        None: "none",
        RedisMissing: "redis_missing",
        RedisError: "redis_error",
    }
}

/// Whether the payload was there. The label of `flag_definitions_cache_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// It was.
    Hit,
    /// The key is absent.
    Miss,
    /// It is not known, or cannot be read.
    Error,
}

labels! {
    CacheResult {
        Hit: "hit",
        Miss: "miss",
        Error: "error",
    }
}

/// What a decision teaches the dashboards, the log, and PostHog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whose definitions are asked for, once that is proven.
    pub team: Option<Tenant>,
    /// Hash of that team's public token, where it is known: named by the request, or beside its credential.
    pub token: Option<Sha256Hash>,
    /// That token is limited, and whoever reads the list does not know that it is this team's.
    pub unowned: bool,
    /// How the request authenticated.
    pub auth: Option<AuthMethod>,
    /// Rate limits that were exceeded or could not be applied.
    pub limits: Vec<(Budget, Mode)>,
    /// What its validators were worth.
    pub etag: Option<ETagResult>,
    /// Whether the payload was there.
    pub cache: Option<CacheResult>,
    /// The answer is a payload that is billed, once it is sent.
    pub billed: bool,
    /// The payload is missing: PostHog shall rebuild it.
    pub rebuild: bool,
}

impl Observed {
    /// Counts it, but for the answer, which is counted once it is sent.
    pub fn count<S>(&self, machinery: &mut Machinery<'_, S, PostHogCount>) {
        if let Some(method) = self.auth {
            machinery.count(PostHogCount::Auth(method));
        }
        for (budget, mode) in &self.limits {
            machinery.count(PostHogCount::RateLimited(*budget, *mode));
            if let Some(team) = self.team {
                machinery.count(PostHogCount::TeamRateLimited(team, *budget, *mode));
            }
        }
        if let Some(result) = self.etag {
            machinery.count(PostHogCount::ETag(result));
        }
        if let Some(result) = self.cache {
            machinery.count(PostHogCount::Cache(result));
        }
    }
}
