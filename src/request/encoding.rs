//! Which content codings a client accepts (RFC 9110 §12.5.3).

/// All `Accept-Encoding` fields of a request, as one list. Of codings that are named twice the lower weight counts:
/// everybody reads an answer without any coding.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptEncoding {
    gzip: Option<Weight>,
    identity: Option<Weight>,
    any: Option<Weight>,
}

/// A quality value in thousandths; 0 is "not acceptable".
type Weight = u16;

const ONE: Weight = 1_000;

impl AcceptEncoding {
    /// Adds one header field.
    pub fn add(&mut self, field: &[u8]) {
        for element in field.split(|byte| *byte == b',') {
            let mut parts = element.split(|byte| *byte == b';');
            let coding = parts.next().unwrap_or_default().trim_ascii();
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
            let weight = parts.map(parameter_weight).min().unwrap_or(ONE);
            *slot = Some(slot.map_or(weight, |before| before.min(weight)));
        }
    }

    /// Whether an answer should be in gzip form: it is acceptable, and no less welcome than one without coding.
    /// Without any field, it should not.
    pub fn prefers_gzip(&self) -> bool {
        let gzip = self.gzip.or(self.any).unwrap_or(0);
        // What is not named is acceptable, but nothing was said for it.
        let identity = self.identity.or(self.any).unwrap_or(0);
        gzip > 0 && gzip >= identity
    }
}

/// The weight that a parameter sets. One that sets none leaves it as it is.
fn parameter_weight(parameter: &[u8]) -> Weight {
    match parameter.trim_ascii() {
        [b'q' | b'Q', b'=', value @ ..] => quality(value).unwrap_or(0),
        _ => ONE,
    }
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
            // What is no weight.
            (&["gzip;q="], false),
            (&["gzip;q=2"], false),
            (&["gzip;q=1.001"], false),
            (&["gzip;q=0.1234"], false),
            (&["gzip;q=.5"], false),
            (&["gzip;q=-1"], false),
            (&["gzip;q=1;q=0"], false),
            (&["gzip;level=9"], true),
            (&["gzip;level=9;q=0"], false),
            (&["gzipped"], false),
            (&["gzip br"], false),
            (&[",,;,gzip;,"], true),
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
