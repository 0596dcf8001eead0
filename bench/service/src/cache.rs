//! PostHog's cache of definitions: values that Django pickled, the longer ones compressed with zstd.

use redis::aio::ConnectionManager;
use redis::{AsyncCommands, RedisError};
use zstd::zstd_safe::get_frame_content_size;

use crate::teams::Tenant;

/// Largest payload, bytes. A declared size is believed up to here.
const MAX_BYTES: u64 = 32_000_000;

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// First byte of a pickle.
const PICKLE: u8 = 0x80;

fn payload_key(team: Tenant) -> String {
    format!("posthog:1:cache/teams/{team}/feature_flags/flags_with_cohorts.json")
}

fn etag_key(team: Tenant) -> String {
    payload_key(team) + ":etag"
}

/// The team's current ETag.
pub async fn etag(redis: &ConnectionManager, team: Tenant) -> Result<Option<String>, RedisError> {
    let stored: Option<Vec<u8>> = redis.clone().get(etag_key(team)).await?;
    Ok(stored.and_then(decoded))
}

/// The team's payload and its ETag, read at one moment. `None` when either is missing or cannot be read.
pub async fn payload(
    redis: &ConnectionManager,
    team: Tenant,
) -> Result<Option<(String, String)>, RedisError> {
    let keys = [payload_key(team), etag_key(team)];
    let (payload, etag): (Option<Vec<u8>>, Option<Vec<u8>>) = redis.clone().mget(&keys).await?;
    Ok(payload.and_then(decoded).zip(etag.and_then(decoded)))
}

/// The text in a value. `None` when it is none of Django's.
pub fn decoded(stored: Vec<u8>) -> Option<String> {
    if !stored.starts_with(&ZSTD) {
        return unpickled(stored);
    }
    let size = get_frame_content_size(&stored).ok()??;
    let size = usize::try_from(size.min(MAX_BYTES)).ok()?;
    unpickled(zstd::bulk::decompress(&stored, size).ok()?)
}

fn unpickled(stored: Vec<u8>) -> Option<String> {
    match stored.first() {
        Some(&PICKLE) => serde_pickle::from_slice(&stored, Default::default()).ok(),
        _ => String::from_utf8(stored).ok(),
    }
}
