//! Which certificate authorities are believed.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Those of a file (PEM); without one those that browsers accept.
///
/// # Errors
/// When the file cannot be read or has no certificate: what is the matter with it, in words that follow its name.
pub fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(path) = ca_file else {
        return Ok(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        });
    };
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| "is not PEM".to_owned())?;
        let added = roots.add(certificate);
        added.map_err(|error| format!("has a certificate that cannot be used ({error})"))?;
    }
    if roots.is_empty() {
        return Err("has no certificate".to_owned());
    }
    Ok(roots)
}
