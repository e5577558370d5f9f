//! A request as bytes, since no client library sends the malformed ones.

use bytes::Bytes;
use http_body_util::Full;
use sha2::{Digest, Sha256};

/// A request to be sent. Host and length are added unless a header gives them.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Request {
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request { body: body.into(), ..Request::new("POST", target) }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Removes a header.
    pub fn without(mut self, name: &str) -> Request {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// Replaces a header.
    pub fn instead(self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.without(name).with(name, value)
    }

    pub fn method(self, method: &str) -> Request {
        Request { method: method.to_owned(), ..self }
    }

    pub fn to(self, target: &str) -> Request {
        Request { target: target.to_owned(), ..self }
    }

    /// The body of a delivery, which is UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The end of the event's id when this body is forwarded as a conflict.
    pub fn conflict_suffix(&self) -> String {
        format!("~{}", &hex::encode(Sha256::digest(&self.body))[..8])
    }

    /// As HTTP/1.1.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_as("HTTP/1.1")
    }

    pub fn bytes_as(&self, version: &str) -> Vec<u8> {
        let mut bytes = format!("{} {} {version}\r\n", self.method, self.target).into_bytes();
        let has = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut line =
            |name: &str, value: &[u8]| bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        if !has("host") && version == "HTTP/1.1" {
            line("host", b"hookgate.test");
        }
        if !has("content-length") && !has("transfer-encoding") && self.method != "GET" {
            line("content-length", self.body.len().to_string().as_bytes());
        }
        for (name, value) in &self.headers {
            line(name, value);
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// For hyper's client, which speaks HTTP/2 too. The origin (`http://` and a host) is put before a path.
    pub fn to_hyper(&self, origin: &str) -> hyper::Request<Full<Bytes>> {
        let origin = if self.target.starts_with('/') { origin } else { "" };
        let mut request = hyper::Request::builder().method(self.method.as_str());
        request = request.uri(format!("{origin}{}", self.target));
        for (name, value) in &self.headers {
            request = request.header(name, &value[..]);
        }
        request.body(Full::from(self.body.clone())).unwrap()
    }
}
