//! A message as a broker's consumer sees it.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Under which the broker may drop a second copy.
    pub id: String,
    /// The subject, routing key or topic it came by.
    pub name: String,
    /// Headers, or the properties that the protocol has instead, by lower-case names.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Taken {
    /// A header, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}
