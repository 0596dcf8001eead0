//! Replies in RESP2, as webdis' `.raw` output carries them.

use std::borrow::Cow;

/// One reply. A dialect that encodes strings owns what it decoded; the others read in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The key does not exist.
    Nil,
    /// A bulk string.
    Bytes(Cow<'a, [u8]>),
    /// A status such as `OK`.
    Status(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// An array of bulk strings.
    Array(Vec<Cow<'a, [u8]>>),
    /// An error, without its `-`.
    Error(&'a [u8]),
}

impl<'a> Reply<'a> {
    /// An array of strings.
    pub fn array(strings: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::Array(strings.into_iter().map(Cow::Borrowed).collect())
    }

    /// The elements of an array; `None` for any other reply.
    pub fn strings(&self) -> Option<Vec<&[u8]>> {
        match self {
            Self::Array(elements) => Some(elements.iter().map(AsRef::as_ref).collect()),
            _ => None,
        }
    }
}

/// Bytes that are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotResp;

/// Most elements of an array reply, in every dialect.
pub const MAX_ELEMENTS: usize = 20_480;

/// The least that an element takes: `$0\r\n\r\n`.
const SMALLEST_ELEMENT: usize = 6;

/// Reads one reply, which must be all of `bytes`.
///
/// ```
/// use flag_definitions_filter::redis::{Reply, resp};
/// assert_eq!(resp::parse(b"$-1\r\n"), Ok(Reply::Nil));
/// assert_eq!(resp::parse(b"*1\r\n$1\r\na\r\n"), Ok(Reply::array([&b"a"[..]])));
/// assert!(resp::parse(b"$2\r\na\r\n").is_err(), "cut off");
/// ```
///
/// # Errors
/// When the bytes are cut off, left over, or not RESP2.
pub fn parse(bytes: &[u8]) -> Result<Reply<'_>, NotResp> {
    let mut rest = bytes;
    let reply = match line(&mut rest)? {
        [b'$', length @ ..] => match number(length)? {
            -1 => Reply::Nil,
            length => Reply::Bytes(bulk(&mut rest, length)?.into()),
        },
        [b'*', count @ ..] => {
            let count = usize::try_from(number(count)?).map_err(|_| NotResp)?;
            // What is said to come must be there before room is made for it.
            if count > MAX_ELEMENTS || count > rest.len() / SMALLEST_ELEMENT {
                return Err(NotResp);
            }
            let mut elements = Vec::with_capacity(count);
            for _ in 0..count {
                let [b'$', length @ ..] = line(&mut rest)? else {
                    return Err(NotResp);
                };
                elements.push(bulk(&mut rest, number(length)?)?.into());
            }
            Reply::Array(elements)
        }
        [b'+', status @ ..] => Reply::Status(status),
        [b':', value @ ..] => Reply::Integer(number(value)?),
        [b'-', error @ ..] => Reply::Error(error),
        _ => return Err(NotResp),
    };
    if rest.is_empty() {
        Ok(reply)
    } else {
        Err(NotResp)
    }
}

fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], NotResp> {
    let end = rest
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .ok_or(NotResp)?;
    let (line, tail) = rest.split_at_checked(end).ok_or(NotResp)?;
    *rest = tail.get(2..).ok_or(NotResp)?;
    Ok(line)
}

fn number(digits: &[u8]) -> Result<i64, NotResp> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(NotResp)
}

fn bulk<'a>(rest: &mut &'a [u8], length: i64) -> Result<&'a [u8], NotResp> {
    let length = usize::try_from(length).map_err(|_| NotResp)?;
    let (value, tail) = rest.split_at_checked(length).ok_or(NotResp)?;
    *rest = tail.strip_prefix(b"\r\n").ok_or(NotResp)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_kind_of_reply() {
        for (text, reply) in [
            ("$-1\r\n", Reply::Nil),
            ("$0\r\n\r\n", Reply::Bytes(b"".into())),
            ("$4\r\na\r\nb\r\n", Reply::Bytes(b"a\r\nb".into())),
            ("+OK\r\n", Reply::Status(b"OK")),
            (":-3\r\n", Reply::Integer(-3)),
            ("-ERR no\r\n", Reply::Error(b"ERR no")),
            ("*0\r\n", Reply::Array(vec![])),
            (
                "*2\r\n$0\r\n\r\n$1\r\nx\r\n",
                Reply::Array(vec![b"".into(), b"x".into()]),
            ),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(reply), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_reply_is_refused() {
        for text in [
            "",
            "$",
            "$2\r\nab",
            "$3\r\nab\r\n",
            "$-2\r\n",
            "$99999999999999999999\r\n",
            "*2\r\n$1\r\nx\r\n",
            "*99999\r\n",
            "*-1\r\n",
            "*1\r\n$-1\r\n",
            "*1\r\n:1\r\n",
            "+OK\r\n+OK\r\n",
            "OK",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(NotResp), "{text:?}");
        }
    }

    #[test]
    fn arrays_have_a_bound() {
        let of = |count: usize| format!("*{count}\r\n{}", "$0\r\n\r\n".repeat(count));
        let largest = of(MAX_ELEMENTS);
        let reply = parse(largest.as_bytes()).unwrap();
        assert_eq!(reply.strings().map(|all| all.len()), Some(MAX_ELEMENTS));
        assert_eq!(parse(of(MAX_ELEMENTS + 1).as_bytes()), Err(NotResp));
        // Room for an element that is not there is never made.
        let short = largest.strip_suffix("$0\r\n\r\n").unwrap();
        assert_eq!(parse(short.as_bytes()), Err(NotResp));
    }

    #[test]
    fn only_arrays_have_elements() {
        let array = Reply::Array(vec![b"a".into(), b"".into()]);
        assert_eq!(array.strings(), Some(vec![&b"a"[..], b""]));
        assert_eq!(Reply::Bytes(b"a".into()).strings(), None);
    }

    proptest! {
        #[test]
        fn arrays_of_arbitrary_strings_survive(
            elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5)
        ) {
            let mut text = format!("*{}\r\n", elements.len()).into_bytes();
            for element in &elements {
                text.extend(format!("${}\r\n", element.len()).bytes());
                text.extend(element);
                text.extend(b"\r\n");
            }
            let expected = elements.into_iter().map(Cow::Owned).collect();
            prop_assert_eq!(parse(&text), Ok(Reply::Array(expected)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
