//! Reads certificates: hosts and dates of the listener's own, names of a client's.
//!
//! Keeps true: a subject is escaped so that no value can be mistaken for another part of it. Unreadable names are left
//! out.
//! Source of the format: RFC 4514.

use std::net::IpAddr;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::ToDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::base::peer::{Certificate, Name};

/// The hosts and dates of a listener's own certificate.
pub(super) struct CertificateInfo {
    /// The DNS names among its alternative names.
    pub(super) hosts: Vec<String>,
    pub(super) from: Timestamp,
    pub(super) expires: Timestamp,
}

/// Reads the certificate of a listener or of an authority.
pub(super) fn info(certificate: &CertificateDer<'_>) -> Option<CertificateInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    // The last second of the year 9999, which means "never expires", exceeds the range of a timestamp.
    let moment = |seconds: i64| {
        let within = seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        Timestamp::from_second(within).ok()
    };
    let hosts = alternative(&certificate).into_iter().filter_map(|name| match name {
        Name::Dns(host) => Some(host),
        Name::Address(_) | Name::Email(_) | Name::Uri(_) => None,
    });
    Some(CertificateInfo {
        hosts: hosts.collect(),
        from: moment(validity.not_before.timestamp())?,
        expires: moment(validity.not_after.timestamp())?,
    })
}

/// The names in a client's verified certificate; empty if it cannot be parsed.
pub(super) fn client_names(certificate: &CertificateDer<'_>) -> Certificate {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Certificate::default();
    };
    let subject = certificate.subject();
    let common = subject.iter_common_name().filter_map(|name| name.as_str().ok());
    Certificate {
        common_names: common.map(str::to_owned).collect(),
        subject: to_rfc4514(subject),
        names: alternative(&certificate),
    }
}

fn alternative(certificate: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(host) => Some(Name::Dns((*host).to_owned())),
        GeneralName::RFC822Name(address) => Some(Name::Email((*address).to_owned())),
        GeneralName::URI(uri) => Some(Name::Uri((*uri).to_owned())),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Name::Address(IpAddr::from(bytes))),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Name::Address(IpAddr::from(bytes))),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// Writes a name as text, the last part first.
fn to_rfc4514(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = ATTRIBUTE_NAMES.iter().find(|(known, _)| *known == oid).map(|(_, short)| *short);
    let value = match (known, attribute.as_str()) {
        (Some(_), Ok(text)) => escaped(text),
        _ => format!("#{}", hex::encode(attribute.attr_value().to_der_vec().unwrap_or_default())),
    };
    format!("{}={value}", known.unwrap_or(&oid))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let outermost = (c == ' ' && (at == 0 || at == last)) || (c == '#' && at == 0);
        if outermost || "\"+,;<>\\".contains(c) {
            escaped.push('\\');
        }
        match c {
            // Records are also read on terminals.
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    escaped.push_str(&format!("\\{byte:02X}"));
                }
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// The short names of RFC 4514, section 3.
const ATTRIBUTE_NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(subject: &[(DnType, &str)], names: Vec<SanType>) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        client_names(made.der())
    }

    #[test]
    fn a_subject_is_written_the_last_part_first_and_escaped() {
        let subject = [
            (DnType::OrganizationName, "Acme, Inc. \"x\"+y"),
            (DnType::CommonName, " #CN=a\\\n"),
            (DnType::CustomDnType(vec![1, 2, 3]), "x"),
        ];
        let read = certificate(&subject, vec![]);
        assert_eq!(read.subject, "1.2.3=#0c0178,CN=\\ #CN=a\\\\\\0A,O=Acme\\, Inc. \\\"x\\\"\\+y");
        assert_eq!(read.common_names, [" #CN=a\\\n"]);
        assert_eq!(certificate(&[], vec![]).subject, "");
    }

    #[test]
    fn every_kind_of_alternative_name_is_read() {
        let text = |text: &str| text.try_into().unwrap();
        let names = vec![
            SanType::DnsName(text("a.example")),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::IpAddress("::1".parse().unwrap()),
            SanType::Rfc822Name(text("a@b.example")),
            SanType::URI(text("spiffe://b/c")),
        ];
        let expected = [
            Name::Dns("a.example".to_owned()),
            Name::Address([127, 0, 0, 1].into()),
            Name::Address("::1".parse().unwrap()),
            Name::Email("a@b.example".to_owned()),
            Name::Uri("spiffe://b/c".to_owned()),
        ];
        assert_eq!(certificate(&[], names).names, expected);
    }

    #[test]
    fn bytes_other_than_a_certificate_have_no_names() {
        assert_eq!(client_names(&CertificateDer::from(vec![0x30, 0])), Certificate::default());
        assert!(info(&CertificateDer::from(vec![])).is_none());
    }
}
