//! Counts of requests that filters left in Redis, and the batch of them that is being reported.
//!
//! The batch, who has which number, and how many batches there were, are keys that filters cannot write:
//! `<prefix>reported:<name>:batch`, `…:tenants` and `…:numbers`.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_filter::usage::batch::{FIELD_HASH_SECONDS, field_prefix};

use super::error::SnapshotStoreError;
use super::store::SnapshotStore;

const NAME_REPORTED: &str = concat!(
    include_str!("guard.lua"),
    include_str!("name_reported.lua"),
    include_str!("refuse.lua")
);
const TAKE_USAGE: &str = concat!(
    include_str!("guard.lua"),
    include_str!("take_usage.lua"),
    include_str!("refuse.lua")
);
const END_USAGE: &str = concat!(
    include_str!("guard.lua"),
    include_str!("end_usage.lua"),
    include_str!("refuse.lua")
);

/// For how many whole hours after the one in which they were counted requests are reported.
pub const REPORTED_HOURS: u32 = 24;

/// For how many hours counts may be in Redis.
const KEPT_HOURS: u32 = FIELD_HASH_SECONDS / 3_600;

/// Most tenants that are named by one command, so that it does not hold Redis.
const NAMED_AT_ONCE: usize = 1_000;

/// What Redis did. `Err`: it refused, and why.
pub type Allowed<T> = Result<T, String>;

/// What was taken out of the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenUsage {
    /// Requests that were dropped because they are too old.
    pub old: u64,
    /// Requests that were dropped because nobody is known by their number.
    pub unknown: u64,
    /// The text of the batch that is to be sent; empty: there is nothing to send.
    pub batch: String,
    /// Whether Redis lost who has which number: nothing was taken then.
    pub is_unnamed: bool,
}

fn batch_key(prefix: &str, name: &str) -> String {
    format!("{prefix}reported:{name}:batch")
}

fn tenants_key(prefix: &str, name: &str) -> String {
    format!("{prefix}reported:{name}:tenants")
}

fn numbers_key(prefix: &str, name: &str) -> String {
    format!("{prefix}reported:{name}:numbers")
}

impl SnapshotStore<'_> {
    /// Says whose requests are counted under which number in this hour and later. `name` is that of the hashes.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn name_reported<'t>(
        &mut self,
        name: &str,
        hour: u32,
        tenants: impl Iterator<Item = (&'t Tenant, &'t Sha256Hash)>,
    ) -> Result<Allowed<()>, SnapshotStoreError> {
        let key = tenants_key(self.prefix(), name);
        let settings = [hour, REPORTED_HOURS, FIELD_HASH_SECONDS].map(|number| number.to_string());
        let words: Vec<String> = tenants
            .flat_map(|(tenant, hash)| [tenant.to_string(), hash.to_hex()])
            .collect();
        // The last one forgets.
        for some in words.chunks(2 * NAMED_AT_ONCE).chain([&[][..]]) {
            let arguments: Vec<&[u8]> = settings.iter().chain(some).map(String::as_bytes).collect();
            let doing = "naming who is reported";
            if let Err(problem) = self.attempt(NAME_REPORTED, &[&key], &arguments, doing)? {
                return Ok(Err(problem));
            }
        }
        Ok(Ok(()))
    }

    /// Takes the batch that is to be sent. `name` is that of the hashes, `hour` the present one.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn take_usage(
        &mut self,
        name: &str,
        hour: u32,
        max_rows: usize,
    ) -> Result<Allowed<TakenUsage>, SnapshotStoreError> {
        let prefix = self.prefix();
        let keys = [
            batch_key(prefix, name),
            tenants_key(prefix, name),
            numbers_key(prefix, name),
            field_prefix(prefix, name),
        ];
        // Clocks of filters may be ahead.
        let [first, last] = [hour.saturating_sub(KEPT_HOURS), hour.saturating_add(1)];
        let oldest = hour.saturating_sub(REPORTED_HOURS);
        let mut arguments: Vec<_> = [first, last, oldest].map(|hour| hour.to_string()).into();
        arguments.extend([max_rows.to_string(), FIELD_HASH_SECONDS.to_string()]);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        let reply = self.attempt(TAKE_USAGE, &keys, &arguments, "taking counts of usage")?;
        Ok(reply.map(|reply| {
            let is_unnamed = reply.first().is_some_and(|outcome| outcome == "unnamed");
            let mut reply = reply.into_iter().skip(1);
            let mut number = || reply.next().and_then(|text| text.parse().ok()).unwrap_or(0);
            let [old, unknown] = [number(), number()];
            TakenUsage {
                old,
                unknown,
                batch: reply.next().unwrap_or_default(),
                is_unnamed,
            }
        }))
    }

    /// Forgets the batch with this id: whether it was still there.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn end_usage(&mut self, name: &str, id: &str) -> Result<Allowed<bool>, SnapshotStoreError> {
        let key = batch_key(self.prefix(), name);
        let doing = "removing a batch of usage";
        let reply = self.attempt(END_USAGE, &[&key], &[id.as_bytes()], doing)?;
        Ok(reply.map(|reply| reply.first().is_some_and(|outcome| outcome == "ended")))
    }

    /// Runs a script that ends with `refuse.lua`.
    fn attempt(
        &mut self,
        script: &str,
        keys: &[&str],
        arguments: &[&[u8]],
        doing: &'static str,
    ) -> Result<Allowed<Vec<String>>, SnapshotStoreError> {
        let reply = match self.write(script, keys, arguments, doing) {
            // The keys themselves are refused before a script runs.
            Err(SnapshotStoreError::Command { problem, .. }) if problem.is_denied() => {
                return Ok(Err(problem.to_string()));
            }
            reply => reply?,
        };
        Ok(match reply.as_slice() {
            [outcome, problem] if outcome == "refused" => Err(problem.clone()),
            _ => Ok(reply),
        })
    }
}
