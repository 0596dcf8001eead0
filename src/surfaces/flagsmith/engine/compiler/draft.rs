//! What is known of a document that is being read.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::surfaces::flagsmith::engine::condition::Demand;
use crate::surfaces::flagsmith::engine::document::{
    ConditionText, OrganisationText, RuleText, StateText, TimeText, TraitText,
};
use crate::surfaces::flagsmith::engine::environment::{
    Environment, Override, OverrideSets, Segment,
};
use crate::surfaces::flagsmith::engine::path::{self, FeaturePart, Place};
use crate::surfaces::flagsmith::engine::pattern::{MAX_ALL, Pattern};
use crate::surfaces::flagsmith::engine::program::{self, FAILS, HOLDS, Source, Spot, Step};
use crate::surfaces::flagsmith::engine::scalar::Scalar;
use crate::surfaces::flagsmith::engine::split::Level;
use crate::surfaces::flagsmith::engine::state::State;

/// Bytes that an entry of an ordered map takes beyond its key and value, about.
const ENTRY: usize = 32;
/// Budget that compiling a pattern takes even when it is small.
const PATTERN_WORK: usize = 4 << 10;

/// An environment in the making.
#[derive(Default)]
pub(super) struct Draft {
    /// What of it is ready.
    pub made: Environment,
    /// The identity of the override that is being read.
    pub identifier: String,
    /// Its states, by what they are sorted by.
    states: Vec<IdentityState>,
    /// Ids and numbers of features.
    order: BTreeSet<(u32, u32)>,
    /// Segments by key. Of a key that comes twice the last one counts.
    segments: BTreeMap<Box<str>, Segment>,
    /// The segment that is being read.
    id: u32,
    rules: Vec<u32>,
    overrides: Vec<Override>,
    /// Patterns by text.
    patterns: BTreeMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
    /// Bytes that compiled patterns take.
    compiled: usize,
    /// Features whose values conditions look at.
    values: BTreeSet<u32>,
    /// Numbers of override sets by hash.
    sets: BTreeMap<u64, u32>,
}

/// An identity's override, in the order in which the engine sorts those of one identity.
struct IdentityState {
    name: String,
    value: String,
    kind: String,
    feature: u32,
    state: State,
}

impl Draft {
    /// An object or list begins.
    pub fn enter(&mut self, level: Level) {
        match level {
            Level::Segment => {
                self.rules.clear();
                self.overrides.clear();
            }
            Level::Override => self.states.clear(),
            _ => {}
        }
    }

    /// A state of the environment. Of a name that comes twice the last one counts.
    pub fn environment_state(&mut self, read: &StateText<'_>) {
        let number = self.feature(&read.feature.name);
        let state = State::new(read);
        self.made.weight += state.weight() + size_of::<u32>();
        let id = state.id;
        let place = usize::try_from(number).ok();
        if let Some(place) = place.and_then(|at| self.made.defaults.get_mut(at))
            && let Some(before) = place.replace(state)
        {
            self.order.remove(&(before.id, number));
        }
        self.order.insert((id, number));
    }

    /// A state of the segment that is being read.
    pub fn segment_override(&mut self, read: &StateText<'_>) {
        let priority = read.feature_segment.as_ref();
        let made = Override {
            feature: self.feature(&read.feature.name),
            priority: priority.map_or(f64::INFINITY, |segment| segment.priority.into()),
            state: State::new(read),
        };
        self.made.weight += size_of::<Override>() + made.state.weight();
        self.overrides.push(made);
    }

    /// A state of the identity that is being read.
    pub fn identity_override(&mut self, read: &StateText<'_>) {
        let state = State::of_identity(read);
        let feature = self.feature(&read.feature.name);
        self.states.push(IdentityState {
            name: read.feature.name.clone().into_owned(),
            value: state.parts().1.to_owned(),
            kind: read
                .feature
                .kind
                .clone()
                .unwrap_or_else(|| "STANDARD".to_owned()),
            feature,
            state,
        });
    }

    /// A top rule of the segment that is being read.
    pub fn rule(&mut self, rule: &RuleText<'_>) {
        let first = program::add(rule, HOLDS, FAILS, &mut |condition, hit, miss| {
            self.condition(condition, hit, miss)
        });
        self.made.weight += size_of::<u32>();
        self.rules.push(first);
    }

    fn condition(&mut self, read: &ConditionText<'_>, hit: u32, miss: u32) -> u32 {
        let source = self.source(read.property.as_deref().unwrap_or_default());
        let value = read.value.as_deref().unwrap_or_default();
        let demand = Demand::new(&read.operator, value, |text| self.pattern(text));
        self.made.weight += size_of::<Step>() + demand.weight();
        let number = u32::try_from(self.made.steps.len()).unwrap_or(FAILS);
        self.made.steps.push(Step {
            source,
            demand,
            hit,
            miss,
        });
        number
    }

    fn source(&mut self, property: &str) -> Source {
        let place = path::parse(property).map(|place| match place {
            Place::EnvironmentKey => Spot::EnvironmentKey,
            Place::EnvironmentName => Spot::EnvironmentName,
            Place::Identifier => Spot::Identifier,
            Place::IdentityKey => Spot::IdentityKey,
            Place::Trait(name) => Spot::Trait(self.slot(&name)),
            Place::Feature(name, part) => {
                let feature = self.feature(&name);
                if part == FeaturePart::Value {
                    self.values.insert(feature);
                }
                Spot::Feature(feature, part)
            }
        });
        self.made.reads_places |= place.is_some();
        let slot = (!property.is_empty()).then(|| self.slot(property));
        Source { place, slot }
    }

    fn slot(&mut self, name: &str) -> u32 {
        let (before, number) = (self.made.traits.len(), self.made.traits.number(name));
        if self.made.traits.len() > before {
            self.made.weight += name.len() + ENTRY * 2;
        }
        number
    }

    fn feature(&mut self, name: &str) -> u32 {
        let number = self.made.features.number(name);
        while self.made.defaults.len() < self.made.features.len() {
            self.made.weight += name.len() + ENTRY * 2;
            self.made.defaults.push(None);
        }
        number
    }

    fn pattern(&mut self, text: &str) -> u32 {
        if let Some(number) = self.patterns.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.patterns.insert(text.into(), number);
        self.texts.push(text.into());
        number
    }

    /// Compiles a pattern, and says what that cost. `None`: there is none of this number.
    pub fn compile_pattern(&mut self, number: usize) -> Option<usize> {
        let text = self.texts.get(number)?;
        let pattern = Pattern::new(text, MAX_ALL.saturating_sub(self.compiled));
        let size = pattern.as_ref().map_or(0, Pattern::size);
        self.compiled += size;
        self.made.weight += size + size_of::<Option<Pattern>>();
        self.made.patterns.push(pattern);
        Some(PATTERN_WORK + text.len() + size)
    }

    /// Ids of features that only server keys see.
    pub fn server_only(&mut self, mut ids: Vec<u32>) {
        ids.sort_unstable();
        ids.dedup();
        self.made.server_only = ids;
    }

    /// The id of the segment that is being read.
    pub const fn segment_id(&mut self, id: u32) {
        self.id = id;
    }

    /// The segment that was read. One that overrides nothing or has no rules changes nothing, but replaces one of its id.
    pub fn segment(&mut self) {
        let key: Box<str> = self.id.to_string().into();
        let segment = Segment {
            key: key.clone(),
            rules: std::mem::take(&mut self.rules),
            overrides: std::mem::take(&mut self.overrides),
        };
        self.made.weight += size_of::<Segment>() + key.len();
        self.segments.insert(key, segment);
    }

    /// The identity that was read.
    pub fn identity(&mut self) {
        let mut states = std::mem::take(&mut self.states);
        if states.is_empty() {
            return;
        }
        states.sort_by(|one, other| one.key().cmp(&other.key()));
        let hash = hash(&states);
        let new = u32::try_from(self.made.override_sets.len()).unwrap_or(u32::MAX);
        let number = *self.sets.entry(hash).or_insert(new);
        // An equal set as well: the types of features are not in the hash, and the last ones count.
        let set: Vec<_> = states
            .into_iter()
            .map(|state| (state.feature, state.state))
            .collect();
        let weight: usize = set
            .iter()
            .map(|(_, state)| state.weight() + size_of::<u64>())
            .sum();
        match usize::try_from(number)
            .ok()
            .and_then(|at| self.made.override_sets.get_mut(at))
        {
            Some(place) => *place = set,
            None => {
                self.made.weight += weight + ENTRY;
                self.made.override_sets.push(set);
            }
        }
        let identifier: Box<str> = std::mem::take(&mut self.identifier).into();
        self.made.weight += identifier.len() + size_of::<OverrideSets>() + ENTRY;
        self.made
            .identities
            .entry(identifier)
            .and_modify(|sets| sets.add(hash, number))
            .or_insert_with(|| OverrideSets::new(hash, number));
    }

    /// Read to see that it fits.
    pub fn identity_trait(&mut self, _: TraitText<'_>) {}

    /// Read to see that it fits.
    pub fn created_date(&mut self, _: TimeText) {}

    /// Read to see that it fits.
    pub fn organisation(&mut self, _: OrganisationText) {}

    /// All of the document was read.
    pub fn finish(mut self) -> Environment {
        self.made.order = self.order.into_iter().map(|(_, number)| number).collect();
        let acts = |segment: &Segment| !segment.rules.is_empty() && !segment.overrides.is_empty();
        self.made.segments = self.segments.into_values().filter(acts).collect();
        for feature in self.values {
            let json = self
                .made
                .default(feature)
                .map_or("", |state| state.parts().1);
            let weight = size_of::<Scalar<'_>>() + json.len() + ENTRY;
            if let Ok(value) = serde_json::from_str::<Scalar<'_>>(json).map(Scalar::into_owned) {
                self.made.weight += weight;
                self.made.values.insert(feature, value);
            }
        }
        self.made.weight += size_of::<Environment>()
            + self.made.api_key.len()
            + self.made.name.len()
            + self.made.server_only.len() * size_of::<u32>();
        self.made
    }
}

impl IdentityState {
    fn key(&self) -> (&str, bool, &str, u32, &str) {
        (
            &self.name,
            self.state.enabled,
            &self.value,
            self.state.id,
            &self.kind,
        )
    }
}

/// The hash by which the engine tells sets of overrides apart and sorts them: the first 64 bits of a SHA-256.
fn hash(states: &[IdentityState]) -> u64 {
    let mut hasher = Sha256::new();
    for state in states {
        hasher.update(format!(
            "{}:{}:{}:{};",
            state.state.id, state.name, state.state.enabled, state.value,
        ));
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let (first, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}
