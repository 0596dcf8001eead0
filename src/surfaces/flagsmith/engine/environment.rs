//! An environment document, compiled.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::pattern::Pattern;
use super::program::Step;
use super::scalar::Scalar;
use super::state::State;

/// One environment: what is asked of it, see [`Environment::flags`] and [`Environment::identity`].
///
/// Names are numbers here: each feature and each trait that a condition looks at has one.
#[derive(Default)]
pub struct Environment {
    /// The client key, a part of each identity's key.
    pub(super) api_key: String,
    pub(super) name: String,
    pub(super) updated_at: Option<String>,
    pub(super) hides_disabled_flags: bool,
    /// Ids of features that only server keys see, sorted.
    pub(super) server_only: Vec<u32>,
    /// Numbers of features by name; a feature that only overrides name has one, too.
    pub(super) features: Names,
    /// What each feature is, by number.
    pub(super) defaults: Vec<Option<State>>,
    /// Numbers of the features in the order of their ids.
    pub(super) order: Vec<u32>,
    /// In the order of their ids as text.
    pub(super) segments: Vec<Segment>,
    pub(super) steps: Vec<Step>,
    pub(super) patterns: Vec<Option<Pattern>>,
    /// Numbers of traits that conditions look at.
    pub(super) traits: Names,
    /// Whether a condition looks at a place.
    pub(super) reads_places: bool,
    /// Values of features that conditions look at.
    pub(super) values: BTreeMap<u32, Scalar<'static>>,
    /// Sets of overrides that identities share.
    pub(super) override_sets: Vec<Vec<(u32, State)>>,
    /// The sets of each identity, in the order in which they count.
    pub(super) identities: BTreeMap<Box<str>, OverrideSets>,
    pub(super) weight: usize,
}

/// Texts by number, in the order in which they came.
#[derive(Default)]
pub(super) struct Names {
    numbers: BTreeMap<Rc<str>, u32>,
    texts: Vec<Rc<str>>,
}

impl Names {
    /// The number of a text, which is new when it was not there.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Rc<str> = text.into();
        self.texts.push(Rc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// The number of a text.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The text of a number.
    pub(super) fn text(&self, number: u32) -> &str {
        let text = usize::try_from(number)
            .ok()
            .and_then(|at| self.texts.get(at));
        text.map_or("", AsRef::as_ref)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }
}

/// A segment that overrides something.
pub(super) struct Segment {
    /// Its id as text, which percentages are hashed with.
    pub key: Box<str>,
    /// The first step of each of its rules, all of which have to hold.
    pub rules: Vec<u32>,
    /// What it overrides, in the order of the document.
    pub overrides: Vec<Override>,
}

/// What a segment says of a feature.
pub(super) struct Override {
    /// The feature.
    pub feature: u32,
    /// The smallest one wins; infinite where the document has none.
    pub priority: f64,
    /// What it is.
    pub state: State,
}

/// Sets of overrides of one identity: mostly one, more when the document has it more than once.
pub(super) struct OverrideSets {
    /// Hash and number of the set that counts first.
    first: (u64, u32),
    others: Vec<(u64, u32)>,
}

impl OverrideSets {
    /// One set.
    pub(super) const fn new(hash: u64, number: u32) -> Self {
        Self {
            first: (hash, number),
            others: Vec::new(),
        }
    }

    /// Another one, which counts by its hash.
    pub(super) fn add(&mut self, hash: u64, number: u32) {
        let mut new = (hash, number);
        if new == self.first {
            return;
        }
        if new < self.first {
            std::mem::swap(&mut new, &mut self.first);
        }
        if let Err(place) = self.others.binary_search(&new) {
            self.others.insert(place, new);
        }
    }

    /// The numbers of the sets in their order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        std::iter::once(&self.first)
            .chain(&self.others)
            .map(|(_, number)| *number)
    }
}

impl Environment {
    /// The document's `updated_at` as it stands there; `None` when it has none that is text.
    pub fn updated_at(&self) -> Option<&str> {
        self.updated_at.as_deref()
    }

    /// Whether the project hides disabled flags. Flagsmith's older proxy does, from client keys.
    pub const fn hides_disabled_flags(&self) -> bool {
        self.hides_disabled_flags
    }

    /// Features by id and name, in the order in which flags come.
    pub fn features(&self) -> impl Iterator<Item = (u32, &str)> {
        self.order.iter().filter_map(|number| {
            let state = self.default(*number)?;
            Some((state.id, self.features.text(*number)))
        })
    }

    /// Bytes of memory that it takes, about. The document's text, which it does not hold, is not counted.
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// Patterns that match nothing, since they are bad or too large.
    pub fn patterns_left_out(&self) -> usize {
        self.patterns
            .iter()
            .filter(|pattern| pattern.is_none())
            .count()
    }

    /// What the environment says of a feature.
    pub(super) fn default(&self, feature: u32) -> Option<&State> {
        self.defaults.get(usize::try_from(feature).ok()?)?.as_ref()
    }
}

/// Shows nothing of the document.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "an environment with {} features and {} segments",
            self.order.len(),
            self.segments.len(),
        )
    }
}
