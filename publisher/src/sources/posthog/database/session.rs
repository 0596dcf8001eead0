//! One connection to Postgres, driven from this thread. Nothing waits longer than it says, and everything ends
//! soon after `stop` is set.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, Receiver};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row};

use super::schema::SchemaProblem;
use super::url::{CONNECT_TIMEOUT, Endpoint};

/// Longest time that the server may work on one statement.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// How much later than the server this program gives up: it then has no answer at all.
const GRACE: Duration = Duration::from_secs(5);

/// How often `stop` is looked at.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Most notifications kept until they are looked at; one more and some are lost, which is told.
const MAX_QUEUED: usize = 2_048;

/// Where PostHog's triggers tell of changes. Also in `sql/triggers.sql`.
pub(super) const CHANNEL: &str = "flag_definitions";

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// Postgres refused it, or the connection broke.
    Postgres(tokio_postgres::Error),
    /// There was no answer for this long.
    Timeout(Duration),
    /// The connection is closed.
    Closed,
    /// The database is not as PostHog makes it.
    Schema(SchemaProblem),
    /// Notifications do not arrive.
    Deaf,
    /// This replica lacks so many bytes of WAL that the primary had.
    Behind(u64),
    /// `stop` was set.
    Stopped,
    /// The system gives no event loop.
    Runtime(std::io::Error),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Runs connections on the calling thread.
pub(super) struct Runner<'a> {
    runtime: Option<Runtime>,
    stop: &'a AtomicBool,
}

impl<'a> Runner<'a> {
    pub fn new(stop: &'a AtomicBool) -> Result<Self, Fault> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            runtime: Some(runtime.map_err(Fault::Runtime)?),
            stop,
        })
    }

    fn runtime(&self) -> Result<&Runtime, Fault> {
        self.runtime.as_ref().ok_or(Fault::Closed)
    }

    /// Waits for `future`; all connections go on meanwhile.
    pub fn run<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Result<T, Fault> {
        let deadline = Instant::now() + limit;
        self.runtime()?.block_on(async {
            let mut future = pin!(future);
            loop {
                // First of all: a server that always answers at once must not keep this going.
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Fault::Stopped);
                }
                let left = deadline.saturating_duration_since(Instant::now());
                if let Ok(value) = tokio::time::timeout(left.min(STOP_CHECK), future.as_mut()).await
                {
                    return Ok(value);
                }
                if Instant::now() >= deadline {
                    return Err(Fault::Timeout(limit));
                }
            }
        })
    }
}

impl Drop for Runner<'_> {
    /// Does not wait for a name look-up under way.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One connection.
pub(super) struct Session<'a> {
    runner: &'a Runner<'a>,
    client: Client,
    notifications: Receiver<String>,
    lost: Arc<AtomicBool>,
}

impl<'a> Session<'a> {
    /// Connects and logs in.
    pub fn open(runner: &'a Runner<'a>, endpoint: &Endpoint) -> Result<Self, Fault> {
        let config = &endpoint.config;
        let each = config
            .get_connect_timeout()
            .copied()
            .unwrap_or(CONNECT_TIMEOUT);
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(1).max(1);
        let connect = config.connect(endpoint.tls.clone());
        let (client, mut connection) = runner.run(each.saturating_mul(hosts), connect)??;
        let (queue, notifications) = mpsc::channel(MAX_QUEUED);
        let lost = Arc::new(AtomicBool::new(false));
        let tell_lost = Arc::clone(&lost);
        runner.runtime()?.spawn(async move {
            // Ends when the connection does; whoever uses the client next is told why.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message
                    && notification.channel() == CHANNEL
                    && queue.try_send(notification.payload().to_owned()).is_err()
                {
                    tell_lost.store(true, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            runner,
            client,
            notifications,
            lost,
        })
    }

    /// The rows that one statement returns.
    pub fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Fault> {
        // Typed, hence not prepared: a connection pooler in between need not know of it.
        let query = self.client.query_typed(sql, parameters);
        Ok(self.runner.run(STATEMENT_TIMEOUT + GRACE, query)??)
    }

    /// Carries out statements without parameters.
    pub fn execute(&self, sql: &str) -> Result<(), Fault> {
        let execute = self.client.batch_execute(sql);
        Ok(self.runner.run(STATEMENT_TIMEOUT + GRACE, execute)??)
    }

    /// Begins a transaction that sees one state of the database and changes nothing. Ended by [`Session::commit`]
    /// or by closing the connection.
    pub fn begin(&self) -> Result<(), Fault> {
        // Rows hidden by a row security policy would look as if they had been removed: then rather an error.
        // Compiling a statement takes longer than a page of it.
        self.execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET LOCAL statement_timeout = {}; \
             SET LOCAL row_security = off; \
             SET LOCAL jit = off",
            STATEMENT_TIMEOUT.as_millis()
        ))
    }

    /// Ends the transaction.
    pub fn commit(&self) -> Result<(), Fault> {
        self.execute("COMMIT")
    }

    /// Proves that the server answers within `limit`.
    pub fn ping(&self, limit: Duration) -> Result<(), Fault> {
        if self.client.is_closed() {
            return Err(Fault::Closed);
        }
        Ok(self.runner.run(limit, self.client.check_connection())??)
    }

    /// The next notification, if one comes within `limit`.
    pub fn notification(&mut self, limit: Duration) -> Result<Option<String>, Fault> {
        match self.runner.run(limit, self.notifications.recv()) {
            Ok(Some(payload)) => Ok(Some(payload)),
            Ok(None) => Err(Fault::Closed),
            Err(Fault::Timeout(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Whether notifications were lost since the last call.
    pub fn lost_notifications(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }
}

/// A parameter and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);
