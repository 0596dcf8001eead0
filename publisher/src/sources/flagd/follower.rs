//! The threads: one for each source, and one that tells what they say together.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::ofrep::flagd::FlagdDocument;
use flate2::read::GzDecoder;
use tokio::runtime;
use tracing::{error, info, warn};

use super::http::PolledUrl;
use super::problem::FlagdProblem;
use super::selections::{FlagSelections, Looked, Moment, compressed};
use super::text::{MAX_TEXT_BYTES, TextKind, as_json, read_file};
use super::uri::FlagdUri;
use crate::sources::documents::{DocumentNews, DocumentSource, KeptTexts, TellDocuments};
use crate::sources::followed_file::{FollowedFile, Look};
use crate::sources::polls::Polls;

/// What the surface is called, and the threads.
const NAME: &str = "ofrep";

/// Longest text that is recalled: YAML may become longer as JSON.
const MAX_KEPT_BYTES: u64 = 8 * MAX_TEXT_BYTES as u64;

/// Longest wait before it is looked whether to stop.
const WAIT: Duration = Duration::from_millis(50);

/// What a look at the source of a place came to.
type PlacedLook = (usize, Looked);

/// Sources of flagd's definitions that are followed.
pub struct FlagdSource {
    sources: Vec<OpenSource>,
    poll_interval: Duration,
    polls: Arc<Polls>,
    looks: (Sender<PlacedLook>, Receiver<PlacedLook>),
}

/// One of them.
pub struct OpenSource {
    /// Where it is.
    pub uri: FlagdUri,
    /// What is read there.
    pub reached: Reached,
}

/// How a source is read.
pub enum Reached {
    /// A file is followed.
    File(FollowedFile),
    /// A URL is read again and again.
    Url(Box<PolledUrl>),
}

impl FlagdSource {
    /// Reads nothing yet. A later source wins; URLs are read so often.
    pub fn new(sources: Vec<OpenSource>, poll_interval: Duration) -> Self {
        Self {
            sources,
            poll_interval,
            polls: Arc::default(),
            looks: channel(),
        }
    }
}

impl DocumentSource for FlagdSource {
    fn surface(&self) -> &'static str {
        NAME
    }

    fn keeps(&mut self) -> Option<KeptTexts> {
        let names = self.sources.iter().map(|source| source.uri.name());
        let names: Vec<String> = names.collect();
        let looked = self.looks.0.clone();
        Some(KeptTexts {
            key: "flagd:sources",
            names: names.iter().map(|name| hash(name)).collect(),
            recall: Box::new(move |found, gzip, at| {
                let mut names = names.iter().enumerate();
                if let Some((place, name)) = names.find(|(_, name)| hash(name) == found) {
                    let (name, looked) = (name.clone(), looked.clone());
                    spawn(move || {
                        let document = recalled(&name, &gzip);
                        let _ = looked.send((place, Looked::Recalled(document, at)));
                    });
                }
            }),
        })
    }

    fn polls(&self) -> Option<Arc<Polls>> {
        Some(Arc::clone(&self.polls))
    }

    fn start(self: Box<Self>, tell: TellDocuments, stop: &Arc<AtomicBool>) {
        let selections = FlagSelections::new(self.sources.len(), self.polls);
        let (looked, looks) = self.looks;
        for (place, source) in self.sources.into_iter().enumerate() {
            let reader = SourceReader {
                name: source.uri.name(),
                uri: source.uri,
                place,
                last: None,
                refused: None,
                problem: None,
                tell: looked.clone(),
                keep: Arc::clone(&tell),
            };
            let (stop, interval) = (Arc::clone(stop), self.poll_interval);
            spawn(move || match source.reached {
                Reached::File(file) => reader.follow(&file, &stop),
                Reached::Url(url) => reader.poll(*url, interval, &stop),
            });
        }
        let stop = Arc::clone(stop);
        spawn(move || run(selections, &looks, &tell, &stop));
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(NAME.to_owned());
    if let Err(problem) = thread.spawn(run) {
        error!(%problem, "flagd's definitions are not followed: no thread can be started");
    }
}

/// Tells what the sources say together.
fn run(
    mut selections: FlagSelections,
    looks: &Receiver<PlacedLook>,
    tell: &TellDocuments,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let first = match looks.recv_timeout(WAIT) {
            Err(RecvTimeoutError::Disconnected) => return,
            first => first.ok(),
        };
        for (place, looked) in first.into_iter().chain(looks.try_iter()) {
            selections.note(place, looked, now());
        }
        let news = selections.news(now());
        if news.into_iter().any(|news| tell(news).is_err()) {
            return;
        }
    }
}

/// Reads one source.
struct SourceReader {
    uri: FlagdUri,
    name: String,
    place: usize,
    /// The SHA-256 of the text that was taken last.
    last: Option<Sha256Hash>,
    /// Why the text that was read last was refused.
    refused: Option<FlagdProblem>,
    /// What is wrong with it now, as it was logged.
    problem: Option<FlagdProblem>,
    tell: Sender<PlacedLook>,
    /// Takes texts that are to be kept.
    keep: TellDocuments,
}

impl SourceReader {
    fn follow(mut self, file: &FollowedFile, stop: &AtomicBool) {
        info!(source = %self.uri, "following a file of flagd's definitions");
        file.watch(stop, |look| match look {
            Look::Same => self.say(Looked::Same),
            Look::StillRefused => {}
            Look::Changed(_) => {
                let read = file.read(|path| self.read_file(path), FlagdProblem::was_read);
                self.conclude(read);
            }
        });
    }

    fn poll(mut self, mut url: PolledUrl, interval: Duration, stop: &AtomicBool) {
        info!(source = %self.uri, "following a URL of flagd's definitions");
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(problem) => {
                error!(%problem, "flagd's definitions are not followed: no thread can be started");
                return;
            }
        };
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let read = match runtime.block_on(url.read()) {
                Ok(Some(text)) => self.take(&text),
                // What was refused is no better for being the same.
                Ok(None) => self.refused.clone().map_or(Ok(None), Err),
                Err(problem) => Err(FlagdProblem::Http(problem)),
            };
            self.conclude(read);
            while began.elapsed() < interval && !stop.load(Ordering::Relaxed) {
                thread::sleep(WAIT.min(interval));
            }
        }
    }

    fn read_file(&mut self, path: &Path) -> Result<Option<FlagdDocument>, FlagdProblem> {
        let bytes = read_file(path).map_err(|error| FlagdProblem::File(error.to_string()))?;
        let text = as_json(bytes, TextKind::of_path(path)).map_err(FlagdProblem::Text)?;
        self.take(&text)
    }

    /// The document that a text is; `None`: it is the one that was taken last.
    fn take(&mut self, text: &str) -> Result<Option<FlagdDocument>, FlagdProblem> {
        self.refused = None;
        let hash = Sha256Hash::of(text.as_bytes());
        if self.last == Some(hash) {
            return Ok(None);
        }
        match FlagdDocument::parse(&self.name, text.as_bytes()) {
            Ok(document) => {
                self.last = Some(hash);
                if let Some(gzip) = compressed(text) {
                    self.keep(Some(gzip));
                }
                Ok(Some(document))
            }
            Err(unfit) => {
                let problem = FlagdProblem::of_text(text, unfit);
                self.refused = Some(problem.clone());
                Err(problem)
            }
        }
    }

    fn keep(&self, gzip: Option<Arc<[u8]>>) {
        let (name, at) = (hash(&self.name), now().unix);
        // Nobody listens when the program ends.
        let _ = (self.keep)(DocumentNews::Kept { name, gzip, at });
    }

    /// Logs a problem that is new, and says what the look came to.
    fn conclude(&mut self, read: Result<Option<FlagdDocument>, FlagdProblem>) {
        let looked = match read {
            Ok(read) => {
                if self.problem.take().is_some() {
                    info!(source = %self.uri, "flagd's definitions are read again");
                }
                read.map_or(Looked::Same, Looked::Changed)
            }
            Err(problem) => {
                let failure = problem.failure();
                if self.problem.as_ref() != Some(&problem) {
                    let (flag, member) = (problem.flag(), problem.member());
                    warn!(source = %self.uri, flag, member, %problem, "flagd's definitions are not taken; what was published stays");
                }
                let is_refused = matches!(problem, FlagdProblem::Unfit(_));
                self.problem = Some(problem);
                match is_refused {
                    true => Looked::Refused,
                    false => Looked::Failed(failure),
                }
            }
        };
        self.say(looked);
    }

    fn say(&self, looked: Looked) {
        if matches!(looked, Looked::Same) {
            self.keep(None);
        }
        // Nobody listens when the program ends.
        let _ = self.tell.send((self.place, looked));
    }
}

/// What the text of a source is kept under.
fn hash(name: &str) -> Sha256Hash {
    Sha256Hash::of(name.as_bytes())
}

/// The document of a text that was kept; `None`: it is none that this release takes.
fn recalled(name: &str, gzip: &[u8]) -> Option<FlagdDocument> {
    let mut text = Vec::new();
    let mut bounded = GzDecoder::new(gzip).take(MAX_KEPT_BYTES);
    bounded.read_to_end(&mut text).ok()?;
    let document = FlagdDocument::parse(name, &text).ok()?;
    info!(
        source = name,
        "going on from what was taken before, until it is read"
    );
    Some(document)
}

fn now() -> Moment {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let millis = unix.and_then(|unix| u64::try_from(unix.as_millis()).ok());
    Moment {
        instant: Instant::now(),
        unix: millis.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::polls::PollFailure;

    #[test]
    fn text_that_is_no_object_is_a_failed_read_and_no_lack_of_flags() {
        for (text, expected) in [
            ("", Some(PollFailure::Content)),
            (
                r#"{"flags":{"k":{"variants":{"v":"#,
                Some(PollFailure::Content),
            ),
            (
                "<!doctype html><title>Sign in</title>",
                Some(PollFailure::Content),
            ),
            ("null", Some(PollFailure::Content)),
            ("[]", Some(PollFailure::Content)),
            (r#"{"flags":{}} x"#, Some(PollFailure::Content)),
            (r#"{"error":"gone"}"#, None),
            (r#"{"flags":{"k":{"defaultVariant":"none"}}}"#, None),
        ] {
            let (tell, looks) = channel();
            let mut reader = SourceReader {
                uri: "file:/a".parse().unwrap(),
                name: "/a".to_owned(),
                place: 0,
                last: None,
                refused: None,
                problem: None,
                tell,
                keep: Arc::new(|news| panic!("{news:?}")),
            };
            let read = reader.take(text);
            assert!(read.as_ref().is_err_and(FlagdProblem::was_read), "{text}");
            reader.conclude(read);
            match (looks.recv().unwrap().1, expected) {
                (Looked::Failed(failure), Some(expected)) => assert_eq!(failure, expected),
                (Looked::Refused, None) => {}
                (looked, _) => panic!("{text}: {looked:?}"),
            }
        }
        assert!(!FlagdProblem::File("input/output error".to_owned()).was_read());
    }

    #[test]
    fn a_text_that_was_taken_is_kept_and_recalled_by_its_name() {
        let uris = ["file:/a", "file:/b"].map(|uri| uri.parse::<FlagdUri>().unwrap());
        let sources = uris.map(|uri| OpenSource {
            reached: Reached::File(FollowedFile::new(Path::new("/nowhere"))),
            uri,
        });
        let mut source = FlagdSource::new(sources.into(), WAIT);
        let kept = source.keeps().unwrap();
        assert_eq!(kept.names, [hash("/a"), hash("/b")]);
        let text = r#"{"flags":{"k":{}}}"#;
        for gzip in [&b"no gzip"[..], &compressed("{").unwrap()] {
            assert!(recalled("/b", gzip).is_none());
        }
        (kept.recall)(hash("/c"), compressed(text).unwrap(), 7);
        (kept.recall)(hash("/b"), compressed(text).unwrap(), 8);
        match source.looks.1.recv().unwrap() {
            (1, Looked::Recalled(Some(document), 8)) => assert_eq!(document.len(), 1),
            other => panic!("{other:?}"),
        }
    }
}
