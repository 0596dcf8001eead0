//! What went wrong between this program and Postgres, as an operator should read it.

use std::error::Error as _;
use std::fmt;

use tokio_postgres::error::SqlState;

use super::schema::SchemaProblem;
use super::session::Fault;
use super::url::Endpoint;

/// What went wrong, where, and what to do. Never shows a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    address: String,
    text: String,
    advice: Option<&'static str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres at {}: {}", self.address, self.text)?;
        match self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

const UNREACHABLE: &str = "check that it runs and that the address is right";
const REPLICA: &str = "on a replica, set hot_standby_feedback or raise max_standby_streaming_delay";
const CANCELED: &str = "it took longer than statement_timeout (60 s for a page of a full read, else the user's own): see what \
     holds the server up, such as a lock or its load; or, on a replica, it was in the way of replication: set \
     hot_standby_feedback or raise max_standby_streaming_delay";
const TRIGGERS: &str = "let the owner of PostHog's tables run publisher/sql/triggers.sql; until then changes are found by full reads";

impl Problem {
    pub fn new(endpoint: &Endpoint, fault: &Fault) -> Self {
        let (text, advice) = match fault {
            Fault::Postgres(error) => (postgres_text(error), postgres_advice(error)),
            Fault::Timeout(limit) => (
                format!("no answer within {} s", limit.as_secs()),
                Some(UNREACHABLE),
            ),
            Fault::Closed => (
                "the connection was closed".to_owned(),
                Some("the server's log may say why"),
            ),
            Fault::Schema(problem) => (problem.to_string(), schema_advice(problem)),
            Fault::Deaf => (
                "notifications do not arrive".to_owned(),
                Some(
                    "a connection pooler in transaction mode does not pass them on: listen at the server itself",
                ),
            ),
            Fault::Behind(bytes) => (
                format!("this replica stays {bytes} bytes behind the server that is listened to"),
                Some("check its replication, and that both URLs are of one cluster"),
            ),
            Fault::Stopped => ("stopped".to_owned(), None),
            Fault::Runtime(error) => (format!("cannot begin: {error}"), None),
        };
        Self {
            address: endpoint.address.clone(),
            text: endpoint.without_password(text),
            advice,
        }
    }
}

/// The library's text and its cause: "error connecting to server: Connection refused".
fn library_text(error: &tokio_postgres::Error) -> String {
    let text = error.to_string();
    match error.source().map(ToString::to_string) {
        Some(cause) if !text.contains(&cause) => format!("{text}: {cause}"),
        _ => text,
    }
}

fn postgres_text(error: &tokio_postgres::Error) -> String {
    let Some(refusal) = error.as_db_error() else {
        return library_text(error);
    };
    match *refusal.code() {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "user or password refused".to_owned()
        }
        // Not the detail: it quotes rows.
        _ => format!("{} ({})", refusal.message(), refusal.code().code()),
    }
}

fn postgres_advice(error: &tokio_postgres::Error) -> Option<&'static str> {
    let Some(code) = error.code() else {
        // The library does not tell its own errors apart but by their text.
        let text = library_text(error);
        let advice = if text.contains("TLS") {
            "check sslmode, the host name and the CA file"
        } else if text.contains("password missing") {
            "put user and password into the URL"
        } else {
            UNREACHABLE
        };
        return Some(advice);
    };
    Some(match *code {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check them in the URL, and pg_hba.conf of the server"
        }
        SqlState::INVALID_CATALOG_NAME => "check the database name at the end of the URL",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "let its owner GRANT SELECT on PostHog's five tables to the user of the URL"
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => {
            "this is a read replica, which cannot listen: give the URL of its primary for listening"
        }
        SqlState::T_R_SERIALIZATION_FAILURE => REPLICA,
        // The message, which tells these apart, is in the server's language.
        SqlState::QUERY_CANCELED => CANCELED,
        SqlState::TOO_MANY_CONNECTIONS => "raise max_connections or the user's connection limit",
        _ => return None,
    })
}

const fn schema_advice(problem: &SchemaProblem) -> Option<&'static str> {
    Some(match problem {
        SchemaProblem::NoTable(_) => {
            "check that this is PostHog's database, and that the user may use the schema and has it in its search_path"
        }
        SchemaProblem::NoColumn(..) => "this version of PostHog is not supported",
        SchemaProblem::KeyType(..) => return None,
        SchemaProblem::NoTrigger(..) => TRIGGERS,
    })
}
