//! Which content codings a client accepts (RFC 9110 §12.5.3).

/// All `Accept-Encoding` fields of a request, as one list. Of codings that are named twice the lower weight counts:
/// everybody reads an answer without any coding. For the same reason one element that is against the grammar takes
/// all others with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptEncoding {
    gzip: Option<Weight>,
    identity: Option<Weight>,
    any: Option<Weight>,
    malformed: bool,
}

/// A quality value in thousandths; 0 is "not acceptable".
type Weight = u16;

const ONE: Weight = 1_000;

impl AcceptEncoding {
    /// Adds one header field.
    pub fn add(&mut self, field: &[u8]) {
        for element in field.split(|byte| *byte == b',').map(trim) {
            // A list may have empty elements (§5.6.1.2).
            if element.is_empty() {
                continue;
            }
            let Some((coding, weight)) = parse(element) else {
                self.malformed = true;
                return;
            };
            let slot =
                if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
                    &mut self.gzip
                } else if coding.eq_ignore_ascii_case(b"identity") {
                    &mut self.identity
                } else if coding == b"*" {
                    &mut self.any
                } else {
                    continue;
                };
            *slot = Some(slot.map_or(weight, |before| before.min(weight)));
        }
    }

    /// Whether an answer should be in gzip form: it is acceptable, and no less welcome than one without coding.
    /// Without any field, and with a malformed one, it should not.
    ///
    /// ```
    /// use flag_definitions_filter::http::AcceptEncoding;
    /// let prefers_gzip = |field: &str| {
    ///     let mut accepted = AcceptEncoding::default();
    ///     accepted.add(field.as_bytes());
    ///     accepted.prefers_gzip()
    /// };
    /// assert!(prefers_gzip("br, gzip;q=0.5"));
    /// assert!(!prefers_gzip("gzip;q=0.5, identity"), "identity is more welcome");
    /// assert!(!prefers_gzip("gzip, deflate;q=high"), "against the grammar");
    /// ```
    pub fn prefers_gzip(&self) -> bool {
        let gzip = self.gzip.or(self.any).unwrap_or(0);
        // What is not named is acceptable, but nothing was said for it.
        let identity = self.identity.or(self.any).unwrap_or(0);
        !self.malformed && gzip > 0 && gzip >= identity
    }
}

impl AcceptEncoding {
    /// Whether gzip is named with a weight above zero, as some services have it: `*` does not name it, and nothing else
    /// matters.
    ///
    /// ```
    /// use flag_definitions_filter::http::AcceptEncoding;
    /// let names_gzip = |field: &str| {
    ///     let mut accepted = AcceptEncoding::default();
    ///     accepted.add(field.as_bytes());
    ///     accepted.names_gzip()
    /// };
    /// assert!(names_gzip("br, gzip;q=0.1"));
    /// assert!(!names_gzip("*") && !names_gzip("gzip;q=0"));
    /// ```
    pub fn names_gzip(&self) -> bool {
        !self.malformed && self.gzip.is_some_and(|weight| weight > 0)
    }
}

/// An element of the list: a coding, which is a token, and its weight.
fn parse(element: &[u8]) -> Option<(&[u8], Weight)> {
    let mut parts = element.splitn(2, |byte| *byte == b';').map(trim);
    let coding = parts.next()?;
    let weight = match parts.next() {
        None => ONE,
        Some([b'q' | b'Q', b'=', value @ ..]) => quality(value)?,
        Some(_) => return None,
    };
    let is_token = !coding.is_empty() && coding.iter().copied().all(is_token_byte);
    is_token.then_some((coding, weight))
}

/// Without the optional white space around it (§5.6.3).
fn trim(bytes: &[u8]) -> &[u8] {
    let is_content = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let begin = bytes.iter().position(is_content).unwrap_or(bytes.len());
    let end = bytes
        .iter()
        .rposition(is_content)
        .map_or(begin, |last| last + 1);
    bytes.get(begin..end).unwrap_or_default()
}

/// `tchar` (§5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `0`, `1`, or a fraction with at most three digits.
fn quality(value: &[u8]) -> Option<Weight> {
    let (whole, fraction) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let places = [100, 10, 1];
    let digits = fraction.iter().map(|digit| Weight::from(digit - b'0'));
    let thousandths: Weight = digits.zip(places).map(|(digit, place)| digit * place).sum();
    let weight = Weight::from(whole - b'0') * ONE + thousandths;
    (weight <= ONE).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn prefers_gzip<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut accepted = AcceptEncoding::default();
        fields.into_iter().for_each(|field| accepted.add(field));
        accepted.prefers_gzip()
    }

    #[test]
    fn codings_and_their_weights() {
        for (fields, expected) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
            (&["gzip, deflate, br, zstd"], true),
            (&["deflate,gzip"], true),
            (&["br", "gzip"], true),
            (&["deflate, br"], false),
            (&["identity"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000"], false),
            (&["gzip;q=0.001"], true),
            (&["gzip;q=1.000"], true),
            (&["gzip ; q=0.5"], true),
            (&["gzip;Q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["*;q=0, gzip"], true),
            (&["identity;q=0"], false),
            (&["identity;q=0, gzip"], true),
            (&["identity;q=0, *"], true),
            (&["identity, gzip"], true),
            (&["identity, gzip;q=0.5"], false),
            (&["identity;q=0.5, gzip;q=0.5"], true),
            (&["gzip;q=0.5, *;q=0.8"], false),
            (&["gzip;q=0.5, identity;q=0.3, *;q=0.8"], true),
            // Named twice.
            (&["gzip", "gzip;q=0"], false),
            (&["gzip;q=0, x-gzip"], false),
            (&["gzip\t;\tq=1\t,\tbr"], true),
            (&["gzip;q=0."], false),
            (&["gzip;q=1."], true),
            (&["br;q=0, gzip"], true),
            (&["a!#$%&'*+-.^_`|~z, gzip"], true),
            // Empty elements are none.
            (&[",,gzip,\t,"], true),
            (&["", "gzip"], true),
            // What is no weight.
            (&["gzip;q="], false),
            (&["gzip;q=2"], false),
            (&["gzip;q=1.001"], false),
            (&["gzip;q=0.1234"], false),
            (&["gzip;q=.5"], false),
            (&["gzip;q=-1"], false),
            (&["gzip;q=1;q=0"], false),
            (&["gzip; q =1"], false),
            (&["gzip;q= 1"], false),
            (&["gzip;q=\"1\""], false),
            (&["gzip;q=1e0"], false),
            (&["gzip;q=1;"], false),
            (&["gzip;"], false),
            (&["gzip;q"], false),
            (&["gzip;level=9"], false),
            (&["gzip;level=9;q=0"], false),
            (&["gzip;q=1;level=9"], false),
            // What is no coding.
            (&["gzipped"], false),
            (&["gzip br"], false),
            (&["gzip/1"], false),
            (&["gzip\u{b}"], false),
            (&["\"gzip\""], false),
            (&[",,;,gzip;,"], false),
            // One element, or one field, against the grammar.
            (&["gzip, ;q=1"], false),
            (&["gzip, br;q=2"], false),
            (&["br;q=2, gzip"], false),
            (&["gzip, é"], false),
            (&["gzip", "a b"], false),
            (&["a b", "gzip"], false),
            (&["*, (comment)"], false),
        ] {
            let actual = prefers_gzip(fields.iter().map(|field| field.as_bytes()));
            assert_eq!(actual, expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(fields in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..60), 0..4))
        {
            prefers_gzip(fields.iter().map(Vec::as_slice));
        }

        #[test]
        fn anything_like_it_is_read(field in "(gzip|x-gzip|identity|\\*|br|[ ;,=q.01]){0,20}") {
            let once = prefers_gzip([field.as_bytes()]);
            let twice = prefers_gzip([field.as_bytes(), field.as_bytes()]);
            prop_assert_eq!(once, twice);
            if once {
                prop_assert!(field.contains("gzip") || field.contains('*'));
            }
        }
    }
}
