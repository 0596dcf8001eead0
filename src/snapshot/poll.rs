//! The question that is asked once per `poll_interval`: is the manifest still the same, and what changed?
//!
//! One script for both, so that a quiet second costs an Envoy process one small callout. It answers strings:
//! `poll`, seconds and microseconds of Redis' clock, the manifest's SHA-1 (empty when there is none), the manifest
//! (empty when it is the one that is known already), the newest id of the stream, and then for each change its id
//! and the values of its four fields ([`super::change`]).

use super::change::Change;
use super::manifest;
use crate::records::{CorruptRecord, StreamId};
use crate::redis::{Command, Reply, Script};

/// Most changes of one reply: 64 of at most 16 KiB, but for a single large record.
pub const MAX_CHANGES: usize = 64;

static SCRIPT: Script = Script::new(include_str!("poll.lua"));

/// Asks. `known` is the digest of the manifest that is known already. Changes are read after `position`; without
/// one they are not looked at.
pub fn command(prefix: &str, known: &str, position: Option<StreamId>) -> Command {
    let position = position.map(|id| id.to_string()).unwrap_or_default();
    Command::eval_ro(
        &SCRIPT,
        [manifest::key(prefix), manifest::changes_key(prefix)],
        [known, &position, &MAX_CHANGES.to_string()],
    )
}

/// What Redis answered.
#[derive(Debug)]
pub struct Poll<'a> {
    /// Redis' clock, in Unix milliseconds.
    pub redis_now: u64,
    /// SHA-1 of the manifest in hexadecimal digits, as Redis computed it: its identity. `None`: there is none.
    pub digest: Option<&'a str>,
    /// The manifest, when it is not the known one.
    pub manifest: Option<&'a [u8]>,
    /// The newest id of the stream; `None` when it is empty or was not looked at.
    pub newest: Option<StreamId>,
    /// The next changes. The first that cannot be read ends them.
    pub changes: Vec<Result<Change, CorruptRecord>>,
}

impl<'a> Poll<'a> {
    /// Reads the script's reply; `None` when it is something else.
    pub fn of(reply: &'a Reply<'_>) -> Option<Self> {
        let strings = reply.strings()?;
        let (head, changes) = strings.split_at_checked(6)?;
        let [b"poll", seconds, micros, digest, manifest, newest] = *head else {
            return None;
        };
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
        let filled = |text: &'a [u8]| (!text.is_empty()).then_some(text);
        let newest = match filled(newest) {
            None => None,
            Some(id) => Some(std::str::from_utf8(id).ok()?.parse().ok()?),
        };
        let mut read = Vec::new();
        for entry in changes.chunks(5) {
            let change = match *entry {
                [id, previous, fence, kind, value] => {
                    Change::parse(id, previous, fence, kind, value)
                }
                _ => Err(CorruptRecord),
            };
            let stop = change.is_err();
            read.push(change);
            if stop {
                break;
            }
        }
        Some(Self {
            redis_now: number(seconds)?
                .checked_mul(1_000)?
                .checked_add(number(micros)? / 1_000)?,
            digest: filled(digest).map(std::str::from_utf8).transpose().ok()?,
            manifest: filled(manifest),
            newest,
            changes: read,
        })
    }
}
