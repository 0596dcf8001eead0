//! ETag and payload, read in one step.

use flag_definitions_filter::http::Candidate;
use flag_definitions_filter::surfaces::posthog::definitions::Need;
use flag_definitions_filter::surfaces::posthog::definitions::latch;
use flag_definitions_filter::surfaces::posthog::definitions::pair::{etag_key, payload_key};
use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;

use crate::real_redis::Redis;
use crate::stored::{PREFIX, Pair, TEAM, X, Y, base36, held, pickled, put_list};

#[test]
fn an_etag_is_read_plain_and_pickled() {
    let mut redis = Redis::start();
    let mut short_frameless = vec![0x80, 4, 0x8c, 16];
    short_frameless.extend(X.as_bytes());
    short_frameless.push(b'.');
    let mut long_framed = vec![0x80, 5, 0x95, 23, 0, 0, 0, 0, 0, 0, 0, 0x58, 16, 0, 0, 0];
    long_framed.extend(X.as_bytes());
    long_framed.extend(b"\x94.");
    for stored in [
        X.as_bytes().to_vec(),
        pickled(3, X),
        pickled(4, X),
        pickled(5, X),
        short_frameless,
        long_framed,
    ] {
        redis.put_payload(&stored);
        let full = Pair::Full(Some(X.to_owned()), None);
        assert_eq!(redis.pair(None), full, "{stored:?}");
        assert_eq!(redis.pair(held(Y)), full);
        assert_eq!(redis.pair(held(X)), Pair::Same(X.to_owned()));
        assert_eq!(redis.pair(Some(Candidate::Any)), Pair::Same(X.to_owned()));
    }
}

#[test]
fn what_is_no_etag_counts_as_absent() {
    let mut redis = Redis::start();
    let whole = pickled(4, X);
    let mut stored: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    let mut lying = pickled(3, X);
    lying[3] = 200;
    stored.push(lying);
    let mut huge = pickled(3, X);
    huge[3..7].fill(0xff);
    stored.extend([
        huge,
        pickled(4, "a b"),
        pickled(4, ""),
        b"a\r\nb".to_vec(),
        b"\x80".to_vec(),
        b"\x80.".to_vec(),
        b"\x80\x04\x8c.".to_vec(),
        b"\x80\x03X.".to_vec(),
        b"\x80\x03X\x01\x00\x00.".to_vec(),
        vec![b'a'; 51],
    ]);
    for stored in stored {
        redis.put_payload(&stored);
        assert_eq!(redis.pair(None), Pair::Full(None, None), "{stored:?}");
        assert_eq!(redis.pair(Some(Candidate::Any)), Pair::Full(None, None));
    }
}

#[test]
fn arbitrary_bytes_as_etag_or_latch_never_stop_the_scripts() {
    let mut redis = Redis::start();
    // xorshift: the same bytes in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..2_000 {
        let mut bytes: Vec<u8> = (0..next() % 24).map(|_| next() as u8).collect();
        for (place, choices) in [
            (0, &[0x80][..]),
            (2, &[0x95, 0x8c, 0x58]),
            (11, &[0x8c, 0x58]),
        ] {
            if let Some(byte) = bytes.get_mut(place)
                && next() % 2 == 0
            {
                *byte = choices[next() as usize % choices.len()];
            }
        }
        if next() % 2 == 0 {
            bytes.push(b'.');
        }
        redis.put_payload(&bytes);
        redis.set(&latch::key(PREFIX, TEAM), &bytes);
        redis.pair(held(X));
        redis.latch(1_000, 1_763_728_123_000, next() % 2 == 0);
    }
}

#[test]
fn an_etag_of_another_type_counts_as_absent() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    put_list(&mut redis, &etag_key(&Definitions::default(), TEAM));
    for asked in [None, held(X), Some(Candidate::Any)] {
        assert_eq!(redis.pair(asked), Pair::Full(None, None));
    }
    // The suffix holds for the computed ETag.
    let end = redis.now() - 1;
    redis.latch(1_000, end, true);
    let suffix = Some(base36(end / 1_000));
    assert_eq!(redis.pair(None), Pair::Full(None, suffix));
}

#[test]
fn a_payload_of_another_type_and_a_missing_permission_are_errors() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let need = Need {
        team: TEAM,
        held: None,
    };
    let command = need.command(&Definitions::default(), PREFIX);
    put_list(&mut redis, &payload_key(&Definitions::default(), TEAM));
    assert!(redis.send(&command).unwrap_err().contains("WRONGTYPE"));
    redis.put_payload(X.as_bytes());
    let restrict = |redis: &mut Redis, patterns: &[&str]| {
        let rules = ["reset", "on", "nopass", "+@all"];
        redis::cmd("ACL")
            .arg("SETUSER")
            .arg("default")
            .arg(&rules)
            .arg(patterns)
            .exec(&mut redis.connection)
            .unwrap();
    };
    restrict(&mut redis, &["~posthog:*"]);
    assert!(redis.send(&command).is_err(), "the latch may not be read");
    restrict(&mut redis, &["~flag_definitions:*", "~*.json"]);
    assert!(redis.send(&command).is_err(), "the ETag may not be read");
    restrict(&mut redis, &["~*"]);
    assert_eq!(redis.public(), X);
}
