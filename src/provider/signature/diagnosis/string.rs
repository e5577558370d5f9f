//! The strings that senders sign.
//!
//! Keeps true: the text around the body comes only from the delivery's headers.

use std::fmt;

use super::claimed::Claimed;
use crate::provider::signature::covered::Covered;
use crate::provider::signature::{Part, Scheme, SignedRequest};

/// The text around the body in the signed string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedString {
    /// As the scheme says.
    Expected,
    /// Nothing.
    BodyAlone,
    /// All but the timestamp.
    WithoutTimestamp,
    /// All but the id.
    WithoutId,
    /// The right parts with another separator.
    Separated(&'static str),
    /// The right parts in another order.
    OtherOrder,
    /// The timestamp in milliseconds, where the header has seconds.
    Milliseconds,
    /// The timestamp in seconds, where the header has milliseconds.
    Seconds,
    /// A version before the right parts, as Slack has it.
    Versioned,
    /// The URL or the path before the body.
    WithUrl,
    /// The values of other headers before the body.
    Headers,
}

impl SignedString {
    /// Every string but the expected one, the likeliest first.
    pub(super) const WRONG: [SignedString; 18] = [
        SignedString::BodyAlone,
        SignedString::WithoutTimestamp,
        SignedString::WithoutId,
        SignedString::Milliseconds,
        SignedString::Seconds,
        SignedString::Separated("."),
        SignedString::Separated(""),
        SignedString::Separated(":"),
        SignedString::Separated("\n"),
        SignedString::Separated(" "),
        SignedString::Separated(","),
        SignedString::Separated("|"),
        SignedString::Separated("-"),
        SignedString::Separated("_"),
        SignedString::Separated("&"),
        SignedString::OtherOrder,
        SignedString::Versioned,
        SignedString::WithUrl,
    ];

    /// The text before the body and after it, each with the template by which a definition would say it.
    pub(super) fn around(
        self,
        scheme: &Scheme,
        claimed: &Claimed,
        request: &SignedRequest<'_>,
    ) -> Vec<(String, String, String)> {
        let (id, stamp) = (claimed.id.as_deref(), claimed.timestamp.as_deref());
        let before = |text: Option<String>, template: &str| {
            text.map(|text| (text, String::new(), format!("{template}{{body}}"))).into_iter().collect()
        };
        let with_id = scheme.carriers.iter().any(|carrier| carrier.id.is_some());
        let head = |stamp: &str, between: &str| {
            if with_id {
                Some(format!("{}{between}{stamp}{between}", id?))
            } else {
                Some(format!("{stamp}{between}"))
            }
        };
        let names = |between: &str| {
            let id = if with_id { format!("{{id}}{between}") } else { String::new() };
            format!("{id}{{timestamp}}{between}")
        };
        match (self, stamp) {
            (SignedString::BodyAlone, _) => before(Some(String::new()), ""),
            (SignedString::WithoutTimestamp, _) if with_id => before(id.map(|id| format!("{id}.")), "{id}."),
            (SignedString::Expected, _) => expected(scheme, id, stamp, request).into_iter().collect(),
            (SignedString::WithoutId, Some(stamp)) if with_id => {
                before(Some(format!("{stamp}.")), "{timestamp}.")
            }
            (SignedString::Separated(between), Some(stamp)) => before(head(stamp, between), &names(between)),
            (SignedString::Milliseconds, Some(stamp)) => {
                before(head(&format!("{stamp}000"), "."), &names("."))
            }
            (SignedString::Seconds, Some(stamp)) if stamp.len() > SECONDS_LEN => {
                let seconds = stamp.get(..stamp.len() - 3).and_then(|seconds| head(seconds, "."));
                before(seconds, &names("."))
            }
            (SignedString::OtherOrder, Some(stamp)) => {
                let way =
                    |before: String, after: String, template: &str| (before, after, template.to_owned());
                let mut ways = vec![way(String::new(), format!(".{stamp}"), "{body}.{timestamp}")];
                ways.push(way(String::new(), stamp.to_owned(), "{body}{timestamp}"));
                if let Some(id) = id.filter(|_| with_id) {
                    ways.push(way(format!("{stamp}.{id}."), String::new(), "{timestamp}.{id}.{body}"));
                    ways.push(way(String::new(), format!(".{id}.{stamp}"), "{body}.{id}.{timestamp}"));
                    ways.push(way(String::new(), format!(".{stamp}.{id}"), "{body}.{timestamp}.{id}"));
                }
                ways
            }
            (SignedString::Versioned, Some(stamp)) => ["v0:", "v1:", "v2:"]
                .into_iter()
                .filter_map(|version| {
                    let text = format!("{version}{}", head(stamp, ":")?);
                    Some((text, String::new(), format!("{version}{}{{body}}", names(":"))))
                })
                .collect(),
            (SignedString::WithUrl, _) => {
                let url = format!("{}{}", request.public_url, request.target);
                [
                    (url.clone(), "{url}{body}".to_owned()),
                    (format!("{}{url}", request.method), "{method}{url}{body}".to_owned()),
                    (request.target.to_owned(), "{path}{body}".to_owned()),
                ]
                .map(|(text, template)| (text, String::new(), template))
                .to_vec()
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for SignedString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SignedString::Expected => "the right one",
            SignedString::BodyAlone => "the body alone",
            SignedString::WithoutTimestamp => "the id and the body",
            SignedString::WithoutId => "the timestamp and the body",
            SignedString::Separated("") => "its parts with nothing between them",
            SignedString::Separated(between) => return write!(f, "its parts with {between:?} between them"),
            SignedString::OtherOrder => "its parts in another order",
            SignedString::Milliseconds => "the timestamp in milliseconds, while the header has seconds",
            SignedString::Seconds => {
                "the timestamp in seconds, while the header has a finer one; send seconds too"
            }
            SignedString::WithUrl => "the URL and the body",
            SignedString::Headers => "other headers and the body",
            SignedString::Versioned => "a version before its parts, as in v0:timestamp:body",
        })
    }
}

/// The text before the body and after it, as the scheme has it.
fn expected(
    scheme: &Scheme,
    id: Option<&str>,
    stamp: Option<&str>,
    request: &SignedRequest<'_>,
) -> Option<(String, String, String)> {
    let lacks = |part, value: Option<&str>| scheme.covers(part) && value.is_none();
    if lacks(Part::Id, id) || lacks(Part::Timestamp, stamp) {
        return None;
    }
    let at = scheme.signed.iter().position(|part| *part == Part::Body)?;
    let (before, after) = (scheme.signed.get(..at)?, scheme.signed.get(at + 1..)?);
    let covered =
        Covered { request: *request, id: id.unwrap_or_default(), timestamp: stamp.unwrap_or_default() };
    let text = |parts| String::from_utf8(covered.text(parts)).ok();
    Some((text(before)?, text(after)?, String::new()))
}

const SECONDS_LEN: usize = 10;
