//! flagd's definitions, and contexts.

use std::rc::Rc;

use flag_definitions_filter::surfaces::ofrep::flagd::{
    Compilation, EvaluationContext, FlagdDocument, Fractional, JsonValue, Members, PartialContext,
    Selection, SelectionCompiler, selections,
};

/// Definitions: each text that is made of them compiles, whole or in slices, and answers for each flag.
pub fn definitions(bytes: &[u8]) -> bool {
    let Ok(document) = FlagdDocument::parse("s", bytes) else {
        return false;
    };
    let body = br#"{"context":{"targetingKey":"u","a":[1,{"b":null}],"c":"1.2.3","d":-0.5}}"#;
    let context = EvaluationContext::parse(body).unwrap();
    for (selector, text) in selections(&[document]) {
        let selection = compile(text.as_bytes(), usize::MAX);
        let sliced = compile(text.as_bytes(), 1);
        for fractional in [Fractional::V2, Fractional::V3] {
            let answer = selection.bulk(&selector, &context, fractional, 1);
            assert_eq!(sliced.bulk(&selector, &context, fractional, 1), answer);
            let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let flags = answer["flags"].as_array().unwrap();
            assert_eq!(flags.len(), selection.len());
            for flag in flags.iter().take(16) {
                let key = flag["key"].as_str().unwrap();
                let single = selection.single(key, &selector, &context, fractional, 1);
                assert!(matches!(single.status, 200 | 400));
            }
        }
    }
    true
}

fn compile(text: &[u8], budget: usize) -> Selection {
    let mut compiler = SelectionCompiler::new(Rc::new(text.to_vec()));
    loop {
        match compiler.step(budget) {
            Compilation::More => {}
            Compilation::Done(selection) => return *selection,
            Compilation::Unfit(unfit) => panic!("{unfit}"),
        }
    }
}

/// A body: what is read of it is the same when it is written canonically.
pub fn context(bytes: &[u8]) -> bool {
    if let Ok(value) = JsonValue::read(bytes) {
        let mut written = Vec::new();
        value.write(&mut written);
        assert_eq!(JsonValue::read(&written), Ok(value));
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&written).is_ok());
        let again = EvaluationContext::parse(&written);
        assert_eq!(
            EvaluationContext::parse(bytes).map(|c| c.hash()),
            again.map(|c| c.hash())
        );
    }
    let parsed = EvaluationContext::parse(bytes);
    let mut partial = PartialContext::new(bytes, Members::new());
    let sliced = loop {
        if let Some(read) = partial.step(1) {
            break read;
        }
    };
    assert_eq!(sliced.map(|c| c.hash()), parsed.clone().map(|c| c.hash()));
    parsed.is_ok()
}
