//! Properties of conditions that name a place of the evaluation, as JSONPath (RFC 9535).
//!
//! Known are the places that have one value each: `$.environment.{name,key}`, `$.identity.{identifier,key}`,
//! `$.identity.traits.X` and `$.features.X.{enabled,value,name,key}`, `$.features.X.metadata.feature_id`. A name is written
//! after a dot, or in brackets and quotes. Wildcards, indices, filters, descendants and `$.segments` are not known. A property
//! that is not known is the name of a trait, as the engine has it for what finds nothing.

use std::borrow::Cow;

/// A place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `$.environment.key`: the document's `api_key`.
    EnvironmentKey,
    /// `$.environment.name`.
    EnvironmentName,
    /// `$.identity.identifier`.
    Identifier,
    /// `$.identity.key`: `<api_key>_<identifier>`.
    IdentityKey,
    /// `$.identity.traits.X`.
    Trait(Cow<'a, str>),
    /// `$.features.X.…`: a feature as the environment has it, before segments.
    Feature(Cow<'a, str>, FeaturePart),
}

/// A part of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeaturePart {
    /// `enabled`.
    Enabled,
    /// `value`.
    Value,
    /// `name`.
    Name,
    /// `key`: what its variants are hashed with.
    Key,
    /// `metadata.feature_id`.
    Id,
}

/// Names that the longest known place has.
const MOST_NAMES: usize = 4;

/// The place that a property names; `None` when it is a trait's name.
pub(super) fn parse(property: &str) -> Option<Place<'_>> {
    let mut rest = property
        .strip_prefix('$')
        .filter(|rest| rest.starts_with('.'))?;
    let mut names = Vec::with_capacity(MOST_NAMES);
    while !rest.is_empty() {
        if names.len() == MOST_NAMES {
            return None;
        }
        let (name, tail) = segment(rest)?;
        names.push(name);
        rest = tail;
    }
    place(&names)
}

fn place<'a>(names: &[Cow<'a, str>]) -> Option<Place<'a>> {
    let plain: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let name = |at: usize| names.get(at).cloned();
    Some(match plain.as_slice() {
        ["environment", "key"] => Place::EnvironmentKey,
        ["environment", "name"] => Place::EnvironmentName,
        ["identity", "identifier"] => Place::Identifier,
        ["identity", "key"] => Place::IdentityKey,
        ["identity", "traits", _] => Place::Trait(name(2)?),
        ["features", _, "enabled"] => Place::Feature(name(1)?, FeaturePart::Enabled),
        ["features", _, "value"] => Place::Feature(name(1)?, FeaturePart::Value),
        ["features", _, "name"] => Place::Feature(name(1)?, FeaturePart::Name),
        ["features", _, "key"] => Place::Feature(name(1)?, FeaturePart::Key),
        ["features", _, "metadata", "feature_id"] => Place::Feature(name(1)?, FeaturePart::Id),
        _ => return None,
    })
}

/// One name, and what follows it.
fn segment(rest: &str) -> Option<(Cow<'_, str>, &str)> {
    let rest = blanks(rest);
    if let Some(rest) = rest.strip_prefix('.') {
        let end = rest
            .find(|sign: char| !is_of_name(sign))
            .unwrap_or(rest.len());
        let (name, tail) = rest.split_at_checked(end)?;
        let starts = name
            .chars()
            .next()
            .is_some_and(|first| !first.is_ascii_digit());
        return starts.then_some((Cow::Borrowed(name), tail));
    }
    let rest = blanks(rest.strip_prefix('[')?);
    let quote = rest
        .chars()
        .next()
        .filter(|quote| matches!(quote, '\'' | '"'))?;
    let (name, tail) = quoted(rest.strip_prefix(quote)?, quote)?;
    Some((name, blanks(tail).strip_prefix(']')?))
}

fn blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

fn is_of_name(sign: char) -> bool {
    sign.is_ascii_alphanumeric() || sign == '_' || !sign.is_ascii()
}

/// The text up to the closing quote, and what follows that. Of the escapes that of the quote and of the backslash are known.
fn quoted(rest: &str, quote: char) -> Option<(Cow<'_, str>, &str)> {
    let end = rest.find([quote, '\\'])?;
    let (plain, tail) = rest.split_at_checked(end)?;
    if let Some(tail) = tail.strip_prefix(quote) {
        let shown = !plain.chars().any(|sign| sign < ' ');
        return shown.then_some((Cow::Borrowed(plain), tail));
    }
    let mut name = String::new();
    let mut signs = rest.chars();
    loop {
        match signs.next()? {
            '\\' => match signs.next()? {
                sign if sign == quote || sign == '\\' => name.push(sign),
                _ => return None,
            },
            sign if sign == quote => return Some((Cow::Owned(name), signs.as_str())),
            sign if sign < ' ' => return None,
            sign => name.push(sign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn known_places_are_found_in_every_notation() {
        let named = |name: &'static str| Some(Place::Trait(name.into()));
        for (property, place) in [
            ("$.environment.name", Some(Place::EnvironmentName)),
            ("$.environment['key']", Some(Place::EnvironmentKey)),
            ("$.identity.identifier", Some(Place::Identifier)),
            ("$.identity .key", Some(Place::IdentityKey)),
            ("$.identity.traits.age", named("age")),
            ("$.identity.traits['a b']", named("a b")),
            (r#"$.identity["traits"][ "it's" ]"#, named("it's")),
            (r"$.identity.traits['it\'s \\']", named(r"it's \")),
            ("$.identity.traits.größe", named("größe")),
            (
                "$.features.x.enabled",
                Some(Place::Feature("x".into(), FeaturePart::Enabled)),
            ),
            (
                "$.features.x.metadata.feature_id",
                Some(Place::Feature("x".into(), FeaturePart::Id)),
            ),
        ] {
            assert_eq!(parse(property), place, "{property}");
        }
    }

    #[test]
    fn all_else_is_the_name_of_a_trait() {
        for property in [
            "",
            "age",
            "$",
            "$.",
            "$['identity'].key",
            "$.identity",
            "$.identity.traits",
            "$.identity.traits.a-b",
            "$.identity.traits.1a",
            "$.identity.traits['a",
            "$.identity.traits['a'",
            r"$.identity.traits['\n']",
            "$.identity.traits.a.b.c.d",
            "$.identity.*",
            "$..key",
            "$.segments['1'].name",
            "$.environment.name ",
        ] {
            assert_eq!(parse(property), None, "{property}");
        }
    }
}
