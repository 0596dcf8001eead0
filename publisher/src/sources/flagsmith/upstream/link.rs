//! The next page, as a `Link` header names it (RFC 8288).

use reqwest::header::{HeaderMap, LINK};

/// The target of the first link to the next page, as written; `None` when there is none.
pub fn next(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(LINK).into_iter();
    values
        .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
        .find_map(next_of)
}

fn next_of(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (_, link) = rest.split_once('<')?;
        let (target, after) = link.split_once('>')?;
        let (parameters, more) = split(after, ',');
        if is_next(parameters) {
            return Some(target.trim());
        }
        rest = more?;
    }
}

/// Whether the relations of a link, the first `rel` alone, have the next page among them.
fn is_next(parameters: &str) -> bool {
    let mut rest = Some(parameters);
    while let Some(text) = rest {
        let (parameter, more) = split(text, ';');
        rest = more;
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        if name.trim().eq_ignore_ascii_case("rel") {
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return relations.any(|relation| relation.eq_ignore_ascii_case("next"));
        }
    }
    false
}

/// What is before and behind the first such character that is not between quotes.
fn split(text: &str, separator: char) -> (&str, Option<&str>) {
    let (mut quoted, mut escaped) = (false, false);
    let found = text.find(|character: char| {
        let is_separator = character == separator && !quoted;
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => (),
        }
        is_separator
    });
    match found.and_then(|place| text.split_at_checked(place)) {
        Some((before, behind)) => (before, behind.strip_prefix(separator)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn links() {
        for (value, target) in [
            (
                r#"</a?page_id=b%3A1>; rel="next""#,
                Some("/a?page_id=b%3A1"),
            ),
            ("<https://h/a>; rel=next", Some("https://h/a")),
            ("< a >;REL = \"prev NEXT\"", Some("a")),
            (r#"</p>; rel="prev", </n>; rel="next""#, Some("/n")),
            (
                r#"</n>; title="a, <b>; rel=\"prev\""; rel=next"#,
                Some("/n"),
            ),
            (r#"</a,b;c>; rel=next, </d>; rel=next"#, Some("/a,b;c")),
            (r#"</a>; rel=prev; rel=next"#, None),
            (r#"</a>; title="rel=next""#, None),
            (r#"</a>; rel="nextish""#, None),
            ("</a>", None),
            ("</a; rel=next", None),
            ("/a; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_of(value), target, "{value}");
        }
    }

    #[test]
    fn each_header_is_looked_at() {
        let mut headers = HeaderMap::new();
        for value in ["</a>; rel=prev", "</b>; rel=next"] {
            headers.append(LINK, HeaderValue::from_static(value));
        }
        assert_eq!(next(&headers), Some("/b"));
    }

    proptest! {
        #[test]
        fn any_text_ends(value in "[<>,;\"\\\\ =a-z]{0,40}") {
            if let Some(target) = next_of(&value) {
                prop_assert!(value.contains(target));
            }
        }
    }
}
