//! What is told of several sources, by a clock that stands still.

use super::*;
use flate2::read::GzDecoder;
use std::io::Read;

fn at(start: Instant, seconds: u64) -> Moment {
    Moment {
        instant: start + Duration::from_secs(seconds),
        unix: 1_000 * (1 + seconds),
    }
}

fn flag(set: &str, key: &str, on: bool) -> String {
    format!(
        r#""{key}":{{"variants":{{"on":{on}}},"defaultVariant":"on","metadata":{{"flagSetId":"{set}"}}}}"#
    )
}

fn changed(source: &str, flags: &[String]) -> Looked {
    let text = format!(r#"{{"flags":{{{}}}}}"#, flags.join(","));
    Looked::Changed(FlagdDocument::parse(source, text.as_bytes()).unwrap())
}

/// The texts of documents by tenant, the records, and who is gone.
type Told = (
    BTreeMap<Tenant, String>,
    Option<BTreeMap<Sha256Hash, Box<[u8]>>>,
    Vec<Tenant>,
);

fn told(news: Vec<DocumentNews>) -> Told {
    let mut told = Told::default();
    for news in news {
        match news {
            DocumentNews::Document(document) => {
                assert!(told.1.is_none(), "documents come before records");
                let mut text = String::new();
                let mut gzip = GzDecoder::new(&*document.gzip);
                gzip.read_to_string(&mut text).unwrap();
                assert_eq!(document.version, ETag::of_text(text.as_bytes()));
                told.0.insert(document.tenant, text);
            }
            DocumentNews::Records(records) => told.1 = Some(records),
            DocumentNews::FirstRecords(_) => panic!("for the time being"),
            DocumentNews::Gone(tenant) => {
                assert!(told.1.is_some(), "records that name it go first");
                told.2.push(tenant);
            }
            DocumentNews::Kept { .. } => panic!("who reads a source keeps it"),
        }
    }
    told
}

fn tenant_of(records: &BTreeMap<Sha256Hash, Box<[u8]>>, selector: &str) -> Option<Tenant> {
    match OfrepRecord::decode(records.get(&selection_hash(selector))?) {
        Ok(OfrepRecord::Selection(tenant)) => Some(tenant),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_told_before_every_source_was_read() {
    let start = Instant::now();
    let polls = Arc::<Polls>::default();
    let mut sources = FlagSelections::new(2, Arc::clone(&polls));
    assert_eq!(sources.news(at(start, 0)), []);
    sources.note(0, changed("a", &[flag("shop", "x", true)]), at(start, 0));
    sources.note(1, Looked::Failed(PollFailure::Status), at(start, 0));
    assert_eq!(sources.news(at(start, 60)), []);
    assert_eq!(polls.figures().failed(PollFailure::Status), 1);
    assert_eq!(polls.figures().completed, None);

    sources.note(1, changed("b", &[flag("shop", "x", false)]), at(start, 61));
    let (documents, records, gone) = told(sources.news(at(start, 61)));
    let records = records.unwrap();
    // The later one wins, so the other source has no flag left.
    let selectors = ["", "flagSetId=shop", "source=b"];
    for selector in selectors {
        let tenant = tenant_of(&records, selector).unwrap();
        assert!(documents[&tenant].contains(r#""on":false"#), "{selector}");
    }
    assert_eq!((records.len(), documents.len(), gone.len()), (4, 3, 0));
    let state = OfrepRecord::decode(&records[&sources_hash()]);
    // As of when the one was read that was read longest ago.
    let expected = SourcesState {
        read_at: 1_000,
        knows_selections: true,
    };
    assert_eq!(state, Ok(OfrepRecord::Sources(expected)));
    assert_eq!(polls.figures().completed, Some(start));
}

#[test]
fn only_what_changed_is_told_again() {
    let start = Instant::now();
    let mut sources = FlagSelections::new(2, Arc::default());
    let shop = [flag("shop", "x", true)];
    sources.note(0, changed("a", &shop), at(start, 0));
    sources.note(1, changed("b", &[flag("app", "y", true)]), at(start, 0));
    let (_, first, _) = told(sources.news(at(start, 0)));
    let first = first.unwrap();
    assert_eq!(sources.news(at(start, 1)), []);

    sources.note(1, changed("b", &[flag("app", "y", false)]), at(start, 2));
    let (documents, records, gone) = told(sources.news(at(start, 2)));
    let tenants = ["", "flagSetId=app", "source=b"].map(|name| tenant_of(&first, name).unwrap());
    assert!(
        documents
            .keys()
            .copied()
            .eq(BTreeMap::from(tenants.map(|tenant| (tenant, ()))).into_keys())
    );
    assert_eq!((records.unwrap(), gone), (first.clone(), vec![]));

    // A failure changes nothing, and a set without flags goes.
    sources.note(1, Looked::Refused, at(start, 3));
    assert_eq!(sources.news(at(start, 3)), []);
    sources.note(1, changed("b", &[]), at(start, 4));
    let (documents, records, gone) = told(sources.news(at(start, 4)));
    let (records, all) = (records.unwrap(), tenant_of(&first, "").unwrap());
    assert!(documents.keys().eq([&all]) && tenant_of(&records, "flagSetId=app").is_none());
    assert_eq!(gone.len(), 2);
    assert!(tenants[1..].iter().all(|tenant| gone.contains(tenant)));
}

#[test]
fn a_first_document_that_is_refused_has_no_flags_where_nothing_was_published() {
    let start = Instant::now();
    let polls = Arc::<Polls>::default();
    let mut sources = FlagSelections::new(2, Arc::clone(&polls));
    sources.note(0, changed("a", &[flag("shop", "x", true)]), at(start, 0));
    sources.note(1, Looked::Refused, at(start, 0));
    let is_fit = |news: &DocumentNews| match news {
        DocumentNews::Document(document) => document.fits,
        other => !matches!(other, DocumentNews::FirstRecords(_)),
    };
    let news = sources.news(at(start, 0));
    assert_eq!((news.len(), news.iter().any(is_fit)), (4, false));
    sources.note(1, Looked::Refused, at(start, 1));
    assert_eq!(sources.news(at(start, 1)), []);
    assert_eq!(polls.figures().completed, None);
    assert_eq!(polls.figures().failed(PollFailure::Refused), 2);
    // All is told anew as soon as it is for good.
    sources.note(1, changed("b", &[]), at(start, 2));
    let news = sources.news(at(start, 2));
    assert_eq!((news.len(), news.iter().all(is_fit)), (4, true));
}

#[test]
fn what_an_earlier_publisher_took_stands_for_a_source_until_it_is_read() {
    let start = Instant::now();
    let polls = Arc::<Polls>::default();
    let mut sources = FlagSelections::new(2, Arc::clone(&polls));
    let recalled = |on| match changed("b", &[flag("shop", "y", on)]) {
        Looked::Changed(document) => Looked::Recalled(Some(document), 4_500),
        other => other,
    };
    sources.note(0, changed("a", &[flag("shop", "x", true)]), at(start, 0));
    sources.note(1, Looked::Refused, at(start, 0));
    assert!(matches!(
        sources.news(at(start, 0)).last(),
        Some(DocumentNews::FirstRecords(_))
    ));
    sources.note(1, recalled(true), at(start, 1));
    let read_at = |records: &BTreeMap<Sha256Hash, Box<[u8]>>| match OfrepRecord::decode(
        &records[&sources_hash()],
    ) {
        Ok(OfrepRecord::Sources(state)) if state.knows_selections => state.read_at,
        other => panic!("{other:?}"),
    };
    // All is known but the time.
    let (documents, records, _) = told(sources.news(at(start, 1)));
    let all = documents
        .values()
        .find(|text| text.starts_with(r#"{"selector":"","#));
    assert!(all.is_some_and(|all| all.contains(r#""key":"x""#) && all.contains(r#""key":"y""#)));
    assert_eq!(read_at(&records.unwrap()), 0);
    // The other one goes on, whatever this one says that is not taken.
    sources.note(1, Looked::Refused, at(start, 2));
    sources.note(1, Looked::Failed(PollFailure::Status), at(start, 2));
    assert_eq!(sources.news(at(start, 2)), []);
    sources.note(0, changed("a", &[flag("shop", "x", false)]), at(start, 3));
    let (documents, records, _) = told(sources.news(at(start, 3)));
    assert_eq!((documents.len(), read_at(&records.unwrap())), (3, 0));
    assert_eq!(polls.figures().completed, None);
    // What was read is not recalled.
    sources.note(1, changed("b", &[flag("shop", "y", false)]), at(start, 4));
    sources.note(1, recalled(true), at(start, 5));
    let (documents, records, _) = told(sources.news(at(start, 5)));
    assert!(
        documents
            .values()
            .all(|text| !text.contains(r#""on":true"#))
    );
    assert_eq!(read_at(&records.unwrap()), 4_000);
}

#[test]
fn what_another_publisher_read_later_stands_until_the_source_says_again_what_it_said() {
    let start = Instant::now();
    let mut sources = FlagSelections::new(1, Arc::default());
    let read = |on| changed("a", &[flag("shop", "x", on)]);
    let recalled = |on, at| match read(on) {
        Looked::Changed(document) => Looked::Recalled(Some(document), at),
        other => other,
    };
    sources.note(0, read(false), at(start, 1));
    let all = told(sources.news(at(start, 1))).0;
    // What is older, or no definitions, changes nothing, but all is told anew.
    for looked in [recalled(true, 1_999), Looked::Recalled(None, 9_000)] {
        sources.note(0, looked, at(start, 2));
        assert_eq!(told(sources.news(at(start, 2))).0, all);
    }
    sources.note(0, recalled(true, 2_001), at(start, 3));
    let later = told(sources.news(at(start, 3))).0;
    assert!(later.keys().eq(all.keys()) && later != all);
    sources.note(0, Looked::Failed(PollFailure::Status), at(start, 4));
    assert_eq!(sources.news(at(start, 4)), []);
    sources.note(0, Looked::Same, at(start, 5));
    assert_eq!(told(sources.news(at(start, 5))).0, all);
}

#[test]
fn as_of_when_sources_were_read_is_told_now_and_then() {
    let start = Instant::now();
    let mut sources = FlagSelections::new(1, Arc::default());
    sources.note(0, changed("a", &[]), at(start, 0));
    assert_eq!(
        told(sources.news(at(start, 0))).0.len(),
        1,
        "all flags: none"
    );
    let mut told_at = Vec::new();
    for seconds in 1..25 {
        // It is not read for some time.
        if !(12..18).contains(&seconds) {
            sources.note(0, Looked::Same, at(start, seconds));
        }
        let (documents, records, _) = told(sources.news(at(start, seconds)));
        assert!(documents.is_empty());
        told_at.extend(records.map(|_| seconds));
    }
    assert_eq!(told_at, [10, 20]);
    sources.note(0, Looked::Failed(PollFailure::Content), at(start, 40));
    assert!(told(sources.news(at(start, 40))).1.is_some(), "as of 24");
    assert_eq!(sources.news(at(start, 60)), []);
}
