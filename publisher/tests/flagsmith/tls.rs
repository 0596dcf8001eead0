//! Flagsmith behind TLS.

use std::sync::Arc;

use flag_definitions_filter::surfaces::flagsmith::records::Condition;
use flag_definitions_publisher::sources::authorities::authorities;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use crate::followed::{Followed, configuration};
use crate::stub::{Flagsmith, Reply, document};

#[test]
fn a_certificate_is_checked_before_a_key_is_sent() {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let flagsmith =
        Flagsmith::start_with(Some(Arc::new(tls)), |_| Reply::json(&document("secret")));
    let url = flagsmith.url().replace("http:", "https:");
    let config = || configuration(&flagsmith, 1, &json!({"api_url": url}));
    // Not of an authority that browsers accept.
    let refusing = Followed::start_trusting(config(), authorities(None).unwrap());
    refusing.wait_for("client0", Condition::Failing);
    assert!(flagsmith.requests().is_empty());
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let roots = authorities(Some(ca_file.path())).unwrap();
    Followed::start_trusting(config(), roots).wait_for_document("secret");
}
