//! Chooses which of a listener's certificates a client gets.
//!
//! Keeps true: every client gets a certificate. The first one of the config is the default for clients that name no
//! host, or an unknown one.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::ListenerCertificate;

/// The certificates to choose from, in the config's order; never empty.
#[derive(Debug)]
pub(super) struct CertificateResolver(Vec<ListenerCertificate>);

impl CertificateResolver {
    pub(super) fn among(own: Vec<ListenerCertificate>) -> CertificateResolver {
        CertificateResolver(own)
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name();
        let fit = |own: &ListenerCertificate| host.map_or(Fit::None, |host| fit(&own.names, host));
        let best = self.0.iter().map(fit).max()?;
        // If no certificate fits the host, only the first one is a candidate.
        let first = if best == Fit::None { self.0.get(..1)? } else { &self.0 };
        let candidates = || first.iter().filter(|own| best == Fit::None || fit(own) == best);
        // A host may have an RSA and an ECDSA certificate, and a client may support only one of them.
        let taken =
            |own: &&ListenerCertificate| own.key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates().find(taken).or_else(|| candidates().next()).map(|own| own.key.clone())
    }
}

/// How well a certificate fits a host, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    None,
    Wildcard,
    Name,
}

/// RFC 9525, section 6.3: a wildcard stands for one whole label, the first.
fn fit(names: &[String], host: &str) -> Fit {
    let above = host.split_once('.').map(|(_, above)| above);
    let one = |name: &String| match name.strip_prefix("*.") {
        Some(suffix) if above.is_some_and(|above| above.eq_ignore_ascii_case(suffix)) => Fit::Wildcard,
        None if name.eq_ignore_ascii_case(host) => Fit::Name,
        _ => Fit::None,
    };
    names.iter().map(one).max().unwrap_or(Fit::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["hooks.example.com".to_owned(), "*.example.com".to_owned()];
        assert_eq!(fit(&names, "Hooks.example.com"), Fit::Name);
        assert_eq!(fit(&names, "other.EXAMPLE.com"), Fit::Wildcard);
        for host in ["example.com", "a.b.example.com", "example.org", "com"] {
            assert_eq!(fit(&names, host), Fit::None, "{host}");
        }
    }
}
