//! The commands sent to Redis. All of them are within the permissions of the Redis user `publisher`.

use flag_definitions_filter::snapshot::StreamId;
use flag_definitions_filter::snapshot::manifest::{self, Manifest};
use flag_definitions_filter::snapshot::page::Page;
use redis::{Connection, ErrorKind, FromRedisValue, RedisError};
use serde_json::Value;

use crate::error::{Error, Standing};
use crate::server::Server;

/// For how long the pages of a replaced snapshot stay, in seconds: a filter may be loading them.
const OLD_PAGES_SECONDS: u32 = 600;

/// How many generations back to look for pages that an interrupted publish left.
const LOOK_BACK: u64 = 1_000;

/// Most keys removed by one command, so that it does not hold Redis.
const KEYS_PER_COMMAND: usize = 1_000;

// EVAL, not EVALSHA: the publisher's Redis user may not load scripts.
const RESERVE: &str = include_str!("reserve.lua");
const REPLACE_MANIFEST: &str = include_str!("replace_manifest.lua");

/// The place in the order of snapshots that the current manifest takes, as far as it can be read. Lenient:
/// one of another format must not be rolled back either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Its generation, or 0.
    pub generation: u64,
    /// Its stream id, or 0-0.
    pub stream_id: StreamId,
}

impl Current {
    fn read(manifest: &[u8]) -> Self {
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

/// The keys of one prefix in one Redis.
pub struct Store<'a> {
    server: &'a Server,
    prefix: &'a str,
    connection: Connection,
}

impl<'a> Store<'a> {
    /// Connects.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses the login.
    pub fn connect(server: &'a Server, prefix: &'a str) -> Result<Self, Error> {
        Ok(Self {
            connection: server.connect()?,
            server,
            prefix,
        })
    }

    /// Reads the manifest's place in the order of snapshots; `None` when there is no manifest.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn current(&mut self) -> Result<Option<Current>, Error> {
        let mut get = redis::cmd("GET");
        get.arg(manifest::key(self.prefix));
        let manifest: Option<Vec<u8>> = self.send(&get, "reading the current manifest")?;
        Ok(manifest.as_deref().map(Current::read))
    }

    /// Takes a generation higher than `floor`.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn reserve(&mut self, floor: u64) -> Result<Reservation, Error> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(RESERVE).arg(1);
        eval.arg(format!("{}generation", self.prefix)).arg(floor);
        let (generation, seconds, micros): (u64, u64, u64) =
            self.send(&eval, "taking the next generation")?;
        Ok(Reservation {
            generation,
            millis: seconds.saturating_mul(1_000).saturating_add(micros / 1_000),
        })
    }

    /// Writes one page.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn write_page(&mut self, generation: u64, index: usize, page: &Page) -> Result<(), Error> {
        let mut set = redis::cmd("SET");
        set.arg(manifest::page_key(self.prefix, generation, index));
        set.arg(page.bytes.as_slice());
        self.send(&set, "writing a page")
    }

    /// Makes a snapshot the current one. Returns what went wrong with the expiry of the old pages, if
    /// anything did.
    ///
    /// # Errors
    /// When Redis fails, or holds a newer manifest.
    pub fn replace_manifest(
        &mut self,
        new: &Manifest,
        json: &[u8],
    ) -> Result<Option<String>, Error> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(REPLACE_MANIFEST).arg(1);
        eval.arg(manifest::key(self.prefix)).arg(json);
        eval.arg(new.generation).arg(new.stream_id.to_string());
        eval.arg(OLD_PAGES_SECONDS);
        let reply: Vec<String> = eval.query(&mut self.connection).map_err(|error| {
            let problem = self.server.command_problem(&error);
            if is_reply(&error) {
                let doing = "writing the manifest";
                Error::Redis { doing, problem }
            } else {
                let generation = new.generation;
                Error::Uncertain {
                    generation,
                    problem,
                }
            }
        })?;
        let mut reply = reply.into_iter();
        let outcome = reply.next().unwrap_or_default();
        let mut text = || reply.next().unwrap_or_default();
        if outcome == "published" {
            return Ok(Some(text()).filter(|problem| !problem.is_empty()));
        }
        Err(Error::Overtaken {
            generation: new.generation,
            current: Standing {
                generation: text(),
                stream_id: text(),
            },
        })
    }

    /// Lets the pages expire that publishes between two generations left when they were interrupted.
    /// Pages are written in order, so the first that is absent is the end.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn expire_leftovers(&mut self, published: u64, replaced: u64) -> Result<(), Error> {
        let oldest = published
            .saturating_sub(LOOK_BACK)
            .max(replaced.saturating_add(1));
        for generation in oldest..published {
            for page in 0.. {
                let mut expire = redis::cmd("EXPIRE");
                expire.arg(manifest::page_key(self.prefix, generation, page));
                expire.arg(OLD_PAGES_SECONDS);
                if !self.send::<bool>(&expire, "looking for pages of interrupted publishes")? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes the pages of a generation that is not going to be published. On a new connection, because the
    /// old one may be what failed.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn remove_pages(&mut self, generation: u64, pages: usize) -> Result<(), Error> {
        self.connection = self.server.connect()?;
        let keys: Vec<String> = (0..pages)
            .map(|page| manifest::page_key(self.prefix, generation, page))
            .collect();
        for keys in keys.chunks(KEYS_PER_COMMAND) {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(keys);
            self.send::<u64>(&unlink, "removing the pages again")?;
        }
        Ok(())
    }

    /// What the keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        self.prefix
    }

    /// Sends any command; `doing` begins the error's text.
    pub(crate) fn send<T: FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
        doing: &'static str,
    ) -> Result<T, Error> {
        command
            .query(&mut self.connection)
            .map_err(|error| Error::Redis {
                doing,
                problem: self.server.command_problem(&error),
            })
    }
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
        let current = Current::read(br#"{"format":9,"generation":4,"stream_id":"5-6","x":[]}"#);
        assert_eq!(current.generation, 4);
        assert_eq!(current.stream_id.to_string(), "5-6");
        for unreadable in ["", "null", "[1]", r#"{"generation":"4"}"#, "\u{1}"] {
            assert_eq!(Current::read(unreadable.as_bytes()), Current::default());
        }
    }
}
