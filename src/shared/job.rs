//! The contract of regular work: a job is told the time on each tick, asks for a Redis command, and is handed its reply. The
//! worker drives all jobs in one way: it holds their lease, sends, bounds the wait, and counts.

use std::time::Duration;

use super::Machinery;
use crate::redis::{Command, Failure, Gateway, Purpose, Reply};

/// Tick while there is work that others wait for, or that is done in slices.
pub const BUSY: Duration = Duration::from_millis(10);

/// Longest tick: it renews leases and looks for what others told.
pub const IDLE: Duration = Duration::from_secs(1);

/// Whether this VM holds the lease of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It does, or the job needs none.
    Yes,
    /// Another VM does, or may have it first; or a newer worker of this VM does the job.
    No,
    /// Shared data failed, so nobody does.
    Failed,
}

/// A command that a job wants to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// To which Redis.
    pub gateway: Gateway,
    /// The command.
    pub command: Command,
    /// Largest reply that is read, in bytes.
    pub largest_reply: usize,
    /// What the callout counts as.
    pub purpose: Purpose,
    /// What the job knows its reply by.
    pub key: u64,
}

/// What a job found, for the log. The driver writes the same trouble once, until it is another one or settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Something is wrong: in which part of the work, and the line.
    Trouble(&'static str, String),
    /// That part of the work was done: the next trouble is a new one.
    Settled(&'static str),
}

impl Finding {
    /// The part of the work that it is about.
    pub const fn topic(&self) -> &'static str {
        match self {
            Self::Trouble(topic, _) | Self::Settled(topic) => topic,
        }
    }
}

/// A job that counts something else than whoever drives it.
pub struct NarrowJob<'a, S, C, F> {
    /// The job.
    pub job: &'a mut dyn Job<S, C>,
    /// Makes its counts the driver's.
    pub made: F,
}

impl<S, C, D, F: Fn(C) -> D> Job<S, D> for NarrowJob<'_, S, C, F> {
    fn lease(&self) -> Option<&str> {
        self.job.lease()
    }

    fn steps_aside(&self) -> bool {
        self.job.steps_aside()
    }

    fn parallel(&self) -> usize {
        self.job.parallel()
    }

    fn tick(&mut self, held: Held, machinery: &mut Machinery<'_, S, D>) -> Option<Errand> {
        machinery.narrowed(&self.made, |machinery| self.job.tick(held, machinery))
    }

    fn reply(
        &mut self,
        key: u64,
        reply: Result<Reply<'_>, Failure>,
        machinery: &mut Machinery<'_, S, D>,
    ) {
        machinery.narrowed(&self.made, |machinery| {
            self.job.reply(key, reply, machinery)
        });
    }

    fn findings(&mut self) -> Vec<Finding> {
        self.job.findings()
    }

    fn due_in(&self, now: crate::time::Monotonic) -> Duration {
        self.job.due_in(now)
    }

    fn stop(&mut self, machinery: &mut Machinery<'_, S, D>) {
        machinery.narrowed(&self.made, |machinery| self.job.stop(machinery));
    }
}

/// A piece of regular work of one worker, or, with a lease, of one worker for all.
pub trait Job<S, C> {
    /// Name of the lease's entry in shared data ([`super::lease`]). `None`: each worker does it for itself.
    fn lease(&self) -> Option<&str> {
        None
    }

    /// Whether a VM that serves requests, when it gets the lease first, leaves it to others once.
    fn steps_aside(&self) -> bool {
        false
    }

    /// Most commands under way at a time. With one, a new command ends the wait for the last one's reply.
    fn parallel(&self) -> usize {
        1
    }

    /// Does a slice of work; returns a command to send, if one is due. Where several may be under way it is asked until it
    /// returns none.
    fn tick(&mut self, held: Held, machinery: &mut Machinery<'_, S, C>) -> Option<Errand>;

    /// Takes the reply to a command, or says why there is none.
    fn reply(
        &mut self,
        key: u64,
        reply: Result<Reply<'_>, Failure>,
        machinery: &mut Machinery<'_, S, C>,
    );

    /// Hands over what it found since the last call.
    fn findings(&mut self) -> Vec<Finding>;

    /// How long until it wants the next tick.
    fn due_in(&self, now: crate::time::Monotonic) -> Duration;

    /// The worker ends, or a newer one of the same VM does this work.
    fn stop(&mut self, machinery: &mut Machinery<'_, S, C>);
}
