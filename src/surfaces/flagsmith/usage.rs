//! Which requests are counted, for the report that the publisher sends to Flagsmith: each 200, and each 304, to a key of an
//! environment that came from Flagsmith's list. The Edge Proxy knows no 304 of its own; it would have answered 200.
//!
//! [`crate::usage`] brings the counts to Redis, where the publisher takes them out: a hash for each hour, with a field for each
//! environment and resource.

use std::time::Duration;

use super::request::Route;
use crate::labels::labels;
use crate::redis::Gateway;
use crate::shared::{Ambient, Scope};
use crate::tenant::Tenant;
use crate::time::UnixMillis;
use crate::usage::{Counter, Slots, UsageJob, UsageKeys};

/// The name in the keys of the hashes.
pub const NAME: &str = "flagsmith";

/// The hashes in Redis. A source is the code of a [`UsageResource`], a field is an [`hour`].
pub static KEYS: UsageKeys = UsageKeys::ByField(NAME);

/// Slots of one process: each has room for a day of 70 environments.
pub const SLOTS: u16 = 256;

const HOUR_MILLIS: u64 = 3_600_000;

/// What was asked for. The labels are Flagsmith's names (`src/services/usage.rs` of edge-proxy-rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageResource {
    /// `/flags`
    Flags,
    /// `/identities`
    Identities,
    /// `/environment-document`
    EnvironmentDocument,
}

labels! {
    UsageResource {
        Flags: "flags",
        Identities: "identities",
        EnvironmentDocument: "environment-document",
    }
}

impl UsageResource {
    /// The resource of a route.
    pub const fn of(route: Route) -> Self {
        match route {
            Route::Flags => Self::Flags,
            Route::Identities => Self::Identities,
            Route::Document => Self::EnvironmentDocument,
        }
    }

    /// Its byte in a slot of shared data, and its number in Redis.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The resource of a number in Redis.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The hour that a moment falls into: whole hours since 1970.
pub fn hour(now: UnixMillis) -> u32 {
    u32::try_from(now.as_millis() / HOUR_MILLIS).unwrap_or(u32::MAX)
}

/// One request that was answered `now`.
pub fn request(environment: Tenant, route: Route, now: UnixMillis) -> Counter {
    Counter {
        tenant: environment,
        source: UsageResource::of(route).code(),
        field: hour(now),
        count: 1,
    }
}

/// The slots of this scope.
pub fn slots(scope: &Scope) -> Slots {
    Slots::new(scope.as_str()).limited_to(SLOTS)
}

/// Counting in one worker. `gateway` leads to the Redis of the snapshot, as the publisher takes the counts out there.
pub fn job(
    scope: &Scope,
    gateway: Gateway,
    prefix: &str,
    flush_interval: Duration,
    ambient: &dyn Ambient,
) -> UsageJob {
    let proposal = ambient.random_bytes();
    let slots = slots(scope);
    UsageJob::new(
        scope,
        slots,
        &KEYS,
        gateway,
        prefix,
        flush_interval,
        proposal,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_request_is_counted_by_hour_and_resource() {
        let at = |seconds: u64| UnixMillis::from_millis(seconds * 1_000);
        assert_eq!(
            [0, 3_599, 3_600].map(|seconds| hour(at(seconds))),
            [0, 0, 1]
        );
        assert_eq!(hour(UnixMillis::from_millis(u64::MAX)), u32::MAX);
        let counted = request(Tenant(5), Route::Document, at(7_200));
        assert_eq!((counted.source, counted.field, counted.count), (2, 2, 1));
    }

    #[test]
    fn codes_are_read_back() {
        for resource in UsageResource::ALL {
            assert_eq!(UsageResource::from_code(resource.code()), Some(resource));
        }
        assert_eq!(UsageResource::from_code(3), None);
    }
}
