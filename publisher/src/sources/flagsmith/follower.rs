//! The threads: one that decides and tells, and those of the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::{self, Runtime};
use tracing::{error, info};

use super::config::FlagsmithConfig;
use super::environments::{Environments, Now, Poll, PollAnswer};
use super::upstream::Upstream;
use super::usage::{self, Report, Reports};
use crate::sources::documents::{DocumentSource, TellDocuments};
use crate::sources::polls::Polls;
use crate::sources::usage::{TellUsage, UsageAnswer, UsageBatch, UsageNews, UsageReports};

/// Longest wait before it is looked at what is due, and whether to stop.
const WAIT: Duration = Duration::from_millis(50);

/// What the threads are called, and the hashes with counts.
const NAME: &str = flag_definitions_filter::surfaces::flagsmith::usage::NAME;

/// A Flagsmith whose environments are followed.
pub struct FlagsmithSource {
    config: FlagsmithConfig,
    upstream: Upstream,
    allows_empty: bool,
    reporting: Option<Reporting>,
    polls: Arc<Polls>,
}

/// What is to be reported, and who is told what came of it.
struct Reporting {
    batches: Receiver<UsageBatch>,
    tell: TellUsage,
}

impl FlagsmithSource {
    /// Connects to nothing yet. `allows_empty`: an empty list of environments is taken as it is.
    pub fn new(config: FlagsmithConfig, upstream: Upstream, allows_empty: bool) -> Self {
        Self {
            config,
            upstream,
            allows_empty,
            reporting: None,
            polls: Arc::default(),
        }
    }
}

impl DocumentSource for FlagsmithSource {
    fn surface(&self) -> &'static str {
        "flagsmith"
    }

    fn reports(&mut self, tell: TellUsage) -> Option<UsageReports> {
        self.config.proxy_key.as_ref()?;
        let (send, batches) = channel();
        self.reporting = Some(Reporting { batches, tell });
        Some(UsageReports {
            name: NAME,
            interval: self.config.usage_flush_interval,
            send,
        })
    }

    fn polls(&self) -> Option<Arc<Polls>> {
        Some(Arc::clone(&self.polls))
    }

    fn start(self: Box<Self>, tell: TellDocuments, stop: &Arc<AtomicBool>) {
        let stop = Arc::clone(stop);
        let thread = thread::Builder::new().name(NAME.to_owned());
        if let Err(problem) = thread.spawn(move || self.follow(&tell, &stop)) {
            error!(%problem, "Flagsmith is not followed: no thread can be started");
        }
    }
}

impl FlagsmithSource {
    fn follow(self, tell: &TellDocuments, stop: &AtomicBool) {
        // One thread waits for all answers; documents are taken apart on others.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(NAME)
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(problem) => {
                error!(%problem, "Flagsmith is not followed: no thread can be started");
                return;
            }
        };
        let api_url = self.config.api_url.to_string();
        info!(api_url, "following Flagsmith");
        let mut environments =
            Environments::new(&self.config, self.allows_empty, self.polls, now());
        let upstream = Arc::new(self.upstream);
        let (answers, answered) = channel();
        let (mut reports, came) = (Reports::default(), channel());
        while !stop.load(Ordering::Relaxed) {
            for poll in environments.due(now()) {
                ask(&runtime, &upstream, poll, answers.clone());
            }
            if let Some(reporting) = &self.reporting {
                let named = environments.reported_tenants().map(UsageNews::Tenants);
                if named.is_some() {
                    let listed = environments.reported();
                    reports.list(listed.map(|one| &one.client_key), Instant::now());
                }
                for batch in reporting.batches.try_iter() {
                    let report = reports.report(&batch);
                    send(&runtime, &upstream, report, came.0.clone());
                }
                if named
                    .into_iter()
                    .chain(came.1.try_iter())
                    .any(|news| (reporting.tell)(news).is_err())
                {
                    break;
                }
            }
            if environments
                .news(now())
                .into_iter()
                .any(|news| tell(news).is_err())
            {
                break;
            }
            // It never says that nobody is left: this thread holds a sender.
            if let Ok(answer) = answered.recv_timeout(WAIT) {
                environments.answered(answer, now());
                while let Ok(answer) = answered.try_recv() {
                    environments.answered(answer, now());
                }
            }
        }
        stop_at_once(runtime);
    }
}

/// Requests under way are dropped.
fn stop_at_once(runtime: Runtime) {
    runtime.shutdown_background();
}

fn ask(runtime: &Runtime, upstream: &Arc<Upstream>, poll: Poll, answers: Sender<PollAnswer>) {
    let upstream = Arc::clone(upstream);
    runtime.spawn(async move {
        let answer = match poll {
            Poll::List { asked } => {
                let answer = upstream.list().await;
                PollAnswer::List { asked, answer }
            }
            Poll::Document { place, request } => {
                let answer = upstream.document(&request).await;
                PollAnswer::Document { place, answer }
            }
        };
        // Nobody waits for it when the program ends.
        let _ = answers.send(answer);
    });
}

fn send(runtime: &Runtime, upstream: &Arc<Upstream>, report: Report, news: Sender<UsageNews>) {
    let upstream = Arc::clone(upstream);
    runtime.spawn(async move {
        let answer = match report.body.is_empty() {
            // Nobody in it is known any more.
            true => UsageAnswer::Taken,
            false => usage::answer(upstream.report(&report.id, report.body).await),
        };
        // Nobody waits for it when the program ends.
        let _ = news.send(UsageNews::Answered {
            id: report.id,
            reported: report.reported,
            unknown: report.unknown,
            answer,
        });
    });
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let millis = unix.and_then(|unix| u64::try_from(unix.as_millis()).ok());
    Now {
        instant: Instant::now(),
        unix: millis.unwrap_or(0),
    }
}
