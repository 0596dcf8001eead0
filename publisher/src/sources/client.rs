//! HTTP requests to sources.

use std::error::Error as _;
use std::sync::Arc;

use reqwest::{Client, Response, redirect};
use rustls::RootCertStore;

/// Connections to one host that are kept for the next requests.
const MAX_IDLE: usize = 64;

const USER_AGENT: &str = concat!("flag-definitions-publisher/", env!("CARGO_PKG_VERSION"));

/// A client that connects to nothing yet. Certificates are believed that one of `roots` signed. `None`: TLS cannot be set up.
pub fn client(roots: RootCertStore, redirects: redirect::Policy) -> Option<Client> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirects)
        .referer(false)
        .user_agent(USER_AGENT)
        .pool_max_idle_per_host(MAX_IDLE);
    client.build().ok()
}

/// Why a body is not there.
pub enum BodyProblem {
    /// It is longer than it may be.
    TooLong,
    /// The connection broke.
    Broken(reqwest::Error),
}

/// The body of an answer, of at most so many bytes.
///
/// # Errors
/// When it is longer, or breaks off.
pub async fn body(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, BodyProblem> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyProblem::Broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > max_bytes {
            return Err(BodyProblem::TooLong);
        }
    }
    Ok(body)
}

/// What went wrong with a request, without its address: that may hold a secret.
pub fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    // The library's own text has the address with its query.
    match error.source() {
        None => "the request failed".to_owned(),
        Some(_) => cause.to_string(),
    }
}
