//! Patterns of conditions: bounded in size, and linear in time.
//!
//! The engine in Flagsmith's proxy has the crate `regex`. In the filter it is `regex-lite`: of a wasm module with nothing else,
//! that adds 79 KB; `regex-automata` adds 277 KB without, 312 KB with the tables of `\d`, `\w` and `\s`, and 594 KB with all
//! tables of Unicode. Both take linear time. What differs by that: `\d`, `\w`, `\s`, `\b` and `(?i)` mean ASCII,
//! and a pattern with `\p{…}` or with a class inside of a class is a bad pattern, which matches nothing.

use regex_lite::{Regex, RegexBuilder};

/// Longest text of a pattern, in bytes. Flagsmith itself takes 1 000 characters.
pub const MAX_TEXT: usize = 8 << 10;
/// Largest compiled pattern, in bytes.
pub const MAX_COMPILED: usize = 32 << 10;
/// Largest sum of a document's compiled patterns, in bytes, each counted as the bound in [`TIERS`] that it is within.
pub const MAX_ALL: usize = 8 << 20;

/// Bounds that are tried in turn: the crate does not say how large a pattern is.
const TIERS: [usize; 7] = [
    512,
    1 << 10,
    2 << 10,
    4 << 10,
    8 << 10,
    16 << 10,
    MAX_COMPILED,
];
/// Bytes of a state of a compiled pattern, or fewer.
const STATE: usize = 32;
/// Nesting of groups, as in the crate `regex`.
const MAX_NESTING: u32 = 250;

/// A compiled pattern.
pub(super) struct Pattern {
    regex: Regex,
    size: usize,
}

impl Pattern {
    /// Compiles a pattern that is at most `room` bytes large. `None` when it is bad or too large.
    pub(super) fn new(text: &str, room: usize) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let build = |size: usize| {
            RegexBuilder::new(text)
                .size_limit(size)
                .nest_limit(MAX_NESTING)
                .build()
        };
        TIERS
            .into_iter()
            .take_while(|size| *size <= room)
            .find_map(|size| build(size).ok().map(|regex| Self { regex, size }))
    }

    /// Bytes that it takes, at most.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Units of work that a search takes, at most: each state is looked at for each byte.
    pub(super) fn cost(&self, text: &str) -> u64 {
        let states = u64::try_from(self.size / STATE).unwrap_or(u64::MAX);
        states.saturating_mul(
            u64::try_from(text.len())
                .unwrap_or(u64::MAX)
                .saturating_add(1),
        )
    }

    /// Whether it is found anywhere in a text.
    pub(super) fn is_found(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn found(pattern: &str, text: &str) -> Option<bool> {
        Pattern::new(pattern, MAX_ALL).map(|pattern| pattern.is_found(text))
    }

    #[test]
    fn a_pattern_is_found_anywhere() {
        assert_eq!(found("b+", "abbc"), Some(true));
        assert_eq!(found("^b", "abbc"), Some(false));
        assert_eq!(found("^.$", "é"), Some(true));
        assert_eq!(found(r"\d{3}", "a123"), Some(true));
    }

    #[test]
    fn bad_and_large_patterns_are_none() {
        for bad in ["(", "a(?=b)", r"(a)\1", "[z-a]", r"\p{L}", "a{1000000}"] {
            assert_eq!(found(bad, "a"), None, "{bad}");
        }
        assert_eq!(found(&"a".repeat(MAX_TEXT + 1), "a"), None);
        assert_eq!(found("((a{100}){100}){100}", "a"), None);
        assert_eq!(
            found(&format!("{}a{}", "(".repeat(400), ")".repeat(400)), "a"),
            None
        );
        assert!(Pattern::new("a", 1).is_none());
    }

    #[test]
    fn larger_patterns_cost_more() {
        let cost = |pattern: &str| Pattern::new(pattern, MAX_ALL).unwrap().cost("12345");
        assert!(cost("a") < cost("a{100}") && cost("a{100}") < cost("a{900}"));
    }
}
