//! What is selected, compiled: flags that can be evaluated.

use std::rc::Rc;

use super::context::Seen;
use super::partial::PartialText;
use super::rules::{RuleEvaluation, TargetingRule};
use super::selector::Selector;
use super::value::{JsonValue, write_text};

/// The flags that one [`Selector`](super::Selector) selects, in the order of answers.
#[derive(Debug, Default)]
pub struct Selection {
    /// The text of its selector.
    name: Box<str>,
    pub(super) flags: Vec<SelectedFlag>,
    /// The places of flags, by key.
    by_key: Vec<u32>,
    reads_time: bool,
}

impl Selection {
    pub(super) fn new(name: Box<str>, flags: Vec<SelectedFlag>) -> Self {
        let mut by_key: Vec<u32> = (0..).take(flags.len()).collect();
        by_key.sort_by(|a, b| key_at(&flags, *a).cmp(key_at(&flags, *b)));
        let rules = flags.iter().filter_map(|flag| flag.rule.as_ref());
        Self {
            reads_time: rules.into_iter().any(TargetingRule::reads_time),
            name,
            by_key,
            flags,
        }
    }

    /// Whether this is what the selector selects.
    pub fn is_of(&self, selector: &Selector) -> bool {
        *self.name == *selector.text()
    }

    /// Whether an answer may change with time alone.
    pub const fn reads_time(&self) -> bool {
        self.reads_time
    }

    /// How many flags there are.
    pub const fn len(&self) -> usize {
        self.flags.len()
    }

    /// Drops so many flags at most; whether no more are left than that.
    pub fn drop_flags(&mut self, most: usize) -> bool {
        // None is found any more.
        self.by_key = Vec::new();
        self.flags.truncate(self.flags.len().saturating_sub(most));
        self.flags.len() <= most
    }

    /// Whether there is no flag.
    pub const fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// About how many bytes of memory it takes; rules count as their JSON.
    pub fn weight(&self) -> usize {
        let flags = self.flags.iter().map(|flag| flag.weight);
        flags.sum::<usize>()
            + self.name.len()
            + size_of_val(self.by_key.as_slice())
            + size_of::<Self>()
    }

    pub(super) fn flag(&self, key: &str) -> Option<&SelectedFlag> {
        let own = |place: &u32| key_at(&self.flags, *place).cmp(key);
        let found = self.by_key.binary_search_by(own);
        let place = self.by_key.get(found.ok()?)?;
        self.flags.get(usize::try_from(*place).ok()?)
    }
}

fn key_at(flags: &[SelectedFlag], place: u32) -> &str {
    let flag = usize::try_from(place).ok().and_then(|at| flags.get(at));
    flag.map_or("", |flag| &flag.key)
}

/// A flag.
#[derive(Debug)]
pub(super) struct SelectedFlag {
    pub key: Rc<str>,
    pub is_disabled: bool,
    /// By name.
    pub variants: Vec<Variant>,
    /// Among the variants.
    pub default: Option<usize>,
    /// Without it the flag is static.
    pub rule: Option<TargetingRule>,
    /// The key as a member of an object that has just begun.
    pub head: Box<[u8]>,
    /// Metadata as the last member of an object.
    pub tail: Box<[u8]>,
    /// Bytes of memory.
    pub weight: usize,
}

/// A variant of a flag.
#[derive(Debug)]
pub(super) struct Variant {
    pub name: Box<str>,
    /// Its name and its value as further members of an object.
    pub text: Box<[u8]>,
    pub kind: Kind,
}

/// The JSON type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

impl Kind {
    /// The type of the value that begins with this byte.
    pub(super) const fn of(first: u8) -> Self {
        match first {
            b'n' => Self::Null,
            b't' | b'f' => Self::Bool,
            b'"' => Self::Text,
            b'[' => Self::List,
            b'{' => Self::Object,
            _ => Self::Number,
        }
    }
}

impl Variant {
    pub(super) fn new(name: &str, value: &[u8], kind: Kind) -> Self {
        let mut text = Vec::with_capacity(24 + name.len() + value.len());
        if !name.is_empty() {
            text.extend_from_slice(b",\"variant\":");
            write_text(name, &mut text);
        }
        text.extend_from_slice(b",\"value\":");
        text.extend_from_slice(value);
        Self {
            name: name.into(),
            text: text.into(),
            kind,
        }
    }
}

/// What a flag is for somebody.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome<'f> {
    /// A variant, and why.
    Variant(&'static str, &'f Variant),
    /// No variant: the client's own default holds. And why.
    Default(&'static str),
    /// The rule cannot be evaluated.
    ParseError,
    /// What it gives cannot be served.
    General,
}

impl SelectedFlag {
    /// Evaluates the flag. Among all flags of a selection a variant must have the type that the default one has.
    pub(super) fn evaluate(
        &self,
        evaluation: &mut RuleEvaluation,
        seen: &mut Seen,
        is_bulk: bool,
    ) -> Outcome<'_> {
        let default = self.default.and_then(|place| self.variants.get(place));
        if self.is_disabled {
            return Outcome::Default("DISABLED");
        }
        let (reason, variant) = match &self.rule {
            None if default.is_none() => ("DEFAULT", None),
            None => ("STATIC", default),
            Some(rule) => match evaluation.evaluate(rule, &seen.by(&self.key)) {
                Ok(JsonValue::Null) => ("DEFAULT", default),
                Ok(value) => match self.variant(&value) {
                    None => return Outcome::General,
                    variant => ("TARGETING_MATCH", variant),
                },
                Err(_) => return Outcome::ParseError,
            },
        };
        match (variant, default) {
            (None, _) => Outcome::Default(reason),
            (Some(variant), _) if variant.kind == Kind::Null => Outcome::General,
            (Some(variant), Some(default)) if is_bulk && default.conflicts_with(variant) => {
                Outcome::General
            }
            (Some(variant), _) => Outcome::Variant(reason, variant),
        }
    }

    /// The variant that a rule's result names: text as it is, all else by its JSON without quotes.
    fn variant(&self, result: &JsonValue) -> Option<&Variant> {
        match result {
            JsonValue::Text(name) => self.named(name),
            value => {
                let longest = self.variants.iter().map(|own| own.name.len()).max();
                let mut name = Vec::new();
                // Most of what is left out are the two quotes of each text, which a comma or a bracket is beside.
                let most = longest?.saturating_mul(6).saturating_add(64);
                if !PartialText::new(value.clone()).write(&mut name, most) {
                    return None;
                }
                name.retain(|byte| *byte != b'"');
                self.named(std::str::from_utf8(&name).ok()?)
            }
        }
    }

    pub(super) fn named(&self, name: &str) -> Option<&Variant> {
        let place = self.variants.binary_search_by(|own| (*own.name).cmp(name));
        self.variants.get(place.ok()?)
    }
}

impl Variant {
    /// Whether this default variant has a type that the other one has not.
    fn conflicts_with(&self, other: &Self) -> bool {
        !matches!(self.kind, Kind::Null | Kind::List) && self.kind != other.kind
    }
}
