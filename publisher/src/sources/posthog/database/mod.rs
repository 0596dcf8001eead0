//! PostHog's database: who may read what, and what of that changes.
//!
//! | room | job |
//! |---|---|
//! | `url` | the URL, and what it says of TLS |
//! | `tls` | what a server has to prove |
//! | `session` | one connection; nothing waits for ever |
//! | `schema` | tables, types of keys and triggers, from the catalog |
//! | `tables` | how rows are asked for |
//! | `records` | rows become records |
//! | `read` | the full read |
//! | `notice` | what triggers say, checked and collapsed |
//! | `reread` | the rows that a notice names, read again |
//! | `listen` | the connection that hears of changes |
//! | `position` | places in the write-ahead log |
//! | `problem` | what an operator reads when it fails |

mod listen;
mod notice;
mod position;
mod problem;
mod read;
mod records;
mod reread;
mod schema;
mod session;
mod tables;
mod tls;
mod url;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sources::options::OptionError;
use crate::sources::{Heard, Reading, Source, SourceError};
use position::Lsn;
use problem::Problem;
use url::Endpoint;

/// The option that names the database.
const URL_OPTION: &str = "--postgres-url";

/// PostHog's database: where it is read and where it is listened to.
pub struct Database {
    read: Endpoint,
    listen: Endpoint,
    heard: Counters,
}

/// What listening leaves for others.
#[derive(Default)]
struct Counters {
    /// Notifications that were ignored.
    ignored: AtomicU64,
    /// Where the WAL of the server that is listened to ended when a full read was asked for. A replica that is
    /// behind this would not show what went unheard.
    read_from: AtomicU64,
}

impl fmt::Debug for Database {
    /// The addresses alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("read", &self.read.address)
            .field("listen", &self.listen.address)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Takes the URLs apart. `url` is read, and may be of a replica; `listen_url` is the primary's, by default the
    /// same. `ca_file` (PEM) holds the accepted certificate authorities; by default those that browsers accept.
    ///
    /// `sslmode` in a URL: `disable` no TLS; `prefer` (the default) TLS if the server has it, and `require` always,
    /// both without proof of who the server is unless there is a CA file, then as `verify-ca`; `verify-ca` an
    /// accepted authority signed its certificate; `verify-full` that, and it names the host. Where TLS fails nothing
    /// falls back to none.
    ///
    /// # Errors
    /// When a URL or the CA file cannot be used. The error names the option, and does not repeat the URL.
    pub fn parse(
        url: &str,
        listen_url: Option<&str>,
        ca_file: Option<&Path>,
    ) -> Result<Self, OptionError> {
        let parse = |url, option| {
            Endpoint::parse(url, ca_file).map_err(|problem| OptionError {
                option,
                problem: problem.to_string(),
            })
        };
        let read = parse(url, URL_OPTION)?;
        let listen = match listen_url {
            None => parse(url, URL_OPTION),
            Some(listen_url) => parse(listen_url, "--listen-url"),
        };
        Ok(Self {
            read,
            listen: listen?,
            heard: Counters::default(),
        })
    }

    /// `host:port/database` of what is read, without user and password.
    pub fn address(&self) -> String {
        self.read.address.clone()
    }

    /// How many notifications were not as the triggers send them, and were ignored. Anybody with access to the
    /// database can send one.
    pub fn ignored_notifications(&self) -> u64 {
        self.heard.ignored.load(Ordering::Relaxed)
    }
}

impl Source for Database {
    /// Reads everything, as of one moment. `progress` is told the number of rows read so far, after each page of at
    /// most 10 000.
    ///
    /// After [`Heard::Overflow`] waits up to 30 s for a replica that has not yet seen what went unheard.
    ///
    /// # Errors
    /// When the database cannot be reached, refuses, lacks a table or column, takes more than 60 s for a page, or is
    /// a replica that stays behind.
    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
        let from = Lsn(self.heard.read_from.load(Ordering::Relaxed));
        read::read_all(&self.read, from, progress)
            .map_err(|fault| SourceError::Unavailable(Problem::new(&self.read, &fault).to_string()))
    }

    /// Listens and tells what it hears until `stop` is set, which takes at most 200 ms unless `tell` takes longer.
    /// Connects again after failures, with pauses of at most 30 s. Each time it listens anew it tells
    /// [`Heard::Listening`] and then [`Heard::Overflow`]: what happened before is not known. `tell` should be quick:
    /// while it runs nothing is heard, and the server keeps what was not.
    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard)) {
        listen::listen(&self.listen, &self.heard, stop, tell);
    }
}
