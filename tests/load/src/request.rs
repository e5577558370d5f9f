//! Distinct, signed Basiq deliveries, made ahead of the measured window.
//!
//! All requests of a batch are the same bytes but for an event id, a signature and, over HTTP/2, a stream's number. So a [`Batch`] holds one
//! [`Template`] and, for each request, only those two: 80 bytes instead of 1.4 KB. A connection stamps them
//! into its own copy of the template, which stays in the processor's cache; the load generator has two cores
//! to share with the server it measures.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{Result, http2};

/// The secret of the source under test, as its provider hands it out.
pub(crate) const SECRET: &str = "whsec_aG9va2dhdGUtYmVuY2gtc2VjcmV0LTMyLWJ5dGVzISE=";
/// Path of the source under test.
pub(crate) const PATH: &str = "/hooks/basiq-bench";

/// Requests that no other batch holds, signed when the batch was made: use it within the source's tolerance.
pub(crate) struct Batch {
    /// What they share.
    pub(crate) template: Template,
    /// What they differ in.
    pub(crate) tickets: Vec<Ticket>,
}

/// What makes one request of a [`Template`].
#[derive(Clone, Copy)]
pub(crate) struct Ticket {
    event_id: [u8; UUID],
    signature: [u8; SIGNATURE],
}

/// A whole request with blanks.
#[derive(Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    body_at: usize,
    signed_id_at: usize,
    signature_at: usize,
    event_ids_at: [usize; 3],
    /// Of HTTP/2's two frames.
    stream_ids_at: Option<[usize; 2]>,
    timestamp: u64,
}

/// What the bodies of a batch are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Only fields that the provider documents.
    Known,
    /// One more, which the gateway has to find and count.
    OneUnknown,
}

/// In which protocol a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// A HEADERS and a DATA frame.
    Http2,
}

impl Batch {
    /// `count` requests with bodies of `body_bytes`, each with its own random event id, signed on every core.
    pub(crate) fn sign(count: usize, body_bytes: usize, fields: Fields, protocol: Protocol) -> Result<Self> {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let template = Template::new(timestamp, &Body::new(body_bytes, fields)?, protocol);
        let signer = Signer::new()?;
        let mut tickets = vec![Ticket { event_id: [0; UUID], signature: [0; SIGNATURE] }; count];
        let share = count.div_ceil(thread::available_parallelism()?.get()).max(1);
        thread::scope(|scope| {
            for chunk in tickets.chunks_mut(share) {
                let (mut template, signer) = (template.clone(), &signer);
                scope.spawn(move || chunk.iter_mut().for_each(|ticket| signer.fill(ticket, &mut template)));
            }
        });
        Ok(Self { template, tickets })
    }
}

/// A body with blanks for its event id.
struct Body {
    text: String,
    event_ids_at: [usize; 3],
}

impl Body {
    /// A transactions event, as long as asked for: a link names as many transactions as that takes.
    fn new(bytes: usize, fields: Fields) -> Result<Self> {
        let mut text = String::new();
        let mut event_ids_at = [0; 3];
        let unknown = if fields == Fields::OneUnknown { r#""sequence":1,"# } else { "" };
        let before_ids = [
            &format!(r#"{{{unknown}"eventTypeId":"transactions.updated","eventId":""#),
            r#"","links":{"event":"https://au-api.basiq.io/events/"#,
            r#"","eventEntity":"https://au-api.basiq.io/users/"#,
        ];
        for (before, at) in before_ids.iter().zip(&mut event_ids_at) {
            text.push_str(before);
            *at = text.len();
            text.push_str(&"0".repeat(UUID));
        }
        text.push_str("/transactions?filter=transaction.id.in(");
        let smallest = text.len() + 4;
        let pad =
            bytes.checked_sub(smallest).ok_or_else(|| format!("a body has at least {smallest} bytes"))?;
        text.extend("'7c0bb0f4-21b1-4f6b-90c0-60ac1e1c5b57',".chars().cycle().take(pad));
        text.push_str(")\"}}");
        Ok(Self { text, event_ids_at })
    }
}

impl Template {
    fn new(timestamp: u64, body: &Body, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::http1(timestamp, body),
            Protocol::Http2 => Self::http2(timestamp, body),
        }
    }

    fn http1(timestamp: u64, body: &Body) -> Self {
        let mut bytes = format!(
            "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: hookgate-load\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\
             webhook-timestamp: {timestamp}\r\nwebhook-id: msg_",
            body.text.len()
        );
        let signed_id_at = bytes.len();
        bytes.push_str(&"0".repeat(UUID));
        bytes.push_str("\r\nwebhook-signature: v1,");
        let signature_at = bytes.len();
        bytes.push_str(&"0".repeat(SIGNATURE));
        bytes.push_str("\r\n\r\n");
        Self::of(timestamp, bytes.into_bytes(), body, [signed_id_at, signature_at], None)
    }

    /// Literal fields without an index and without Huffman codes: no state, so every stream has the same bytes.
    fn http2(timestamp: u64, body: &Body) -> Self {
        let mut block = Vec::new();
        let field = |block: &mut Vec<u8>, name: &str, value: &str| {
            block.push(0);
            for text in [name, value] {
                // Below 127 a length is one byte (RFC 7541, section 5.1); these are.
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
            block.len()
        };
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "127.0.0.1"),
            (":path", PATH),
            ("user-agent", "hookgate-load"),
            ("content-type", "application/json"),
            ("content-length", &body.text.len().to_string()),
            ("webhook-timestamp", &timestamp.to_string()),
        ] {
            field(&mut block, name, value);
        }
        let signed_id_end = field(&mut block, "webhook-id", &format!("msg_{}", "0".repeat(UUID)));
        let signature_end = field(&mut block, "webhook-signature", &format!("v1,{}", "0".repeat(SIGNATURE)));
        let mut bytes = http2::frame(http2::HEADERS, http2::END_HEADERS, block.len());
        let block_at = bytes.len();
        bytes.extend_from_slice(&block);
        let data_at = bytes.len();
        bytes.extend(http2::frame(http2::DATA, http2::END_STREAM, body.text.len()));
        let blanks = [block_at + signed_id_end - UUID, block_at + signature_end - SIGNATURE];
        let stream_ids_at = Some([0, data_at].map(|frame| frame + http2::STREAM_AT));
        Self::of(timestamp, bytes, body, blanks, stream_ids_at)
    }

    fn of(
        timestamp: u64,
        mut bytes: Vec<u8>,
        body: &Body,
        [signed_id_at, signature_at]: [usize; 2],
        stream_ids_at: Option<[usize; 2]>,
    ) -> Self {
        let body_at = bytes.len();
        bytes.extend_from_slice(body.text.as_bytes());
        let event_ids_at = body.event_ids_at.map(|at| body_at + at);
        Self { bytes, body_at, signed_id_at, signature_at, event_ids_at, stream_ids_at, timestamp }
    }

    /// Bytes of its body.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body().len()
    }

    /// The same request on an HTTP/2 stream.
    pub(crate) fn stamp_on(&mut self, stream: u32, ticket: &Ticket) -> &[u8] {
        for at in self.stream_ids_at.into_iter().flatten() {
            self.bytes[at..][..4].copy_from_slice(&stream.to_be_bytes());
        }
        self.stamp(ticket)
    }

    /// Fills the blanks; the request to send.
    pub(crate) fn stamp(&mut self, ticket: &Ticket) -> &[u8] {
        self.stamp_id(&ticket.event_id);
        self.bytes[self.signature_at..][..SIGNATURE].copy_from_slice(&ticket.signature);
        &self.bytes
    }

    fn stamp_id(&mut self, event_id: &[u8; UUID]) {
        for at in self.event_ids_at.into_iter().chain([self.signed_id_at]) {
            self.bytes[at..][..UUID].copy_from_slice(event_id);
        }
    }

    fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }
}

/// Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.
struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    fn new() -> Result<Self> {
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_"))?;
        Ok(Self { keyed: Hmac::new_from_slice(&key)? })
    }

    fn fill(&self, ticket: &mut Ticket, template: &mut Template) {
        ticket.event_id = random_uuid();
        template.stamp_id(&ticket.event_id);
        let mut mac = self.keyed.clone();
        mac.update(b"msg_");
        mac.update(&ticket.event_id);
        mac.update(format!(".{}.", template.timestamp).as_bytes());
        mac.update(template.body());
        let encoded = STANDARD.encode(mac.finalize().into_bytes());
        ticket.signature.copy_from_slice(encoded.as_bytes());
    }
}

fn random_uuid() -> [u8; UUID] {
    let mut bytes = fastrand::u128(..).to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; UUID];
    let mut at = 0;
    for group in [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]] {
        let end = at + 2 * group.len();
        // Cannot fail: the slice is twice the group by construction.
        let _ = hex::encode_to_slice(group, &mut text[at..end]);
        at = end + 1;
    }
    text
}

const UUID: usize = 36;
const SIGNATURE: usize = 44;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_request_is_http_of_the_length_asked_for_with_a_signature_over_its_own_body() {
        let mut batch = Batch::sign(3, 1024, Fields::Known, Protocol::Http1).unwrap();
        let mut ids = HashSet::new();
        for ticket in &batch.tickets {
            let text = String::from_utf8(batch.template.stamp(ticket).to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), 1024);

            let header = |name: &str| {
                let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                line.unwrap_or_else(|| panic!("no {name} in {head}"))
            };
            assert_eq!(header("content-length"), "1024");
            let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            mac.update(format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp")).as_bytes());
            let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
            mac.verify_slice(&STANDARD.decode(signature).unwrap()).unwrap();

            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            let id = json["eventId"].as_str().unwrap().to_owned();
            assert_eq!(json["links"]["event"], format!("https://au-api.basiq.io/events/{id}"));
            assert!(ids.insert(id), "an event id came twice");
        }
    }

    #[test]
    fn a_body_too_short_for_its_fields_is_refused() {
        assert!(Batch::sign(1, 100, Fields::Known, Protocol::Http1).is_err());
    }
}
