//! The Redis server: its URL, the connection, and its errors as an operator should read them.
//!
//! The URL holds a password. It is taken apart here and never shown; errors name the address alone.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo};
use redis::{RedisConnectionInfo, RedisError, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::error::SnapshotStoreError;

/// Longest time to connect and log in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time to wait for a reply.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A Redis URL that is not used. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisUrlError {
    /// It is not a URL of Redis.
    Malformed,
    /// It asks for TLS that checks nothing.
    Insecure,
    /// A `/`, `?`, `#` or `@` in the password makes it mean another server.
    Ambiguous,
}

impl fmt::Display for RedisUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "not a Redis URL, use redis://[user:password@]host[:port][/database], rediss://… for TLS, \
                 or unix:///path; percent-encode special characters of the password"
            }
            Self::Insecure => {
                "#insecure would send the password to whoever answers; name the CA of the server's \
                 certificate with --redis-ca-file instead"
            }
            Self::Ambiguous => {
                "cannot tell where the password ends; percent-encode its special characters \
                 (/ is %2F, ? is %3F, # is %23, @ is %40)"
            }
        })
    }
}

impl std::error::Error for RedisUrlError {}

/// A CA file that is not used.
#[derive(Debug)]
pub enum CaError {
    /// It cannot be read.
    Unreadable(std::io::Error),
    /// It has no certificate in PEM, or one that cannot be a CA's.
    NoCertificate,
    /// The URL asks for no TLS.
    Plain,
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NoCertificate => f.write_str(
                "holds no certificate of a CA: -----BEGIN CERTIFICATE----- (PEM) is expected",
            ),
            Self::Plain => f.write_str(
                "is for TLS, which the URL does not ask for: use rediss:// instead of redis://",
            ),
        }
    }
}

impl std::error::Error for CaError {}

/// Where Redis is and how to log in.
pub struct Server {
    info: ConnectionInfo,
    /// PEM; `None`: the CAs that browsers accept.
    ca: Option<Vec<u8>>,
}

impl Server {
    /// Takes a Redis URL apart.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn parse(url: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = url.split_once(':').ok_or(RedisUrlError::Malformed)?;
        match scheme {
            "rediss" | "valkeys" => {
                let (rest, insecure) = match rest.strip_suffix("#insecure") {
                    Some(rest) => (rest, true),
                    None => (rest, false),
                };
                unambiguous(rest)?;
                if insecure {
                    return Err(RedisUrlError::Insecure);
                }
            }
            "redis" | "valkey" => unambiguous(rest)?,
            _ => (),
        }
        let info = url
            .into_connection_info()
            .map_err(|_| RedisUrlError::Malformed)?;
        // CLIENT SETINFO would name this client's library; the publisher's Redis user may not send it.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self {
            info: info.set_redis_settings(settings),
            ca: None,
        })
    }

    /// Takes the server's certificate only from a CA in this file, instead of those that browsers accept.
    ///
    /// # Errors
    /// When the file has no CA's certificate, or the URL asks for no TLS.
    pub fn trusting(mut self, ca_file: &Path) -> Result<Self, CaError> {
        if !self.is_tls() {
            return Err(CaError::Plain);
        }
        let pem = std::fs::read(ca_file).map_err(CaError::Unreadable)?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| CaError::NoCertificate)?;
            roots.add(certificate).map_err(|_| CaError::NoCertificate)?;
        }
        if roots.is_empty() {
            return Err(CaError::NoCertificate);
        }
        self.ca = Some(pem);
        Ok(self)
    }

    /// Whether the URL asks for TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.address(), ConnectionAddr::TcpTls { .. })
    }

    fn client(&self) -> Result<Client, RedisError> {
        if !self.is_tls() {
            return Client::open(self.info.clone());
        }
        // An error says that one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: self.ca.clone(),
        };
        Client::build_with_tls(self.info.clone(), certificates)
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses the login.
    pub fn connect(&self) -> Result<Connection, SnapshotStoreError> {
        let connect = || {
            let client = self.client()?;
            let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
            connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
            connection.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
            Ok(connection)
        };
        connect().map_err(|error: RedisError| {
            let mut problem = self.problem(&error, CONNECT_TIMEOUT);
            if !self.is_tls() && error.is_connection_dropped() {
                let advice = "if this port expects TLS, use rediss:// instead of redis://";
                problem.advice.get_or_insert(advice);
            }
            SnapshotStoreError::Connect(problem)
        })
    }

    /// The address, without user and password.
    pub fn address(&self) -> &ConnectionAddr {
        self.info.addr()
    }

    /// Number of the database.
    pub fn database(&self) -> i64 {
        self.settings().db()
    }

    /// What went wrong with a command.
    pub fn command_problem(&self, error: &RedisError) -> RedisProblem {
        self.problem(error, RESPONSE_TIMEOUT)
    }

    fn problem(&self, error: &RedisError, timeout: Duration) -> RedisProblem {
        let mut text = if error.is_timeout() {
            format!("no answer within {} s", timeout.as_secs())
        } else if error.kind() == ErrorKind::AuthenticationFailed {
            "user or password refused".to_owned()
        } else if let (Some(code), Some(detail)) = (error.code(), error.detail()) {
            format!("{code} {detail}")
        } else {
            error.to_string()
        };
        // Redis and its look-alikes quote the arguments of commands that they do not know, even of AUTH.
        if let Some(password) = self.settings().password().filter(|text| !text.is_empty()) {
            text = text.replace(password, "***");
        }
        RedisProblem {
            address: self.address().to_string(),
            text,
            advice: self.tls_advice(error).or_else(|| advice(error)),
            is_denied: error.code() == Some("NOPERM"),
        }
    }

    fn tls_advice(&self, error: &RedisError) -> Option<&'static str> {
        if !self.is_tls() {
            return None;
        }
        let text = error.to_string();
        let has = |part: &str| text.contains(part);
        if has("UnknownIssuer") || has("BadSignature") {
            return Some(
                "name the CA that signed its certificate with --redis-ca-file or REDIS_CA_FILE",
            );
        }
        if has("NotValidForName") || has("not valid for name") {
            return Some("use a host name that its certificate has");
        }
        if has("invalid peer certificate") {
            return Some("renew or replace its certificate");
        }
        if error.is_timeout() {
            // Redis without TLS waits for the end of what it takes for a command.
            return Some(
                "check that it runs, that the address is right, and that this port speaks TLS",
            );
        }
        has("InvalidContentType").then_some("check that this port speaks TLS; redis:// is without")
    }

    fn settings(&self) -> &RedisConnectionInfo {
        self.info.redis_settings()
    }
}

/// Refuses what only makes sense as an unencoded password: `redis://user:12#34@host` would otherwise connect
/// to the host `user` and show a part of the password as its port.
fn unambiguous(rest: &str) -> Result<(), RedisUrlError> {
    let rest = rest.strip_prefix("//").ok_or(RedisUrlError::Malformed)?;
    let mut parts = rest.splitn(2, ['/', '?', '#']);
    let authority = parts.next().unwrap_or_default();
    let after = parts.next().unwrap_or_default();
    if after.contains('@') || authority.matches('@').count() > 1 {
        return Err(RedisUrlError::Ambiguous);
    }
    Ok(())
}

/// What went wrong between this program and Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisProblem {
    address: String,
    text: String,
    advice: Option<&'static str>,
    is_denied: bool,
}

impl RedisProblem {
    /// Whether Redis says that the user may not do this: nothing else is wrong.
    pub const fn is_denied(&self) -> bool {
        self.is_denied
    }
}

impl fmt::Display for RedisProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}: {}", self.address, self.text)?;
        match self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// What an operator can do about it.
fn advice(error: &RedisError) -> Option<&'static str> {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Some("check them in --redis-url or REDIS_URL");
    }
    if error.is_connection_refusal() || error.is_timeout() {
        return Some("check that it runs and that the address is right");
    }
    match error.code()? {
        "NOAUTH" => Some("put user and password into --redis-url or REDIS_URL"),
        "NOPERM" => Some("give its user the permissions of `publisher` in envoy/redis/users.acl"),
        "READONLY" => Some("this is a replica, use the address of its primary"),
        "OOM" => Some("raise its maxmemory or free memory"),
        "WRONGTYPE" => Some("something else uses this key, choose another --prefix"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, expected) in [
            ("redis://127.0.0.1", Ok("127.0.0.1:6379")),
            ("redis://user:p%40ss@127.0.0.1:7000/3", Ok("127.0.0.1:7000")),
            (
                "unix:///run/redis.sock?user=a&pass=b@c",
                Ok("/run/redis.sock"),
            ),
            ("", Err(RedisUrlError::Malformed)),
            ("127.0.0.1:6379", Err(RedisUrlError::Malformed)),
            ("redis:127.0.0.1", Err(RedisUrlError::Malformed)),
            ("http://127.0.0.1", Err(RedisUrlError::Malformed)),
            (
                "redis://127.0.0.1/not-a-number",
                Err(RedisUrlError::Malformed),
            ),
            ("rediss://127.0.0.1", Ok("127.0.0.1:6379")),
            ("rediss://user:p%40ss@host:7000/3", Ok("host:7000")),
            ("rediss://host#insecure", Err(RedisUrlError::Insecure)),
            ("rediss://user:12#34@host", Err(RedisUrlError::Ambiguous)),
            (
                "rediss://user:12#34@host#insecure",
                Err(RedisUrlError::Ambiguous),
            ),
            ("rediss://host#other", Err(RedisUrlError::Malformed)),
            ("redis://user:12#34@host", Err(RedisUrlError::Ambiguous)),
            ("redis://user:12/34@host", Err(RedisUrlError::Ambiguous)),
            ("redis://user:12?34@host", Err(RedisUrlError::Ambiguous)),
            ("redis://user:12@34@host", Err(RedisUrlError::Ambiguous)),
        ] {
            let server = Server::parse(url);
            let address = server.map(|server| server.address().to_string());
            assert_eq!(
                address.as_deref(),
                expected.as_ref().map(|text| *text),
                "{url}"
            );
        }
    }

    #[test]
    fn a_reply_that_quotes_the_password_is_shown_without_it() {
        let server = Server::parse("redis://user:p%40ss@127.0.0.1").unwrap();
        let error = redis::make_extension_error(
            "ERR".to_owned(),
            Some("unknown command 'AUTH', with args beginning with: 'user' 'p@ss'".to_owned()),
        );
        let text = server.command_problem(&error).to_string();
        assert!(
            text.contains("'user' '***'") && !text.contains("p@ss"),
            "{text}"
        );
    }
}
