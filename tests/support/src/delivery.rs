//! Deliveries as the providers send them: Basiq signed by the `standardwebhooks` crate, Atelio by its published formula,
//! Securitize with nothing but the token in the path.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper::Request;
use sha2::{Digest, Sha256};
use standardwebhooks::Webhook;

/// What is posted, and where.
#[derive(Clone)]
pub struct Delivery {
    path: String,
    headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Delivery {
    /// The event `id`, about a user.
    pub fn basiq(id: &str) -> Delivery {
        Delivery::basiq_about(id, "user-1")
    }

    /// The same event about another user is another body under the same identity.
    pub fn basiq_about(id: &str, user: &str) -> Delivery {
        Delivery::signed_basiq(id, user, BASIQ_SECRET, 0)
    }

    /// The event `id`, signed with a secret that sources do not have unless they are told.
    pub fn basiq_by_another_secret(id: &str) -> Delivery {
        Delivery::signed_basiq(id, "user-1", BASIQ_NEXT_SECRET, 0)
    }

    /// The event `id`, signed by a clock that is so many seconds from ours.
    pub fn basiq_signed_at(id: &str, offset: i64) -> Delivery {
        Delivery::signed_basiq(id, "user-1", BASIQ_SECRET, offset)
    }

    /// A body that is no JSON object, signed all the same.
    pub fn basiq_unreadable(body: &str) -> Delivery {
        Delivery::signed("msg_unreadable", body.to_owned(), BASIQ_SECRET, 0)
    }

    /// The same, signed with a secret that sources do not have unless they are told.
    pub fn basiq_unreadable_by_another_secret(body: &str) -> Delivery {
        Delivery::signed("msg_unreadable", body.to_owned(), BASIQ_NEXT_SECRET, 0)
    }

    /// The same with one header more.
    pub fn with(mut self, name: &'static str, value: &str) -> Delivery {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn signed_basiq(id: &str, user: &str, secret: &str, offset: i64) -> Delivery {
        let body = serde_json::json!({
            "eventTypeId": "user.created",
            "eventId": id,
            "links": { "eventEntity": format!("https://au-api.basiq.io/users/{user}") },
        })
        .to_string();
        Delivery::signed(&format!("msg_{id}"), body, secret, offset)
    }

    fn signed(message: &str, body: String, secret: &str, offset: i64) -> Delivery {
        let at = crate::now() + offset;
        let signature = Webhook::new(secret).unwrap().sign(message, at, body.as_bytes()).unwrap();
        let headers = vec![
            ("webhook-id", message.to_owned()),
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", signature),
        ];
        Delivery { path: "/hooks/basiq".to_owned(), headers, body }
    }

    /// A customer's KYC result. What tells events apart is the customer; `note` only makes another body.
    pub fn atelio(customer: &str, note: &str) -> Delivery {
        let body = serde_json::json!({
            "event": "kyc.verification.success",
            "customer_id": customer,
            "occurred_at": "2026-11-21T10:00:00Z",
            "note": note,
        })
        .to_string();
        let now = crate::now();
        let mut mac = Hmac::<Sha256>::new_from_slice(ATELIO_SECRET.as_bytes()).unwrap();
        mac.update(format!("{now}.{body}").as_bytes());
        let signature = format!("t={now},v2={}", hex::encode(mac.finalize().into_bytes()));
        Delivery { path: "/hooks/atelio".to_owned(), headers: vec![("bond-signature", signature)], body }
    }

    /// An investor's update. What tells events apart is the nonce; `domain` only makes another body.
    pub fn securitize(nonce: u32, domain: &str) -> Delivery {
        let body = serde_json::json!({
            "domainId": domain,
            "externalId": "5298922124",
            "eventType": "domain-investor-kyc-update",
            "subscriptionId": "6151edc0a46434001930a2e1",
            "nonce": nonce,
        })
        .to_string();
        Delivery { path: format!("/hooks/securitize/{SECURITIZE_TOKEN}"), headers: Vec::new(), body }
    }

    /// The same, to another path.
    pub fn to(mut self, path: &str) -> Delivery {
        self.path = path.to_owned();
        self
    }

    /// The request as HTTP/2 has it.
    pub fn http2(&self) -> Request<Full<Bytes>> {
        let mut request = Request::post(format!("http://hookgate.test{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.body(Full::from(self.body.clone())).unwrap()
    }

    /// The whole request in HTTP/1.1.
    pub fn request(&self) -> Vec<u8> {
        let mut text = format!("POST {} HTTP/1.1\r\nhost: hookgate.test\r\n", self.path);
        text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", self.body.len());
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        (text + "\r\n" + &self.body).into_bytes()
    }

    /// What the id of this body ends in when it is forwarded as a conflict.
    pub fn conflict_suffix(&self) -> String {
        format!("~{}", &hex::encode(Sha256::digest(self.body.as_bytes()))[..8])
    }
}

/// Basiq's secret.
pub const BASIQ_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The sources that these deliveries are for; `both` lets Basiq sign with its next secret too.
pub fn sources(both: bool) -> String {
    let next = if both { format!(", \"{BASIQ_NEXT_SECRET}\"") } else { String::new() };
    format!(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{BASIQ_SECRET}\"{next}]\n\
         [sources.atelio]\nprovider = \"atelio\"\nsecrets = [\"{ATELIO_SECRET}\"]\n\
         [sources.securitize]\nprovider = \"securitize\"\npath_token = \"{SECURITIZE_TOKEN}\"\n"
    )
}

const BASIQ_NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// Atelio's.
pub const ATELIO_SECRET: &str = "whsec_ira5jceuzhxxBxoWckAU0hLFQe79bSMZ";
pub const SECURITIZE_TOKEN: &str = "9c2e3b7d5f5e4c0fa0f6";
