//! What a scheme finds in a delivery, for the author of a definition.
//!
//! Keeps true: it holds no signature. The hash is that of the signed text, which the sender knows.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::SignatureError;
use super::claim::Claim;
use super::scheme::Scheme;
use super::{SignedRequest, pointer};

/// What one carrier of a scheme holds.
#[derive(Debug)]
pub struct Inspection {
    /// The scheme's algorithm.
    pub algorithm: &'static str,
    /// The header of the signature, or the pointer of the secret.
    pub header: &'static str,
    /// What was read, or why it cannot be.
    pub found: Result<Found, SignatureError>,
}

/// What was read of a carrier.
#[derive(Debug)]
pub struct Found {
    /// How many signatures it has.
    pub signatures: usize,
    /// The timestamp, in unix seconds, and the delivery's age by it.
    pub timestamp: Option<(i64, i64)>,
    /// The message id.
    pub id: Option<String>,
    /// The length of the signed text, in bytes.
    pub signed_bytes: usize,
    /// Hex SHA-256 of the signed text.
    pub signed_sha256: String,
}

/// What the scheme finds in a delivery, for each of its carriers. `now` is in unix seconds.
pub fn inspect(scheme: &Scheme, request: SignedRequest<'_>, now: i64) -> Vec<Inspection> {
    let algorithm = scheme.algorithm.label();
    let in_body = scheme.secret_in_body.iter().map(|(pointer, each)| {
        let texts = pointer::texts(pointer, *each, &request).ok_or(SignatureError::Missing(pointer.text));
        let found = texts.map(|texts| Found {
            signatures: texts.len(),
            timestamp: None,
            id: None,
            signed_bytes: 0,
            signed_sha256: String::new(),
        });
        Inspection { algorithm, header: pointer.text, found }
    });
    let carried = scheme.carriers.iter().map(|carrier| {
        let found = Claim::read(scheme, carrier, request).map(|claim| {
            let text = claim.signed_text(scheme);
            Found {
                signatures: claim.count(),
                timestamp: claim.at.map(|at| (at, now.saturating_sub(at))),
                id: claim.id.map(str::to_owned),
                signed_bytes: text.len(),
                signed_sha256: hex::encode(Sha256::digest(&text)),
            }
        });
        Inspection { algorithm, header: carrier.header, found }
    });
    in_body.chain(carried).collect()
}

impl Inspection {
    /// In words.
    pub fn said(&self) -> String {
        let found = match &self.found {
            Ok(found) => found,
            Err(why) => return why.to_string(),
        };
        let mut said = format!("{} found", found.signatures);
        if let Some((at, age)) = found.timestamp {
            said += &format!("; timestamp {at}, {age} s old");
        }
        if let Some(id) = &found.id {
            said += &format!("; id {id}");
        }
        if !found.signed_sha256.is_empty() {
            said += &format!("; signed are {} bytes, SHA-256 {}", found.signed_bytes, found.signed_sha256);
        }
        said
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let head = json!({ "algorithm": self.algorithm, "header": self.header });
        let rest = match &self.found {
            Err(why) => json!({ "error": why.to_string() }),
            Ok(found) => json!({
                "signatures": found.signatures,
                "timestamp": found.timestamp.map(|(at, _)| at),
                "age": found.timestamp.map(|(_, age)| age),
                "id": found.id,
                "signed_bytes": found.signed_bytes,
                "signed_sha256": found.signed_sha256,
            }),
        };
        let members = [head, rest].into_iter().filter_map(|value| value.as_object().cloned()).flatten();
        Value::Object(members.collect())
    }
}
