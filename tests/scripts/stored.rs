//! What is stored of one team, and what the scripts say of it.

use std::time::Duration;

use flag_definitions_filter::http::{Candidate, ETag};
use flag_definitions_filter::redis::Reply;
use flag_definitions_filter::surfaces::posthog::definitions::Need;
use flag_definitions_filter::surfaces::posthog::definitions::latch::{self, Limit, latched};
use flag_definitions_filter::surfaces::posthog::definitions::pair::{
    Stored, etag_key, payload_key,
};
use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;
use flag_definitions_filter::surfaces::posthog::quota::QuotaEnd;
use flag_definitions_filter::tenant::Tenant;

use crate::real_redis::Redis;

pub const PREFIX: &str = "flag_definitions:";
pub const TEAM: Tenant = Tenant(7);
pub const X: &str = "ccbb299897f0a689";
pub const Y: &str = "f3268f0150b30bf3";

impl Redis {
    pub fn put_payload(&mut self, etag: &[u8]) {
        self.set(&payload_key(&Definitions::default(), TEAM), b"{}");
        self.set(&etag_key(&Definitions::default(), TEAM), etag);
    }

    pub fn pair(&mut self, held: Option<Candidate>) -> Pair {
        let need = Need { team: TEAM, held };
        let command = need.command(&Definitions::default(), PREFIX);
        let parts = self.send(&command).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match Stored::of(&Ok(Reply::array(parts.iter().map(Vec::as_slice)))) {
            Stored::Same { etag, .. } => Pair::Same(text(etag.as_bytes())),
            Stored::Full { etag, period, .. } => Pair::Full(
                etag.and_then(|etag| latched(&etag, period.suffix()))
                    .map(|etag| text(etag.as_bytes())),
                period.suffix().map(|suffix| text(suffix.as_bytes())),
            ),
            other => panic!("{other:?}"),
        }
    }

    /// The end of the quota period, if it lies ahead.
    pub fn pending(&mut self, held: Option<Candidate>) -> Option<u64> {
        let need = Need { team: TEAM, held };
        let command = need.command(&Definitions::default(), PREFIX);
        let parts = self.send(&command).unwrap();
        let end = match Stored::of(&Ok(Reply::array(parts.iter().map(Vec::as_slice)))) {
            Stored::Same { pending, .. } => pending,
            Stored::Full { period, .. } | Stored::Missing { period } => period.pending(),
            Stored::Failed(failure) => panic!("{failure}"),
        };
        end.map(QuotaEnd::as_millis)
    }

    /// The ETag that a client without any is given.
    pub fn public(&mut self) -> String {
        match self.pair(None) {
            Pair::Full(Some(etag), _) => etag,
            other => panic!("{other:?}"),
        }
    }

    pub fn latch(&mut self, grace: u64, end: u64, gone: bool) {
        let limit = Limit {
            team: TEAM,
            end: QuotaEnd::from_millis(end),
            gone,
        };
        let grace = Duration::from_millis(grace);
        let command = latch::command(&Definitions::default(), PREFIX, grace, &[limit]);
        let reply = self.send(&command).unwrap();
        assert_eq!(reply[0], b"latch");
    }

    /// End and ETag of the latch.
    pub fn latched(&mut self) -> Option<(u64, String)> {
        let latch = self.get(&latch::key(PREFIX, TEAM))?;
        let mut parts = latch.split(':');
        let end = parts.next().unwrap().parse().unwrap();
        Some((end, parts.nth(1).unwrap().to_owned()))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Pair {
    /// The public ETag.
    Same(String),
    /// The public ETag, and the suffix.
    Full(Option<String>, Option<String>),
}

pub fn held(tag: &str) -> Option<Candidate> {
    Some(Candidate::Tag(ETag::new(tag.as_bytes()).unwrap()))
}

pub fn base36(mut seconds: u64) -> String {
    let mut digits = Vec::new();
    while seconds > 0 {
        digits.push(char::from_digit((seconds % 36) as u32, 36).unwrap());
        seconds /= 36;
    }
    digits.iter().rev().collect()
}

pub fn with_end(etag: &str, end: u64) -> String {
    format!("{etag}-{}", base36(end / 1_000))
}

/// What Python's pickle makes of a string.
pub fn pickled(protocol: u8, text: &str) -> Vec<u8> {
    let length = text.len() as u8;
    let mut bytes = vec![0x80, protocol];
    if protocol >= 4 {
        bytes.extend([0x95, length + 4, 0, 0, 0, 0, 0, 0, 0, 0x8c, length]);
    } else {
        bytes.extend([0x58, length, 0, 0, 0]);
    }
    bytes.extend(text.as_bytes());
    bytes.extend(if protocol >= 4 {
        &b"\x94."[..]
    } else {
        b"q\x00."
    });
    bytes
}

/// Makes a key one of another type than string.
pub fn put_list(redis: &mut Redis, key: &str) {
    redis::cmd("DEL")
        .arg(key)
        .exec(&mut redis.connection)
        .unwrap();
    redis::cmd("RPUSH")
        .arg(key)
        .arg("x")
        .exec(&mut redis.connection)
        .unwrap();
}
