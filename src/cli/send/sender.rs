//! Sends deliveries to a gateway as a source's provider does.
//!
//! Keeps true: no error shows a URL's path, which may hold a token.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, Uri};
use reqwest::{Client, RequestBuilder};
use rustls::{ClientConfig, RootCertStore};

use super::{Tamper, client};
use crate::base::clock::{self, Clock};
use crate::cli::Failure;
use crate::cli::terminal::safe;
use crate::provider::signature::{self, SignedRequest};
use crate::provider::{self, SampleDelivery};
use crate::request::source::Source;

/// A delivery ready to post.
#[derive(Clone)]
pub(in crate::cli) struct Signed {
    headers: Vec<(&'static str, String)>,
    content_type: &'static str,
    /// The parameters that follow the URL.
    query: String,
    body: Bytes,
}

/// A gateway's answer.
pub(in crate::cli) struct Answer {
    pub(in crate::cli) status: StatusCode,
    pub(in crate::cli) headers: HeaderMap,
    pub(in crate::cli) body: String,
}

/// Sends deliveries to a gateway as a source's provider does.
pub(in crate::cli) struct Sender {
    source: Arc<Source>,
    /// Scheme, host and port.
    host: String,
    /// The whole URL, which may hold a path token.
    url: String,
    /// `edge.public_url`, which some providers sign.
    public_url: String,
    client: Client,
}

impl Sender {
    /// A sender for a source. A URL without a path gets the source's path. An https URL needs `tls`.
    pub(in crate::cli) fn new(
        source: Arc<Source>,
        url: &Uri,
        public_url: &str,
        tls: Option<ClientConfig>,
    ) -> Result<Sender, Failure> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let Some(authority) = url.authority().filter(|_| url.scheme_str() == Some(scheme)) else {
            return Err(Failure("--url is neither http://HOST nor https://HOST".to_owned()));
        };
        let path = match url.path() {
            "" | "/" => {
                let token = source.token.as_ref().map(|token| format!("/{}", token.expose()));
                format!("{}{}", source.path, token.unwrap_or_default())
            }
            path => path.to_owned(),
        };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let host = format!("{scheme}://{authority}");
        let url = format!("{host}{path}{query}");
        let trusts_nobody = || ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let client = client::client(tls.unwrap_or_else(|| trusts_nobody().with_no_client_auth()))?;
        Ok(Sender { source, host, url, public_url: public_url.to_owned(), client })
    }

    pub(in crate::cli) fn sample(&self, kind: Option<&str>) -> SampleDelivery {
        let subscription = self.source.subscriptions.iter().next().map(String::as_str);
        let secret = self.source.shared_secret();
        self.source.provider.sample(kind, subscription, secret, Clock::System.now(), clock::random)
    }

    /// Signs a sample, and tampers with the delivery if asked to.
    pub(in crate::cli) fn sign(
        &self,
        sample: SampleDelivery,
        tamper: Option<Tamper>,
    ) -> Result<Signed, Failure> {
        let SampleDelivery { headers, query, content_type, mut body } = sample;
        let name = &self.source.name;
        let query = query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let unsigned = |body: Vec<u8>| Signed {
            headers: headers.clone(),
            content_type,
            query: query.clone(),
            body: body.into(),
        };
        if !self.source.needs_signature() {
            return match tamper {
                None => Ok(unsigned(body)),
                Some(_) => {
                    Err(Failure(format!("deliveries of {name} have no signature, so --tamper has no use")))
                }
            };
        }
        if self.source.provider.signs_with_private_keys() {
            return Err(Failure(format!(
                "{} signs with a private key, which only it holds: send cannot sign for {name}",
                self.source.provider.name
            )));
        }
        let mut at = Clock::System.now().as_second();
        let signers = self.source.verifiers.iter().flat_map(|verifier| {
            verifier.keys.iter().filter(|key| key.is_active_at(at)).map(move |key| (&verifier.scheme, key))
        });
        let mut signers = signers.filter(|(scheme, _)| !scheme.algorithm.has_public_key());
        let Some((scheme, key)) = signers.next() else {
            return Err(Failure(format!("no secret of {name} counts now: see hookgate check")));
        };
        if tamper == Some(Tamper::Timestamp) {
            at -= self.source.tolerance.saturating_mul(2).saturating_add(3600);
        }
        if scheme.secret_in_body.is_some() {
            // The sample holds the secret.
            if tamper.is_some() {
                return Err(Failure(format!("the body of {name} holds its secret, so --tamper has no use")));
            }
            return Ok(unsigned(body));
        }
        let id = format!("msg_{}", provider::uuid(clock::random()));
        let mut sent = HeaderMap::new();
        for (name, value) in &headers {
            sent.insert(*name, value.parse()?);
        }
        let target = self.target(&query);
        let public_url = &*self.public_url;
        let request =
            SignedRequest { headers: &sent, body: &body, method: "POST", target: &target, public_url };
        let made = signature::sign(scheme, key, &id, at, request);
        let mut signing =
            made.ok_or_else(|| Failure(format!("send cannot sign as {} does", self.source.provider.name)))?;
        match tamper {
            Some(Tamper::Body) => tamper_body(&mut body),
            Some(Tamper::Signature) => {
                if let Some((_, value)) = signing.last_mut() {
                    *value = tampered_signature(value);
                }
            }
            Some(Tamper::Timestamp) | None => {}
        }
        let headers = headers.iter().filter(|(name, _)| signing.iter().all(|(signed, _)| signed != name));
        let headers = headers.cloned().chain(signing.iter().cloned()).collect();
        Ok(Signed { headers, content_type, query, body: body.into() })
    }

    /// The path and query of the request.
    fn target(&self, query: &str) -> String {
        let target = self.url.strip_prefix(&self.host).unwrap_or("/");
        with_query(target, query)
    }

    pub(in crate::cli) async fn post(&self, signed: Signed) -> Result<Answer, Failure> {
        let mut request = self
            .client
            .post(with_query(&self.url, &signed.query))
            .header("content-type", signed.content_type)
            .header("user-agent", concat!("hookgate-send/", env!("CARGO_PKG_VERSION")));
        for (name, value) in signed.headers {
            request = request.header(name, value);
        }
        self.exchange(request.body(signed.body)).await
    }

    /// Sends a validation challenge.
    pub(in crate::cli) async fn challenge(&self, header: &str, key: &str) -> Result<Answer, Failure> {
        self.exchange(self.client.get(&self.url).header(header, key)).await
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let unreachable = |why| Failure(safe(&format!("cannot deliver to {}: {why}", self.host)));
        let (head, body) = client::answer(request).await.map_err(unreachable)?.into_parts();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

fn with_query(url: &str, query: &str) -> String {
    match query {
        "" => url.to_owned(),
        query => format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' }),
    }
}

/// Changes one letter or digit, so that JSON stays JSON.
fn tamper_body(body: &mut [u8]) {
    if let Some(byte) = body.iter_mut().rev().find(|byte| byte.is_ascii_alphanumeric()) {
        *byte = if *byte == b'0' { b'1' } else { b'0' };
    }
}

/// The signature with one character in its middle changed, so that it stays well-formed.
fn tampered_signature(signature: &str) -> String {
    let mut bytes = signature.as_bytes().to_vec();
    let at = bytes.len().saturating_sub(20);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = if *byte == b'0' { b'1' } else { b'0' };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
