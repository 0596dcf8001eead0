//! What must hold for any bytes, by the reader that takes them.
//!
//! Each function panics when it does not hold, and returns whether the bytes were accepted. The fuzz targets call
//! them, and so does `tests/fuzz_corpus.rs`, which runs the corpora without a fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod flagd;

pub use flagd::{context, definitions};

use std::borrow::Cow;
use std::io::Write;
use std::rc::Rc;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::{Candidate, ETag};
use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::records::bucket::{self, Bucket, Entry};
use flag_definitions_filter::redis::{Reply, resp};
use flag_definitions_filter::snapshot::change::{self, Change, Content};
use flag_definitions_filter::snapshot::manifest::Manifest;
use flag_definitions_filter::snapshot::page::{self, Cursor};
use flag_definitions_filter::surfaces::SurfaceRequest;
use flag_definitions_filter::surfaces::flagsmith::engine::{
    Compiler, Environment, IdentityTrait, Progress, Sees, Unfit, parse_identity,
};
use flag_definitions_filter::surfaces::posthog::definitions::encoding::{
    self, DecodeError, Decoded,
};
use flag_definitions_filter::surfaces::posthog::definitions::flags;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_filter::surfaces::posthog::request::{
    self, BearerKind, ProjectToken, Request, Token,
};

/// Longest text asked for: longer than two blocks of zstd, short enough for many runs a second.
const MOST: usize = 300_000;

/// A stored value: what comes out is a payload of the length asked for, or a part of the input, and comes back from
/// what is read of it in every form that needs no compression.
pub fn value(bytes: &[u8]) -> bool {
    // The bound decides about texts only, and never changes one.
    let tight = encoding::decode(bytes, 16);
    let text = match encoding::decode(bytes, MOST) {
        Err(_) => {
            assert!(tight.is_err());
            return false;
        }
        Ok(Decoded::Missing) => {
            assert!(matches!(
                tight,
                Ok(Decoded::Missing) | Err(DecodeError::TooBig)
            ));
            return true;
        }
        Ok(Decoded::Text(text)) => text,
    };
    assert!(text.len() <= MOST && text.trim_ascii_start().starts_with(b"{"));
    assert!(std::str::from_utf8(&text).is_ok());
    // What is a payload another reader takes as well, to any depth.
    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
    assert_eq!(flags::is_billable(&text).is_some(), whole);
    if let Cow::Borrowed(text) = text {
        assert!(is_within(text, bytes));
    }
    if text.len() > 16 {
        assert!(tight.is_err());
    }
    assert!(encoding::decode(bytes, text.len() - 1).is_err());

    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let pickled = [b"\x80\x04X", &length[..], &text, b"\x94."].concat();
    for form in [&text[..], &pickled] {
        let again = encoding::decode(form, text.len());
        assert_eq!(again, Ok(Decoded::Text(Cow::Borrowed(&text))));
    }
    true
}

/// An object's gzip form: what comes out is no longer than asked for, and comes back from what another writer makes of it.
pub fn gzip(bytes: &[u8]) -> bool {
    let Ok(content) = encoding::gunzip(bytes, MOST) else {
        return false;
    };
    assert!(content.len() <= MOST);
    if !content.is_empty() {
        let shorter = encoding::gunzip(bytes, content.len() - 1);
        assert_eq!(shorter, Err(DecodeError::TooBig));
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&content).unwrap();
    let again = encoding::gunzip(&encoder.finish().unwrap(), content.len());
    assert_eq!(again, Ok(content));
    true
}

fn is_within(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

/// A reply of Redis: every string of it lies within the input, and it survives being written again.
pub fn resp(bytes: &[u8]) -> bool {
    let Ok(reply) = resp::parse(bytes) else {
        return false;
    };
    let strings: Vec<&[u8]> = match &reply {
        Reply::Nil | Reply::Integer(_) => vec![],
        Reply::Bytes(string) => vec![string],
        Reply::Status(string) | Reply::Error(string) => vec![*string],
        Reply::Array(elements) => elements.iter().map(AsRef::as_ref).collect(),
    };
    assert!(strings.iter().all(|string| is_within(string, bytes)));
    assert!(strings.iter().map(|string| string.len()).sum::<usize>() < bytes.len());

    let bulk =
        |string: &[u8]| [format!("${}\r\n", string.len()).as_bytes(), string, b"\r\n"].concat();
    let written = match &reply {
        Reply::Nil => b"$-1\r\n".to_vec(),
        Reply::Integer(value) => format!(":{value}\r\n").into_bytes(),
        Reply::Bytes(string) => bulk(string),
        Reply::Status(line) => [b"+", *line, b"\r\n"].concat(),
        Reply::Error(line) => [b"-", *line, b"\r\n"].concat(),
        Reply::Array(elements) => elements.iter().fold(
            format!("*{}\r\n", elements.len()).into_bytes(),
            |written, element| [written, bulk(element)].concat(),
        ),
    };
    assert_eq!(resp::parse(&written), Ok(reply));
    true
}

/// A request, one header a line: name, blank, value. Accepted when it names a token that can be looked up.
pub fn request(bytes: &[u8]) -> bool {
    let headers: Vec<(&[u8], &[u8])> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| split_once(line, b' ').unwrap_or((line, b"")))
        .collect();
    let request = Request::parse(headers.iter().copied());

    let path = headers.iter().rfind(|(name, _)| *name == b":path");
    match path {
        Some((_, path)) => token(path, &request.token),
        None => assert_eq!(request.token, Token::Absent),
    }
    let authorization = headers.iter().find(|(name, _)| *name == b"authorization");
    credential(authorization.map(|(_, value)| *value), &request);

    match request.if_none_match.candidate() {
        Some(Candidate::Any) => assert!(request.if_none_match.matches(&ETag::new(b"any").unwrap())),
        Some(Candidate::Tag(tag)) => {
            assert!(request.if_none_match.matches(&tag));
            assert_eq!(ETag::new(tag.as_bytes()), Some(tag));
        }
        None => assert!(!request.if_none_match.matches(&ETag::new(b"any").unwrap())),
    }
    // What is kept of a request is not larger than the request, but for the separators of a joined list.
    assert!(request.weight() <= bytes.len() + 2 * headers.len());
    matches!(request.token, Token::Named(_))
}

/// The token of a path does not depend on the order of parameters or on how they are escaped, and a second one is
/// noticed.
fn token(path: &[u8], found: &Token<'_>) {
    let token_of = |path: &[u8]| Request::parse([(&b":path"[..], path)]).into_owned().token;
    let (bare, query) = split_once(path, b'?').unwrap_or((path, b""));
    assert_eq!(request::is_ours(path), request::PATHS.contains(&bare));

    let mut pairs: Vec<&[u8]> = query.split(|byte| *byte == b'&').collect();
    pairs.reverse();
    assert_eq!(token_of(&[b"/?", &pairs.join(&b'&')[..]].concat()), *found);

    if !query.contains(&b'%') {
        let mut escaped = b"/?".to_vec();
        for byte in query {
            match byte {
                b'&' | b'=' | b'+' => escaped.push(*byte),
                other => escaped.extend(format!("%{other:02x}").bytes()),
            }
        }
        assert_eq!(token_of(&escaped), *found);
    }

    let more = token_of(&[b"/?", query, b"&token=x"].concat());
    match found {
        Token::Absent => assert_eq!(more, Token::Named(ProjectToken::of(b"x"))),
        Token::Named(_) | Token::Oversized | Token::Repeated => assert_eq!(more, Token::Repeated),
    }
}

/// A credential is what follows `Bearer ` in the first field, trimmed, when all of the field can be shown.
fn credential(field: Option<&[u8]>, request: &Request) {
    let secret = field
        .filter(|field| {
            std::str::from_utf8(field).is_ok_and(|text| {
                text.chars()
                    .all(|sign| sign == '\t' || (sign.is_ascii() && !sign.is_ascii_control()))
            })
        })
        .and_then(|field| field.strip_prefix(b"Bearer "))
        .map(<[u8]>::trim_ascii)
        .filter(|secret| !secret.is_empty());
    assert_eq!(
        request.bearer.as_ref().map(|bearer| bearer.hash),
        secret.map(Sha256Hash::of)
    );
    assert_eq!(
        request
            .bearer
            .as_ref()
            .map(|bearer| bearer.kind == BearerKind::Secret),
        secret.map(|secret| secret.starts_with(b"phs_"))
    );
}

/// A manifest survives its encoding.
pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = Manifest::parse(bytes) else {
        return false;
    };
    assert!(!manifest.pages.is_empty());
    let json = serde_json::to_vec(&manifest).unwrap();
    assert_eq!(Manifest::parse(&json), Ok(manifest));
    true
}

/// The records of a page are in hash order, and make the same page again.
pub fn page(bytes: &[u8]) -> bool {
    let Ok(mut cursor) = Cursor::new(bytes.to_vec()) else {
        return false;
    };
    let mut records: Vec<(Sha256Hash, Vec<u8>)> = Vec::new();
    loop {
        let at = cursor.position();
        match cursor.record_at(at) {
            Err(_) => return false,
            Ok(None) => break,
            Ok(Some((hash, bytes, next))) => {
                assert!(at.offset < next.offset);
                assert!(records.last().is_none_or(|(last, _)| *last < hash));
                record(bytes);
                records.push((hash, bytes.to_vec()));
                cursor.seek(next);
            }
        }
    }
    let pages = page::split(records.iter().map(|(hash, record)| (*hash, &record[..])));
    if bytes.len() <= page::MAX_BYTES {
        assert_eq!(pages.len(), 1);
        assert_eq!(pages[0].bytes, bytes);
    }
    true
}

/// A record is its only encoding.
pub fn record(bytes: &[u8]) -> bool {
    let Ok(record) = Record::decode(bytes) else {
        return false;
    };
    assert_eq!(record.encode().as_deref(), Some(bytes));
    true
}

/// A bucket in hash order survives its encoding; each record is found, and is replaced by a newer one only. Any other
/// bytes can still be merged into and swept.
pub fn bucket(bytes: &[u8]) -> bool {
    let (hash, id) = update_from(bytes);
    let update = Entry {
        hash,
        id,
        record: b"\0",
    };
    let merged = bucket::merge(bytes, &[update], StreamId::default());
    let swept = bucket::sweep(bytes, id, id);
    if let Some(swept) = &swept {
        for entry in read(swept).unwrap() {
            assert!(entry.id >= id);
        }
        assert_eq!(bucket::sweep(swept, id, id), None);
    }

    if let Ok(bucket) = Bucket::parse(bytes) {
        let _ = bucket.find(&hash);
    }
    let Some(entries) = read(bytes) else {
        return false;
    };
    if !entries.is_sorted_by(|one, next| one.hash < next.hash) {
        return false;
    }
    // Entries that overlap or leave gaps: such a bucket is replaced, and never blown up.
    if !bytes.is_empty() && bucket::build(&entries).len() != bytes.len() {
        assert!(merged.is_none_or(|merged| merged.len() < 100));
        return false;
    }
    let held = entries.iter().find(|entry| entry.hash == hash);
    match &merged {
        None => assert!(held.is_some_and(|held| held.id >= id)),
        Some(merged) => {
            assert!(held.is_none_or(|held| held.id < id));
            let now = Bucket::parse(merged).unwrap().find(&hash).unwrap();
            assert_eq!(now, Some(update));
            assert_eq!(
                read(merged).unwrap().len(),
                entries.len() + usize::from(held.is_none())
            );
        }
    }
    let built = bucket::build(&entries);
    assert_eq!(read(&built).unwrap(), entries);
    for entry in &entries {
        assert_eq!(
            Bucket::parse(&built).unwrap().find(&entry.hash),
            Ok(Some(*entry))
        );
    }
    true
}

/// All entries, when all can be read.
fn read(bytes: &[u8]) -> Option<Vec<Entry<'_>>> {
    let bucket = Bucket::parse(bytes).ok()?;
    bucket.entries().collect::<Result<_, _>>().ok()
}

/// A hash and a stream id to merge: those of the first entry where there is one, so that what is held can be met.
fn update_from(bytes: &[u8]) -> (Sha256Hash, StreamId) {
    let first = Bucket::parse(bytes)
        .ok()
        .and_then(|bucket| bucket.entries().next()?.ok());
    let hash = first.map_or(Sha256Hash::from_bytes([7; 32]), |entry| entry.hash);
    let millis = first.map_or(0, |entry| entry.id.millis);
    // Older, as old or newer, as the input has it.
    let millis = match bytes.last().map_or(0, |last| last % 3) {
        0 => millis.saturating_sub(1),
        1 => millis,
        _ => millis.saturating_add(1),
    };
    (
        hash,
        StreamId {
            millis,
            sequence: 0,
        },
    )
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// An entry of the stream of changes: its kind, then its content. What is read of it comes back when it is written.
pub fn change(bytes: &[u8]) -> bool {
    let Some((kind, value)) = bytes.split_first() else {
        return false;
    };
    let read = |value: &[u8]| Change::parse(b"7-1", b"6-0", b"3", &[*kind], value);
    match read(value).map(|change| change.content) {
        Err(_) => false,
        Ok(Content::Watermark(mark)) => {
            let again = read(&mark.written().value).map(|change| change.content);
            assert!(matches!(again, Ok(Content::Watermark(again)) if again == mark));
            true
        }
        Ok(Content::Records(bytes)) => {
            let Ok(mut cursor) = change::records(bytes, Record::check) else {
                return false;
            };
            let mut records = Vec::new();
            while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
                records.push((hash, record.to_vec()));
                cursor.seek(next);
            }
            assert!(records.len() <= change::MAX_RECORDS);
            let written = change::split(records.iter().map(|(hash, r)| (*hash, r.as_slice())));
            let count = |value: &[u8]| change::records(value.to_vec(), Record::check).map(|_| ());
            assert!(written.iter().all(|entry| count(&entry.value).is_ok()));
            true
        }
    }
}

/// An environment document: it is JSON when it fits, gives the same in slices of any size, and answers whoever asks.
pub fn document(bytes: &[u8]) -> bool {
    let environment = match (compile(bytes, usize::MAX), compile(bytes, 7)) {
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            return false;
        }
        (Ok(one), Ok(other)) => {
            assert_eq!(one.weight(), other.weight());
            assert_eq!(answers(&one), answers(&other));
            one
        }
        _ => panic!("the size of slices decides whether a document fits"),
    };
    assert!(serde_json::from_slice::<serde_json::Value>(bytes).is_ok());
    let names: Vec<&str> = environment.features().map(|(_, name)| name).collect();
    assert!(environment.features().map(|(id, _)| id).is_sorted());
    for name in names {
        let flag = environment.flag(name, Sees::Everything, false).unwrap();
        assert!(is_json(|out| flag.write(out)));
    }
    true
}

/// Compiles a document in slices.
fn compile(bytes: &[u8], budget: usize) -> Result<Box<Environment>, Unfit> {
    let mut compiler = Compiler::new(Rc::new(bytes.to_vec()));
    for _ in 0..=2 * bytes.len() + 2 {
        match compiler.step(budget) {
            Progress::More => {}
            Progress::Done(environment) => return Ok(environment),
            Progress::Unfit(unfit) => return Err(unfit),
        }
    }
    panic!("too many steps");
}

/// What clients and identities get of an environment.
fn answers(environment: &Environment) -> Vec<Vec<u8>> {
    const TRAITS: &str = r#"[{"trait_key":"a","trait_value":"1"},{"trait_key":"b","trait_value":18446744073709551615},
        {"trait_key":"c","trait_value":[null]},{"trait_key":"d","trait_value":-1.5}]"#;
    let mut answers = Vec::new();
    for sees in [Sees::Public, Sees::Everything] {
        let mut out = Vec::new();
        environment.flags(sees, true).write(&mut out);
        answers.push(out);
        for identifier in ["", "vip-1"] {
            let body = format!(r#"{{"identifier":"{identifier}","traits":{TRAITS}}}"#);
            let request = parse_identity(body.as_bytes()).unwrap();
            let flags = environment.identity(&request, sees, false);
            let mut out = Vec::new();
            flags.write_identity(&request.traits, &mut out);
            answers.push(out);
        }
    }
    assert!(
        answers
            .iter()
            .all(|answer| is_json(|out| out.extend_from_slice(answer)))
    );
    answers
}

fn is_json(write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice::<serde_json::Value>(&out).is_ok()
}

/// A body that asks for an identity: it is JSON when it is taken, and what is echoed of it is taken again.
pub fn identity(bytes: &[u8]) -> bool {
    let request = match parse_identity(bytes) {
        Ok(request) => request,
        Err(problem) => {
            assert!(matches!(problem.status(), 400 | 422));
            return false;
        }
    };
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok());
    let mut body = b"{\"identifier\":".to_vec();
    serde_json::to_writer(&mut body, &request.identifier).unwrap();
    body.extend_from_slice(b",\"traits\":[");
    for (index, given) in request.traits.iter().enumerate() {
        body.extend_from_slice(if index > 0 { b"," } else { b"" });
        given.write(&mut body);
    }
    body.extend_from_slice(b"]}");
    // Values aside: the parser may be one unit in the last place beside a long float.
    let again = parse_identity(&body).unwrap();
    assert_eq!(again.identifier, request.identifier);
    let keys = |traits: &[IdentityTrait<'_>]| -> Vec<String> {
        traits.iter().map(|given| given.key.to_string()).collect()
    };
    assert_eq!(keys(&again.traits), keys(&request.traits));
    true
}
