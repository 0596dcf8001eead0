//! What requests wait for: reads that are shared, and their answers when those come back.

use std::time::Duration;

use super::Worker;
use super::backlog::{self, ANSWERS_PER_CALLBACK, Cause, DueAnswers};
use super::calls::{self, RawReply};
use super::host::{CallId, Host};
use super::serving::{Served, Serving};
use super::single_flight::{Join, MAX_WAITERS, ReadCallout, Waiter};
use crate::metrics::Metric;
use crate::redis::Failure;
use crate::shared::BUSY;
use crate::surfaces::{Fetch, Question, Reason, SentRead, Surface, Terms};

/// Most callouts that one tick sends again.
const SENT_AGAIN_PER_TICK: usize = 16;

/// Time for one callout and for a second one, whose first was lost; and a little more.
const fn patience(timeout: Duration) -> Duration {
    timeout
        .saturating_mul(2)
        .saturating_add(Duration::from_millis(100))
}

/// Who is answered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Whoever waits longest.
    Oldest,
    /// Whoever has just become due, so that a small number does not wait for a crowd.
    Newest,
}

impl<H: Host, S: Surface> Worker<H, S>
where
    Metric: From<S::Count>,
{
    /// Whether a request waits for its answer.
    pub fn is_waiting(&self, stream: u32) -> bool {
        self.flights.is_waiting(stream)
            || self.backlog.is_waiting(stream)
            || self.bodies.is_awaited(stream)
    }

    /// A stream is gone.
    pub fn on_stream_done(&mut self, stream: u32) {
        self.backlog.leave(stream);
        self.flights.leave(stream);
        self.bodies.take(stream);
        self.abandon();
    }

    /// Tells the surface what it need not work on any more.
    pub(super) fn abandon(&mut self) {
        for read in self.flights.take_abandoned() {
            self.surface.abandoned(&read);
        }
    }

    /// The reply to a callout will not come.
    pub fn lost(&mut self, call: CallId) {
        self.flights.lost(call);
    }

    /// Makes a request wait for what it needs.
    pub(super) fn read(
        &mut self,
        serving: Serving<'_, S>,
        carried: S::Carried,
        read: S::Read,
        alone: bool,
    ) -> Served {
        let read = match alone {
            true => read,
            false => self.flights.joined_by(read),
        };
        let was_paused = serving.was_paused;
        if self.flights.is_full(&serving.request, &carried) || self.backlog.len() >= MAX_WAITERS {
            // The surface may have begun with it.
            if !self.flights.has(&read) {
                self.surface.abandoned(&read);
            }
            let step = self.surface.undecided(&serving.request, Reason::Overloaded);
            return self.act(step, &serving.request, was_paused);
        }
        if !self.flights.has(&read)
            && let Some(step) = self.surface.refuses(&read, &serving.request, self.now)
        {
            return self.act(step, &serving.request, was_paused);
        }
        let terms = self.surface.terms(&read);
        let joined = self.flights.join(
            serving.stream,
            serving.request,
            carried,
            read.clone(),
            self.now,
            patience(terms.timeout),
        );
        if joined == Join::Send && !self.send(&read, terms) {
            // Nobody else waits for it yet.
            let alone = self.flights.take(&read);
            let waiter = alone.and_then(|mut flight| flight.waiters.pop());
            let Some(Waiter { request, .. }) = waiter else {
                return Served::Passes;
            };
            let step = self.surface.undecided(&request, terms.reason);
            return self.act(step, &request, was_paused);
        }
        self.hurry(BUSY);
        Served::Waits
    }

    /// Sends a read; `false` when it was not taken, which is counted.
    fn send(&mut self, read: &S::Read, terms: Terms) -> bool {
        let known = self.surface.known(read, self.host.shared());
        let sent = SentRead {
            at: self.now,
            known,
        };
        let callout = match self.surface.fetch(read) {
            Some(Fetch {
                question: Question::Own,
                ..
            }) => {
                self.flights.is_own(read);
                return true;
            }
            Some(fetch) => {
                let call = calls::send(&mut self.host, &fetch.question, terms.timeout);
                call.map(|call| ReadCallout {
                    call,
                    largest_reply: fetch.largest_reply,
                    purpose: terms.purpose,
                    sent,
                })
            }
            None => Err(Failure::NotSent),
        };
        match callout {
            Ok(callout) => {
                self.flights.sent(read, callout);
                true
            }
            Err(failure) => {
                self.recorder
                    .count(Metric::Callout(terms.purpose, Err(failure)));
                false
            }
        }
    }

    /// Sends again what was lost. A few at a time: those callouts are still under way, and the circuit breaker counts
    /// both. What the host does not take now stays for the next tick, until it is overdue.
    pub(super) fn send_again(&mut self) {
        for read in self.flights.unsent().into_iter().take(SENT_AGAIN_PER_TICK) {
            // The next one may be for another store.
            let terms = self.surface.terms(&read);
            self.send(&read, terms);
        }
    }

    /// Takes the reply to a read that is being delivered; `false` when it is no read's.
    pub(super) fn on_read(&mut self, call: CallId, body_size: usize) -> bool {
        let Some((flight, callout)) = self.flights.land(call) else {
            return false;
        };
        self.now();
        // Seen by an operator who asks for it, and by the benchmark.
        let began = match log::log_enabled!(log::Level::Debug) {
            true => self.host.clock(),
            false => None,
        };
        let ReadCallout {
            call,
            largest_reply,
            purpose,
            sent,
        } = callout;
        let raw = RawReply::read(&self.host, &call.expected, body_size, largest_reply);
        let received = raw.received(&call.expected);
        let (surface, mut machinery) = self.parts();
        let (landed, counts_as) = surface.landed(&flight.read, sent, received, &mut machinery);
        self.recorder.count(Metric::Callout(purpose, counts_as));
        self.backlog.push(Cause::Landed(landed), flight.waiters);
        self.answer_due(Turn::Newest);
        if let Some(began) = began
            && let Some(ended) = self.host.clock()
        {
            let micros = ended.saturating_sub(began).as_micros();
            log::debug!("a reply of {body_size} bytes was read and answered in {micros} us");
        }
        true
    }

    /// Takes what the surface worked on by itself and is done with.
    pub(super) fn take_finished(&mut self) {
        while let Some((read, landed)) = self.surface.finished() {
            if let Some(flight) = self.flights.take(&read) {
                self.backlog.push(Cause::Landed(landed), flight.waiters);
            }
        }
    }

    /// Gives the next answers that are due. Only once in a callback: see [`super::backlog`].
    pub(super) fn answer_due(&mut self, turn: Turn) {
        let mut left = ANSWERS_PER_CALLBACK;
        let mut turn = turn;
        while left > 0
            && let Some(mut due) = match turn {
                Turn::Oldest => self.backlog.pop(),
                Turn::Newest => self.backlog.pop_newest(),
            }
        {
            left = self.answer(&mut due, left);
            let is_cut = !due.waiters.is_empty();
            match turn {
                Turn::Oldest => self.backlog.put_back(due),
                Turn::Newest => self.backlog.put_last(due),
            }
            if is_cut {
                break;
            }
            turn = Turn::Oldest;
        }
        if !self.backlog.is_empty() {
            self.hurry(backlog::TICK);
        }
    }

    /// Answers waiters until all have their answer, or those cost as much as `left`. What is left then is returned.
    fn answer(&mut self, due: &mut DueAnswers<S>, mut left: usize) -> usize {
        let waiters = std::mem::take(&mut due.waiters);
        let mut waiters = waiters.into_iter();
        while left > 0
            && let Some(waiter) = waiters.next()
        {
            let length = match &due.cause {
                Cause::Landed(landed) => self.surface.length(&waiter.request, landed),
                Cause::Overdue => 0,
            };
            let cost = backlog::cost_of(length);
            // What costs more than all of a callback has one of its own.
            if cost > left && left < ANSWERS_PER_CALLBACK {
                due.waiters.push(waiter);
                break;
            }
            self.sent_bytes = 0;
            self.answer_waiter(&due.cause, waiter);
            left = left.saturating_sub(cost.max(backlog::cost_of(self.sent_bytes)));
        }
        due.waiters.extend(waiters);
        left
    }

    fn answer_waiter(&mut self, cause: &Cause<S>, waiter: Waiter<S>) {
        // A stream that is gone leaves nobody to answer.
        let is_here = self.backlog.leave(waiter.stream);
        if !is_here || !self.host.enter(waiter.stream) {
            return;
        }
        let serving = Serving {
            stream: waiter.stream,
            request: waiter.request,
            was_paused: true,
        };
        match cause {
            Cause::Landed(landed) => {
                self.resume(serving, &waiter.carried, landed);
            }
            Cause::Overdue => {
                let request = &serving.request;
                let step = self.surface.undecided(request, Reason::Timeout);
                self.act(step, request, true);
            }
        }
    }
}
