//! Any definition that the grammar allows, and the strategy that makes them.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::COVERED;

/// A definition, as numbers and names that become TOML.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) algorithm: &'static str,
    pub(super) encoding: &'static str,
    /// Capitals of hex, or base64 without its padding.
    pub(super) other_spelling: bool,
    pub(super) format: Layout,
    /// How many header sets it has, and which of them the sender uses.
    pub(super) sets: usize,
    pub(super) used: usize,
    /// Whether the other headers hold signatures too, of another key.
    pub(super) decoys: bool,
    pub(super) time: Time,
    pub(super) unit: &'static str,
    pub(super) id: bool,
    /// The pieces of the signed text.
    pub(super) signed: Vec<Piece>,
    pub(super) secret: SecretText,
    pub(super) bytes: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) values: Vec<String>,
    pub(super) target: String,
    pub(super) method: &'static str,
}

#[derive(Clone, Debug)]
pub(super) enum Layout {
    /// The signature between two texts, in a list if there is a separator.
    Around { before: &'static str, after: &'static str, separator: Option<&'static str>, place: Index },
    /// Pairs.
    Pairs { timestamp: &'static str, signature: &'static str, separator: &'static str, signature_first: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Absent,
    Header,
    Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Body,
    Timestamp,
    Id,
    Method,
    Url,
    Path,
    Query,
    Header(usize),
    Text(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum SecretText {
    /// As `secret` names it; the secret forms of public keys are in [`Keys`].
    Form(&'static str),
    Public(usize),
}

pub(super) fn model() -> impl Strategy<Value = Model> {
    let algorithm = select(vec![
        "hmac-sha1",
        "hmac-sha256",
        "hmac-sha384",
        "hmac-sha512",
        "ed25519",
        "ecdsa-p256-sha256",
        "rsa-sha256",
        "equal",
    ]);
    let around = (
        select(vec!["", "sha256=", "v1,", "v1=", "Bearer ", "a{"]),
        select(vec!["", ";", ";q=1"]),
        select(vec![None, Some(" "), Some(","), Some("|"), Some(", "), Some("::")]),
        any::<Index>(),
    );
    let around = around.prop_map(|(before, after, separator, place)| {
        let before = if before == "a{" { "" } else { before };
        // An entry that holds the separator would be split.
        let separator = separator.filter(|text| !before.contains(text) && !after.contains(text));
        Layout::Around { before, after, separator, place }
    });
    let pairs = (select(vec!["t", "ts", "time"]), select(vec!["v1", "h1", "s"]), any::<bool>());
    let pairs = (pairs, select(vec![",", ";", " ", "&", ", ", "|"]));
    let pairs = pairs.prop_map(|((timestamp, signature, signature_first), separator)| Layout::Pairs {
        timestamp,
        signature,
        separator,
        signature_first,
    });
    let form = (
        algorithm,
        select(vec!["hex", "base64", "base64url"]),
        any::<bool>(),
        prop_oneof![2 => around, 1 => pairs],
        select(vec!["s", "ms", "rfc3339"]),
        any::<bool>(),
        any::<bool>(),
    );
    let piece = prop_oneof![
        Just(Piece::Body),
        Just(Piece::Timestamp),
        Just(Piece::Id),
        Just(Piece::Method),
        Just(Piece::Url),
        Just(Piece::Path),
        Just(Piece::Query),
        (0..COVERED.len()).prop_map(Piece::Header),
        select(vec![".", ":", "\n", "v0:", "\u{e9}\"\\}"]).prop_map(Piece::Text),
    ];
    let signed = (proptest::collection::vec(piece, 0..6), any::<Index>());
    let sets = (1..4_usize, any::<Index>(), any::<bool>());
    let secret = (
        select(vec!["text", "hex", "base64", "whsec", "absent"]),
        0..5_usize,
        proptest::collection::vec(any::<u8>(), 24..48),
    );
    let request = (
        "\\PC{0,12}",
        proptest::collection::vec("[!-~]([ -~]{0,8}[!-~])?", COVERED.len()),
        "/[a-z0-9/%]{0,8}(\\?[a-z0-9=&%?]{0,8})?",
        select(vec!["POST", "PUT"]),
    );
    (form, signed, sets, secret, request).prop_map(
        |(form, (mut signed, at), (sets, used, decoys), (kind, public, bytes), request)| {
            let (algorithm, encoding, other_spelling, format, unit, timed, id) = form;
            let (body, values, target, method) = request;
            signed.insert(at.index(signed.len() + 1), Piece::Body);
            let time = match &format {
                Layout::Pairs { .. } => Time::Format,
                Layout::Around { .. } if timed => Time::Header,
                Layout::Around { .. } => Time::Absent,
            };
            signed.retain(|piece| match piece {
                Piece::Timestamp => time != Time::Absent,
                Piece::Id => id,
                _ => true,
            });
            let secret = match algorithm {
                "ed25519" | "ecdsa-p256-sha256" | "rsa-sha256" => SecretText::Public(public),
                "equal" => SecretText::Form("text"),
                _ => SecretText::Form(kind),
            };
            Model {
                algorithm,
                encoding,
                other_spelling,
                format,
                sets,
                used: used.index(sets),
                decoys,
                time,
                unit,
                id,
                signed,
                secret,
                bytes,
                body: body.into_bytes(),
                values,
                target,
                method,
            }
        },
    )
}

impl Piece {
    pub(super) fn template(self) -> String {
        match self {
            Piece::Body => "{body}".to_owned(),
            Piece::Timestamp => "{timestamp}".to_owned(),
            Piece::Id => "{id}".to_owned(),
            Piece::Method => "{method}".to_owned(),
            Piece::Url => "{url}".to_owned(),
            Piece::Path => "{path}".to_owned(),
            Piece::Query => "{query}".to_owned(),
            Piece::Header(which) => format!("{{header:{}}}", COVERED[which].to_uppercase()),
            Piece::Text(text) => text.to_owned(),
        }
    }
}
