//! How often PostHog's own cache of teams and credentials may be asked by one worker.

use crate::limits::{LocalBudgets, RetryAfter};
use crate::surfaces::posthog::read_through::settings::ReadThrough;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most teams whose look-ups are counted at a time.
const TEAMS: usize = 1_024;

/// The look-up budgets of one worker.
pub struct Lookups {
    worker: LocalBudgets<()>,
    teams: LocalBudgets<Tenant>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            worker: LocalBudgets::new(1),
            teams: LocalBudgets::new(TEAMS),
        }
    }
}

impl Lookups {
    /// Takes one look-up from the budget of the team, where the token is known, and from the worker's.
    ///
    /// # Errors
    /// Whole seconds after which there is one again.
    pub fn spend(
        &mut self,
        settings: &ReadThrough,
        team: Option<Tenant>,
        now: Monotonic,
    ) -> Result<(), RetryAfter> {
        if let Some(team) = team {
            self.teams.spend(team, settings.lookups_per_team, now)?;
        }
        self.worker.spend((), settings.lookups_per_worker, now)
    }
}
