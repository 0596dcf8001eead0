//! Numbers as text.

/// Writes a number as JSON, as ECMAScript's `Number::toString` does and RFC 8785 demands: the shortest digits, `1` for 1.0 and
/// `1e+21` for 1e21. What is not finite is no JSON; it is written `null`.
pub(super) fn write(number: f64, out: &mut Vec<u8>) {
    if let Some(whole) = whole(number) {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
        return;
    }
    if !number.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let Digits {
        negative,
        digits,
        point,
    } = Digits::of(number);
    if (-5..=21).contains(&point) {
        return positional(negative, &digits, point, out);
    }
    let (first, rest) = digits.split_at_checked(1).unwrap_or_default();
    sign(negative, out);
    out.extend_from_slice(first);
    if !rest.is_empty() {
        out.push(b'.');
        out.extend_from_slice(rest);
    }
    out.extend_from_slice(if point > 0 { b"e+" } else { b"e-" });
    let exponent = (point - 1).unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
}

/// The text that `cat`, `substr` and `var` make of a number: without an exponent, whatever its size.
pub(super) fn plain(number: f64) -> String {
    let mut out = Vec::new();
    match whole(number) {
        Some(0) if number.is_sign_negative() => out.extend_from_slice(b"-0"),
        Some(whole) => out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes()),
        None if number.is_nan() => out.extend_from_slice(b"NaN"),
        None if number.is_infinite() => {
            out.extend_from_slice(if number > 0.0 { b"+Inf" } else { b"-Inf" });
        }
        None => {
            let of = Digits::of(number);
            positional(of.negative, &of.digits, of.point, &mut out);
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The number that a text is, as Go's `ParseFloat` reads it but for hexadecimal forms; `None` for any other text.
pub(super) fn parse(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Whole numbers that a double tells from their neighbours.
fn whole(number: f64) -> Option<i64> {
    let fits = number.fract() == 0.0 && number.abs() < 9e15;
    #[allow(clippy::cast_possible_truncation)] // it fits
    fits.then_some(number as i64)
}

/// Decimal digits without zeros at either end, and where the point is: 0.5 is `5` at 0, 50 is `5` at 2.
struct Digits {
    negative: bool,
    digits: Vec<u8>,
    point: i32,
}

impl Digits {
    /// Those of a finite number other than zero.
    fn of(number: f64) -> Self {
        let mut text = Vec::with_capacity(24);
        // A buffer takes everything. It has the shortest digits that are this number.
        let _ = serde_json::to_writer(&mut text, &number.abs());
        let mut parts = text.split(|byte| *byte == b'e');
        let mantissa = parts.next().unwrap_or_default();
        let exponent = std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let before = mantissa.iter().take_while(|byte| **byte != b'.').count();
        let mut digits: Vec<u8> = mantissa.iter().copied().filter(|b| *b != b'.').collect();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        let place = |count: usize| i32::try_from(count).unwrap_or_default();
        Self {
            negative: number.is_sign_negative(),
            digits,
            point: place(before) - place(zeros) + exponent,
        }
    }
}

fn sign(negative: bool, out: &mut Vec<u8>) {
    if negative {
        out.push(b'-');
    }
}

/// Writes digits without an exponent.
fn positional(negative: bool, digits: &[u8], point: i32, out: &mut Vec<u8>) {
    let zeros = |count: usize, out: &mut Vec<u8>| out.resize(out.len() + count, b'0');
    sign(negative, out);
    let before = usize::try_from(point).unwrap_or_default();
    match digits.split_at_checked(before) {
        Some((whole, rest)) => {
            out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
            if !rest.is_empty() {
                out.push(b'.');
                zeros(usize::try_from(-point).unwrap_or_default(), out);
                out.extend_from_slice(rest);
            }
        }
        None => {
            out.extend_from_slice(digits);
            zeros(before - digits.len(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        for (number, json, text) in [
            (0.0, "0", "0"),
            (-0.0, "0", "-0"),
            (1.0, "1", "1"),
            (-1.5, "-1.5", "-1.5"),
            (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
            (
                9_007_199_254_740_993.0,
                "9007199254740992",
                "9007199254740992",
            ),
            (1e20, "100000000000000000000", "100000000000000000000"),
            (1e21, "1e+21", "1000000000000000000000"),
            (-1.25e22, "-1.25e+22", "-12500000000000000000000"),
            (1e-6, "0.000001", "0.000001"),
            (1.5e-7, "1.5e-7", "0.00000015"),
            (5e-324, "5e-324", &format!("0.{}5", "0".repeat(323))),
            (
                f64::MAX,
                "1.7976931348623157e+308",
                &format!("17976931348623157{}", "0".repeat(292)),
            ),
            (f64::INFINITY, "null", "+Inf"),
            (f64::NEG_INFINITY, "null", "-Inf"),
            (f64::NAN, "null", "NaN"),
        ] {
            let mut out = Vec::new();
            write(number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), json);
            assert_eq!(plain(number), text);
        }
    }
}
