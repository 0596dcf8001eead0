//! Looks at the ETags of all teams, again and again. Tells the writer what differs, and that all were looked at.
//!
//! One thread does all reading, hints included: two could tell an older ETag after a newer one.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::posthog::definitions::{latch, pair};
use flag_definitions_filter::tenant::Tenant;
use redis::{Connection, FromRedisValue, RedisError};

use super::{Places, stored};
use crate::redis::server::Server;
use crate::sources::{ETagNews, Order, Swept, Tell, WriterGone};

/// Teams per command. Redis serves nobody else meanwhile: about half a millisecond.
const BATCH: usize = 1_000;

/// After this long the connections are made anew, by name: it may lead to another server meanwhile, and a former primary
/// that was cut off does not know.
const MAX_LINK_AGE: Duration = Duration::from_secs(30);

/// Longest wait before the next attempt when Redis is away.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

struct Team {
    id: Tenant,
    /// What the writer was told; `None`: nothing yet.
    told: Option<Option<ETag>>,
}

/// Teams that are read by one command.
struct Batch {
    teams: Vec<Team>,
    command: Vec<u8>,
}

struct Links {
    definitions: Connection,
    clock: Option<Connection>,
    since: Instant,
    /// Whether the definitions are read from a primary, which may become a replica; `None`: Redis does not say.
    is_primary: Option<bool>,
}

/// The sweeper's thread.
pub struct Sweeper {
    places: Places,
    interval: Duration,
    orders: Receiver<Order>,
    tell: Tell,
    links: Option<Links>,
    epoch: Option<u64>,
    batches: Vec<Batch>,
    /// A newer list of teams that came during a sweep.
    next: Option<Order>,
    hints: Vec<Tenant>,
}

enum Failed {
    Gone,
    Redis(String),
}

impl From<WriterGone> for Failed {
    fn from(_: WriterGone) -> Self {
        Self::Gone
    }
}

impl Sweeper {
    /// One that rests.
    pub fn new(places: Places, interval: Duration, orders: Receiver<Order>, tell: Tell) -> Self {
        Self {
            places,
            interval,
            orders,
            tell,
            links: None,
            epoch: None,
            batches: Vec::new(),
            next: None,
            hints: Vec::new(),
        }
    }

    /// Runs until the writer is gone.
    pub fn run(mut self) {
        let mut due = Instant::now();
        let mut backoff = self.interval;
        loop {
            if self.wait(due).is_err() {
                return;
            }
            if self.take_over() {
                due = Instant::now();
            }
            let began = Instant::now();
            let done = if self.epoch.is_none() {
                self.hints.clear();
                due = began + self.interval;
                continue;
            } else if began >= due {
                self.sweep(began)
            } else {
                self.look_at_hints()
            };
            match done {
                Ok(()) if began >= due => {
                    due = began + self.interval;
                    backoff = self.interval;
                }
                Ok(()) => (),
                Err(Failed::Gone) => return,
                Err(Failed::Redis(problem)) => {
                    self.links = None;
                    self.hints.clear();
                    if (self.tell)(ETagNews::Failed(problem)).is_err() {
                        return;
                    }
                    due = Instant::now() + backoff;
                    backoff = (backoff * 2).min(MAX_BACKOFF.max(self.interval));
                }
            }
        }
    }

    /// Waits until `due` or until there is something to do before.
    fn wait(&mut self, due: Instant) -> Result<(), WriterGone> {
        while self.next.is_none() && self.hints.is_empty() {
            let left = due.saturating_duration_since(Instant::now());
            match self.orders.recv_timeout(left) {
                Ok(order) => self.note(order),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(WriterGone),
            }
        }
        while let Ok(order) = self.orders.try_recv() {
            self.note(order);
        }
        Ok(())
    }

    fn note(&mut self, order: Order) {
        match order {
            Order::Hint(team) => self.hints.push(team),
            other => self.next = Some(other),
        }
    }

    /// Begins to watch other teams; whether all of them are new. A few new ones are looked at like hints.
    fn take_over(&mut self) -> bool {
        let (epoch, teams) = match self.next.take() {
            None => return false,
            Some(Order::Watch { epoch, teams }) => (Some(epoch), teams),
            Some(_) => (None, Vec::new()),
        };
        let mut told = std::collections::BTreeMap::new();
        if epoch == self.epoch {
            let known = self.batches.drain(..).flat_map(|batch| batch.teams);
            told = known.map(|team| (team.id, team.told)).collect();
        }
        let is_new = epoch != self.epoch;
        self.epoch = epoch;
        if is_new {
            // The writer begins anew when Redis failed, as a former primary does: it connected by name again.
            self.links = None;
        } else {
            let unknown = teams.iter().filter(|team| !told.contains_key(team));
            self.hints.extend(unknown);
        }
        self.batches = teams
            .chunks(BATCH)
            .map(|ids| {
                let teams = ids.iter().map(|id| Team {
                    id: *id,
                    told: told.remove(id).flatten(),
                });
                Batch {
                    teams: teams.collect(),
                    command: self.places.command(ids),
                }
            })
            .collect();
        is_new
    }

    fn sweep(&mut self, began: Instant) -> Result<(), Failed> {
        let Some(epoch) = self.epoch else {
            return Ok(());
        };
        self.links
            .take_if(|links| links.since.elapsed() >= MAX_LINK_AGE);
        let at = self.clock()?;
        let mut etags = 0;
        for index in 0..self.batches.len() {
            let started = Instant::now();
            etags += self.look_at_batch(index)?;
            // Redis has others to serve, and was busy for a part of that time only.
            let pause_ends = Instant::now() + started.elapsed() / 4;
            self.wait(pause_ends)?;
            self.look_at_hints()?;
            let is_outdated = match &self.next {
                Some(Order::Watch { epoch: next, .. }) => *next != epoch,
                Some(_) => true,
                None => false,
            };
            if is_outdated {
                return Ok(());
            }
        }
        self.expect_same_role()?;
        let swept = Swept {
            epoch,
            at,
            began,
            took: began.elapsed(),
            etags,
        };
        self.tell(ETagNews::Swept(swept))
    }

    /// Reads a batch and tells what differs; returns how many teams have an ETag.
    fn look_at_batch(&mut self, index: usize) -> Result<u64, Failed> {
        let mut links = self.links()?;
        let Some(batch) = self.batches.get_mut(index) else {
            return Ok(0);
        };
        let read = read(&mut links.definitions, &batch.command);
        let read = read.map_err(|error| self.places.problem(&error))?;
        self.links = Some(links);
        let mut etags = 0;
        let mut news = Vec::new();
        for (team, etag) in batch.teams.iter_mut().zip(read) {
            etags += u64::from(etag.is_some());
            if team.told.as_ref() != Some(&etag) {
                team.told = Some(etag.clone());
                news.push((team.id, etag));
            }
        }
        self.tell_etags(news)?;
        Ok(etags)
    }

    fn look_at_hints(&mut self) -> Result<(), Failed> {
        let mut ids = std::mem::take(&mut self.hints);
        ids.sort_unstable();
        ids.dedup();
        for ids in ids.chunks(BATCH) {
            let mut links = self.links()?;
            let read = read(&mut links.definitions, &self.places.command(ids));
            let read = read.map_err(|error| self.places.problem(&error))?;
            self.links = Some(links);
            let mut news = Vec::new();
            for (id, etag) in ids.iter().zip(read) {
                let Some(team) = self.team(*id) else { continue };
                if team.told.as_ref() != Some(&etag) {
                    team.told = Some(etag.clone());
                    news.push((*id, etag));
                }
            }
            self.tell_etags(news)?;
        }
        Ok(())
    }

    fn team(&mut self, id: Tenant) -> Option<&mut Team> {
        let after = self
            .batches
            .partition_point(|batch| batch.teams.first().is_some_and(|team| team.id <= id));
        let teams = &mut self.batches.get_mut(after.checked_sub(1)?)?.teams;
        let found = teams.binary_search_by_key(&id, |team| team.id).ok()?;
        teams.get_mut(found)
    }

    fn tell_etags(&self, etags: Vec<(Tenant, Option<ETag>)>) -> Result<(), Failed> {
        match self.epoch {
            Some(epoch) if !etags.is_empty() => self.tell(ETagNews::Changed { epoch, etags }),
            _ => Ok(()),
        }
    }

    fn tell(&self, news: ETagNews) -> Result<(), Failed> {
        (self.tell)(news).map_err(Failed::from)
    }

    /// The time of the Redis that holds the stream, in Unix milliseconds.
    fn clock(&mut self) -> Result<u64, Failed> {
        let mut links = self.links()?;
        let link = links.clock.as_mut().unwrap_or(&mut links.definitions);
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(link).map_err(|error| {
            let server = self
                .places
                .clock
                .as_ref()
                .unwrap_or(&self.places.definitions);
            Failed::Redis(server.command_problem(&error).to_string())
        })?;
        self.links = Some(links);
        Ok(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
    }

    /// Fails when the primary that was read from has become a replica: it may lack what was written to its successor
    /// since, so the sweep proves nothing.
    fn expect_same_role(&mut self) -> Result<(), Failed> {
        let mut links = self.links()?;
        if links.is_primary == Some(true) && is_primary(&mut links.definitions) != Some(true) {
            let address = self.places.definitions.address();
            let problem = format!("Redis at {address} is a primary no more; connecting anew");
            return Err(Failed::Redis(problem));
        }
        self.links = Some(links);
        Ok(())
    }

    /// The connections; they come back only from a call that went well.
    fn links(&mut self) -> Result<Links, Failed> {
        if let Some(links) = self.links.take() {
            return Ok(links);
        }
        let connect = |server: &Server| {
            let connection = server.connect();
            connection.map_err(|error| Failed::Redis(error.to_string()))
        };
        let mut definitions = connect(&self.places.definitions)?;
        Ok(Links {
            is_primary: is_primary(&mut definitions),
            definitions,
            clock: self.places.clock.as_deref().map(connect).transpose()?,
            since: Instant::now(),
        })
    }
}

impl Places {
    /// The commands that read ETags, latches and the time, as bytes.
    fn command(&self, teams: &[Tenant]) -> Vec<u8> {
        let mut etags = redis::cmd("MGET");
        let mut latches = redis::cmd("MGET");
        for team in teams {
            etags.arg(pair::etag_key(&self.settings, *team));
            latches.arg(latch::key(&self.prefix, *team));
        }
        let mut bytes = etags.get_packed_command();
        bytes.extend(latches.get_packed_command());
        bytes.extend(redis::cmd("TIME").get_packed_command());
        bytes
    }

    fn problem(&self, error: &RedisError) -> Failed {
        Failed::Redis(self.definitions.command_problem(error).to_string())
    }
}

/// Whether a server says that it is a primary; `None` when it does not say.
fn is_primary(connection: &mut Connection) -> Option<bool> {
    let mut info = redis::cmd("INFO");
    let role: String = info.arg("replication").query(connection).ok()?;
    Some(role.contains("role:master"))
}

/// The ETags of a batch, in its order.
fn read(connection: &mut Connection, command: &[u8]) -> Result<Vec<Option<ETag>>, RedisError> {
    // One after the other: a pipeline of the library waits for each reply as long as for all.
    connection.send_packed_command(command)?;
    let mut reply = || connection.recv_response()?.extract_error();
    let etags: Vec<Option<Vec<u8>>> = FromRedisValue::from_redis_value(reply()?)?;
    let latches: Vec<Option<Vec<u8>>> = FromRedisValue::from_redis_value(reply()?)?;
    let (seconds, micros): (u64, u64) = FromRedisValue::from_redis_value(reply()?)?;
    let now = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
    let pairs = etags.into_iter().zip(latches);
    Ok(pairs
        .map(|(etag, latch)| stored::seen(&etag?, &latch.unwrap_or_default(), now))
        .collect())
}
