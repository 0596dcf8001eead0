//! The commands sent to Redis. All of them are within the permissions of the Redis user `publisher`.

use std::time::{Duration, Instant};

use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::manifest::{self, Manifest};
use flag_definitions_filter::snapshot::page::Page;
use redis::{Connection, ErrorKind, FromRedisValue, RedisError, ToRedisArgs};
use serde_json::Value;

use super::error::{SnapshotStoreError, Standing};
use super::lock::{self, LockToken, Taken};
use super::server::Server;

/// For how long the pages of a replaced snapshot stay, in seconds: a filter may be loading them.
const OLD_PAGES_SECONDS: u32 = 600;

/// How old the lock may become before it is renewed.
const RENEW_LOCK_AFTER: Duration = Duration::from_secs(1);

/// How many generations back to look for pages that an interrupted publish left.
const LOOK_BACK: u64 = 1_000;

/// Most keys removed by one command, so that it does not hold Redis.
const KEYS_PER_COMMAND: usize = 1_000;

// EVAL, not EVALSHA: the publisher's Redis user may not load scripts.
const TAKE_LOCK: &str = include_str!("take_lock.lua");
const RENEW_LOCK: &str = concat!(include_str!("guard.lua"), include_str!("renew_lock.lua"));
const RELEASE_LOCK: &str = concat!(include_str!("guard.lua"), include_str!("release_lock.lua"));
const RESERVE: &str = concat!(include_str!("guard.lua"), include_str!("reserve.lua"));
const WRITE_PAGE: &str = concat!(include_str!("guard.lua"), include_str!("write_page.lua"));
pub(super) const REMOVE_KEYS: &str =
    concat!(include_str!("guard.lua"), include_str!("remove_keys.lua"));
const EXPIRE_PAGES: &str = concat!(include_str!("guard.lua"), include_str!("expire_pages.lua"));
const REPLACE_MANIFEST: &str = concat!(
    include_str!("guard.lua"),
    include_str!("replace_manifest.lua")
);

/// The place in the order of snapshots that the current manifest takes, as far as it can be read. Lenient:
/// one of another format must not be rolled back either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPlace {
    /// Its generation, or 0.
    pub generation: u64,
    /// Its stream id, or 0-0.
    pub stream_id: StreamId,
}

impl SnapshotPlace {
    /// Reads what it can.
    pub fn read(manifest: &[u8]) -> Self {
        let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
        let stream_id = manifest.get("stream_id").and_then(Value::as_str);
        Self {
            generation: manifest
                .get("generation")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
            stream_id: stream_id.and_then(|id| id.parse().ok()).unwrap_or_default(),
        }
    }
}

/// A generation that no other publish has, and the time of Redis when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The generation.
    pub generation: u64,
    /// Unix milliseconds.
    pub millis: u64,
}

/// The keys of one prefix in one Redis, as the holder of a token may write them.
pub struct SnapshotStore<'a> {
    server: &'a Server,
    prefix: &'a str,
    token: LockToken,
    renewed: Instant,
    connection: Connection,
}

impl<'a> SnapshotStore<'a> {
    /// Connects.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses the login.
    pub fn connect(
        server: &'a Server,
        prefix: &'a str,
        token: &LockToken,
    ) -> Result<Self, SnapshotStoreError> {
        Ok(Self {
            connection: server.connect()?,
            server,
            prefix,
            token: token.clone(),
            renewed: Instant::now(),
        })
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &'a str {
        self.prefix
    }

    /// Takes the lock, with a fencing number higher than `floor`, unless another publisher holds it.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn take_lock(&mut self, floor: u64) -> Result<Taken, SnapshotStoreError> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(TAKE_LOCK).arg(2);
        eval.arg(lock::key(self.prefix))
            .arg(lock::fence_key(self.prefix));
        eval.arg(self.token.as_str()).arg(millis(lock::TTL));
        eval.arg(floor);
        self.renewed = Instant::now();
        let reply: Vec<String> = self.send(&eval, "taking the lock")?;
        let fence = reply.get(1).and_then(|fence| fence.parse().ok());
        Ok(fence.map_or(Taken::Held, Taken::Fence))
    }

    /// Renews the lock if that is due. Every write does so too.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn keep_lock(&mut self) -> Result<(), SnapshotStoreError> {
        if self.renewed.elapsed() >= RENEW_LOCK_AFTER {
            let ttl = millis(lock::TTL).to_string();
            let eval = self.script(RENEW_LOCK, &[], &[ttl.as_bytes()]);
            let reply: Vec<String> = self.send(&eval, "renewing the lock")?;
            if reply.first().is_some_and(|outcome| outcome == "lost") {
                return Err(SnapshotStoreError::LockLost);
            }
            self.renewed = Instant::now();
        }
        Ok(())
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn release_lock(&mut self) -> Result<(), SnapshotStoreError> {
        self.write(RELEASE_LOCK, &[], &[], "releasing the lock")?;
        Ok(())
    }

    /// Reads the place in the order of snapshots that the manifest takes, with the newest change if that is
    /// later; `None` when there is no manifest.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn current(&mut self) -> Result<Option<SnapshotPlace>, SnapshotStoreError> {
        let mut get = redis::cmd("GET");
        get.arg(manifest::key(self.prefix));
        let manifest: Option<Vec<u8>> = self.send(&get, "reading the current manifest")?;
        let newest = self.newest_change()?;
        let current = manifest.as_deref().map(SnapshotPlace::read);
        Ok(match (current, newest) {
            (None, None) => None,
            (current, newest) => {
                let current = current.unwrap_or_default();
                Some(SnapshotPlace {
                    stream_id: current.stream_id.max(newest.unwrap_or_default()),
                    ..current
                })
            }
        })
    }

    /// The id of the newest change.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn newest_change(&mut self) -> Result<Option<StreamId>, SnapshotStoreError> {
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(manifest::changes_key(self.prefix));
        newest.arg("+").arg("-").arg("COUNT").arg(1);
        let entries: Vec<(String, redis::Value)> =
            self.send(&newest, "reading the newest change")?;
        Ok(entries.first().and_then(|(id, _)| id.parse().ok()))
    }

    /// Takes a generation higher than `floor`.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn reserve(&mut self, floor: u64) -> Result<Reservation, SnapshotStoreError> {
        const DOING: &str = "taking the next generation";
        let counter = format!("{}generation", self.prefix);
        let floor = floor.to_string();
        let reply = self.write(RESERVE, &[&counter], &[floor.as_bytes()], DOING)?;
        let mut numbers = reply.iter().map(|text| text.parse::<u64>().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        Ok(Reservation {
            generation: number(),
            millis: number()
                .saturating_mul(1_000)
                .saturating_add(number() / 1_000),
        })
    }

    /// Writes one page.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn write_page(
        &mut self,
        generation: u64,
        index: usize,
        page: &Page,
    ) -> Result<(), SnapshotStoreError> {
        let key = manifest::page_key(self.prefix, generation, index);
        self.write(WRITE_PAGE, &[&key], &[&page.bytes], "writing a page")?;
        Ok(())
    }

    /// Makes a snapshot the current one. `fresh`: it begins a lineage, so earlier changes are removed in the same
    /// step. Returns what went wrong with the expiry of the old pages, if anything did.
    ///
    /// # Errors
    /// When Redis fails, holds a newer manifest, or has lost a page of this one; and when another publisher holds
    /// the lock.
    pub fn replace_manifest(
        &mut self,
        new: &Manifest,
        json: &[u8],
        fresh: bool,
    ) -> Result<Option<String>, SnapshotStoreError> {
        let generation = new.generation;
        let eval = self.script(
            REPLACE_MANIFEST,
            &[
                &manifest::key(self.prefix),
                &manifest::changes_key(self.prefix),
            ],
            &[
                json,
                generation.to_string().as_bytes(),
                new.stream_id.to_string().as_bytes(),
                new.pages.len().to_string().as_bytes(),
                OLD_PAGES_SECONDS.to_string().as_bytes(),
                if fresh { b"1" } else { b"0" },
            ],
        );
        let reply: Vec<String> = eval.query(&mut self.connection).map_err(|error| {
            let problem = self.server.command_problem(&error);
            if is_reply(&error) {
                let doing = "writing the manifest";
                SnapshotStoreError::Command { doing, problem }
            } else {
                SnapshotStoreError::Uncertain {
                    generation,
                    problem,
                }
            }
        })?;
        let mut reply = reply.into_iter();
        let outcome = reply.next().unwrap_or_default();
        let mut text = || reply.next().unwrap_or_default();
        match outcome.as_str() {
            "published" => Ok(Some(text()).filter(|problem| !problem.is_empty())),
            "lost" => Err(SnapshotStoreError::LockLost),
            "torn" => Err(SnapshotStoreError::PageLost { generation }),
            _ => Err(SnapshotStoreError::Overtaken {
                generation,
                current: Standing {
                    generation: text(),
                    stream_id: text(),
                },
            }),
        }
    }

    /// Lets the pages expire that publishes between two generations left when they were interrupted; and those of
    /// the replaced generation, which nobody names when its manifest was lost.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn expire_leftovers(
        &mut self,
        published: u64,
        replaced: u64,
    ) -> Result<(), SnapshotStoreError> {
        let oldest = published.saturating_sub(LOOK_BACK).max(replaced);
        for generation in oldest..published {
            self.expire_pages(generation)?;
        }
        Ok(())
    }

    fn expire_pages(&mut self, generation: u64) -> Result<(), SnapshotStoreError> {
        let pages = format!("{}:{generation}:", manifest::key(self.prefix));
        let seconds = OLD_PAGES_SECONDS.to_string();
        let at_once = KEYS_PER_COMMAND.to_string();
        for first in (0..).step_by(KEYS_PER_COMMAND) {
            let first: u64 = first;
            let first = first.to_string();
            let arguments = [first.as_bytes(), seconds.as_bytes(), at_once.as_bytes()];
            let doing = "looking for pages of interrupted publishes";
            let reply = self.write(EXPIRE_PAGES, &[&pages], &arguments, doing)?;
            if reply.first().is_none_or(|outcome| outcome != "more") {
                break;
            }
        }
        Ok(())
    }

    /// Removes the pages of a generation that is not going to be published. On a new connection, because the
    /// old one may be what failed.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn remove_pages(
        &mut self,
        generation: u64,
        pages: usize,
    ) -> Result<(), SnapshotStoreError> {
        self.connection = self.server.connect()?;
        let keys: Vec<String> = (0..pages)
            .map(|page| manifest::page_key(self.prefix, generation, page))
            .collect();
        for keys in keys.chunks(KEYS_PER_COMMAND) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            self.write(REMOVE_KEYS, &keys, &[], "removing the pages again")?;
        }
        Ok(())
    }

    /// Runs a script that begins with `guard.lua`. `keys` and `arguments` follow those of the guard.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub(crate) fn write(
        &mut self,
        script: &str,
        keys: &[&str],
        arguments: &[&[u8]],
        doing: &'static str,
    ) -> Result<Vec<String>, SnapshotStoreError> {
        self.keep_lock()?;
        let eval = self.script(script, keys, arguments);
        let reply: Vec<String> = self.send(&eval, doing)?;
        match reply.first().map(String::as_str) {
            Some("lost") => Err(SnapshotStoreError::LockLost),
            _ => Ok(reply),
        }
    }

    fn script(&self, script: &str, keys: &[&str], arguments: &[&[u8]]) -> redis::Cmd {
        let mut eval = redis::cmd("EVAL");
        eval.arg(script).arg(keys.len() + 1);
        eval.arg(lock::key(self.prefix)).arg(keys);
        eval.arg(self.token.as_str()).arg(arguments);
        eval
    }

    /// Sends a command that only reads.
    ///
    /// # Errors
    /// When Redis fails.
    pub(crate) fn read<T: FromRedisValue>(
        &mut self,
        name: &str,
        arguments: impl ToRedisArgs,
        doing: &'static str,
    ) -> Result<T, SnapshotStoreError> {
        let mut command = redis::cmd(name);
        command.arg(arguments);
        self.send(&command, doing)
    }

    /// Sends several commands that only read, and waits once.
    ///
    /// # Errors
    /// When Redis fails.
    pub(super) fn send_together<T: FromRedisValue>(
        &mut self,
        commands: &redis::Pipeline,
        doing: &'static str,
    ) -> Result<T, SnapshotStoreError> {
        commands
            .query(&mut self.connection)
            .map_err(|error| self.failed(&error, doing))
    }

    fn send<T: FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
        doing: &'static str,
    ) -> Result<T, SnapshotStoreError> {
        command
            .query(&mut self.connection)
            .map_err(|error| self.failed(&error, doing))
    }

    fn failed(&self, error: &RedisError, doing: &'static str) -> SnapshotStoreError {
        let problem = self.server.command_problem(error);
        SnapshotStoreError::Command { doing, problem }
    }

    /// The time, in Unix milliseconds.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn now(&mut self) -> Result<u64, SnapshotStoreError> {
        let time: (u64, u64) = self.read("TIME", &[""; 0], "reading the clock")?;
        let (seconds, micros) = time;
        Ok(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether Redis itself said no. Otherwise nobody knows whether it carried the command out.
fn is_reply(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_another_format_still_has_its_place_in_the_order() {
        let current =
            SnapshotPlace::read(br#"{"format":9,"generation":4,"stream_id":"5-6","x":[]}"#);
        assert_eq!(current.generation, 4);
        assert_eq!(current.stream_id.to_string(), "5-6");
        for unreadable in ["", "null", "[1]", r#"{"generation":"4"}"#, "\u{1}"] {
            assert_eq!(
                SnapshotPlace::read(unreadable.as_bytes()),
                SnapshotPlace::default()
            );
        }
    }
}
