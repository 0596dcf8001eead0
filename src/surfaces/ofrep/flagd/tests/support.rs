//! Flags for tests.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value as Json, json};

use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::surfaces::ofrep::flagd::{
    Compilation, EvaluationContext, FlagAnswer, FlagdDocument, Fractional, JsonValue, Selection,
    SelectionCompiler, Selector, selections, tag,
};

/// The time of all tests, in Unix seconds.
pub const NOW: u64 = 1_796_000_000;

/// The documents that the cases are about.
pub fn recorded() -> Json {
    serde_json::from_str(include_str!("../../../../../tests/ofrep/flags.json")).unwrap()
}

/// The documents of such a list; one that is refused is left out.
pub fn documents(list: &Json) -> Vec<FlagdDocument> {
    let read = |document: &Json| {
        let source = document["source"].as_str().unwrap();
        FlagdDocument::parse(source, document["document"].to_string().as_bytes()).ok()
    };
    list.as_array().unwrap().iter().filter_map(read).collect()
}

/// Compiles a text, `budget` bytes at a time.
pub fn compile_in(text: &[u8], budget: usize) -> Option<Selection> {
    let mut compiler = SelectionCompiler::new(Rc::new(text.to_vec()));
    for _ in 0..=text.len() {
        match compiler.step(budget) {
            Compilation::More => {}
            Compilation::Done(selection) => return Some(*selection),
            Compilation::Unfit(_) => return None,
        }
    }
    panic!("a text of {} bytes takes too many steps", text.len());
}

/// What documents define, ready to be asked.
pub struct Defined {
    texts: BTreeMap<Selector, String>,
    pub fractional: Fractional,
}

impl Defined {
    pub fn new(list: &Json, fractional: Fractional) -> Self {
        Self {
            texts: selections(&documents(list)),
            fractional,
        }
    }

    pub fn recorded() -> Self {
        Self::new(&recorded()["documents"], Fractional::V2)
    }

    pub fn text(&self, selector: &Selector) -> &str {
        self.texts
            .get(selector)
            .map_or(r#"{"selector":"","flags":[]}"#, |text| text)
    }

    pub fn selection(&self, selector: &Selector) -> Selection {
        compile_in(self.text(selector).as_bytes(), 1 << 16).unwrap()
    }

    pub fn bulk(&self, selector: &Selector, context: &EvaluationContext, now: u64) -> FlagAnswer {
        self.selection(selector)
            .bulk(selector, context, self.fractional, now)
    }

    pub fn single(
        &self,
        key: &str,
        selector: &Selector,
        context: &EvaluationContext,
    ) -> FlagAnswer {
        self.selection(selector)
            .single(key, selector, context, self.fractional, NOW)
    }

    /// The tag of a bulk answer at this time.
    pub fn tag(&self, selector: &Selector, context: &EvaluationContext, now: u64) -> ETag {
        let answer = self.selection(selector).reads_time();
        let answer = answer.then(|| Sha256Hash::of(&self.bulk(selector, context, now).body));
        let version = ETag::of_text(self.text(selector).as_bytes());
        ETag::long(tag(
            self.fractional,
            selector,
            &version,
            &context.hash(),
            answer.as_ref(),
        ))
    }
}

/// A context.
pub fn context(members: &Json) -> EvaluationContext {
    EvaluationContext::parse(json!({"context": members}).to_string().as_bytes()).unwrap()
}

/// A body, with numbers by value.
pub fn body(answer: &FlagAnswer) -> JsonValue {
    JsonValue::read(&answer.body).unwrap()
}

/// The same of expected JSON.
pub fn value(json: &Json) -> JsonValue {
    JsonValue::read(json.to_string().as_bytes()).unwrap()
}
