//! Every metric name, once.
//!
//! Envoy knows no labels in Wasm metrics, so a label is part of the name, as `;key=value`, and
//! `stats_tags` in the bootstrap turns it into one (`envoy/bootstrap.yaml`). All are defined at start.
//! Workers count in memory ([`Counts`]) and add the sums to Envoy's counters on their tick:
//! a host call for each count would cost more than the count is worth.

use crate::limits::{self, Budget};
use crate::redis::{Failure, Purpose};
use crate::snapshot::event::LoaderEvent;
#[cfg(any(feature = "flagsmith", feature = "ofrep"))]
use crate::surfaces::evaluated::counts::Evaluation;
#[cfg(feature = "flagsmith")]
use crate::surfaces::flagsmith::{FlagsmithCount, answers::FlagsmithAnswer};
#[cfg(feature = "ofrep")]
use crate::surfaces::ofrep::{OfrepCount, answers::OfrepAnswer};
use crate::surfaces::posthog::PostHogCount;
use crate::surfaces::posthog::PostHogCount as P;
use crate::surfaces::posthog::answers::Answer;
use crate::surfaces::posthog::directory::access::AuthMethod;
use crate::surfaces::posthog::pipeline::{CacheResult, ETagResult};
use crate::surfaces::{Either, Reason};
use crate::tenant::Tenant;
use crate::usage;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// PostHog's surface counted something.
    PostHog(PostHogCount),
    /// Flagsmith's surface counted something.
    #[cfg(feature = "flagsmith")]
    Flagsmith(FlagsmithCount),
    /// OFREP's surface counted something.
    #[cfg(feature = "ofrep")]
    Ofrep(OfrepCount),
    /// A request was forwarded.
    Forwarded(Reason),
    /// A callout ended.
    Callout(Purpose, Result<(), Failure>),
    /// The loader did something.
    Loader(LoaderEvent),
}

#[cfg(feature = "flagsmith")]
impl From<FlagsmithCount> for Metric {
    fn from(count: FlagsmithCount) -> Self {
        Self::Flagsmith(count)
    }
}

#[cfg(feature = "ofrep")]
impl From<OfrepCount> for Metric {
    fn from(count: OfrepCount) -> Self {
        Self::Ofrep(count)
    }
}

impl<A, B> From<Either<A, B>> for Metric
where
    Self: From<A> + From<B>,
{
    fn from(count: Either<A, B>) -> Self {
        match count {
            Either::First(count) => count.into(),
            Either::Second(count) => count.into(),
        }
    }
}

impl From<LoaderEvent> for Metric {
    fn from(event: LoaderEvent) -> Self {
        Self::Loader(event)
    }
}

impl From<PostHogCount> for Metric {
    fn from(count: PostHogCount) -> Self {
        Self::PostHog(count)
    }
}

/// Statuses that a request gets after it has authenticated.
const TEAM_STATUSES: [u16; 6] = [200, 304, 402, 429, 500, 503];

/// Age of the live snapshot, in seconds since Redis last said that it is the current one; before the first
/// snapshot, since the start.
pub const SNAPSHOT_AGE_SECONDS: &str = "flag_definitions_snapshot_age_seconds";

/// Age of the newest watermark, in seconds; before the first, since the start. No publisher writes any yet.
pub const WATERMARK_AGE_SECONDS: &str = "flag_definitions_watermark_age_seconds";

/// The surfaces whose documents have gauges.
pub const DOCUMENT_SURFACES: &[&str] = &[
    #[cfg(feature = "flagsmith")]
    crate::surfaces::flagsmith::health::NAME,
    #[cfg(feature = "ofrep")]
    crate::surfaces::ofrep::health::NAME,
];

/// Documents of a surface that all workers of the process keep together.
pub fn documents(surface: &str) -> String {
    format!("flag_definitions_documents;surface={surface};")
}

/// Age of a surface's documents, in seconds: how long ago the source of the one that was read longest ago was last read,
/// as the publisher said. Before it said so, since the start.
pub fn document_age_seconds(surface: &str) -> String {
    format!("flag_definitions_document_age_seconds;surface={surface};")
}

impl Metric {
    /// The counters that are always there, in the order of their places.
    fn common() -> impl Iterator<Item = Self> {
        let callouts = Purpose::ALL.into_iter().flat_map(|purpose| {
            std::iter::once(Ok(()))
                .chain(Failure::ALL.into_iter().map(Err))
                .map(move |outcome| Self::Callout(purpose, outcome))
        });
        Answer::all()
            .map(P::Answer)
            .map(Self::PostHog)
            .chain(Reason::ALL.into_iter().map(Self::Forwarded))
            .chain(callouts)
            .chain(ETagResult::ALL.into_iter().map(P::ETag).map(Self::PostHog))
            .chain(
                CacheResult::ALL
                    .into_iter()
                    .map(P::Cache)
                    .map(Self::PostHog),
            )
            .chain(AuthMethod::ALL.into_iter().map(P::Auth).map(Self::PostHog))
            .chain(Budget::ALL.into_iter().flat_map(|budget| {
                limits::Mode::ALL
                    .into_iter()
                    .map(move |mode| Self::PostHog(P::RateLimited(budget, mode)))
            }))
            .chain(
                usage::State::ALL
                    .into_iter()
                    .map(P::Usage)
                    .map(Self::PostHog),
            )
            .chain(LoaderEvent::ALL.into_iter().map(Self::Loader))
            .chain(Self::of_other_surfaces())
    }

    /// Those of the surfaces beside PostHog's, which carry a label `surface`.
    fn of_other_surfaces() -> impl Iterator<Item = Self> {
        let none = std::iter::empty();
        #[cfg(feature = "flagsmith")]
        let none = none.chain(Self::of_flagsmith());
        #[cfg(feature = "ofrep")]
        let none = none.chain(Self::of_ofrep());
        none
    }

    #[cfg(feature = "flagsmith")]
    fn of_flagsmith() -> impl Iterator<Item = Self> {
        let answers = FlagsmithAnswer::all().map(FlagsmithCount::Answer);
        let evaluations = Evaluation::ALL.into_iter();
        answers
            .chain(evaluations.map(FlagsmithCount::Evaluation))
            .chain(usage::State::ALL.into_iter().map(FlagsmithCount::Usage))
            .map(Self::Flagsmith)
    }

    #[cfg(feature = "ofrep")]
    fn of_ofrep() -> impl Iterator<Item = Self> {
        let answers = OfrepAnswer::all().map(OfrepCount::Answer);
        let evaluations = Evaluation::ALL.into_iter();
        answers
            .chain(evaluations.map(OfrepCount::Evaluation))
            .map(Self::Ofrep)
    }

    /// Place in [`Metric::common`], and in [`Metric::of_team`] for a team's counters: found without a search,
    /// because each request counts several.
    fn place(self) -> usize {
        const FORWARDED: usize = Answer::COUNT;
        const CALLOUTS: usize = FORWARDED + Reason::ALL.len();
        const OUTCOMES: usize = 1 + Failure::ALL.len();
        const ETAGS: usize = CALLOUTS + Purpose::ALL.len() * OUTCOMES;
        const CACHE: usize = ETAGS + ETagResult::ALL.len();
        const AUTH: usize = CACHE + CacheResult::ALL.len();
        const LIMITED: usize = AUTH + AuthMethod::ALL.len();
        const MODES: usize = limits::Mode::ALL.len();
        const USAGE: usize = LIMITED + Budget::ALL.len() * MODES;
        const LOADER: usize = USAGE + usage::State::ALL.len();
        #[cfg(any(feature = "flagsmith", feature = "ofrep"))]
        const OTHERS: usize = LOADER + LoaderEvent::ALL.len();
        #[cfg(feature = "flagsmith")]
        const EVALUATIONS: usize = OTHERS + FlagsmithAnswer::COUNT;
        #[cfg(all(feature = "ofrep", feature = "flagsmith"))]
        const OFREP: usize = EVALUATIONS + Evaluation::ALL.len() + usage::State::ALL.len();
        #[cfg(all(feature = "ofrep", not(feature = "flagsmith")))]
        const OFREP: usize = OTHERS;
        let limited = |budget: Budget, mode: limits::Mode| budget as usize * MODES + mode as usize;
        match self {
            Self::PostHog(P::Answer(answer)) => answer.number(),
            Self::Forwarded(reason) => FORWARDED + reason as usize,
            Self::Callout(purpose, outcome) => {
                let outcome = outcome.map_or_else(|failure| 1 + failure as usize, |()| 0);
                CALLOUTS + purpose as usize * OUTCOMES + outcome
            }
            Self::PostHog(P::ETag(result)) => ETAGS + result as usize,
            Self::PostHog(P::Cache(result)) => CACHE + result as usize,
            Self::PostHog(P::Auth(method)) => AUTH + method as usize,
            Self::PostHog(P::RateLimited(budget, mode)) => LIMITED + limited(budget, mode),
            Self::PostHog(P::Usage(state)) => USAGE + state as usize,
            Self::Loader(event) => LOADER + event as usize,
            #[cfg(feature = "flagsmith")]
            Self::Flagsmith(count) => match count {
                FlagsmithCount::Answer(answer) => OTHERS + answer.number(),
                FlagsmithCount::Evaluation(result) => EVALUATIONS + result as usize,
                FlagsmithCount::Usage(state) => {
                    EVALUATIONS + Evaluation::ALL.len() + state as usize
                }
            },
            #[cfg(feature = "ofrep")]
            Self::Ofrep(OfrepCount::Answer(answer)) => OFREP + answer.number(),
            #[cfg(feature = "ofrep")]
            Self::Ofrep(OfrepCount::Evaluation(result)) => {
                OFREP + OfrepAnswer::COUNT + result as usize
            }
            Self::PostHog(P::TeamAnswer(_, status)) => {
                let known = TEAM_STATUSES.iter().position(|known| *known == status);
                known.unwrap_or(usize::MAX)
            }
            Self::PostHog(P::TeamRateLimited(_, budget, mode)) => {
                TEAM_STATUSES.len() + limited(budget, mode)
            }
        }
    }

    /// The counters of one team.
    fn of_team(team: Tenant) -> impl Iterator<Item = Self> {
        let answers = TEAM_STATUSES.map(|status| Self::PostHog(P::TeamAnswer(team, status)));
        answers
            .into_iter()
            .chain(Budget::ALL.into_iter().flat_map(move |budget| {
                limits::Mode::ALL
                    .into_iter()
                    .map(move |mode| Self::PostHog(P::TeamRateLimited(team, budget, mode)))
            }))
    }

    /// All counters, the common ones first. `teams` have labels of their own.
    pub fn all(teams: &[Tenant]) -> impl Iterator<Item = Self> {
        Self::common().chain(teams.iter().flat_map(|team| Self::of_team(*team)))
    }

    const fn team(self) -> Option<Tenant> {
        match self {
            Self::PostHog(P::TeamAnswer(team, _) | P::TeamRateLimited(team, ..)) => Some(team),
            _ => None,
        }
    }

    /// Envoy's name of it.
    ///
    /// ```
    /// use flag_definitions_filter::metrics::Metric;
    /// use flag_definitions_filter::surfaces::posthog::{PostHogCount, answers::Answer};
    /// assert_eq!(
    ///     Metric::PostHog(PostHogCount::Answer(Answer::NotModified)).name(),
    ///     "flag_definitions_answers_total;status=304;reason=not_modified;",
    /// );
    /// ```
    pub fn name(self) -> String {
        match self {
            Self::PostHog(P::Answer(answer)) => format!(
                "flag_definitions_answers_total;status={};reason={};",
                answer.status(),
                answer.label()
            ),
            Self::Forwarded(reason) => {
                format!(
                    "flag_definitions_forwarded_total;reason={};",
                    reason.label()
                )
            }
            Self::Callout(purpose, outcome) => format!(
                "flag_definitions_callouts_total;store={};outcome={};",
                purpose.label(),
                match outcome {
                    Ok(()) => "ok",
                    Err(failure) => failure.label(),
                }
            ),
            Self::PostHog(P::ETag(result)) => {
                format!("flag_definitions_etag_total;result={};", result.label())
            }
            Self::PostHog(P::Cache(result)) => {
                format!("flag_definitions_cache_total;result={};", result.label())
            }
            Self::PostHog(P::Auth(method)) => {
                format!("flag_definitions_auth_total;method={};", method.label())
            }
            Self::PostHog(P::RateLimited(budget, mode)) => format!(
                "flag_definitions_rate_limited_total;budget={};mode={};",
                budget.label(),
                mode.label()
            ),
            Self::PostHog(P::Usage(state)) => {
                format!("flag_definitions_usage_total;state={};", state.label())
            }
            Self::Loader(event) => {
                format!("flag_definitions_loader_total;event={};", event.label())
            }
            #[cfg(feature = "flagsmith")]
            Self::Flagsmith(FlagsmithCount::Answer(answer)) => {
                of_answer("flagsmith", answer.status(), answer.label())
            }
            #[cfg(feature = "ofrep")]
            Self::Ofrep(OfrepCount::Answer(answer)) => {
                of_answer("ofrep", answer.status(), answer.label())
            }
            #[cfg(feature = "flagsmith")]
            Self::Flagsmith(FlagsmithCount::Evaluation(result)) => {
                of_evaluation("flagsmith", result)
            }
            #[cfg(feature = "ofrep")]
            Self::Ofrep(OfrepCount::Evaluation(result)) => of_evaluation("ofrep", result),
            #[cfg(feature = "flagsmith")]
            Self::Flagsmith(FlagsmithCount::Usage(state)) => format!(
                "flag_definitions_surface_usage_total;surface=flagsmith;state={};",
                state.label()
            ),
            Self::PostHog(P::TeamAnswer(team, status)) => {
                format!("flag_definitions_team_answers_total;team={team};status={status};")
            }
            Self::PostHog(P::TeamRateLimited(team, budget, mode)) => format!(
                "flag_definitions_team_rate_limited_total;team={team};budget={};mode={};",
                budget.label(),
                mode.label()
            ),
        }
    }
}

#[cfg(any(feature = "flagsmith", feature = "ofrep"))]
fn of_answer(surface: &str, status: u16, reason: &str) -> String {
    format!(
        "flag_definitions_surface_answers_total;surface={surface};status={status};reason={reason};"
    )
}

#[cfg(any(feature = "flagsmith", feature = "ofrep"))]
fn of_evaluation(surface: &str, result: Evaluation) -> String {
    let result = result.label();
    format!("flag_definitions_evaluations_total;surface={surface};result={result};")
}

/// Number of a team's counters.
const TEAM_PLACES: usize = TEAM_STATUSES.len() + Budget::ALL.len() * limits::Mode::ALL.len();

/// Counts that Envoy has not been told of yet.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    teams: Vec<Tenant>,
    common: Vec<u64>,
    of_teams: Vec<[u64; TEAM_PLACES]>,
}

impl Counts {
    /// Zero of everything. `teams` have labels of their own; they are sorted.
    pub fn new(teams: &[Tenant]) -> Self {
        Self {
            teams: teams.to_vec(),
            common: vec![0; Metric::common().count()],
            of_teams: vec![[0; TEAM_PLACES]; teams.len()],
        }
    }

    /// Counts one.
    pub fn add(&mut self, metric: Metric) {
        self.add_many(metric, 1);
    }

    /// Counts several at once. A team without a label of its own is not counted.
    pub fn add_many(&mut self, metric: Metric, many: u64) {
        let counts = match metric.team() {
            None => Some(self.common.as_mut_slice()),
            Some(_) if self.teams.is_empty() => None,
            Some(team) => self.of_team(team),
        };
        if let Some(count) = counts.and_then(|counts| counts.get_mut(metric.place())) {
            *count = count.saturating_add(many);
        }
    }

    fn of_team(&mut self, team: Tenant) -> Option<&mut [u64]> {
        let index = self.teams.binary_search(&team).ok()?;
        self.of_teams
            .get_mut(index)
            .map(<[u64; TEAM_PLACES]>::as_mut_slice)
    }

    /// Takes what has been counted: place in [`Metric::all`] and sum, where it is not zero.
    pub fn drain(&mut self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.common
            .iter_mut()
            .chain(self.of_teams.iter_mut().flatten())
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(place, count)| (place, std::mem::take(count)))
    }
}

#[cfg(test)]
mod tests;
