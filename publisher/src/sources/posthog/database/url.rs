//! The Postgres URL. It holds a password: it is taken apart here and never shown; errors name the address alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{self, Verify};

/// Longest time to connect to one address.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which nothing was heard for this long is asked whether it still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// What is wrong with a URL. Says nothing of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UrlProblem {
    /// It is not a URL of Postgres.
    Malformed,
    /// A `/`, `?`, `#` or `@` in the password makes it mean another server.
    Ambiguous,
    /// It has an option that is not known here, or has no such value.
    Option,
    /// Its `sslmode` is none.
    SslMode,
    /// The file of certificate authorities is not used.
    CaFile(PathBuf, String),
    /// TLS cannot be set up.
    Tls,
}

impl fmt::Display for UrlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "not a Postgres URL, use postgres://user:password@host[:port]/database[?sslmode=verify-full]; \
                 percent-encode special characters of the password"
            }
            Self::Ambiguous => {
                "cannot tell where the password ends; percent-encode its special characters \
                 (/ is %2F, ? is %3F, # is %23, @ is %40)"
            }
            Self::Option => {
                "has an option that this program does not know, or an option without a valid value; known are \
                 sslmode, sslrootcert, application_name, connect_timeout, options, target_session_attrs"
            }
            Self::SslMode => {
                "sslmode must be disable, prefer, require, verify-ca or verify-full"
            }
            Self::CaFile(path, reason) => {
                return write!(f, "the CA file {} {reason}", path.display());
            }
            Self::Tls => "a fault of this program: TLS cannot be set up",
        })
    }
}

/// Where a server is and how to log in.
pub(super) struct Endpoint {
    pub config: Config,
    pub tls: MakeRustlsConnect,
    pub address: String,
}

impl Endpoint {
    /// Takes a URL apart. `ca_file` goes before the URL's own `sslrootcert`.
    pub fn parse(url: &str, ca_file: Option<&Path>) -> Result<Self, UrlProblem> {
        // A secret often ends in a newline.
        let url = url.trim();
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or(UrlProblem::Malformed)?;
        unambiguous(rest)?;
        let (url, tls) = TlsOptions::take_out(url)?;
        let mut config: Config = url.parse().map_err(|_| match url.split_once('?') {
            Some((before, _)) if before.parse::<Config>().is_ok() => UrlProblem::Option,
            _ => UrlProblem::Malformed,
        })?;
        if config.get_hosts().is_empty() || config.get_user().is_none() {
            return Err(UrlProblem::Malformed);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("flag-definitions-publisher");
        }
        config.ssl_mode(tls.mode);
        config.keepalives(true).keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        config.tcp_user_timeout(KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_RETRIES);
        let ca_file = ca_file.or(tls.ca_file.as_deref());
        let verify = match tls.verify {
            Verify::Nothing if ca_file.is_some() => Verify::Chain,
            verify => verify,
        };
        Ok(Self {
            tls: tls::connector(verify, ca_file)?,
            address: address(&config),
            config,
        })
    }

    /// A text from the server or a library, should it ever repeat the password.
    pub fn without_password(&self, text: String) -> String {
        let password = self.config.get_password().unwrap_or_default();
        match std::str::from_utf8(password) {
            Ok(password) if !password.is_empty() => text.replace(password, "***"),
            _ => text,
        }
    }
}

/// The options that the client library does not know in full.
struct TlsOptions {
    mode: SslMode,
    verify: Verify,
    ca_file: Option<PathBuf>,
}

impl TlsOptions {
    /// The URL without them, and they.
    fn take_out(url: &str) -> Result<(String, Self), UrlProblem> {
        let mut options = Self {
            mode: SslMode::Prefer,
            verify: Verify::Nothing,
            ca_file: None,
        };
        let Some((before, query)) = url.split_once('?') else {
            return Ok((url.to_owned(), options));
        };
        let mut others = Vec::new();
        for option in query.split('&') {
            match option.split_once('=') {
                Some(("sslmode", mode)) => (options.mode, options.verify) = ssl_mode(mode)?,
                // A path as it is: nobody encodes one that libpq also reads.
                Some(("sslrootcert", path)) => {
                    options.ca_file = Some(PathBuf::from(path.replace("%2F", "/")));
                }
                _ => others.push(option),
            }
        }
        let url = if others.is_empty() {
            before.to_owned()
        } else {
            format!("{before}?{}", others.join("&"))
        };
        Ok((url, options))
    }
}

fn ssl_mode(text: &str) -> Result<(SslMode, Verify), UrlProblem> {
    Ok(match text {
        "disable" => (SslMode::Disable, Verify::Nothing),
        "prefer" => (SslMode::Prefer, Verify::Nothing),
        "require" => (SslMode::Require, Verify::Nothing),
        "verify-ca" => (SslMode::Require, Verify::Chain),
        "verify-full" => (SslMode::Require, Verify::ChainAndName),
        _ => return Err(UrlProblem::SslMode),
    })
}

/// Refuses what only makes sense as an unencoded password: `postgres://user:12/34@host` would otherwise connect
/// to the host `user` and show a part of the password as its port.
fn unambiguous(rest: &str) -> Result<(), UrlProblem> {
    let mut parts = rest.splitn(2, ['/', '?', '#']);
    let authority = parts.next().unwrap_or_default();
    let after = parts.next().unwrap_or_default();
    let fragment = rest.contains('#');
    if fragment || after.contains('@') || authority.matches('@').count() > 1 {
        return Err(UrlProblem::Ambiguous);
    }
    Ok(())
}

/// `host:port/database`, for each host.
fn address(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports.get(index).or_else(|| ports.first()).copied();
            let port = port.unwrap_or(5432);
            match host {
                Host::Tcp(host) if host.contains(':') => format!("[{host}]:{port}"),
                Host::Tcp(host) => format!("{host}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        })
        .collect();
    let database = config.get_dbname().or_else(|| config.get_user());
    format!("{}/{}", hosts.join(","), database.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, expected) in [
            ("postgres://u:p@127.0.0.1/db", Ok("127.0.0.1:5432/db")),
            ("postgresql://u:p%40ss@h:7000/db", Ok("h:7000/db")),
            ("postgres://u:p@h/db\n", Ok("h:5432/db")),
            ("postgres://u@h,g:7000/db", Ok("h:5432,g:7000/db")),
            ("postgres://u@[::1]:7000", Ok("[::1]:7000/u")),
            ("postgres://u@%2Frun%2Fpg/db", Ok("/run/pg:5432/db")),
            ("postgres://u@h/db?sslmode=verify-full", Ok("h:5432/db")),
            (
                "postgres://u@h/db?sslmode=require&connect_timeout=3",
                Ok("h:5432/db"),
            ),
            ("", Err(UrlProblem::Malformed)),
            ("host=h user=u", Err(UrlProblem::Malformed)),
            ("redis://h", Err(UrlProblem::Malformed)),
            ("postgres://h/db", Err(UrlProblem::Malformed)),
            ("postgres://u@h:port/db", Err(UrlProblem::Malformed)),
            ("postgres://u:12#34@h", Err(UrlProblem::Ambiguous)),
            ("postgres://u:12/34@h", Err(UrlProblem::Ambiguous)),
            ("postgres://u:12?34@h", Err(UrlProblem::Ambiguous)),
            ("postgres://u:12@34@h", Err(UrlProblem::Ambiguous)),
            ("postgres://u@h/db?sslmode=allow", Err(UrlProblem::SslMode)),
            ("postgres://u@h/db?nonsense=1", Err(UrlProblem::Option)),
            ("postgres://u@h/db?nonsense", Err(UrlProblem::Option)),
        ] {
            let address = Endpoint::parse(url, None).map(|endpoint| endpoint.address);
            assert_eq!(address.as_deref(), expected.as_ref().copied(), "{url}");
        }
    }

    #[test]
    fn an_error_never_repeats_the_url() {
        for url in [
            "postgres://u:hunter2@h:x/db",
            "u:hunter2@h",
            "postgres://u@h/db?hunter2=hunter2",
        ] {
            let problem = Endpoint::parse(url, None).err().unwrap();
            assert!(
                !format!("{problem} {problem:?}").contains("hunter2"),
                "{url}"
            );
        }
    }

    #[test]
    fn what_each_mode_verifies() {
        for (mode, expected) in [
            ("disable", (SslMode::Disable, Verify::Nothing)),
            ("prefer", (SslMode::Prefer, Verify::Nothing)),
            ("require", (SslMode::Require, Verify::Nothing)),
            ("verify-ca", (SslMode::Require, Verify::Chain)),
            ("verify-full", (SslMode::Require, Verify::ChainAndName)),
        ] {
            assert_eq!(ssl_mode(mode), Ok(expected), "{mode}");
        }
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = format!("postgres://u@h/db?sslrootcert={}", file.path().display());
        let problem = Endpoint::parse(&url, None).err().unwrap();
        assert!(
            problem.to_string().ends_with("has no certificate"),
            "{problem}"
        );
        let missing = Endpoint::parse("postgres://u@h/db", Some(Path::new("/nowhere.pem")));
        assert!(matches!(missing.err(), Some(UrlProblem::CaFile(..))));
    }

    #[test]
    fn a_text_that_repeats_the_password_is_shown_without_it() {
        let endpoint = Endpoint::parse("postgres://u:p%40ss@h/db", None).unwrap();
        assert_eq!(endpoint.without_password("x p@ss y".to_owned()), "x *** y");
    }
}
