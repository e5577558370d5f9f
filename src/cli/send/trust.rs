//! Decides which server certificates `send` and `health` trust over TLS, and which client certificate it shows.
//!
//! An HTTP client trusts only authorities. `send` also trusts the config's own certificate for any host, to reach a
//! listener by its address, and a server certificate in `--ca` for its own host. Both need this verifier.
//!
//! Keeps true: a certificate passes only within its dates, and only if it is a named one, or a trusted authority issued
//! it for the host.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::base::file;
use crate::cli::Failure;
use crate::config::Tls;

/// The trusted certificates.
pub(in crate::cli) enum Trust<'a> {
    /// The config's own certificates, for any host: the listener is this config's.
    Own {
        /// The config's table, for the error.
        key: &'static str,
        tls: &'a Tls,
        /// The end of the error.
        advice: &'static str,
    },
    /// The authorities in a PEM file, and the server certificates in it for their own hosts.
    File(&'a Path),
    /// The system's authorities.
    System,
}

impl Trust<'_> {
    /// The client's TLS config. With `own` (certificate and key), it shows that client certificate.
    ///
    /// # Errors
    /// When a file cannot be read, or there are no authorities to trust.
    pub(in crate::cli) fn client(&self, own: Option<(&Path, &Path)>) -> Result<ClientConfig, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(self.verifier(provider.clone())?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let unreadable =
                    |why: &dyn Display| Failure(format!("cannot read a key from {}: {why}", key.display()));
                let text = file::read(key, MAX_FILE).map_err(|why| unreadable(&why))?;
                let private = PrivateKeyDer::from_pem_slice(&text).map_err(|why| unreadable(&why))?;
                builder.with_client_auth_cert(certificates(chain)?, private)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Verifier, Failure> {
        let mut named = Vec::new();
        let advice = match self {
            Trust::Own { key, tls, advice } => {
                for pair in tls.pairs() {
                    // The later ones in the file are its authorities.
                    named.extend(certificates(&pair.certificate.value)?.into_iter().take(1));
                }
                format!(
                    "is not the one that {key} names: was it renewed and the gateway not told, or does another server \
                     listen there?{advice}"
                )
            }
            Trust::File(path) => {
                named = certificates(path)?;
                format!("is not trusted: no authority in {} vouches for it", path.display())
            }
            Trust::System => {
                "is not trusted: none of the system's authorities vouches for it. Give --ca FILE with its \
                              authority, or with itself"
                    .to_owned()
            }
        };
        let authorities = match self {
            Trust::System => rustls_native_certs::load_native_certs().certs,
            Trust::Own { .. } | Trust::File(_) => named.clone(),
        };
        if authorities.is_empty() {
            let what = "this system has no certificate authorities to trust; give --ca FILE";
            return Err(Failure(what.to_owned()));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Verifier { named, authorities, named_only: matches!(self, Trust::Own { .. }), advice })
    }
}

/// Larger than any system's file of authorities.
const MAX_FILE: u64 = 4 << 20;

/// The certificates in a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unreadable =
        |why: &dyn Display| Failure(format!("cannot read a certificate from {}: {why}", path.display()));
    let text = file::read(path, MAX_FILE).map_err(|why| unreadable(&why))?;
    let found = CertificateDer::pem_slice_iter(&text);
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|why| unreadable(&why))?;
    if found.is_empty() { Err(unreadable(&"it holds none in PEM form")) } else { Ok(found) }
}

#[derive(Debug)]
struct Verifier {
    /// Certificates that are trusted themselves.
    named: Vec<CertificateDer<'static>>,
    /// Whether only `named` are trusted, and for any host.
    named_only: bool,
    authorities: Arc<WebPkiServerVerifier>,
    /// The end of the error for an untrusted certificate.
    advice: String,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        // Strictly, an authority must not be a server; but the operator named this one for a server.
        if self.named.contains(shown) {
            if !self.named_only {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, host)?;
            }
            within_dates(shown, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        if self.named_only {
            return Err(self.untrusted(shown));
        }
        let verified = self.authorities.verify_server_cert(shown, between, host, ocsp, now);
        verified.map_err(|why| match why {
            InvalidCertificate(CertificateError::UnknownIssuer) => self.untrusted(shown),
            // `openssl req -x509` makes an authority, which strictly must not be a server.
            InvalidCertificate(CertificateError::Other(_)) if is_authority(shown) => self.untrusted(shown),
            why => why,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

impl Verifier {
    fn untrusted(&self, shown: &CertificateDer<'_>) -> rustls::Error {
        let names = match X509Certificate::from_der(shown) {
            Ok((_, shown)) => {
                format!("of {:?} by {:?}", shown.subject().to_string(), shown.issuer().to_string())
            }
            Err(_) => "that it shows".to_owned(),
        };
        let untrusted = Untrusted(format!("the certificate {names} {}", self.advice));
        CertificateError::Other(OtherError(Arc::new(untrusted))).into()
    }
}

fn is_authority(shown: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(shown).is_ok_and(|(_, shown)| shown.is_ca())
}

fn within_dates(shown: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, shown) = X509Certificate::from_der(shown).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < shown.validity().not_before.timestamp() {
        Err(CertificateError::NotValidYet)
    } else if now > shown.validity().not_after.timestamp() {
        Err(CertificateError::Expired)
    } else {
        Ok(())
    }
}

/// A certificate that is not trusted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Untrusted(String);
