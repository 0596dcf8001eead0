//! The evaluation context: what a rule knows of who asks.

use std::fmt;
use std::rc::Rc;

use super::partial::{PartialText, PartialValue};
use super::reader::{NotJson, Reader};
use super::value::{JsonValue, Members};
use crate::hash::{Hasher, Sha256Hash};

/// The member that has flagd's own properties; what a client sends by this name is replaced.
pub(super) const FLAGD: &str = "$flagd";
/// The property that is the key of the flag.
pub(super) const FLAG_KEY: &str = "flagKey";
/// The member that users are told apart by.
pub(super) const TARGETING_KEY: &str = "targetingKey";

/// A request's body that is no context: status 400, `INVALID_CONTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidContext;

impl From<NotJson> for InvalidContext {
    fn from(_: NotJson) -> Self {
        Self
    }
}

/// The context of one request. `Debug` does not show it.
#[derive(Clone, Default, PartialEq)]
pub struct EvaluationContext {
    /// Without `$flagd`.
    members: Rc<Members>,
    /// Where it is known already.
    hash: Option<Sha256Hash>,
}

impl EvaluationContext {
    /// Reads the body of a request: the member `context` of the first JSON value, which must be an object. Anything but an
    /// object there, `null` as the body, and no body are the empty context. What follows the first value is not read.
    ///
    /// # Errors
    /// No JSON, any other JSON, or nesting beyond [`MAX_DEPTH`](super::MAX_DEPTH).
    pub fn parse(body: &[u8]) -> Result<Self, InvalidContext> {
        let mut reader = Reader::new(body, 0);
        if reader.peek().is_none() {
            return Ok(Self::default());
        }
        Self::of(&reader.value()?)
    }

    /// The context that a body has.
    fn of(body: &JsonValue) -> Result<Self, InvalidContext> {
        let mut context = match (body, body.member("context")) {
            (_, Some(JsonValue::Object(members))) => Self {
                members: Rc::clone(members),
                hash: None,
            },
            (JsonValue::Object(_) | JsonValue::Null, _) => Self::default(),
            _ => return Err(InvalidContext),
        };
        context.remove(FLAGD);
        Ok(context)
    }

    /// What is added to contexts: values that configuration gives, and those of mapped headers (a member's name and the header's
    /// value). A header wins over the configuration, but for an empty one.
    pub fn additions<'h>(
        fixed: &[(Rc<str>, JsonValue)],
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    ) -> Members {
        let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
        let headers = headers.map(|(name, value)| (Rc::from(name), JsonValue::text(value)));
        let mut later: Members = fixed.iter().cloned().chain(headers).collect();
        later.retain(|(name, _)| &**name != FLAGD);
        later
    }

    /// The same with these additions, which win over the client.
    #[must_use]
    pub fn with(self, mut additions: Members) -> Self {
        if additions.is_empty() {
            return self;
        }
        let mut members = Rc::unwrap_or_clone(self.members);
        members.append(&mut additions);
        let members = match JsonValue::object(members) {
            JsonValue::Object(members) => members,
            _ => Rc::default(),
        };
        let hash = None;
        Self { members, hash }
    }

    /// What rules tell users apart by.
    pub fn targeting_key(&self) -> Option<&str> {
        let place = self.place(TARGETING_KEY).ok()?;
        let (_, value) = self.members.get(place)?;
        value.as_text().map(|key| &**key)
    }

    /// The SHA-256 of its canonical JSON.
    pub fn hash(&self) -> Sha256Hash {
        self.hash.unwrap_or_else(|| {
            let mut text = Vec::with_capacity(256);
            JsonValue::Object(Rc::clone(&self.members)).write(&mut text);
            Sha256Hash::of(&text)
        })
    }

    /// What rules see at this Unix time.
    pub(super) fn seen(&self, unix_seconds: u64) -> Seen {
        #[allow(clippy::cast_precision_loss)] // exact for the next 285 million years
        let timestamp = JsonValue::Number(unix_seconds as f64);
        let place = self.place(FLAGD).unwrap_or_else(|place| place);
        let (before, after) = self.members.split_at_checked(place).unwrap_or_default();
        let own = (FLAGD.into(), JsonValue::Null);
        let members = before
            .iter()
            .cloned()
            .chain([own])
            .chain(after.iter().cloned());
        Seen {
            members: Rc::new(members.collect()),
            place,
            timestamp,
        }
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(own, _)| (**own).cmp(name))
    }

    fn remove(&mut self, name: &str) {
        if let Ok(place) = self.place(name) {
            let mut members = self.members.to_vec();
            members.remove(place);
            self.members = Rc::new(members);
        }
    }
}

/// The context of a long body, read and hashed in slices.
pub struct PartialContext {
    body: Box<[u8]>,
    at: usize,
    value: PartialValue,
    additions: Members,
    /// What is read, and hashed so far.
    whole: Option<(EvaluationContext, PartialText, Hasher)>,
}

impl PartialContext {
    /// That of this body, with these additions.
    pub fn new(body: &[u8], additions: Members) -> Self {
        Self {
            body: body.into(),
            at: 0,
            value: PartialValue::default(),
            additions,
            whole: None,
        }
    }

    /// How many bytes the body has.
    pub const fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Goes on for about so many bytes. `None`: there is more to do.
    pub fn step(&mut self, budget: usize) -> Option<Result<EvaluationContext, InvalidContext>> {
        if let Some((context, text, hasher)) = &mut self.whole {
            let mut piece = Vec::new();
            let is_over = text.write(&mut piece, budget);
            hasher.add(&piece);
            return is_over.then(|| {
                let hash = Some(std::mem::take(hasher).finish());
                let members = Rc::clone(&context.members);
                Ok(EvaluationContext { members, hash })
            });
        }
        match self.read(budget) {
            Ok(None) => None,
            Ok(Some(context)) => {
                let context = context.with(std::mem::take(&mut self.additions));
                let text = PartialText::new(JsonValue::Object(Rc::clone(&context.members)));
                self.whole = Some((context, text, Hasher::default()));
                None
            }
            Err(invalid) => Some(Err(invalid)),
        }
    }

    fn read(&mut self, budget: usize) -> Result<Option<EvaluationContext>, InvalidContext> {
        let mut reader = Reader::new(&self.body, self.at);
        if self.at == 0 && reader.peek().is_none() {
            return Ok(Some(EvaluationContext::default()));
        }
        let value = self.value.read(&mut reader, budget)?;
        self.at = reader.position();
        value.as_ref().map(EvaluationContext::of).transpose()
    }
}

/// A context with flagd's own properties.
pub(super) struct Seen {
    members: Rc<Members>,
    /// Where flagd's own are.
    place: usize,
    timestamp: JsonValue,
}

impl Seen {
    /// What the rule of this flag sees. Nothing is copied while no value of another flag's rule is kept.
    pub(super) fn by(&mut self, key: &Rc<str>) -> JsonValue {
        if let Some((_, own)) = Rc::make_mut(&mut self.members).get_mut(self.place) {
            *own = JsonValue::object(vec![
                (FLAG_KEY.into(), JsonValue::Text(Rc::clone(key))),
                ("timestamp".into(), self.timestamp.clone()),
            ]);
        }
        JsonValue::Object(Rc::clone(&self.members))
    }
}

impl fmt::Debug for EvaluationContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvaluationContext({} members)", self.members.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn parse(body: &str) -> Result<EvaluationContext, InvalidContext> {
        EvaluationContext::parse(body.as_bytes())
    }

    #[test]
    fn bodies_are_read_as_flagd_reads_them() {
        let empty = EvaluationContext::default();
        for body in [
            "",
            " \n",
            "null",
            "{}",
            r#"{"context":null}"#,
            r#"{"context":[1]}"#,
            r#"{"context":"x"}"#,
            r#"{"context":1}"#,
            r#"{"context":{}}"#,
            r#"{"CONTEXT":{"a":1}}"#,
            r#"{} garbage"#,
            r#"{"context":{"a":1},"context":{}}"#,
            r#"{"context":{"$flagd":{"flagKey":"x"}}}"#,
        ] {
            assert_eq!(parse(body), Ok(empty.clone()), "{body}");
        }
        for body in [
            "[1]",
            r#""x""#,
            "1",
            "true",
            "{",
            r#"{"context":"#,
            r#"{"context":{}"#,
            "x",
            r#"{"context":{"a":01}}"#,
        ] {
            assert_eq!(parse(body), Err(InvalidContext), "{body}");
        }
        let nested = |depth: usize| {
            let lists = depth - 2;
            format!(
                r#"{{"context":{{"a":{}{}}}}}"#,
                "[".repeat(lists),
                "]".repeat(lists)
            )
        };
        assert!(parse(&nested(100)).is_ok());
        assert_eq!(parse(&nested(101)), Err(InvalidContext));
    }

    #[test]
    fn hashes_are_of_what_is_meant() {
        let hash = |body: &str| parse(body).unwrap().hash();
        let first = hash(r#"{"context":{"targetingKey":"ann","n":1,"o":{"b":[1,2],"a":null}}}"#);
        for same in [
            r#"{"context":{"o":{"a":null,"b":[1,2]},"n":1.0,"targetingKey":"ann"}}"#,
            "{ \"context\" : { \"n\":1e0, \"o\":{\"b\":[1,\n2],\"a\":null},\"targetingKey\":\"\\u0061nn\"}, \"x\":1} y",
            r#"{"context":{"n":2,"targetingKey":"ann","n":1,"o":{"b":[1,2],"a":null},"$flagd":{"timestamp":1}}}"#,
        ] {
            assert_eq!(hash(same), first, "{same}");
        }
        for other in [
            r#"{"context":{"targetingKey":"ann","n":"1","o":{"b":[1,2],"a":null}}}"#,
            r#"{"context":{"targetingKey":"ann","n":1,"o":{"b":[2,1],"a":null}}}"#,
            r#"{"context":{"targetingKey":"ann","n":1,"o":{"b":[1,2]}}}"#,
            "{}",
        ] {
            assert_ne!(hash(other), first, "{other}");
        }
    }

    /// They have one tag, so no rule may tell them apart.
    #[test]
    fn minus_zero_is_zero() {
        let of = |number: &str| parse(&format!(r#"{{"context":{{"n":[{number}]}}}}"#)).unwrap();
        let text = |context: &EvaluationContext| {
            let member = context.members.first().unwrap();
            format!("{:?}", member.1)
        };
        for number in ["-0", "-0.0", "-0e5", "-1e-999"] {
            assert_eq!(of(number).hash(), of("0").hash());
            assert_eq!(text(&of(number)), text(&of("0")), "{number}");
        }
        assert_ne!(text(&of("-1")), text(&of("1")));
    }

    #[test]
    fn later_values_win() {
        let fixed = [
            ("b".into(), JsonValue::text("fixed")),
            ("c".into(), JsonValue::text("fixed")),
            (FLAGD.into(), JsonValue::Null),
        ];
        let body = r#"{"context":{"a":"body","b":"body","c":"body"}}"#;
        let headers = [("c", "header"), ("a", ""), ("d", "header")];
        let additions = EvaluationContext::additions(&fixed, headers);
        let merged = parse(body).unwrap().with(additions);
        let expected = r#"{"context":{"a":"body","b":"fixed","c":"header","d":"header"}}"#;
        assert_eq!(merged, parse(expected).unwrap());
        assert_eq!(merged.hash(), parse(expected).unwrap().hash());
        assert_eq!(format!("{merged:?}"), "EvaluationContext(4 members)");
    }

    #[test]
    fn rules_see_the_flag_and_the_time() {
        let context =
            parse(r#"{"context":{"targetingKey":"ann","$a":1,"$flagd":{"flagKey":"theirs"}}}"#)
                .unwrap();
        assert_eq!(context.targeting_key(), Some("ann"));
        let mut seen = context.seen(1_700_000_000);
        let kept = seen.by(&"other".into());
        for (seen, key) in [(seen.by(&"own".into()), "own"), (kept, "other")] {
            let mut text = Vec::new();
            seen.write(&mut text);
            let own = format!(r#"{{"flagKey":"{key}","timestamp":1700000000}}"#);
            let expected = format!(r#"{{"$a":1,"$flagd":{own},"targetingKey":"ann"}}"#);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
