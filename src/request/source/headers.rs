//! The headers by which providers sign: a record keeps fingerprints of signatures, and ids and times as they came.

use hyper::header::HeaderName;

use crate::provider::Catalog;

/// The headers of all providers of a config, each once.
pub struct SigningHeaders {
    /// Those that carry signatures, or secrets. A record keeps a fingerprint of them, never the text.
    pub signatures: Vec<HeaderName>,
    /// Those that carry a delivery's id or time.
    pub identifying: Vec<HeaderName>,
    /// The others that a signature covers, or that a definition reads.
    pub covered: Vec<HeaderName>,
}

impl SigningHeaders {
    /// The headers of these providers.
    pub fn of(catalog: &Catalog) -> SigningHeaders {
        let schemes = || catalog.iter().flat_map(|provider| provider.signing.schemes());
        let signatures = each_once(schemes().flat_map(|scheme| scheme.signature_headers()));
        let identifying = each_once(schemes().flat_map(|scheme| scheme.identifying_headers()));
        let covered = schemes().flat_map(|scheme| scheme.covered_headers());
        let read =
            catalog.iter().filter_map(|provider| provider.reader.rules()).flat_map(|rules| rules.headers());
        let mut covered = each_once(covered.chain(read));
        covered.retain(|name| !signatures.contains(name) && !identifying.contains(name));
        SigningHeaders { signatures, identifying, covered }
    }
}

fn each_once(names: impl Iterator<Item = &'static str>) -> Vec<HeaderName> {
    let mut kept: Vec<HeaderName> = Vec::new();
    for name in names.map(HeaderName::from_static) {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}
