//! Whom `send` takes for the gateway over TLS, and whom it shows itself as.
//!
//! An HTTP client offers authorities alone. The config's own certificate passes for any host, so that `send` reaches a
//! listener by its address; one in `--ca` passes for its host without its authority. Both need this verifier.
//!
//! Keeps true: a certificate passes only if it is one of those named, or an authority vouches for it and it is for the
//! host; and none outside its dates.

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

/// Who is trusted.
pub(super) enum Trust<'a> {
    /// The config's own certificates, whatever host they are for: the listener is this config's.
    Own(&'a Tls),
    /// The authorities in a PEM file, and the certificates in it themselves for the hosts that they are for.
    File(&'a Path),
    /// The system's authorities.
    System,
}

impl Trust<'_> {
    /// The client's side of TLS, which shows the certificate in the first of these files, where there are any.
    ///
    /// # Errors
    /// When a file cannot be read, or there is nobody to trust.
    pub(super) fn client(&self, own: Option<(&Path, &Path)>) -> Result<ClientConfig, Failure> {
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
                let text = file::read(key, LONGEST).map_err(|why| unreadable(&why))?;
                let private = PrivateKeyDer::from_pem_slice(&text).map_err(|why| unreadable(&why))?;
                builder.with_client_auth_cert(certificates(chain)?, private)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Verifier, Failure> {
        let mut named = Vec::new();
        let instead = match self {
            Trust::Own(tls) => {
                for pair in tls.pairs() {
                    // Those after it in the file are its authorities.
                    named.extend(certificates(&pair.certificate.value)?.into_iter().take(1));
                }
                "is not the one that edge.tls names: was it renewed and the gateway not told, or does another server \
                 listen there? Give --url and --ca to trust another"
                    .to_owned()
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
            Trust::Own(_) | Trust::File(_) => named.clone(),
        };
        if authorities.is_empty() {
            let what = "this system has no certificate authorities to trust; give --ca FILE";
            return Err(Failure(what.to_owned()));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Verifier { named, authorities, named_only: matches!(self, Trust::Own(_)), instead })
    }
}

/// Every authority of a system fits in.
const LONGEST: u64 = 4 << 20;

/// The certificates in a PEM file, one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unreadable =
        |why: &dyn Display| Failure(format!("cannot read a certificate from {}: {why}", path.display()));
    let text = file::read(path, LONGEST).map_err(|why| unreadable(&why))?;
    let found = CertificateDer::pem_slice_iter(&text);
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|why| unreadable(&why))?;
    if found.is_empty() { Err(unreadable(&"it holds none in PEM form")) } else { Ok(found) }
}

#[derive(Debug)]
struct Verifier {
    /// Trusted themselves.
    named: Vec<CertificateDer<'static>>,
    /// No other is trusted, and these are for any host.
    named_only: bool,
    authorities: Arc<WebPkiServerVerifier>,
    /// What to say of another certificate.
    instead: String,
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
        // Authorities may not be servers, by the letter; whoever names one for a server means it.
        if self.named.contains(shown) {
            if !self.named_only {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, host)?;
            }
            within_dates(shown, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        if self.named_only {
            return Err(self.stranger(shown));
        }
        let verified = self.authorities.verify_server_cert(shown, between, host, ocsp, now);
        verified.map_err(|why| match why {
            InvalidCertificate(CertificateError::UnknownIssuer) => self.stranger(shown),
            // By the letter, again: `openssl req -x509` makes an authority, which is no server.
            InvalidCertificate(CertificateError::Other(_)) if is_authority(shown) => self.stranger(shown),
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
    fn stranger(&self, shown: &CertificateDer<'_>) -> rustls::Error {
        let names = match X509Certificate::from_der(shown) {
            Ok((_, shown)) => {
                format!("of {:?} by {:?}", shown.subject().to_string(), shown.issuer().to_string())
            }
            Err(_) => "that it shows".to_owned(),
        };
        let stranger = Stranger(format!("the certificate {names} {}", self.instead));
        CertificateError::Other(OtherError(Arc::new(stranger))).into()
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

/// A certificate that nobody vouches for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stranger(String);
