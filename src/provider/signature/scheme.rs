//! The parts of a signing scheme. A scheme is declared with the provider that signs by it.
//!
//! Keeps true: a scheme is data. A scheme of known formats and algorithms needs only its declaration.

use std::fmt;

use super::VerifiedBy;
use super::digest::Encoding;
use crate::base::label::labels;
use crate::provider::pointer::{Each, Pointer};

/// One way in which a provider signs its deliveries. The names of headers are in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// Where the delivery has the signature and the values that it covers. The first one that verifies counts.
    pub carriers: &'static [Carrier],
    /// How the header of the signatures is read.
    pub format: Format,
    /// The known versions of signatures.
    pub versions: &'static [Version],
    /// The unit of the timestamp.
    pub unit: TimeUnit,
    /// The signed text.
    pub signed: &'static [Part],
    /// How a signature is written.
    pub encoding: Encoding,
    /// Whether base64 without its padding is refused.
    pub padded: bool,
    /// How a secret becomes a key.
    pub secret: SecretForm,
    /// The event's `verifiedby`.
    pub verified_by: VerifiedBy,
    /// Two prefixes: the one of its headers' names, and the one that some senders write instead, such as `svix-` for
    /// `webhook-`. Only the diagnosis uses it.
    pub renamed: Option<(&'static str, &'static str)>,
    /// Whether the source accepts a signature of an old version alone.
    pub accept_old: bool,
    /// `equal` without a carrier: where the body holds the secret, in each element of these lists.
    pub secret_in_body: Option<(Pointer, Option<Each>)>,
    /// Where the body holds the timestamp, which is read once the signature holds.
    pub time_in_body: Option<Pointer>,
}

labels! {
    /// A signature algorithm.
    pub enum Algorithm {
        /// HMAC with SHA-1.
        HmacSha1 = "hmac-sha1",
        /// HMAC with SHA-256.
        HmacSha256 = "hmac-sha256",
        /// HMAC with SHA-384.
        HmacSha384 = "hmac-sha384",
        /// HMAC with SHA-512.
        HmacSha512 = "hmac-sha512",
        /// Ed25519 (RFC 8032).
        Ed25519 = "ed25519",
        /// ECDSA over P-256 with SHA-256, the signature in DER.
        EcdsaP256Sha256 = "ecdsa-p256-sha256",
        /// RSA PKCS#1 v1.5 with SHA-256, keys of 2048 bits or more.
        RsaSha256 = "rsa-sha256",
        /// The delivery holds the secret itself.
        Equal = "equal",
    }
}

impl Algorithm {
    /// Whether a public key verifies it.
    pub const fn has_public_key(self) -> bool {
        match self {
            Algorithm::Ed25519 | Algorithm::EcdsaP256Sha256 | Algorithm::RsaSha256 => true,
            Algorithm::HmacSha1
            | Algorithm::HmacSha256
            | Algorithm::HmacSha384
            | Algorithm::HmacSha512
            | Algorithm::Equal => false,
        }
    }

    /// Whether a signature covers the body. `equal` covers nothing.
    pub const fn covers_body(self) -> bool {
        !matches!(self, Algorithm::Equal)
    }

    /// The length of a signature, in bytes. None: it varies.
    pub(super) const fn signature_len(self) -> Option<usize> {
        match self {
            Algorithm::HmacSha1 => Some(20),
            Algorithm::HmacSha256 => Some(32),
            Algorithm::HmacSha384 => Some(48),
            Algorithm::HmacSha512 | Algorithm::Ed25519 => Some(64),
            Algorithm::EcdsaP256Sha256 | Algorithm::RsaSha256 | Algorithm::Equal => None,
        }
    }
}

/// Where a delivery has a signature, its timestamp and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// The header of the signatures.
    pub header: &'static str,
    /// The header of the timestamp, if the signature's own header does not have it.
    pub timestamp: Option<&'static str>,
    /// The header of the message id.
    pub id: Option<&'static str>,
}

/// How the header of the signatures is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One signature, or a list of them: the version's text, then the signature.
    List(Separator),
    /// `key=value` in any order. A signature's key is its version.
    Pairs {
        /// The text between two pairs.
        separator: &'static str,
        /// The key of the timestamp.
        timestamp: &'static str,
    },
}

/// The text between the entries of a list of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// The header holds one signature.
    None,
    /// This text.
    Text(&'static str),
    /// As Standard Webhooks lists come: blanks, or a comma before the next entry. Several lines are one list.
    StandardWebhooks,
}

/// A version of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The text before the signature in a list, such as `v1,`; the key of the signature in pairs, such as `v1`.
    pub label: &'static str,
    /// The text after the signature in a list.
    pub after: &'static str,
    /// The header of the timestamp, if it is not where the format has it.
    pub timestamp: Option<&'static str>,
    /// Whether it signs the body as Python's `json.dumps` would write it, and passes only if the source opts in.
    pub old: bool,
}

impl Version {
    /// Its name, without what separates it from the signature.
    pub fn name(&self) -> &'static str {
        self.label.trim_end_matches([',', '=', ':', ' '])
    }

    /// A version with the text `label` before or as the key of its signature, and nothing unusual.
    pub const fn plain(label: &'static str) -> Version {
        Version { label, after: "", timestamp: None, old: false }
    }
}

/// Versions, named: `v1 or v2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels(pub &'static [Version]);

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Version::name).collect::<Vec<_>>().join(" or "))
    }
}

labels! {
    /// The unit of a timestamp.
    pub enum TimeUnit {
        /// Unix seconds.
        Seconds = "s",
        /// Unix milliseconds.
        Milliseconds = "ms",
        /// RFC 3339.
        Rfc3339 = "rfc3339",
    }
}

/// A part of the signed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The message id.
    Id,
    /// The timestamp, as it was sent.
    Timestamp,
    /// The raw body.
    Body,
    /// The method.
    Method,
    /// `edge.public_url`, the path and the query as sent. `decoded`: some percent escapes are decoded, as HubSpot does.
    Url {
        /// See above.
        decoded: bool,
    },
    /// The path, as sent.
    Path,
    /// The query, as sent, without `?`.
    Query,
    /// The value of this header.
    Header(&'static str),
    /// This text.
    Text(&'static str),
}

/// How a secret's text becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// The whole text, with its prefix.
    Text,
    /// Decoded from hex.
    Hex,
    /// Decoded from base64.
    Base64,
    /// Decoded from base64, without `whsec_` if the text begins with it.
    Whsec,
    /// A public key: PEM, or hex or base64 of the raw key or of its SubjectPublicKeyInfo. `prefixed`: also base64 of
    /// the raw key after `whpk_`, and no bare text, which could be a symmetric secret.
    PublicKey {
        /// See above.
        prefixed: bool,
    },
}

impl Scheme {
    /// The headers that carry a delivery's id or time.
    pub fn identifying_headers(&self) -> impl Iterator<Item = &'static str> {
        let carried = self.carriers.iter().flat_map(|carrier| [carrier.id, carrier.timestamp]);
        carried.flatten().chain(self.versions.iter().filter_map(|version| version.timestamp))
    }

    /// The headers of its signatures.
    pub fn signature_headers(&self) -> impl Iterator<Item = &'static str> {
        self.carriers.iter().map(|carrier| carrier.header)
    }

    /// The other headers that the signature covers.
    pub fn covered_headers(&self) -> impl Iterator<Item = &'static str> {
        self.signed.iter().filter_map(|part| match part {
            Part::Header(name) => Some(*name),
            _ => None,
        })
    }

    /// Whether the signed text has this part.
    pub fn covers(&self, part: Part) -> bool {
        self.signed.contains(&part)
    }

    /// Whether the signed text has the URL.
    pub fn covers_url(&self) -> bool {
        self.signed.iter().any(|part| matches!(part, Part::Url { .. }))
    }

    /// The header of the signatures that its errors and its signer name.
    pub(super) fn header(&self) -> &'static str {
        self.carriers.first().map_or("", |carrier| carrier.header)
    }

    /// What a sender writes before a signature.
    pub(super) fn prefix(&self) -> String {
        let current = self.versions.iter().find(|version| !version.old);
        let label = current.map_or("", |version| version.label);
        match self.format {
            Format::List(_) => label.to_owned(),
            Format::Pairs { .. } => format!("{label}="),
        }
    }

    /// The signed text by the names of its parts, such as `timestamp.body`.
    pub(super) fn signed_parts(&self) -> String {
        self.signed
            .iter()
            .map(|part| match part {
                Part::Id => "id",
                Part::Timestamp => "timestamp",
                Part::Body => "body",
                Part::Method => "method",
                Part::Url { .. } => "url",
                Part::Path => "path",
                Part::Query => "query",
                Part::Header(name) => name,
                Part::Text(text) => text,
            })
            .collect()
    }
}
