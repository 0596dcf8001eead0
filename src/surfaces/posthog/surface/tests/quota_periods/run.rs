//! One run: what happens, one event after the other.

use std::collections::BTreeMap;

use super::super::*;
use super::redis::{Parts, Redis, TIME};
use super::{Plan, Random};
use crate::redis::Command;
use crate::shared::Job;
use crate::shared::lease::Holder;
use crate::surfaces::posthog::quota::{grace, lease_name};
use crate::surfaces::{Question, SurfaceRequest};

pub(super) const TOKEN: &[u8] = b"phc_one";
/// Longest that a callout takes that is answered, and when one counts as lost.
const TIMEOUT: u64 = 1_000;
const WORKERS: usize = 6;
const CLIENTS: usize = 3;

/// One worker of an Envoy.
struct Worker {
    posthog: PostHog,
    holder: Holder,
    /// Until then it does nothing.
    held_up: u64,
    /// Whether it knew of the last limit.
    knew: bool,
    /// Tells it from the one before. What that one asked for is answered to nobody.
    vm: u64,
}

/// A client that asks one question after the other.
#[derive(Default)]
struct Client {
    has_flags: bool,
    etag: Option<String>,
    /// When it was told 402 by an Envoy that had not read the list for longer than the grace, and since when it has.
    late: Option<Late>,
}

/// Such an Envoy sets a later end when it has read again.
struct Late {
    envoy: usize,
    told_at: u64,
    read_at: Option<u64>,
}

/// What a request waits with.
struct Waiting {
    client: usize,
    if_none_match: String,
    carried: Option<Sha256Hash>,
    vm: u64,
}

enum Event {
    Tick,
    /// A job's command is at Redis, or its reply is back: of which VM, and its key.
    Errand((u64, u64), Command),
    JobReply((u64, u64), Option<Parts>),
    /// The same of a request's read.
    Read(PostHogRead, SentRead<Option<Confirmed>>, Command, Waiting),
    Landed(
        PostHogRead,
        SentRead<Option<Confirmed>>,
        Option<Parts>,
        Waiting,
    ),
    Ask(usize),
    Limit,
    Lift,
}

pub(super) struct Run {
    plan: Plan,
    random: Random,
    now: u64,
    redis: Redis,
    stores: Vec<MemoryStore>,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    queue: BTreeMap<(u64, u64), (usize, Event)>,
    queued: u64,
    /// When each Envoy began.
    began: [u64; WORKERS / 2],
    /// Answers by status.
    pub answers: BTreeMap<u16, u64>,
    /// Who was told 304 without flags, though nobody was limited any more, and should not have been.
    pub stuck: Vec<String>,
}

impl Run {
    pub fn of(plan: Plan) -> Self {
        let mut run = Self {
            plan,
            random: Random(plan.seed),
            now: NOW,
            redis: Redis::default(),
            stores: (0..WORKERS / 2).map(|_| MemoryStore::default()).collect(),
            workers: Vec::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            queue: BTreeMap::new(),
            queued: 0,
            began: [0; WORKERS / 2],
            answers: BTreeMap::new(),
            stuck: Vec::new(),
        };
        for place in 0..WORKERS {
            let worker = run.worker();
            run.workers.push(worker);
            run.push(run.now, place, Event::Tick);
        }
        for store in 0..run.stores.len() {
            run.fill(store);
        }
        for client in 0..run.clients.len() {
            run.push(run.now + 2_000, 0, Event::Ask(client));
        }
        run.push(run.now + 4_000, 0, Event::Limit);
        run
    }

    fn worker(&mut self) -> Worker {
        let sections = format!(
            r#"{{"snapshot":{{"buckets":4,"etag_max_age":"{}ms"}},"quota":{{"interval":"{}ms"}},
                "rate_limit":{{"enabled":false}}}}"#,
            self.plan.etag_max_age, self.plan.interval
        );
        let sections: Sections = serde_json::from_str(&sections).unwrap();
        let settings = sections.settle(&mut Vec::new()).unwrap();
        let scopes = Scopes {
            data: scope(),
            usage: Scope::new("u", &[]),
        };
        Worker {
            posthog: PostHog::new(settings, scopes, &Still(Cell::new(true))),
            holder: Holder::new(self.random.below(u64::MAX)),
            held_up: 0,
            knew: false,
            vm: self.queued,
        }
    }

    /// A snapshot in a new Envoy's shared data.
    fn fill(&mut self, store: usize) {
        let now = self.now;
        Status::change(&self.stores[store], &scope(), |status| {
            status.live = Some(Live::verified("first", now));
        })
        .unwrap();
        let buckets = &self.workers[2 * store].posthog.tables.buckets;
        let team = Team {
            id: Tenant(1),
            organization: None,
        };
        for (token, record) in [
            (TOKEN, Record::Team(team)),
            (b"phs_one", Record::TeamSecret(Tenant(1))),
        ] {
            let hash = Sha256Hash::of(token);
            directory::testing::put(&self.stores[store], buckets, hash, 0, &record);
        }
    }

    fn push(&mut self, at: u64, worker: usize, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), (worker, event));
    }

    fn at(&self) -> Monotonic {
        Monotonic::from_millis(self.now)
    }

    /// How long one way of a callout takes.
    fn way(&mut self) -> u64 {
        match self.random.once_in(10) {
            true => self.random.below(TIMEOUT / 2),
            false => self.random.below(20),
        }
    }

    fn with<R>(
        &mut self,
        worker: usize,
        act: impl FnOnce(&mut PostHog, &mut Machinery<'_, MemoryStore, PostHogCount>) -> R,
    ) -> R {
        let mut machinery = Machinery {
            store: &self.stores[worker / 2],
            now: Monotonic::from_millis(self.now),
            ambient: &Still(Cell::new(true)),
            counts: &mut Counted::default(),
        };
        act(&mut self.workers[worker].posthog, &mut machinery)
    }

    pub fn until(&mut self, end: u64) {
        while let Some(((at, _), (worker, event))) = self.queue.pop_first() {
            self.now = at;
            if at > end {
                return;
            }
            let held_up = self.workers[worker].held_up;
            let of_worker = matches!(
                event,
                Event::Tick | Event::JobReply(..) | Event::Landed(..) | Event::Ask(_)
            );
            match of_worker && held_up > at {
                true => self.push(held_up, worker, event),
                false => self.happen(worker, event),
            }
        }
    }

    /// What a callout brings, and when: `None` when it is lost, at Redis or on its way back.
    fn called(&mut self, command: &Command) -> (u64, Option<Parts>) {
        let words: Vec<_> = command.words().into_iter().map(<[u8]>::to_vec).collect();
        let lost = self.random.once_in(self.plan.lost);
        if lost && self.random.once_in(2) {
            return (self.now + TIMEOUT, None);
        }
        let reply = self.redis.run(&words, self.now);
        match lost {
            true => (self.now + TIMEOUT, None),
            false => (self.now + self.way(), Some(reply)),
        }
    }

    fn happen(&mut self, worker: usize, event: Event) {
        match event {
            Event::Tick => self.tick(worker),
            Event::Errand(key, command) => {
                let (at, reply) = self.called(&command);
                self.push(at, worker, Event::JobReply(key, reply));
            }
            Event::JobReply((vm, _), _) if vm != self.workers[worker].vm => {}
            Event::JobReply((_, key), parts) => self.with(worker, |posthog, machinery| {
                posthog.quota.reply(key, reply(&parts), machinery);
            }),
            Event::Read(read, sent, command, waiting) => {
                let (at, reply) = self.called(&command);
                self.push(at, worker, Event::Landed(read, sent, reply, waiting));
            }
            Event::Landed(.., waiting) if waiting.vm != self.workers[worker].vm => {
                self.push(self.now, worker, Event::Ask(waiting.client));
            }
            Event::Landed(read, sent, parts, waiting) => {
                let next = self.with(worker, |posthog, machinery| {
                    let received = Received::Redis(reply(&parts));
                    let landed = posthog.landed(&read, sent, received, machinery).0;
                    let request = request(posthog, &waiting.if_none_match);
                    next(posthog.resume(&request, &waiting.carried, &landed, machinery))
                });
                self.go_on(worker, next, waiting);
            }
            Event::Ask(client) => {
                let if_none_match = self.clients[client].etag.clone().unwrap_or_default();
                let next = self.with(worker, |posthog, machinery| {
                    let request = request(posthog, &if_none_match);
                    next(posthog.start(&request, machinery))
                });
                let waiting = Waiting {
                    client,
                    if_none_match,
                    carried: None,
                    vm: self.workers[worker].vm,
                };
                self.go_on(worker, next, waiting);
            }
            Event::Limit => {
                let lasts = 300 + self.random.below(3 * self.plan.interval + 4_000);
                let by_itself = self.random.once_in(3);
                let until = TIME + self.now + lasts + if by_itself { 0 } else { 3_600_000 };
                self.redis.limited_until = Some(until);
                (self.redis.limit, self.redis.latched_at) = (until, None);
                for worker in &mut self.workers {
                    worker.knew = false;
                }
                self.push(self.now + lasts, 0, Event::Lift);
                // The next one may come before the end of this one is agreed on.
                let pause = 2 * self.plan.interval + self.random.below(4 * self.plan.interval);
                self.push(self.now + lasts + pause, 0, Event::Limit);
            }
            Event::Lift => self.redis.limited_until = None,
        }
    }

    fn tick(&mut self, place: usize) {
        if self.random.once_in(self.plan.held_up) {
            self.workers[place].held_up = self.now + self.random.below(4_000);
        }
        if self.random.once_in(self.plan.anew) {
            self.workers[place] = self.worker();
            // Or the whole Envoy, with its shared data.
            if self.random.once_in(2) {
                self.workers[place ^ 1] = self.worker();
                self.stores[place / 2] = MemoryStore::default();
                self.began[place / 2] = self.now;
                self.fill(place / 2);
            }
        }
        let (at, mut holder) = (self.at(), self.workers[place].holder);
        let (errand, due_in, knows) = self.with(place, |posthog, machinery| {
            let lease = lease_name(&scope());
            let held = holder.hold(machinery.store, &lease, true, false, at);
            let errand = posthog.quota.tick(held, machinery);
            posthog.tick(true, machinery);
            let job: &dyn Job<MemoryStore, PostHogCount> = &posthog.quota;
            let limited = posthog.quota.copy().ends(Tenant(1), None, at);
            (errand, job.due_in(at), limited.is_some())
        });
        self.workers[place].holder = holder;
        self.workers[place].knew |= knows;
        if let Some(errand) = errand {
            let at = self.now + self.way();
            let key = (self.workers[place].vm, errand.key);
            self.push(at, place, Event::Errand(key, errand.command));
        }
        let at = self.now + due_in.as_millis() as u64 + self.random.below(30);
        self.push(at, place, Event::Tick);
    }

    fn go_on(&mut self, worker: usize, next: Next, waiting: Waiting) {
        match next {
            Next::Answer(status, etag) => {
                *self.answers.entry(status).or_default() += 1;
                let read_at = self.read_at(worker);
                let client = &mut self.clients[waiting.client];
                match status {
                    200 => {
                        (client.has_flags, client.etag, client.late) = (true, etag, None);
                    }
                    402 => {
                        client.has_flags = false;
                        let grace = grace(Duration::from_millis(self.plan.interval));
                        if self.now - read_at > grace.as_millis() as u64 {
                            client.late = Some(Late {
                                envoy: worker / 2,
                                told_at: self.now,
                                read_at: None,
                            });
                        }
                    }
                    304 if !client.has_flags => self.told_304_without_flags(worker, waiting.client),
                    _ => {}
                }
                let at = self.now + 50 + self.random.below(150);
                let worker = self.random.below(WORKERS as u64) as usize;
                self.push(at, worker, Event::Ask(waiting.client));
            }
            Next::Read(read, carried) => {
                let at = self.at();
                let (sent, command) = self.with(worker, |posthog, machinery| {
                    let known = posthog.known(&read, machinery.store);
                    match posthog.fetch(&read).unwrap().question {
                        Question::Redis(_, command) => (SentRead { at, known }, command),
                        _ => panic!("not of Redis"),
                    }
                });
                let at = self.now + self.way();
                let waiting = Waiting { carried, ..waiting };
                self.push(at, worker, Event::Read(read, sent, command, waiting));
            }
        }
    }

    /// As of when a worker knows the list.
    fn read_at(&self, worker: usize) -> u64 {
        let copy = self.workers[worker].posthog.quota.copy();
        copy.set().read_at().map_or(0, Monotonic::as_millis)
    }

    /// Whether a client waits for an Envoy that came late to set a later end.
    fn is_excused(&mut self, client: usize) -> bool {
        let now = self.now;
        let Some(late) = &self.clients[client].late else {
            return false;
        };
        let (envoy, told_at) = (late.envoy, late.told_at);
        let read_at = self.read_at(2 * envoy).max(self.read_at(2 * envoy + 1));
        let patience = 4 * self.plan.interval + 4_000;
        let began = self.began[envoy];
        self.clients[client].late.as_mut().is_some_and(|late| {
            if read_at > told_at {
                late.read_at.get_or_insert(now);
            }
            // What knew of it is gone.
            began > told_at || late.read_at.is_none_or(|read_at| now - read_at < patience)
        })
    }

    fn told_304_without_flags(&mut self, worker: usize, client: usize) {
        if self.redis.limited_until.is_some() || self.is_excused(client) {
            return;
        }
        let knew = self.workers[worker].knew;
        let counted = self.plan.etag_max_age + TIMEOUT;
        let is_late = |latched_at| self.now - latched_at > counted;
        if knew || self.redis.latched_at.is_some_and(is_late) {
            let (now, latched_at) = (self.now, self.redis.latched_at);
            self.stuck.push(format!(
                "{now}: latched at {latched_at:?}, by one who knew: {knew}"
            ));
        }
    }
}

enum Next {
    Answer(u16, Option<String>),
    Read(PostHogRead, Option<Sha256Hash>),
}

fn next(decided: Decided<'_, PostHog>) -> Next {
    match decided.step {
        Step::Reply(response, _) => {
            let etag = response
                .etag
                .map(|etag| String::from_utf8_lossy(etag.as_bytes()).into());
            Next::Answer(response.status, etag)
        }
        Step::Read(read) => Next::Read(read, decided.carried),
        _ => panic!("neither an answer nor a read"),
    }
}

fn request(posthog: &mut PostHog, etag: &str) -> Request<'static> {
    let if_none_match = format!("W/\"{etag}\"");
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"GET"),
        (b":path", b"/flags/definitions?token=phc_one"),
        (b"authorization", b"Bearer phs_one"),
    ];
    if !etag.is_empty() {
        fields.push((b"if-none-match", if_none_match.as_bytes()));
    }
    posthog.parse(b"", fields.into_iter()).into_owned()
}

fn reply(parts: &Option<Parts>) -> Result<Reply<'_>, Failure> {
    let parts = parts.as_ref().ok_or(Failure::Timeout)?;
    Ok(Reply::array(parts.iter().map(Vec::as_slice)))
}
