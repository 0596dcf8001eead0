use super::*;
use serde_json::json;

/// A document that fits.
pub fn document() -> Value {
    let text = include_str!("../../../../tests/flagsmith/document.json");
    serde_json::from_str(text).unwrap()
}

fn page(value: &Value) -> Page {
    text_page(&value.to_string())
}

fn text_page(text: &str) -> Page {
    Page {
        body: text.as_bytes().to_owned(),
        is_gzip: false,
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn text_of(document: &FlagsmithDocument) -> String {
    let mut text = String::new();
    let mut decoder = MultiGzDecoder::new(&*document.gzip);
    decoder.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_text_is_canonical() {
    let project = document()["project"].to_string();
    let text = r#"{ "project" : PROJECT, "name":"Zürich ☂", "id" :1, "feature_states":[ ],
        "more": [10.0, 1e21, 25, -0.0, 100000000000000000000], "api_key":"client" }"#;
    let read = assemble(vec![text_page(&text.replace("PROJECT", &project))]).unwrap();
    let document = read.fits.unwrap();
    let canonical = concat!(
        r#"{"api_key":"client","feature_states":[],"id":1,"more":[10.0,1e+21,25,-0.0,1e+20],"#,
        r#""name":"Zürich ☂","project":PROJECT}"#
    );
    let canonical = canonical.replace("PROJECT", &project);
    assert_eq!(text_of(&document), canonical);
    assert_eq!(document.version, ETag::of_text(canonical.as_bytes()));
    // It is its own canonical form.
    let again = assemble(vec![text_page(&canonical)]).unwrap();
    assert!(again.fits == Ok(document));
}

#[test]
fn a_body_may_be_gzip() {
    let text = document().to_string();
    let whole = Page {
        body: gzip(text.as_bytes()),
        is_gzip: true,
    };
    let read = assemble(vec![whole.clone()]).unwrap();
    assert!(read == assemble(vec![page(&document())]).unwrap());
    let mut cut = whole;
    cut.body.truncate(20);
    assert_eq!(assemble(vec![cut]).err(), Some(NoDocument::Gzip));
}

#[test]
fn a_bomb_ends_at_the_bound() {
    let mut bomb = Page {
        body: gzip(&vec![b' '; 10 << 20]),
        is_gzip: true,
    };
    // Who reads on finds that it is cut.
    bomb.body.truncate(bomb.body.len() - 50);
    assert!(bomb.body.len() < 20_000);
    let read = assemble(vec![bomb]).unwrap();
    assert_eq!(
        read.fits.err().unwrap().to_string(),
        "the document is too long"
    );
}

#[test]
fn overrides_of_later_pages_are_appended() {
    let of = |identity: &u32| {
        json!({
            "identifier": identity.to_string(), "environment_api_key": "client",
            "created_date": "2026-05-04T03:02:01Z",
        })
    };
    let list = |identities: &[u32]| identities.iter().map(of).collect::<Value>();
    let with = |overrides: Value| {
        let mut document = document();
        document[OVERRIDES] = overrides;
        document
    };
    let pages = |overrides: [Value; 3]| {
        let pages = overrides.map(|overrides| page(&with(overrides)));
        assemble(pages.into()).unwrap().fits
    };
    let all = assemble(vec![page(&with(list(&[1, 2, 3, 4])))])
        .unwrap()
        .fits;
    assert!(all.is_ok());
    let paged = pages([list(&[1]), list(&[2, 3]), list(&[4])]);
    assert!(paged == all);
    assert!(pages([json!(null), list(&[1, 2, 3, 4]), json!([])]) == all);
    let refused = pages([list(&[1]), json!({}), json!([])]);
    assert_eq!(
        refused.err().unwrap().to_string(),
        "identity_overrides must be a list"
    );
    // The first page says everything else.
    let mut other = with(list(&[4]));
    other["name"] = json!("Other");
    let first = page(&with(list(&[1, 2, 3])));
    assert!(assemble(vec![first, page(&other)]).unwrap().fits == all);
}

#[test]
fn pages_of_different_moments_are_no_document() {
    let mut later = document();
    later["updated_at"] = json!("2026-05-04T03:02:02Z");
    let mixed = assemble(vec![page(&document()), page(&later)]);
    assert_eq!(mixed.err(), Some(NoDocument::Mixed));
}

#[test]
fn a_document_that_does_not_fit_is_refused_by_path() {
    let without = |name: &str| {
        let mut document = document();
        document.as_object_mut().unwrap().remove(name);
        document
    };
    let with = |name: &str, value: Value| {
        let mut document = document();
        document[name] = value;
        document
    };
    for (document, problem) in [
        (json!([]), "the document is not an object"),
        (json!("hunter2"), "the document is not an object"),
        (without("api_key"), "the document has no `api_key`"),
        (
            with("api_key", json!(7)),
            "api_key does not fit, expected a string",
        ),
        (
            without("feature_states"),
            "the document has no `feature_states`",
        ),
        (without("project"), "the document has no `project`"),
        (
            with("project", json!({"segments": "hunter2"})),
            "project.segments does not fit, expected a list",
        ),
        (
            with("identity_overrides", json!({})),
            "identity_overrides does not fit, expected a list",
        ),
        (
            with("feature_states", json!([{"enabled": "hunter2"}])),
            "feature_states[0].enabled does not fit, expected a boolean",
        ),
        (
            with("big", json!("x".repeat(MAX_DOCUMENT_BYTES))),
            "the document is too long",
        ),
    ] {
        let read = assemble(vec![page(&document)]).unwrap();
        assert_eq!(read.fits.err().unwrap().to_string(), problem);
        // It can be handed out as it is, if it is one at all.
        let text = read.unfit.map(|unfit| text_of(&unfit));
        let is_one = document.is_object() && document.get("big").is_none();
        assert_eq!(text, is_one.then(|| document.to_string()), "{problem}");
    }
    let long = text_page(&" ".repeat(MAX_PAGE_BYTES + 1));
    let problem = assemble(vec![long]).unwrap().fits.err().unwrap();
    assert_eq!(problem.to_string(), "the document is too long");
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let read = assemble(vec![text_page(&deep)]).unwrap();
    let problem = read.fits.err().unwrap();
    assert_eq!(problem.to_string(), "the document is nested too deeply");
}

#[test]
fn what_is_not_json_is_no_document() {
    for text in ["", "<html>", "{", "{}{}", "{\"a\":\"[[\"", "\u{feff}{}"] {
        let read = assemble(vec![text_page(text)]);
        assert_eq!(read.err(), Some(NoDocument::Json), "{text}");
    }
    let bytes = Page {
        body: vec![b'"', 0xff, b'"'],
        is_gzip: false,
    };
    assert_eq!(assemble(vec![bytes]).err(), Some(NoDocument::Json));
}

#[test]
fn a_name_is_short_and_of_one_line() {
    let mut document = document();
    document["name"] = json!(format!("a\n{}", "b".repeat(100)));
    let read = assemble(vec![page(&document)]).unwrap();
    assert_eq!(read.name, format!("a\\n{}", "b".repeat(62)));
    assert_eq!(
        read.updated_at.as_deref(),
        Some("2026-05-04T03:02:01.654321+00:00")
    );
}
