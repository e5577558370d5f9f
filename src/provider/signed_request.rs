//! A request as a signature and a definition see it.

use hyper::HeaderMap;

/// A request whose signature is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its raw body.
    pub body: &'a [u8],
    /// Its method.
    pub method: &'a str,
    /// Its path and query, as sent.
    pub target: &'a str,
    /// `edge.public_url`: the scheme and host by which the sender reaches the gateway.
    pub public_url: &'a str,
}

impl<'a> SignedRequest<'a> {
    /// A POST to `/`, for a scheme that covers nothing but headers and body.
    pub fn post(headers: &'a HeaderMap, body: &'a [u8]) -> SignedRequest<'a> {
        SignedRequest { headers, body, method: "POST", target: "/", public_url: "" }
    }

    /// The path, as sent.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// The query, as sent, without `?`.
    pub fn query(&self) -> &'a str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_as_sent() {
        let headers = HeaderMap::new();
        let request = SignedRequest { target: "/a%20b?x=1?y", ..SignedRequest::post(&headers, b"") };
        assert_eq!((request.path(), request.query()), ("/a%20b", "x=1?y"));
    }
}
