//! What a root context does besides answering: it sends usage, reads the quota set, and asks for rebuilds. All of
//! it happens on the tick, so that no request waits for it.

mod quota;
mod rebuild;
mod usage;

use super::random;
use super::recorder::Recorder;
use super::registry;
use crate::hash::Sha256Hash;
use crate::surfaces::posthog::pipeline::Tables;
use crate::surfaces::posthog::quota::{QuotaCopy, QuotaEnd, lease_name};
use crate::surfaces::posthog::request::Request;
use crate::surfaces::posthog::settings::{PostHogSettings, Scopes};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// What a chore needs to know.
#[derive(Clone, Copy)]
pub struct Duty<'a> {
    /// The root context.
    pub context: u32,
    /// Its settings.
    pub settings: &'a PostHogSettings,
    /// What names in shared data begin with.
    pub scopes: &'a Scopes,
    /// The tables that requests look at.
    pub tables: &'a Tables,
    /// The time.
    pub now: Monotonic,
    /// Whether this VM serves requests.
    pub serves_requests: bool,
}

/// The chores of one root context.
pub struct Chores {
    usage: usage::Sending,
    quota: quota::Reading,
    rebuild: rebuild::Signalling,
}

impl Chores {
    /// Nothing done yet.
    pub fn new(settings: &PostHogSettings, scopes: &Scopes) -> Self {
        let owner = random::number().max(1);
        Self {
            usage: usage::Sending::new(settings, &scopes.usage, owner),
            quota: quota::Reading::new(settings, &scopes.data, owner),
            rebuild: rebuild::Signalling::new(&scopes.data),
        }
    }

    /// Makes this root context known to the others of its VM.
    pub fn enter(&self, context: u32, settings: &PostHogSettings, scopes: &Scopes) {
        if settings.usage.enabled {
            registry::enter(context, scopes.usage.as_str());
        }
        if settings.quota.enabled {
            registry::enter(context, &lease_name(&scopes.data));
        }
    }

    /// A snapshot became live.
    pub fn snapshot_loaded(&mut self) {
        self.quota.read_soon();
    }

    /// Does what is due.
    pub fn tick(&mut self, duty: Duty<'_>, recorder: &mut Recorder) {
        self.usage.tick(duty, recorder);
        self.quota.tick(duty, recorder);
        self.rebuild.tick(duty, recorder);
    }

    /// Whether there is work that should not wait for the next slow tick.
    pub fn is_busy(&self) -> bool {
        self.usage.is_busy() || self.quota.is_busy() || self.rebuild.is_busy()
    }

    /// Takes the reply to one of these callouts; `false` when it is not theirs.
    pub fn on_reply(
        &mut self,
        token: u32,
        body_size: usize,
        duty: Duty<'_>,
        recorder: &mut Recorder,
    ) -> bool {
        self.usage.on_reply(token, body_size, duty, recorder)
            || self.quota.on_reply(token, body_size, duty, recorder)
            || self.rebuild.on_reply(token, body_size, duty, recorder)
    }

    /// The root context ends.
    pub fn stop(&mut self, duty: Duty<'_>, recorder: &mut Recorder) {
        self.usage.stop(duty, recorder);
        self.quota.stop(duty);
    }

    /// Counts an answer that is billed now.
    pub fn bill(
        &mut self,
        settings: &PostHogSettings,
        team: Tenant,
        request: &Request<'_>,
        now: Monotonic,
        recorder: &mut Recorder,
    ) {
        if settings.usage.enabled {
            self.usage.count(team, request, now, recorder);
        }
    }

    /// Asks for a rebuild of a team's payload, with the next tick.
    pub fn rebuild(&mut self, team: Tenant) {
        self.rebuild.push(team);
    }

    /// The end of a team's quota period lies ahead, as Redis says.
    pub fn quota_pending(
        &mut self,
        settings: &PostHogSettings,
        team: Tenant,
        end: QuotaEnd,
        now: Monotonic,
    ) {
        if settings.quota.enabled && settings.quota.free_latch {
            self.quota.pending(team, end, now);
        }
    }

    /// A request has proven whose a limited token is, which the list's reader does not know.
    pub fn quota_owner(
        &mut self,
        settings: &PostHogSettings,
        token: Sha256Hash,
        team: Tenant,
        now: Monotonic,
    ) {
        if settings.quota.free_latch {
            self.quota.owner(token, team, now);
        }
    }

    /// Whose quota is used up.
    pub fn quota(&self) -> &QuotaCopy {
        self.quota.copy()
    }
}
