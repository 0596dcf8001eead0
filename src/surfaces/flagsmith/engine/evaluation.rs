//! What a client or an identity gets of an environment.

use super::condition::{Demand, Digits, Fact};
use super::environment::{Environment, Segment};
use super::hash;
use super::identity::{IdentityRequest, IdentityTrait};
use super::path::FeaturePart;
use super::program::{FAILS, HOLDS, Source, Spot, Step};
use super::scalar::Scalar;
use super::state::State;

/// Units of work of one evaluation that depend on the length of what a client sends: a byte that is searched or hashed, a state
/// of a pattern for a byte that it looks at. An evaluation that needs all of them takes about 10 ms natively. A thousand
/// patterns of usual size, each over 100 bytes, need most of them.
pub const MAX_WORK: u64 = 2 << 20;

/// Which features a request sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// All: the request has a server key.
    Everything,
    /// All but those for server keys only, by the id of the feature or of what overrides it.
    Public,
}

impl Sees {
    fn sees(self, environment: &Environment, state: &State) -> bool {
        self == Self::Everything || environment.server_only.binary_search(&state.id).is_err()
    }
}

/// The flags of one request, in the order of their feature's id.
#[derive(Debug)]
pub struct Flags<'e> {
    flags: Vec<Flag<'e>>,
    is_cut_short: bool,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag<'e> {
    state: &'e State,
    /// The value of a variant, as JSON.
    variant: Option<&'e str>,
}

impl Flag<'_> {
    /// Writes `{"enabled":…,"feature":{"id":…,"name":…,"type":…},"feature_state_value":…}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.state.write(self.variant, out);
    }
}

impl<'e> Flags<'e> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Flag<'e>> {
        self.flags.iter()
    }

    /// Whether [`MAX_WORK`] was not enough: conditions that came later match nothing, and variants are the control.
    pub const fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// Writes them as a list.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        separated(&self.flags, out, Flag::write);
        out.push(b']');
    }

    /// Writes `{"flags":[…],"traits":[…]}`, with these traits as they came.
    pub fn write_identity(&self, traits: &[IdentityTrait<'_>], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"flags\":");
        self.write(out);
        out.extend_from_slice(b",\"traits\":[");
        separated(traits, out, IdentityTrait::write);
        out.extend_from_slice(b"]}");
    }
}

fn separated<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
}

impl Environment {
    /// The flags of no identity. Segments are looked at all the same: a rule may hold for nobody. Variants are the control.
    ///
    /// `hide_disabled` leaves flags out that are off.
    pub fn flags(&self, sees: Sees, hide_disabled: bool) -> Flags<'_> {
        Run::new(self, None, "").flags(sees, hide_disabled)
    }

    /// One of the flags of no identity; `None`: there is none of this name, or the request does not see it.
    pub fn flag(&self, name: &str, sees: Sees, hide_disabled: bool) -> Option<Flag<'_>> {
        let feature = self.features.find(name)?;
        let mut run = Run::new(self, None, "");
        run.choose(Some(feature));
        run.flag(feature, sees, hide_disabled)
    }

    /// The flags of an identity: overrides of its own, then of segments by their priority, then the environment's.
    ///
    /// ```
    /// # use flag_definitions_filter::surfaces::flagsmith::engine::{Compiler, Progress, Sees, parse_identity};
    /// # let document = br#"{"id":1,"api_key":"k","project":{"id":1,"name":"","organisation":{"id":1,"name":"",
    /// #  "feature_analytics":false,"stop_serving_flags":false,"persist_trait_data":true},"hide_disabled_flags":false,
    /// #  "segments":[]},"feature_states":[{"feature":{"id":1,"name":"f","type":null},"enabled":true,
    /// #  "feature_state_value":10.0}]}"#;
    /// let mut compiler = Compiler::new(std::rc::Rc::new(document.to_vec()));
    /// let environment = loop {
    ///     match compiler.step(1 << 16) {
    ///         Progress::More => {}
    ///         Progress::Done(environment) => break environment,
    ///         Progress::Unfit(unfit) => panic!("{unfit}"),
    ///     }
    /// };
    /// let request = parse_identity(br#"{"identifier":"i"}"#)?;
    /// let mut body = Vec::new();
    /// environment.identity(&request, Sees::Public, false).write_identity(&request.traits, &mut body);
    /// assert_eq!(
    ///     String::from_utf8_lossy(&body),
    ///     r#"{"flags":[{"enabled":true,"feature":{"id":1,"name":"f","type":"STANDARD"},"feature_state_value":10.0}],"traits":[]}"#,
    /// );
    /// # Ok::<(), flag_definitions_filter::surfaces::flagsmith::engine::BodyProblem>(())
    /// ```
    pub fn identity(
        &self,
        request: &IdentityRequest<'_>,
        sees: Sees,
        hide_disabled: bool,
    ) -> Flags<'_> {
        let key = match self.reads_places {
            true => format!("{}_{}", self.api_key, request.identifier),
            false => String::new(),
        };
        Run::new(self, Some(request), &key).flags(sees, hide_disabled)
    }
}

/// What wins for a feature so far.
#[derive(Clone, Copy)]
struct Winner<'e> {
    priority: f64,
    state: Option<&'e State>,
}

/// What places hold that are the same for all conditions.
#[derive(Clone, Copy)]
struct Places<'r> {
    environment_key: Fact<'r>,
    environment_name: Fact<'r>,
    identity: Option<(Fact<'r>, Fact<'r>)>,
}

/// One evaluation. `'e` is the environment's, `'r` the request's.
struct Run<'e, 'r> {
    environment: &'e Environment,
    request: Option<&'r IdentityRequest<'r>>,
    places: Option<Places<'r>>,
    /// By the number of a trait.
    facts: Vec<Option<Fact<'r>>>,
    /// By the number of a feature.
    winners: Vec<Winner<'e>>,
    work: u64,
    is_cut_short: bool,
}

impl<'e: 'r, 'r> Run<'e, 'r> {
    fn new(
        environment: &'e Environment,
        request: Option<&'r IdentityRequest<'r>>,
        key: &'r str,
    ) -> Self {
        let mut facts = Vec::new();
        if let Some(request) = request {
            facts.resize(environment.traits.len(), None);
            for given in &request.traits {
                let number = environment.traits.find(&given.key);
                let place = number.and_then(|number| usize::try_from(number).ok());
                if let Some(place) = place.and_then(|at| facts.get_mut(at)) {
                    *place = Some(Fact::of_trait(&given.value));
                }
            }
        }
        let none = Winner {
            priority: f64::INFINITY,
            state: None,
        };
        let places = environment.reads_places.then(|| Places {
            environment_key: Fact::text(&environment.api_key),
            environment_name: Fact::text(&environment.name),
            identity: request.map(|request| (Fact::text(&request.identifier), Fact::text(key))),
        });
        Self {
            environment,
            request,
            places,
            facts,
            winners: vec![none; environment.defaults.len()],
            work: MAX_WORK,
            is_cut_short: false,
        }
    }

    fn flags(mut self, sees: Sees, hide_disabled: bool) -> Flags<'e> {
        self.choose(None);
        let environment = self.environment;
        let mut flags = Vec::with_capacity(environment.order.len());
        for feature in &environment.order {
            flags.extend(self.flag(*feature, sees, hide_disabled));
        }
        // An override may have another id than its feature.
        if !flags.is_sorted_by_key(|flag: &Flag<'_>| flag.state.id) {
            flags.sort_by_key(|flag| flag.state.id);
        }
        Flags {
            flags,
            is_cut_short: self.is_cut_short,
        }
    }

    /// Finds what wins: for all features, or for this one alone.
    fn choose(&mut self, only: Option<u32>) {
        let environment = self.environment;
        let sets = self
            .request
            .and_then(|request| environment.identities.get(&*request.identifier));
        for number in sets.into_iter().flat_map(|sets| sets.numbers()) {
            let set = usize::try_from(number)
                .ok()
                .and_then(|at| environment.override_sets.get(at));
            for (feature, state) in set.into_iter().flatten() {
                self.put(*feature, f64::NEG_INFINITY, state);
            }
        }
        for segment in &environment.segments {
            let mut counts = segment.overrides.iter().filter(|given| {
                only.is_none_or(|only| only == given.feature)
                    && self.wins(given.feature, given.priority)
            });
            // Conditions change nothing: those that decide nothing are not tested.
            if counts.next().is_none() || !self.is_in(segment) {
                continue;
            }
            for given in &segment.overrides {
                self.put(given.feature, given.priority, &given.state);
            }
        }
    }

    /// Whether an override would win: over none in any case, over one by a smaller priority.
    fn wins(&self, feature: u32, priority: f64) -> bool {
        let winner = usize::try_from(feature)
            .ok()
            .and_then(|at| self.winners.get(at));
        let is_better = |winner: &Winner<'_>| winner.state.is_none() || priority < winner.priority;
        winner.is_some_and(is_better) && self.environment.default(feature).is_some()
    }

    fn put(&mut self, feature: u32, priority: f64, state: &'e State) {
        if !self.wins(feature, priority) {
            return;
        }
        let winner = usize::try_from(feature)
            .ok()
            .and_then(|at| self.winners.get_mut(at));
        if let Some(winner) = winner {
            *winner = Winner {
                priority,
                state: Some(state),
            };
        }
    }

    fn flag(&mut self, feature: u32, sees: Sees, hide_disabled: bool) -> Option<Flag<'e>> {
        let environment = self.environment;
        let default = environment.default(feature)?;
        let winner = usize::try_from(feature)
            .ok()
            .and_then(|at| self.winners.get(at));
        let state = winner.and_then(|winner| winner.state).unwrap_or(default);
        if !(sees.sees(environment, default) && sees.sees(environment, state))
            || (hide_disabled && !state.enabled)
        {
            return None;
        }
        let mut variant = None;
        if let Some(request) = self.request
            && state.varies()
            && self.affords(cost(&request.identifier) + hash::LEAST_COST)
        {
            variant = state.variant(&environment.api_key, &request.identifier);
        }
        Some(Flag { state, variant })
    }

    fn is_in(&mut self, segment: &Segment) -> bool {
        segment
            .rules
            .iter()
            .all(|first| self.holds(*first, segment))
    }

    /// Whether a rule holds that begins with this step.
    fn holds(&mut self, first: u32, segment: &Segment) -> bool {
        let mut at = first;
        loop {
            if at == HOLDS {
                return true;
            }
            let step = usize::try_from(at)
                .ok()
                .and_then(|at| self.environment.steps.get(at));
            let Some(step) = step else { return false };
            let next = match self.is_met(step, segment) {
                true => step.hit,
                false => step.miss,
            };
            // Steps name earlier ones only, so this ends.
            if next >= at && !matches!(next, HOLDS | FAILS) {
                return false;
            }
            at = next;
        }
    }

    fn is_met(&mut self, step: &Step, segment: &Segment) -> bool {
        let fact = self.fact(step.source);
        match (&step.demand, fact) {
            (Demand::IsNotSet, fact) => fact.is_none(),
            (Demand::Split(share), fact) => self.is_among(*share, step.source, fact, segment),
            (_, None) => false,
            (Demand::Pattern(number), Some(fact)) => self.is_found(*number, fact),
            (demand, Some(fact)) => self.affords(demand.cost(&fact)) && demand.fits(&fact),
        }
    }

    /// Looks for a pattern.
    fn is_found(&mut self, number: u32, fact: Fact<'_>) -> bool {
        let place = usize::try_from(number).ok();
        let pattern = place.and_then(|at| self.environment.patterns.get(at));
        let Some(Some(pattern)) = pattern else {
            return false;
        };
        let text = fact.written();
        self.affords(pattern.cost(&text)) && pattern.is_found(&text)
    }

    /// Whether the identity, or the text of a value, is among the first percent of a segment.
    fn is_among(
        &mut self,
        share: f64,
        source: Source,
        fact: Option<Fact<'_>>,
        segment: &Segment,
    ) -> bool {
        let percentage = if source.slot.is_none() {
            let Some(request) = self.request else {
                return false;
            };
            if !self.affords(cost(&request.identifier) + hash::LEAST_COST) {
                return false;
            }
            let api_key = &self.environment.api_key;
            hash::percentage(&[&segment.key, ",", api_key, "_", &request.identifier])
        } else {
            let Some(fact) = fact else { return false };
            let text = fact.written();
            if !self.affords(cost(&text) + hash::LEAST_COST) {
                return false;
            }
            hash::percentage(&[&segment.key, ",", &text])
        };
        percentage <= share
    }

    /// What a condition looks at: a place, and where it holds nothing, the trait of that name.
    fn fact(&mut self, source: Source) -> Option<Fact<'r>> {
        let held = source.place.and_then(|place| self.held(place));
        held.or_else(|| self.trait_fact(source.slot?))
    }

    fn trait_fact(&self, slot: u32) -> Option<Fact<'r>> {
        *self.facts.get(usize::try_from(slot).ok()?)?
    }

    fn held(&mut self, place: Spot) -> Option<Fact<'r>> {
        match place {
            Spot::EnvironmentKey => Some(self.places?.environment_key),
            Spot::EnvironmentName => Some(self.places?.environment_name),
            Spot::Identifier => Some(self.places?.identity?.0),
            Spot::IdentityKey => Some(self.places?.identity?.1),
            Spot::Trait(slot) => self.trait_fact(slot)?.in_place(),
            Spot::Feature(feature, part) => self.held_by_feature(feature, part),
        }
    }

    fn held_by_feature(&mut self, feature: u32, part: FeaturePart) -> Option<Fact<'r>> {
        let environment: &'r Environment = self.environment;
        let state = environment.default(feature)?;
        let text = match part {
            FeaturePart::Enabled => return Some(Fact::Bool(state.enabled)),
            FeaturePart::Id => return Some(Fact::Int(state.id.into())),
            FeaturePart::Name => environment.features.text(feature),
            FeaturePart::Key => &state.key,
            FeaturePart::Value => match environment.values.get(&feature)? {
                Scalar::Text(text) => text,
                other => return Fact::of_scalar(other, Digits::Json).in_place(),
            },
        };
        // It is read anew for each condition.
        self.affords(cost(text)).then(|| Fact::text(text))
    }

    /// Takes from the work that is left. Once it is not enough, it is used up.
    fn affords(&mut self, cost: u64) -> bool {
        match self.work.checked_sub(cost) {
            Some(left) => {
                self.work = left;
                true
            }
            None => {
                self.work = 0;
                self.is_cut_short = true;
                false
            }
        }
    }
}

/// The work of going through a text.
fn cost(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}
