//! TLS to Postgres: what each `sslmode` proves of the server.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::UrlProblem;
use crate::sources::authorities::authorities;

/// What is proven of the server before anything is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: whoever sits between can read along. `prefer` and `require` without a CA file.
    Nothing,
    /// That an accepted authority signed its certificate. `verify-ca`; `prefer` and `require` with a CA file.
    Chain,
    /// That, and that the certificate names the host of the URL. `verify-full`.
    ChainAndName,
}

/// Makes TLS connections. `ca_file` (PEM) takes the place of the authorities that browsers accept.
///
/// # Errors
/// When the CA file cannot be read or has no certificate.
pub fn connector(verify: Verify, ca_file: Option<&Path>) -> Result<MakeRustlsConnect, UrlProblem> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = verifier(verify, ca_file, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| UrlProblem::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // Servers that begin with TLS (sslnegotiation=direct) insist on it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn verifier(
    verify: Verify,
    ca_file: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<Verifier, UrlProblem> {
    let roots = authorities(ca_file).map_err(|reason| {
        UrlProblem::CaFile(ca_file.map(Path::to_owned).unwrap_or_default(), reason)
    })?;
    let inner =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    Ok(Verifier {
        verify,
        inner: inner.map_err(|_| UrlProblem::Tls)?,
    })
}

/// Leaves out of the usual checks what `verify` does not ask for. That the server holds the key of its certificate
/// is always checked.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify == Verify::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is checked last: everything else was right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verify == Verify::Chain => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
