//! Redis with one team: its payload, the list of who is limited, and the latch.

use super::run::TOKEN;
use crate::http::ETag;

/// Redis' clock at the beginning, in milliseconds since 1970.
pub const TIME: u64 = 1_763_728_000_000;
const TEXT: &[u8] = br#"{"flags":[{"key":"a"}]}"#;

/// The scripts, as `tests/scripts/` has them in a real Redis.
#[derive(Default)]
pub(super) struct Redis {
    /// When the team's limit ends, while the list has it.
    pub limited_until: Option<u64>,
    /// Its end. There is one version of the document.
    latch: Option<u64>,
    /// When the last limit was to end, and when its latch was written first.
    pub limit: u64,
    pub latched_at: Option<u64>,
}

pub(super) type Parts = Vec<Vec<u8>>;

impl Redis {
    /// What a script answers `at` so many milliseconds after [`TIME`].
    pub fn run(&mut self, words: &[Vec<u8>], at: u64) -> Parts {
        let now = TIME + at;
        let etag = ETag::of_text(TEXT).as_bytes().to_vec();
        let (seconds, micros) = (now / 1_000, now % 1_000 * 1_000);
        let [seconds, micros] = [seconds, micros].map(|part| part.to_string().into_bytes());
        let number = |word: &[u8]| String::from_utf8_lossy(word).parse::<u64>().unwrap();
        match number(&words[2]) {
            1 if words[0] == b"EVAL_RO" => {
                let listed = self.limited_until.filter(|end| *end > now);
                let member = listed.map_or(Vec::new(), |end| {
                    let token = String::from_utf8_lossy(TOKEN);
                    let score = format!("{}.{:03}", end / 1_000, end % 1_000);
                    format!("{}:{token}{score}\n", TOKEN.len()).into_bytes()
                });
                vec![b"quota".to_vec(), seconds, micros, member]
            }
            1 => {
                let (grace, gone, limit) =
                    (number(&words[4]), words[5] == b"gone", number(&words[6]));
                let old = self.latch;
                let mut end = limit;
                if gone && limit > now {
                    end = now + grace;
                    end = old.filter(|old| (now..end).contains(old)).unwrap_or(end);
                } else if let Some(old) = old.filter(|old| *old > limit) {
                    end = match gone {
                        true => old,
                        false => old.min(limit.max(now + grace)),
                    };
                }
                if limit == self.limit {
                    self.latched_at.get_or_insert(at);
                }
                self.latch = Some(end);
                vec![b"latch".to_vec(), seconds, micros, b"1".to_vec()]
            }
            _ => {
                let mut public = etag.clone();
                let period = match self.latch {
                    Some(end) if end > now => format!("-{end}").into_bytes(),
                    Some(end) => {
                        let suffix = base36(end / 1_000);
                        public.push(b'-');
                        public.extend(&suffix);
                        suffix
                    }
                    None => Vec::new(),
                };
                match words[6] == public {
                    true => vec![b"same".to_vec(), etag, Vec::new(), period],
                    false => vec![b"full".to_vec(), etag, TEXT.to_vec(), period],
                }
            }
        }
    }
}

fn base36(mut number: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
    }
    digits.reverse();
    digits
}
