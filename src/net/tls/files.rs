//! Reads the files that a TLS section names, and reports their problems.
//!
//! Keeps true: each problem is reported at the key that names the file, and never quotes the file's content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::Section;
use super::names::{self, CertificateInfo};
use crate::base::file;
use crate::config::{KeyPair, Located, Position, Problem};

/// Reads a section's files.
pub(super) struct Files<'a> {
    pub(super) section: &'a Section<'a>,
    pub(super) problems: &'a mut Vec<Problem>,
}

/// One of the listener's own certificates.
#[derive(Debug)]
pub(super) struct ListenerCertificate {
    pub(super) key: Arc<CertifiedKey>,
    /// The hosts that it is valid for.
    pub(super) names: Vec<String>,
    pub(super) expires: Timestamp,
}

impl Files<'_> {
    /// Reads a certificate chain with its key. Pairs are numbered from 0.
    pub(super) fn certificate(
        &mut self,
        number: usize,
        pair: &KeyPair,
        provider: &CryptoProvider,
    ) -> Option<ListenerCertificate> {
        let key_of = |file: &str| match number.checked_sub(1) {
            None => format!("{}.{file}", self.section.key),
            Some(number) => format!("{}.more[{number}].{file}", self.section.key),
        };
        let (key, private) = (key_of("certificate"), key_of("private_key"));
        let chain = self.certificates(&key, &pair.certificate);
        let signing = self.private_key(&private, &pair.private_key);
        let (chain, signing) = (chain?, signing?);
        let shown = pair.certificate.value.display();
        let Some(CertificateInfo { hosts, from, expires }) = chain.first().and_then(names::info) else {
            return self.error(
                pair.certificate.at,
                &key,
                format!("{shown} does not begin with an X.509 certificate"),
            );
        };
        self.check_dates(pair.certificate.at, &key, &shown.to_string(), from, expires);
        let Ok(signing) = provider.key_provider.load_private_key(signing) else {
            let what = format!(
                "the key in {} has an unsupported type or length; use ECDSA P-256 or RSA with 2048 bits",
                pair.private_key.value.display()
            );
            return self.error(pair.private_key.at, &private, what);
        };
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let what = format!(
                    "the key in {} does not match the first certificate in {shown}",
                    pair.private_key.value.display()
                );
                return self.error(pair.private_key.at, &private, what);
            }
            Err(why) => {
                return self.error(pair.certificate.at, &key, format!("cannot use {shown}: {why}"));
            }
        }
        Some(ListenerCertificate { key: Arc::new(certified), names: hosts, expires })
    }

    /// Reads the authorities that verify client certificates.
    pub(super) fn authorities(
        &mut self,
        path: &Located<PathBuf>,
    ) -> Option<(Vec<CertificateDer<'static>>, RootCertStore)> {
        let key = format!("{}.client_ca", self.section.key);
        let authorities = self.certificates(&key, path)?;
        let mut roots = RootCertStore::empty();
        let shown = path.value.display();
        for (number, authority) in authorities.iter().enumerate() {
            let dates = names::info(authority);
            let (Some(CertificateInfo { expires, .. }), Ok(())) = (dates, roots.add(authority.clone()))
            else {
                let what = format!(
                    "certificate {} in {shown} is not an X.509 certificate of an authority",
                    number + 1
                );
                return self.error(path.at, &key, what);
            };
            if expires <= self.section.now {
                self.warning(
                    path.at,
                    &key,
                    format!("certificate {} in {shown} expired on {expires:.0}", number + 1),
                );
            }
        }
        Some((authorities, roots))
    }

    /// Reports an error at the section as a whole.
    pub(super) fn usable<T>(&mut self, made: Result<T, String>) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(why) => {
                let at = self.section.tls.certificate.at;
                self.error(at, self.section.key, format!("cannot set up TLS: {why}"))
            }
        }
    }

    fn certificates(&mut self, key: &str, path: &Located<PathBuf>) -> Option<Vec<CertificateDer<'static>>> {
        let text = self.read(key, path)?;
        let shown = path.value.display();
        match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
            Ok(certificates) if !certificates.is_empty() => Some(certificates),
            Ok(_) => self.error(path.at, key, format!("{shown} holds no certificate in PEM form")),
            Err(_) => self.error(path.at, key, format!("{shown} is broken: its PEM text cannot be read")),
        }
    }

    fn private_key(&mut self, key: &str, path: &Located<PathBuf>) -> Option<PrivateKeyDer<'static>> {
        let text = self.read(key, path)?;
        let shown = path.value.display();
        // Both formats of encrypted keys contain this word, and no other PEM text does.
        let encrypted = text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
        match PrivateKeyDer::from_pem_slice(&text) {
            _ if encrypted => {
                let what = format!("the key in {shown} is encrypted; decrypt it: openssl pkey -in {shown}");
                self.error(path.at, key, what)
            }
            Ok(private) => Some(private),
            Err(rustls::pki_types::pem::Error::NoItemsFound) => {
                self.error(path.at, key, format!("{shown} holds no private key in PEM form"))
            }
            Err(_) => self.error(path.at, key, format!("{shown} is broken: its PEM text cannot be read")),
        }
    }

    fn read(&mut self, key: &str, path: &Located<PathBuf>) -> Option<Vec<u8>> {
        let shown = |path: &Path| path.display().to_string();
        match file::read(&path.value, MAX_FILE) {
            Ok(text) => Some(text),
            Err(why) => self.error(path.at, key, format!("cannot read {}: {why}", shown(&path.value))),
        }
    }

    fn check_dates(&mut self, at: Position, key: &str, shown: &str, from: Timestamp, expires: Timestamp) {
        let now = self.section.now;
        let left = expires.duration_since(now);
        let what = if left <= SignedDuration::ZERO {
            format!("the certificate in {shown} expired on {expires:.0}: clients refuse it")
        } else if from > now {
            format!("the certificate in {shown} is not valid before {from:.0}: until then clients refuse it")
        } else if left < EXPIRES_SOON {
            format!(
                "the certificate in {shown} expires on {expires:.0}, in less than {} days",
                left.as_hours() / 24 + 1
            )
        } else {
            return;
        };
        self.warning(at, key, what);
    }

    fn error<T>(&mut self, at: Position, key: &str, what: String) -> Option<T> {
        self.problems.push(Problem { at, key: key.to_owned(), what, warning: false });
        None
    }

    fn warning(&mut self, at: Position, key: &str, what: String) {
        self.problems.push(Problem { at, key: key.to_owned(), what, warning: true });
    }
}

/// Bytes. All authorities of a system fit; a file without an end, such as a device, does not.
const MAX_FILE: u64 = 4 << 20;
const ENCRYPTED: &[u8] = b"ENCRYPTED";
/// A 90-day certificate is usually renewed after 60 days, so 14 days before its end the renewal has failed.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
