//! CBOR in its core deterministic encoding (RFC 8949 §4.2.1), for values of JSON.

use crate::surfaces::ofrep::flagd::value::JsonValue;

/// Appends the encoding of a value. A number without fraction that fits an integer of 64 bits is one; others are the shortest
/// float that keeps them. Recurses as deep as the value nests.
pub(super) fn write(value: &JsonValue, out: &mut Vec<u8>) {
    match value {
        JsonValue::Null => out.push(0xf6),
        JsonValue::Bool(truth) => out.push(0xf4 + u8::from(*truth)),
        JsonValue::Number(number) => write_number(*number, out),
        JsonValue::Text(text) => write_text(text, out),
        JsonValue::List(list) => {
            head(4, count(list.len()), out);
            list.iter().for_each(|value| write(value, out));
        }
        JsonValue::Object(members) => {
            head(5, count(members.len()), out);
            // In the order of the encoded names: a shorter one comes first.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| (name.len(), name.clone()));
            for (name, value) in sorted {
                write_text(name, out);
                write(value, out);
            }
        }
    }
}

/// Appends the encoding of text.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    head(3, count(text.len()), out);
    out.extend_from_slice(text.as_bytes());
}

/// The first byte of a list of two.
pub(super) const PAIR: u8 = 0x82;

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A major type with its number, in the fewest bytes.
fn head(major: u8, number: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    let bytes = number.to_be_bytes();
    let [.., a, b, c, d] = bytes;
    match number {
        0..24 => out.push(major | d),
        24..=0xff => out.extend_from_slice(&[major | 24, d]),
        0x100..=0xffff => out.extend_from_slice(&[major | 25, c, d]),
        0x1_0000..=0xffff_ffff => out.extend_from_slice(&[major | 26, a, b, c, d]),
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // what is cast fits, or is compared
fn write_number(number: f64, out: &mut Vec<u8>) {
    const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
    const LEAST_I64: f64 = -9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (LEAST_I64..BEYOND_U64).contains(&number) {
        return match number < 0.0 {
            true => head(1, (-number) as u64 - 1, out),
            false => head(0, number as u64, out),
        };
    }
    let single = number as f32;
    if f64::from(single) != number {
        out.push(0xfb);
        return out.extend_from_slice(&number.to_be_bytes());
    }
    match half(single) {
        Some(half) => {
            out.push(0xf9);
            out.extend_from_slice(&half.to_be_bytes());
        }
        None => {
            out.push(0xfa);
            out.extend_from_slice(&single.to_be_bytes());
        }
    }
}

/// The float of 16 bits that is this one, if there is one.
fn half(single: f32) -> Option<u16> {
    let bits = single.to_bits();
    let (exponent, mantissa) = ((bits >> 23) & 0xff, bits & 0x7f_ffff);
    // The exponents of both kinds count from 127 and from 15.
    let (magnitude, lost) = match exponent {
        113..=142 => ((exponent - 112) << 10 | mantissa >> 13, mantissa & 0x1fff),
        103..=112 => {
            let (full, shift) = (mantissa | 0x80_0000, 126 - exponent);
            (full >> shift, full & ((1 << shift) - 1))
        }
        255 if mantissa == 0 => (0x7c00, 0),
        _ => return None,
    };
    let sign = (bits >> 16) & 0x8000;
    u16::try_from(sign | magnitude).ok().filter(|_| lost == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The examples of RFC 8949, appendix A, that JSON can hold, and the bounds between the forms.
    #[test]
    fn values_are_encoded_as_the_rfc_does() {
        for (json, expected) in [
            ("0", "00"),
            ("-0.0", "00"),
            ("1.0", "01"),
            ("23", "17"),
            ("24", "1818"),
            ("255", "18ff"),
            ("256", "190100"),
            ("1000000", "1a000f4240"),
            ("1000000000000", "1b000000e8d4a51000"),
            ("18446744073709549568", "1bfffffffffffff800"),
            ("18446744073709551616", "fa5f800000"),
            ("-1", "20"),
            ("-1000", "3903e7"),
            ("-9223372036854775808", "3b7fffffffffffffff"),
            ("-9223372036854777856", "fbc3e0000000000001"),
            ("1.1", "fb3ff199999999999a"),
            ("1.5", "f93e00"),
            ("-4.1", "fbc010666666666666"),
            ("3.4028234663852886e+38", "fa7f7fffff"),
            ("1e300", "fb7e37e43c8800759c"),
            ("5.960464477539063e-8", "f90001"),
            ("0.00006103515625", "f90400"),
            ("2.9802322387695312e-8", "fa33000000"),
            ("1.0009765625", "f93c01"),
            ("1.00048828125", "fa3f801000"),
            ("65504.5", "fa477fe080"),
            ("false", "f4"),
            ("true", "f5"),
            ("null", "f6"),
            (r#""""#, "60"),
            (r#""IETF""#, "6449455446"),
            (r#""ü""#, "62c3bc"),
            ("[]", "80"),
            ("[1,[2,3],[4,5]]", "8301820203820405"),
            (r#"{"a":1,"b":[2,3]}"#, "a26161016162820203"),
            (r#"{"aa":1,"b":2}"#, "a2616202626161 01"),
        ] {
            let mut out = Vec::new();
            write(&JsonValue::read(json.as_bytes()).unwrap(), &mut out);
            let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected.replace(' ', ""), "{json}");
        }
    }
}
