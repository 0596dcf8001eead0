//! What PostHog bills, and what its usage report reads: each billed 200 is added to a hash of its team and to one of its
//! team and SDK, in a field of two minutes. [`crate::usage`] brings the counts to Redis.
//!
//! The names of hashes and fields are those of PostHog's public source, as noted at each item. Whether an answer is billed
//! is known from its payload ([`super::definitions::flags::is_billable`]).

mod client;

pub use client::Client;

use crate::tenant::Tenant;
use crate::time::UnixMillis;
use crate::usage::{Counter, UsageKeys};

/// Seconds in one field of a usage hash (PostHog's `CACHE_BUCKET_SIZE`).
const BUCKET_SECONDS: u64 = 120;

/// Field of a usage hash: whole two-minute steps since 1970. It is fixed when the request is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageBucket(pub u32);

impl UsageBucket {
    /// The field that a moment falls into.
    pub fn of(now: UnixMillis) -> Self {
        let steps = now.as_millis() / 1_000 / BUCKET_SECONDS;
        Self(u32::try_from(steps).unwrap_or(u32::MAX))
    }
}

/// One billed request, answered `now`.
pub fn request(team: Tenant, client: Client, now: UnixMillis) -> Counter {
    Counter {
        tenant: team,
        source: client.code(),
        field: UsageBucket::of(now).0,
        count: 1,
    }
}

/// PostHog's names of its usage hashes; a source is the code of a [`Client`].
pub static KEYS: UsageKeys = UsageKeys::ByTenant {
    tenant: team_key,
    source: client_key,
    bytes: key_bytes,
};

/// PostHog's hash of all billed requests of a team. No Django prefix: the service writes it raw.
fn team_key(team: Tenant) -> String {
    format!("posthog:local_evaluation_requests:{team}")
}

/// PostHog's hash of a team's billed requests by one SDK.
fn client_key(team: Tenant, code: u8) -> String {
    let client = Client::from_code(code).label();
    format!("posthog:local_evaluation_requests:sdk:{team}:{client}")
}

/// The longest team has 10 digits.
fn key_bytes(code: u8) -> usize {
    let team = 34 + 10;
    let client = 38 + 10 + 1 + Client::from_code(code).label().len();
    team + client
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::batch::{Cargo, MAX_KEY_BYTES, sequences_key};
    use crate::usage::ledger::Batch;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_field_is_two_minutes_of_unix_time() {
        let field = |seconds: u64| UsageBucket::of(UnixMillis::from_millis(seconds * 1_000)).0;
        assert_eq!(field(0), 0);
        assert_eq!(field(119), 0);
        assert_eq!(field(120), 1);
        assert_eq!(field(1_700_000_000), 14_166_666);
        assert_eq!(
            UsageBucket::of(UnixMillis::from_millis(u64::MAX)).0,
            u32::MAX
        );
    }

    #[test]
    fn a_command_names_each_of_posthogs_hashes_once() {
        let at = |minutes: u64| UnixMillis::from_millis(minutes * 60_000);
        let batch = |slot: u16, sequence: u64, counters: Vec<Counter>| Batch {
            slot,
            sequence,
            counters,
        };
        let five = [14, 16].map(|minutes| Counter {
            count: 3,
            ..request(Tenant(5), Client::Go, at(minutes))
        });
        let six = request(Tenant(6), Client::Other, at(15));
        let mut cargo = Cargo::default();
        assert!(cargo.load(&KEYS, "", &batch(5, 12, five.to_vec())));
        assert!(cargo.load(&KEYS, "", &batch(6, 1, vec![six])));
        let command = cargo.command(&sequences_key("flag_definitions:", "ab"));
        let words: Vec<_> = command.words().into_iter().skip(2).collect();
        assert_eq!(
            String::from_utf8(words.join(&b' ')).unwrap(),
            "5 flag_definitions:usage:ab posthog:local_evaluation_requests:5 \
             posthog:local_evaluation_requests:sdk:5:posthog-go posthog:local_evaluation_requests:6 \
             posthog:local_evaluation_requests:sdk:6:other 5 12 2 2 3 7 3 2 3 8 3 6 1 1 4 5 7 1"
        );
    }

    #[test]
    fn keys_are_as_long_as_said() {
        for client in Client::ALL {
            let (team, code) = (Tenant(u32::MAX), client.code());
            let bytes = team_key(team).len() + client_key(team, code).len();
            assert_eq!(key_bytes(code), bytes, "{client:?}");
            assert!(bytes <= MAX_KEY_BYTES, "{client:?}");
        }
    }
}
