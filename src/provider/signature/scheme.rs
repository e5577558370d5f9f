//! The parts of a signing scheme. A scheme is declared with the provider that signs by it.
//!
//! Keeps true: a scheme is data, so that a new one needs only its declaration.

use std::fmt;

use super::VerifiedBy;
use super::digest::Encoding;

/// How a provider signs its deliveries, by HMAC-SHA256. The names of headers are in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The header of the signatures.
    pub header: &'static str,
    /// How that header is read, and where the timestamp is.
    pub format: Format,
    /// The known versions of signatures.
    pub versions: &'static [Version],
    /// The header of the message id, if one is signed.
    pub id: Option<&'static str>,
    /// The signed text.
    pub signed: &'static [Part],
    /// How a signature is written.
    pub encoding: Encoding,
    /// How a secret becomes a key.
    pub secret: SecretForm,
    /// The event's `verifiedby`.
    pub verified_by: VerifiedBy,
    /// Two prefixes: the one of its headers' names, and the one that some senders write instead, such as `svix-` for
    /// `webhook-`. Only the diagnosis uses it.
    pub renamed: Option<(&'static str, &'static str)>,
    /// Whether the source accepts a signature of an old version alone.
    pub accept_old: bool,
}

/// How the header of the signatures is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A list of `VERSION,SIGNATURE`; several lines are one list.
    List {
        /// The header of the time.
        timestamp: &'static str,
    },
    /// Comma-separated `key=value`; a signature's key is its version.
    Pairs {
        /// The key of the time.
        timestamp: &'static str,
    },
}

/// A version of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The text before the signature.
    pub label: &'static str,
    /// The header of the timestamp, if it is not where the format has it.
    pub timestamp: Option<&'static str>,
    /// Whether it signs the body as Python's `json.dumps` would write it, and passes only if the source opts in.
    pub old: bool,
}

/// Versions, named: `v1 or v2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels(pub &'static [Version]);

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<&str> = self.0.iter().map(|version| version.label).collect();
        f.write_str(&labels.join(" or "))
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
    /// This text.
    Text(&'static str),
}

/// How a secret's text becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// The whole text, with its prefix.
    Text,
    /// Decoded from base64, without `whsec_` if the text begins with it.
    Whsec,
}

impl Scheme {
    /// The headers that carry a delivery's id or time.
    pub fn identifying_headers(&self) -> impl Iterator<Item = &'static str> {
        let timestamp = match self.format {
            Format::List { timestamp } => Some(timestamp),
            Format::Pairs { .. } => None,
        };
        let own_headers = self.versions.iter().filter_map(|version| version.timestamp);
        self.id.into_iter().chain(timestamp).chain(own_headers)
    }

    /// What a sender writes before a signature.
    pub(super) fn prefix(&self) -> String {
        let current = self.versions.iter().find(|version| !version.old);
        let label = current.map_or("", |version| version.label);
        match self.format {
            Format::List { .. } => format!("{label},"),
            Format::Pairs { .. } => format!("{label}="),
        }
    }

    /// The signed text by the names of its parts, such as `timestamp.body`.
    pub(super) fn signed_parts(&self) -> String {
        let name = |part: &Part| match part {
            Part::Id => "id",
            Part::Timestamp => "timestamp",
            Part::Body => "body",
            Part::Text(text) => text,
        };
        self.signed.iter().map(name).collect()
    }

    /// The signed text, in parts.
    pub(super) fn text<'t>(
        &self,
        id: &'t str,
        timestamp: &'t str,
        body: &'t [u8],
    ) -> impl Iterator<Item = &'t [u8]> {
        self.signed.iter().map(move |part| match part {
            Part::Id => id.as_bytes(),
            Part::Timestamp => timestamp.as_bytes(),
            Part::Body => body,
            Part::Text(text) => text.as_bytes(),
        })
    }
}
