//! From a request to its answer: the surface decides, and the decision is carried out here. What must be read first is
//! [`super::reads`].

use super::Worker;
use super::backlog::ANSWERS_PER_CALLBACK;
use super::bodies::PartVerdict;
use super::host::Host;
use crate::http::Late;
use crate::metrics::Metric;
use crate::shared::IDLE;
use crate::surfaces::{
    Decided, FORWARD_REASON_HEADER, Reason, Receipt, Step, StepOf, Surface, SurfaceRequest,
};

/// A request that is being served.
pub(super) struct Serving<'a, S: Surface> {
    /// Its stream.
    pub stream: u32,
    /// What it asks.
    pub request: S::Request<'a>,
    /// Whether an earlier callback paused it.
    pub was_paused: bool,
}

/// Whether a body follows a request's header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyAhead {
    /// One does, or may.
    Yes,
    /// None does.
    No,
}

/// What became of a request in this callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It goes on to the upstream.
    Passes,
    /// It waits for its answer.
    Waits,
    /// It was answered; and what the host will have changed in that.
    Answered(Late),
}

impl<H: Host, S: Surface> Worker<H, S>
where
    Metric: From<S::Count>,
{
    /// Serves a new request.
    pub fn on_request(&mut self, stream: u32, request: S::Request<'_>, body: BodyAhead) -> Served {
        self.serves_requests = true;
        self.now();
        let serving = Serving {
            stream,
            request,
            was_paused: false,
        };
        let (surface, mut machinery) = self.parts();
        let Decided {
            step,
            carried,
            reads_alone,
        } = surface.start(&serving.request, &mut machinery);
        match step {
            Step::Read(read) => self.read(serving, carried, read, reads_alone),
            Step::Body { .. } if body == BodyAhead::No => self.with_body(serving, &carried, &[]),
            Step::Body { max_bytes, tenant } if !self.bodies.is_full(&serving.request, tenant) => {
                let bounds = (max_bytes, tenant);
                self.bodies
                    .await_body(stream, serving.request, carried, bounds, self.now);
                self.hurry(IDLE);
                Served::Waits
            }
            Step::Body { .. } => {
                let step = self.surface.undecided(&serving.request, Reason::Overloaded);
                self.act(step, &serving.request, false)
            }
            step => self.act(step, &serving.request, false),
        }
    }

    /// So many bytes of a request's body are there, and more may follow. A body that nobody awaits goes where its request
    /// went, or waits with it.
    pub fn on_body_part(&mut self, stream: u32, bytes: usize) -> Served {
        // Nearly all bodies are of requests to others.
        if !self.bodies.is_awaited(stream) {
            return match self.is_waiting(stream) {
                true => Served::Waits,
                false => Served::Passes,
            };
        }
        let verdict = self.bodies.note_part(stream, bytes);
        if verdict == PartVerdict::Waits {
            return Served::Waits;
        }
        self.now();
        let Some(awaited) = self.bodies.take(stream) else {
            return Served::Passes;
        };
        let step = match verdict {
            PartVerdict::TooLong => self.surface.too_long(&awaited.request),
            _ => self.surface.undecided(&awaited.request, Reason::Overloaded),
        };
        self.act(step, &awaited.request, false)
    }

    /// Whether the body of a request is awaited.
    pub fn awaits_body(&self, stream: u32) -> bool {
        self.bodies.is_awaited(stream)
    }

    /// Goes on with a request whose body is there. `None`: the host could not read it.
    pub fn on_body(&mut self, stream: u32, body: Option<&[u8]>) -> Served {
        self.now();
        let Some(awaited) = self.bodies.take(stream) else {
            return Served::Passes;
        };
        let serving = Serving {
            stream,
            request: awaited.request,
            // The body's own callback lets it go on.
            was_paused: false,
        };
        match body {
            Some(body) => self.with_body(serving, &awaited.carried, body),
            None => {
                let reason = Reason::SharedData;
                let step = self.surface.undecided(&serving.request, reason);
                self.act(step, &serving.request, false)
            }
        }
    }

    fn with_body(&mut self, serving: Serving<'_, S>, carried: &S::Carried, body: &[u8]) -> Served {
        let (surface, mut machinery) = self.parts();
        let Decided {
            step,
            carried,
            reads_alone,
        } = surface.body(&serving.request, carried, body, &mut machinery);
        match step {
            Step::Read(read) => self.read(serving, carried, read, reads_alone),
            step => self.act(step, &serving.request, serving.was_paused),
        }
    }

    /// Answers those whose bodies do not come.
    pub(super) fn give_up_bodies(&mut self) {
        if self.bodies.is_empty() {
            return;
        }
        let overdue = self.bodies.overdue(self.now);
        for stream in overdue.into_iter().take(ANSWERS_PER_CALLBACK) {
            if let Some(awaited) = self.bodies.take(stream)
                && self.host.enter(stream)
            {
                let request = &awaited.request;
                let step = self.surface.undecided(request, Reason::Timeout);
                self.act(step, request, true);
            }
        }
    }

    /// Answers a request whose headers could not even be read.
    pub fn on_unreadable_request(&mut self, path: &[u8]) -> Served {
        let request = self.surface.unread(path);
        let step = self.surface.undecided(&request, Reason::SharedData);
        self.act(step, &request, false)
    }

    /// Goes on with a request whose read is back.
    pub(super) fn resume(
        &mut self,
        serving: Serving<'_, S>,
        carried: &S::Carried,
        landed: &S::Landed,
    ) -> Served {
        let (surface, mut machinery) = self.parts();
        let Decided {
            step,
            carried,
            reads_alone,
        } = surface.resume(&serving.request, carried, landed, &mut machinery);
        match step {
            Step::Read(read) => self.read(serving, carried, read, reads_alone),
            step => self.act(step, &serving.request, serving.was_paused),
        }
    }

    /// Carries a decision out for the request that was entered.
    pub(super) fn act(
        &mut self,
        step: StepOf<'_, S>,
        request: &S::Request<'_>,
        was_paused: bool,
    ) -> Served {
        match step {
            Step::Reply(response, receipt) => {
                let length = response.body.bytes().len();
                // Of an answer to HEAD the host takes the body off.
                if request.gets_no_body() || self.surface.may_leave(request, length, self.now) {
                    return self.reply(&response, &receipt, request);
                }
                let step = match self.surface.undecided(request, Reason::Overloaded) {
                    Step::Reply(response, other) => {
                        let tenant = receipt.tenant;
                        Step::Reply(response, Receipt { tenant, ..other })
                    }
                    step => step,
                };
                // The answer that says so has no large body itself.
                self.act(step, request, was_paused)
            }
            Step::Forward(reason) => {
                self.recorder.count(Metric::Forwarded(reason));
                self.host
                    .forward(FORWARD_REASON_HEADER, reason.label(), was_paused);
                Served::Passes
            }
            // What must be read first never comes here, nor a body that was there already.
            Step::Read(_) | Step::Body { .. } => Served::Passes,
        }
    }

    /// Sends an answer, then does what it owes.
    fn reply(
        &mut self,
        response: &crate::http::Response<'_>,
        receipt: &Receipt<S::Answer>,
        request: &S::Request<'_>,
    ) -> Served {
        if let Err(status) = self.host.reply(response) {
            if self.unsent_answers.admits(self.now) {
                log::error!("an answer could not be sent: {status}");
            }
            return Served::Passes;
        }
        self.sent_bytes = response.body.bytes().len();
        let (surface, mut machinery) = self.parts();
        surface.sent(receipt, request, &mut machinery);
        if response.status >= 400 {
            let word = S::tenant_word(&receipt.answer);
            let tenant = receipt.tenant.map(|tenant| (word, tenant));
            self.log
                .note(response.status, response.reason, tenant, self.now);
        }
        self.hurry(self.surface.due_in());
        Served::Answered(response.late)
    }
}
