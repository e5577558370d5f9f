//! The strings that senders sign.
//!
//! Keeps true: the text around the body comes only from the delivery's headers.

use std::fmt;

use crate::provider::signature::{Part, Scheme};

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
}

impl SignedString {
    /// Every string but the expected one, the likeliest first.
    pub(super) const WRONG: [SignedString; 16] = [
        SignedString::BodyAlone,
        SignedString::WithoutTimestamp,
        SignedString::WithoutId,
        SignedString::Milliseconds,
        SignedString::Seconds,
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
    ];

    /// The texts before and after the body, in each way that this string may be built.
    pub(super) fn around(
        self,
        scheme: &Scheme,
        id: Option<&str>,
        stamp: Option<&str>,
    ) -> Vec<(String, String)> {
        let before = |text: Option<String>| text.map(|text| (text, String::new())).into_iter().collect();
        let with_id = scheme.id.is_some();
        let head = |stamp: &str, between: &str| {
            if with_id {
                Some(format!("{}{between}{stamp}{between}", id?))
            } else {
                Some(format!("{stamp}{between}"))
            }
        };
        match (self, stamp) {
            (SignedString::BodyAlone, _) => before(Some(String::new())),
            (SignedString::WithoutTimestamp, _) if with_id => before(id.map(|id| format!("{id}."))),
            (SignedString::Expected, _) => expected(scheme, id, stamp).into_iter().collect(),
            (SignedString::WithoutId, Some(stamp)) if with_id => before(Some(format!("{stamp}."))),
            (SignedString::Separated(between), Some(stamp)) => before(head(stamp, between)),
            (SignedString::Milliseconds, Some(stamp)) => before(head(&format!("{stamp}000"), ".")),
            (SignedString::Seconds, Some(stamp)) if stamp.len() > SECONDS_LEN => {
                before(stamp.get(..stamp.len() - 3).and_then(|seconds| head(seconds, ".")))
            }
            (SignedString::OtherOrder, Some(stamp)) => {
                let mut ways = vec![(String::new(), format!(".{stamp}"))];
                if let Some(id) = id.filter(|_| with_id) {
                    ways.push((format!("{stamp}.{id}."), String::new()));
                    ways.push((String::new(), format!(".{id}.{stamp}")));
                    ways.push((String::new(), format!(".{stamp}.{id}")));
                }
                ways
            }
            (SignedString::Versioned, Some(stamp)) => ["v0:", "v1:", "v2:"]
                .into_iter()
                .filter_map(|version| Some((format!("{version}{}", head(stamp, ":")?), String::new())))
                .collect(),
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
            SignedString::Versioned => "a version before its parts, as in v0:timestamp:body",
        })
    }
}

/// The texts before and after the body, as the scheme says.
fn expected(scheme: &Scheme, id: Option<&str>, stamp: Option<&str>) -> Option<(String, String)> {
    let (mut before, mut after) = (String::new(), None);
    for part in scheme.signed {
        let text = match part {
            Part::Id => id?,
            Part::Timestamp => stamp?,
            Part::Text(text) => text,
            Part::Body => {
                after = Some(String::new());
                continue;
            }
        };
        after.as_mut().unwrap_or(&mut before).push_str(text);
    }
    Some((before, after.unwrap_or_default()))
}

/// Unix seconds have ten digits until the year 2286.
const SECONDS_LEN: usize = 10;
