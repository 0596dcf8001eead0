//! The driver of all jobs: it holds their leases, sends what they ask for, bounds the wait for a reply, counts callouts, and
//! writes each problem to the log once.

use std::time::Duration;

use super::calls::{self, Call, RawReply};
use super::host::{CallId, Host};
use super::recorder::Recorder;
use super::registry;
use crate::metrics::Metric;
use crate::redis::{Failure, Purpose};
use crate::shared::lease::Holder;
use crate::shared::{Ambient, Errand, Finding, Held, Job, Machinery};
use crate::surfaces::{Question, Surface};
use crate::time::Monotonic;

/// A reply that never comes must not stop a job for good; the longest callout timeout is 30 s.
const REPLY_DEADLINE: Duration = Duration::from_secs(35);

/// The jobs of one worker, by their places in [`Surface::jobs`].
pub struct Jobs {
    /// The worker's number in the registry.
    worker: u32,
    owner: u64,
    leases: Vec<Leased>,
    under_way: Vec<UnderWay>,
    told: Vec<(usize, &'static str, String)>,
}

/// What is known of a job's lease.
#[derive(Clone, Copy, Debug)]
struct Leased {
    holder: Holder,
    /// A newer worker of this VM does the job.
    superseded: bool,
}

/// A command under way.
struct UnderWay {
    job: usize,
    key: u64,
    call: Call,
    purpose: Purpose,
    largest_reply: usize,
    sent_at: Monotonic,
}

/// What the driver works with.
pub struct Driver<'a, H> {
    /// The shell.
    pub host: &'a mut H,
    /// Counters.
    pub recorder: &'a mut Recorder,
    /// The time.
    pub now: Monotonic,
    /// Whether this worker serves requests.
    pub serves_requests: bool,
}

impl<H: Host> Driver<'_, H> {
    fn machinery<C>(&mut self) -> Machinery<'_, H::Store, C>
    where
        Metric: From<C>,
    {
        Machinery {
            store: self.host.shared(),
            now: self.now,
            ambient: &*self.host,
            counts: self.recorder,
        }
    }
}

impl Jobs {
    /// Nothing done yet.
    pub fn new(worker: u32, ambient: &dyn Ambient) -> Self {
        Self {
            worker,
            owner: ambient.random().max(1),
            leases: Vec::new(),
            under_way: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Makes the work of this worker known to the others of its VM.
    pub fn enter<H: Host, S: Surface>(&mut self, surface: &mut S) {
        for job in surface.jobs::<H::Store>() {
            if let Some(lease) = job.lease() {
                registry::enter(self.worker, lease);
            }
            self.leases.push(Leased {
                holder: Holder::new(self.owner),
                superseded: false,
            });
        }
    }

    /// Does what is due.
    pub fn tick<H: Host, S: Surface>(&mut self, surface: &mut S, driver: &mut Driver<'_, H>)
    where
        Metric: From<S::Count>,
    {
        self.give_up(surface, driver);
        for (place, job) in surface.jobs::<H::Store>().into_iter().enumerate() {
            let held = self.hold(place, job, driver);
            for _ in 0..job.parallel() {
                let room = job.parallel() == 1 || self.count_of(place) < job.parallel();
                let errand = match room {
                    true => job.tick(held, &mut driver.machinery()),
                    false => None,
                };
                let Some(errand) = errand else { break };
                self.send(place, errand, job, driver);
            }
            self.tell(place, job);
        }
    }

    /// Takes the reply that is being delivered: how long until its job wants the next tick. `None`: it is no job's.
    pub fn on_reply<H: Host, S: Surface>(
        &mut self,
        surface: &mut S,
        call: CallId,
        body_size: usize,
        driver: &mut Driver<'_, H>,
    ) -> Option<Duration>
    where
        Metric: From<S::Count>,
    {
        let place = self
            .under_way
            .iter()
            .position(|sent| sent.call.id == call)?;
        let sent = self.under_way.swap_remove(place);
        let mut jobs = surface.jobs::<H::Store>();
        let job = jobs.get_mut(sent.job)?;
        let expected = &sent.call.expected;
        let raw = RawReply::read(driver.host, expected, body_size, sent.largest_reply);
        let reply = raw.received(expected).redis();
        let counts_as = match &reply {
            Ok(_) => Ok(()),
            Err(failure) => Err(*failure),
        };
        driver
            .recorder
            .count(Metric::Callout(sent.purpose, counts_as));
        job.reply(sent.key, reply, &mut driver.machinery());
        self.tell(sent.job, *job);
        Some(job.due_in(driver.now))
    }

    /// How long until the first job wants the next tick.
    pub fn due_in<H: Host, S: Surface>(&self, surface: &mut S, now: Monotonic) -> Option<Duration> {
        let jobs = surface.jobs::<H::Store>();
        jobs.iter().map(|job| job.due_in(now)).min()
    }

    /// The worker ends.
    pub fn stop<H: Host, S: Surface>(&mut self, surface: &mut S, driver: &mut Driver<'_, H>)
    where
        Metric: From<S::Count>,
    {
        for (place, job) in surface.jobs::<H::Store>().into_iter().enumerate() {
            self.leave(place, job, driver);
        }
    }

    fn count_of(&self, job: usize) -> usize {
        self.under_way.iter().filter(|sent| sent.job == job).count()
    }

    fn send<H: Host, C>(
        &mut self,
        place: usize,
        errand: Errand,
        job: &mut dyn Job<H::Store, C>,
        driver: &mut Driver<'_, H>,
    ) where
        Metric: From<C>,
    {
        let timeout = errand.gateway.timeout;
        let question = Question::Redis(&errand.gateway, errand.command);
        match calls::send(driver.host, &question, timeout) {
            Ok(call) => {
                if job.parallel() == 1 {
                    self.under_way.retain(|sent| sent.job != place);
                }
                self.under_way.push(UnderWay {
                    job: place,
                    key: errand.key,
                    call,
                    purpose: errand.purpose,
                    largest_reply: errand.largest_reply,
                    sent_at: driver.now,
                });
            }
            Err(failure) => {
                driver
                    .recorder
                    .count(Metric::Callout(errand.purpose, Err(failure)));
                job.reply(errand.key, Err(failure), &mut driver.machinery());
            }
        }
    }

    /// Tells the jobs whose replies did not come.
    fn give_up<H: Host, S: Surface>(&mut self, surface: &mut S, driver: &mut Driver<'_, H>)
    where
        Metric: From<S::Count>,
    {
        let now = driver.now;
        let is_late = |sent: &mut UnderWay| now.since(sent.sent_at) > REPLY_DEADLINE;
        let late: Vec<_> = self.under_way.extract_if(.., is_late).collect();
        if late.is_empty() {
            return;
        }
        let mut jobs = surface.jobs::<H::Store>();
        for sent in late {
            if let Some(job) = jobs.get_mut(sent.job) {
                job.reply(sent.key, Err(Failure::Timeout), &mut driver.machinery());
                self.tell(sent.job, *job);
            }
        }
    }

    /// Takes or renews a job's lease.
    fn hold<H: Host, C>(
        &mut self,
        place: usize,
        job: &mut dyn Job<H::Store, C>,
        driver: &mut Driver<'_, H>,
    ) -> Held
    where
        Metric: From<C>,
    {
        let Some(name) = job.lease() else {
            return Held::Yes;
        };
        let is_superseded = registry::is_superseded(self.worker, name);
        let Some(leased) = self.leases.get_mut(place) else {
            return Held::No;
        };
        if is_superseded {
            if !std::mem::replace(&mut leased.superseded, true) {
                self.leave(place, job, driver);
            }
            return Held::No;
        }
        leased.superseded = false;
        let (store, serves) = (driver.host.shared(), driver.serves_requests);
        leased
            .holder
            .hold(store, name, serves, job.steps_aside(), driver.now)
    }

    /// Leaves a job to others.
    fn leave<H: Host, C>(
        &mut self,
        place: usize,
        job: &mut dyn Job<H::Store, C>,
        driver: &mut Driver<'_, H>,
    ) where
        Metric: From<C>,
    {
        // A reply that is still to come is handed in: usage takes what it acknowledges.
        job.stop(&mut driver.machinery());
        if let (Some(name), Some(leased)) = (job.lease(), self.leases.get(place)) {
            leased
                .holder
                .release(driver.host.shared(), name, driver.now);
        }
        self.tell(place, job);
    }

    /// Writes what a job found to the log: a problem once, until it is another one, or settled.
    fn tell<S, C>(&mut self, place: usize, job: &mut dyn Job<S, C>) {
        for finding in job.findings() {
            let topic = finding.topic();
            let known = self
                .told
                .iter()
                .position(|(job, told, _)| *job == place && *told == topic);
            match (finding, known) {
                (Finding::Settled(_), Some(known)) => drop(self.told.swap_remove(known)),
                (Finding::Settled(_), None) => {}
                (Finding::Trouble(_, text), known) => {
                    let told = known.and_then(|known| self.told.get_mut(known));
                    match told {
                        Some((_, _, told)) if *told == text => {}
                        Some((_, _, told)) => {
                            log::warn!("{text}");
                            *told = text;
                        }
                        None => {
                            log::warn!("{text}");
                            self.told.push((place, topic, text));
                        }
                    }
                }
            }
        }
    }
}
