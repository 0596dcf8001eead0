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
use crate::shared::{Ambient, Errand, Finding, Held, IDLE, Job, Machinery, NarrowJob, Store};
use crate::snapshot::LoaderJob;
use crate::surfaces::{Question, Surface};
use crate::time::Monotonic;

/// A reply that never comes must not stop a job for good; the longest callout timeout is 30 s.
const REPLY_DEADLINE: Duration = Duration::from_secs(35);

/// The jobs of one worker, by their places among [`Work`].
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
    fn machinery(&mut self) -> Machinery<'_, H::Store, Metric> {
        Machinery {
            store: self.host.shared(),
            now: self.now,
            ambient: &*self.host,
            counts: self.recorder,
        }
    }
}

/// What jobs a worker has: the loader, then those of its surface.
pub struct Work<'a, S> {
    /// The loader, where the surface needs a snapshot.
    pub loader: Option<&'a mut LoaderJob>,
    /// The surface.
    pub surface: &'a mut S,
}

impl<S: Surface> Work<'_, S>
where
    Metric: From<S::Count>,
{
    /// Shows all of them with their places.
    fn each<D: Store>(&mut self, mut show: impl FnMut(usize, &mut dyn Job<D, Metric>)) {
        let mut place = 0;
        if let Some(loader) = self.loader.as_deref_mut() {
            show(place, loader);
            place += 1;
        }
        self.surface.each_job(&mut |job| {
            let made = Metric::from;
            show(place, &mut NarrowJob { job, made });
            place += 1;
        });
    }

    /// Shows one of them.
    fn at<D: Store>(&mut self, place: usize, show: impl FnOnce(&mut dyn Job<D, Metric>)) {
        let mut show = Some(show);
        self.each(|at, job| {
            if at == place
                && let Some(show) = show.take()
            {
                show(job);
            }
        });
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
    pub fn enter<H: Host, S: Surface>(&mut self, mut work: Work<'_, S>)
    where
        Metric: From<S::Count>,
    {
        work.each::<H::Store>(|_, job| {
            if let Some(lease) = job.lease() {
                registry::enter(self.worker, lease);
            }
            self.leases.push(Leased {
                holder: Holder::new(self.owner),
                superseded: false,
            });
        });
    }

    /// Does what is due.
    pub fn tick<H: Host, S: Surface>(&mut self, mut work: Work<'_, S>, driver: &mut Driver<'_, H>)
    where
        Metric: From<S::Count>,
    {
        self.give_up(&mut work, driver);
        work.each::<H::Store>(|place, job| {
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
        });
    }

    /// Takes the reply that is being delivered: how long until its job wants the next tick. `None`: it is no job's.
    pub fn on_reply<H: Host, S: Surface>(
        &mut self,
        mut work: Work<'_, S>,
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
        let mut due_in = None;
        work.at::<H::Store>(sent.job, |job| {
            job.reply(sent.key, reply, &mut driver.machinery());
            self.tell(sent.job, job);
            due_in = Some(job.due_in(driver.now));
        });
        due_in
    }

    /// How long until the first job wants the next tick.
    pub fn due_in<H: Host, S: Surface>(&self, mut work: Work<'_, S>, now: Monotonic) -> Duration
    where
        Metric: From<S::Count>,
    {
        let mut due_in = IDLE;
        work.each::<H::Store>(|_, job| due_in = due_in.min(job.due_in(now)));
        due_in
    }

    /// The worker ends.
    pub fn stop<H: Host, S: Surface>(&mut self, mut work: Work<'_, S>, driver: &mut Driver<'_, H>)
    where
        Metric: From<S::Count>,
    {
        work.each::<H::Store>(|place, job| self.leave(place, job, driver));
    }

    fn count_of(&self, job: usize) -> usize {
        self.under_way.iter().filter(|sent| sent.job == job).count()
    }

    fn send<H: Host>(
        &mut self,
        place: usize,
        errand: Errand,
        job: &mut dyn Job<H::Store, Metric>,
        driver: &mut Driver<'_, H>,
    ) {
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
    fn give_up<H: Host, S: Surface>(&mut self, work: &mut Work<'_, S>, driver: &mut Driver<'_, H>)
    where
        Metric: From<S::Count>,
    {
        let now = driver.now;
        let is_late = |sent: &mut UnderWay| now.since(sent.sent_at) > REPLY_DEADLINE;
        let late: Vec<_> = self.under_way.extract_if(.., is_late).collect();
        for sent in late {
            work.at::<H::Store>(sent.job, |job| {
                job.reply(sent.key, Err(Failure::Timeout), &mut driver.machinery());
                self.tell(sent.job, job);
            });
        }
    }

    /// Takes or renews a job's lease.
    fn hold<H: Host>(
        &mut self,
        place: usize,
        job: &mut dyn Job<H::Store, Metric>,
        driver: &mut Driver<'_, H>,
    ) -> Held {
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
    fn leave<H: Host>(
        &mut self,
        place: usize,
        job: &mut dyn Job<H::Store, Metric>,
        driver: &mut Driver<'_, H>,
    ) {
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
