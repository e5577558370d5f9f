//! TLS towards other services.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::base::file;

/// Trusts the authorities of this system.
///
/// # Errors
/// When it has none.
pub fn of_system() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this system has no certificate authorities to trust".to_owned());
    }
    trusting(roots)
}

/// Trusts the authorities in a PEM file.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn of_file(path: &Path) -> Result<ClientConfig, String> {
    let unreadable = |why: String| format!("cannot read certificates from {}: {why}", path.display());
    let pem = file::read(path, MAX_FILE).map_err(|why| unreadable(why.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|why| unreadable(why.to_string()))?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(found).0 == 0 {
        return Err(unreadable("it holds none in PEM form".to_owned()));
    }
    trusting(roots)
}

/// Trusts the authorities of this system. Without any, only plain connections succeed.
///
/// # Errors
/// When the cryptography library does not start.
pub fn of_system_or_none() -> Result<ClientConfig, String> {
    of_system().or_else(|_| of_none())
}

/// Trusts nothing, for plain connections.
///
/// # Errors
/// When the cryptography library does not start.
pub fn of_none() -> Result<ClientConfig, String> {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(|why| why.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Larger than a file of all authorities of a system.
const MAX_FILE: u64 = 4 << 20;
