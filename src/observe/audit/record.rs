//! One line of the reject log.
//!
//! Keeps true: a record has exactly one written form: fixed order of keys, headers sorted by name, absent fields
//! omitted. So comparing a line with the form of its parsed record leaves nothing unhashed.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::label::UNKNOWN;
use crate::base::reason::Note;

use super::Reject;
use super::anchor::Key;

/// The `prev` of record 1.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A stored record. The order of the fields is that of the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Record {
    pub seq: u64,
    pub ts: String,
    pub id: String,
    pub source: String,
    pub provider: String,
    pub reason: String,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    pub method: String,
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    pub headers: BTreeMap<String, String>,
    pub detail: String,
    /// True if the request was accepted, because the source has this reason set to report only. Absent if it was
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<bool>,
    /// How many more rejects of this kind this record represents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    pub prev: String,
    /// Empty only while the hash is computed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

impl Record {
    /// Makes the record of `reject`, which also represents `more` others, chained to `prev`.
    pub(super) fn seal(reject: &Reject, more: u64, seq: u64, prev: &str) -> io::Result<Record> {
        let (body_sha256, body_bytes) = reject.body.clone().unzip();
        let mut record = Record {
            seq,
            ts: format!("{:.6}", reject.at),
            id: reject.id.clone(),
            source: reject.source.to_string(),
            provider: reject.provider.to_string(),
            reason: reject.reason.to_owned(),
            status: reject.status,
            client: reject.client.map(|ip| ip.to_canonical().to_string()),
            method: clip(&reject.method),
            path: clip(&reject.path),
            body_sha256,
            body_bytes,
            headers: headers(reject),
            detail: clip(&reject.detail),
            observed: reject.observed.then_some(true),
            suppressed: (more > 0).then_some(more),
            prev: prev.to_owned(),
            hash: String::new(),
        };
        record.hash = record.digest()?;
        Ok(record)
    }

    /// The anchor at this position of the chain. Position, time and key determine all of it.
    pub(super) fn anchor(seq: u64, ts: String, prev: &str, key: &Key) -> io::Result<Record> {
        let mut record = Record {
            seq,
            id: format!("rej_{seq:020x}"),
            source: UNKNOWN.to_owned(),
            provider: UNKNOWN.to_owned(),
            reason: Note::Anchor.label().to_owned(),
            status: 0,
            client: None,
            method: String::new(),
            path: String::new(),
            body_sha256: None,
            body_bytes: None,
            headers: BTreeMap::new(),
            detail: key.anchor_text(seq, &ts, prev),
            observed: None,
            suppressed: None,
            prev: prev.to_owned(),
            hash: String::new(),
            ts,
        };
        record.hash = record.digest()?;
        Ok(record)
    }

    /// Whether the record claims to be an anchor.
    pub fn is_anchor(&self) -> bool {
        self.reason == Note::Anchor.label()
    }

    /// Parses a line without its line break.
    ///
    /// # Errors
    /// When it is not a record, or has a number that RFC 8785 cannot represent exactly.
    pub fn parse(line: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let numbers = [Some(record.seq), record.body_bytes, record.suppressed];
        if numbers.iter().flatten().any(|number| *number > MAX_EXACT) {
            return Err(format!("a number is above {MAX_EXACT}"));
        }
        Ok(record)
    }

    /// The record's line, without its line break.
    ///
    /// # Errors
    /// When serialization fails, which no record causes.
    pub fn line(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// SHA-256 over the canonical JSON (RFC 8785) of all fields except `hash`.
    ///
    /// # Errors
    /// When serialization fails, which no record causes.
    pub fn digest(&self) -> io::Result<String> {
        let bare = Record { hash: String::new(), ..self.clone() };
        Ok(hex::encode(Sha256::digest(serde_json_canonicalizer::to_vec(&bare)?)))
    }
}

/// Joins repeated headers into one entry, as HTTP does.
fn headers(reject: &Reject) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &reject.headers {
        headers
            .entry(name.to_string())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    for value in headers.values_mut() {
        *value = clip(value);
    }
    headers
}

/// Clients choose the length of these texts, and must not choose the log's size.
fn clip(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_TEXT)])
}

/// The longest text of a field, in bytes.
const MAX_TEXT: usize = 1024;
/// Canonical JSON has only doubles.
const MAX_EXACT: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::super::tests::reject;
    use super::*;

    #[test]
    fn a_sealed_record_is_the_line_and_hash_that_another_implementation_computes() {
        // python3: hashlib.sha256(json.dumps(record without hash, sort_keys=True, separators=(",", ":"),
        // ensure_ascii=False).encode()).hexdigest()
        let mut of = reject(0);
        of.at = "2026-11-21T10:00:00.123456789Z".parse().unwrap();
        of.id = "rej_0123456789abcdef0123".to_owned();
        of.detail = "tab\t, quote \", é, \u{1f512}, del \u{7f}".to_owned();
        let record = Record::seal(&of, 3, 1, NO_HASH).unwrap();
        assert_eq!(record.line().unwrap(), LINE);
        assert!(LINE.contains("\"ts\":\"2026-11-21T10:00:00.123456Z\""));
    }

    #[test]
    fn absent_things_are_left_out_and_whole_seconds_keep_six_digits() {
        let mut of = reject(0);
        of.at = "2026-11-21T10:00:00Z".parse().unwrap();
        (of.client, of.body) = (None, None);
        let line = Record::seal(&of, 0, 1, NO_HASH).unwrap().line().unwrap();
        assert!(line.contains("\"ts\":\"2026-11-21T10:00:00.000000Z\""), "{line}");
        for absent in ["null", "client", "body_", "observed", "suppressed"] {
            assert!(!line.contains(absent), "{absent} in {line}");
        }
    }

    #[test]
    fn a_strangers_text_is_cut_and_a_repeated_header_joined() {
        let mut of = reject(0);
        of.path = "é".repeat(5000);
        of.headers = vec![("x-forwarded-for".into(), "a".into()), ("x-forwarded-for".into(), "b".into())];
        let record = Record::seal(&of, 0, 1, NO_HASH).unwrap();
        assert!(record.path.len() <= MAX_TEXT + 3 && record.path.ends_with("é…"));
        assert_eq!(record.headers["x-forwarded-for"], "a, b");
    }

    #[test]
    fn a_line_reads_back_as_itself() {
        let record = Record::parse(LINE.as_bytes()).unwrap();
        assert_eq!(record.line().unwrap(), LINE);
        assert_eq!(record.digest().unwrap(), record.hash);
        let of_bytes = |bytes: u64| LINE.replace("\"body_bytes\":412", &format!("\"body_bytes\":{bytes}"));
        assert_eq!(Record::parse(of_bytes(MAX_EXACT).as_bytes()).unwrap().body_bytes, Some(MAX_EXACT));
        assert!(Record::parse(of_bytes(MAX_EXACT + 1).as_bytes()).is_err());
    }

    const LINE: &str = "\
        {\"seq\":1,\"ts\":\"2026-11-21T10:00:00.123456Z\",\"id\":\"rej_0123456789abcdef0123\",\
        \"source\":\"iof\",\"provider\":\"iof\",\"reason\":\"signature_mismatch\",\"status\":401,\
        \"client\":\"203.0.113.7\",\"method\":\"POST\",\"path\":\"/hooks/iof\",\
        \"body_sha256\":\"abababababababababababababababababababababababababababababababab\",\
        \"body_bytes\":412,\"headers\":{\"user-agent\":\"test/0\",\"x-iof-signature\":\"sha256:9f2c\"},\
        \"detail\":\"tab\\t, quote \\\", é, \u{1f512}, del \u{7f}\",\"suppressed\":3,\
        \"prev\":\"0000000000000000000000000000000000000000000000000000000000000000\",\
        \"hash\":\"69f5393c8d632691ba7c7d5f89033c23e1dd065c58a853cc0641a188e88af887\"}";
}
