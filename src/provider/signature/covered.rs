//! The text that a signature covers.

use super::scheme::Part;
use crate::provider::signed_request::SignedRequest;

/// The values that a signature covers besides the request's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered<'a> {
    pub(super) request: SignedRequest<'a>,
    pub(super) id: &'a str,
    pub(super) timestamp: &'a str,
}

impl<'a> Covered<'a> {
    /// Calls `take` with each piece of the signed text, in order.
    pub(super) fn for_each(&self, parts: &[Part], mut take: impl FnMut(&[u8])) {
        for part in parts {
            match part {
                Part::Id => take(self.id.as_bytes()),
                Part::Timestamp => take(self.timestamp.as_bytes()),
                Part::Body => take(self.request.body),
                Part::Method => take(self.request.method.as_bytes()),
                Part::Url { decoded } => take(self.url(*decoded).as_bytes()),
                Part::Path => take(self.request.path().as_bytes()),
                Part::Query => take(self.request.query().as_bytes()),
                Part::Header(name) => {
                    take(self.request.headers.get(*name).map_or(&[][..], |value| value.as_bytes()));
                }
                Part::Text(text) => take(text.as_bytes()),
            }
        }
    }

    fn url(&self, decoded: bool) -> String {
        let url = [self.request.public_url, self.request.target].concat();
        if decoded { without_escapes(&url) } else { url }
    }

    /// The signed text in one piece.
    pub(super) fn text(&self, parts: &[Part]) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.request.body.len() + 128);
        self.for_each(parts, |piece| text.extend_from_slice(piece));
        text
    }
}

/// The URL with these escapes decoded, in either case. HubSpot's rule for its v3 signature names them; others stay.
fn without_escapes(url: &str) -> String {
    let mut decoded = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        decoded.push_str(before);
        let found = escape
            .get(..3)
            .and_then(|code| DECODED_ESCAPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)));
        match found {
            Some((code, character)) => {
                decoded.push(*character);
                rest = &escape[code.len()..];
            }
            None => {
                decoded.push('%');
                rest = &escape[1..];
            }
        }
    }
    decoded + rest
}

const DECODED_ESCAPES: [(&str, char); 12] = [
    ("%3A", ':'),
    ("%2F", '/'),
    ("%3F", '?'),
    ("%40", '@'),
    ("%21", '!'),
    ("%24", '$'),
    ("%27", '\''),
    ("%28", '('),
    ("%29", ')'),
    ("%2A", '*'),
    ("%2C", ','),
    ("%3B", ';'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_escapes_are_decoded_and_others_stay() {
        for (url, decoded) in [
            ("https://x/a%2fb%3F?q=%40%20%7e%", "https://x/a/b??q=@%20%7e%"),
            ("%3a%3A", "::"),
            ("%é%2", "%é%2"),
            ("", ""),
        ] {
            assert_eq!(without_escapes(url), decoded);
        }
    }
}
