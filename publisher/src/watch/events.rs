//! What the threads around the writer tell it. One channel, so that everything has one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel};
use std::time::{Duration, Instant};

use tracing::info;

use super::status::WatchStatus;
use crate::sources::documents::{DocumentNews, TellDocuments};
use crate::sources::kinds::RecordOwner;
use crate::sources::usage::{TellUsage, UsageNews};
use crate::sources::{ETagNews, Heard, Reading, Source, SourceError, Tell, WriterGone};

/// Most events that wait for the writer. Whoever has more to say waits too.
pub const WAITING: usize = 256;

/// While a long read goes on, a line tells of it this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Something the writer has to know.
#[derive(Debug)]
pub enum WriterEvent {
    /// The source said something by itself.
    Heard(Heard),
    /// A full read of the source ended.
    Read {
        /// When it began.
        began: Instant,
        /// What it brought.
        result: Result<Reading, SourceError>,
    },
    /// What the source of ETags tells.
    ETags(ETagNews),
    /// What a source of documents tells.
    Documents {
        /// The surface that it is of.
        owner: RecordOwner,
        /// What it tells.
        news: DocumentNews,
    },
    /// What a source says of its reports of usage.
    Usage {
        /// The surface that it is of.
        owner: RecordOwner,
        /// What it says.
        news: UsageNews,
    },
}

/// What takes the news of ETags: hints are counted at once, all else waits for the writer.
pub fn etag_news(events: SyncSender<WriterEvent>, status: Arc<WatchStatus>) -> Tell {
    Arc::new(move |news| match news {
        ETagNews::Hinted => {
            status.update(|figures| figures.hints += 1);
            Ok(())
        }
        news => events
            .send(WriterEvent::ETags(news))
            .map_err(|_| WriterGone),
    })
}

/// What takes the news of a surface's documents.
pub fn document_news(owner: RecordOwner, events: SyncSender<WriterEvent>) -> TellDocuments {
    Arc::new(move |news| {
        let event = WriterEvent::Documents { owner, news };
        events.send(event).map_err(|_| WriterGone)
    })
}

/// What takes the news of a surface's reports of usage.
pub fn usage_news(owner: RecordOwner, events: SyncSender<WriterEvent>) -> TellUsage {
    Arc::new(move |news| {
        let event = WriterEvent::Usage { owner, news };
        events.send(event).map_err(|_| WriterGone)
    })
}

/// Starts the threads that talk to the source. A message to the sender asks for a full read.
pub fn start_source(
    source: Arc<dyn Source>,
    stop: Arc<AtomicBool>,
    events: SyncSender<WriterEvent>,
) -> std::sync::mpsc::Sender<()> {
    let (ask, asked) = channel();
    let (reading, to_writer) = (Arc::clone(&source), events.clone());
    std::thread::spawn(move || read_when_asked(&*reading, &asked, &to_writer));
    std::thread::spawn(move || {
        source.listen(&stop, &mut |heard| {
            // Without a writer the program is about to end.
            if events.send(WriterEvent::Heard(heard)).is_err() {
                stop.store(true, Ordering::Relaxed);
            }
        });
    });
    ask
}

fn read_when_asked(source: &dyn Source, asked: &Receiver<()>, events: &SyncSender<WriterEvent>) {
    while asked.recv().is_ok() {
        let began = Instant::now();
        let mut told = began;
        let result = source.read_all(&mut |rows| {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                info!(rows, "reading {}", source.nature().noun());
            }
        });
        if events.send(WriterEvent::Read { began, result }).is_err() {
            break;
        }
    }
}
