//! A call of a management API, and the answer to it.

use std::time::Instant;

use serde_json::Value;

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    /// With the query.
    pub path: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
    /// The status of the answer. None before it, and where the connection was cut instead.
    pub status: Option<u16>,
    /// Whether the URL in it answered the provider, where the provider asks it.
    pub(super) validated: Option<Result<(), String>>,
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// The reason why a call is refused.
pub enum Refusal {
    /// A status and a detail, to be put into the provider's shape.
    Plain(u16, String),
    Whole(Reply),
}

impl Call {
    /// The one header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// Whether the one header of this name has this value.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.header(name) == Some(value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// Method and path, without the query.
    pub fn target(&self) -> (&str, &str) {
        (&self.method, self.path.split('?').next().unwrap())
    }

    /// The path's parts, for a `match` of the routes. A slash at the end is an empty part.
    pub(super) fn parts(&self) -> (&str, Vec<&str>) {
        let (method, path) = self.target();
        (method, path.split('/').skip(1).collect())
    }

    /// The query's parameters; none may be there twice, and no other than these.
    pub(super) fn query(&self, allowed: &[&str]) -> Result<Vec<(String, String)>, Refusal> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let again = parameters.iter().any(|(known, _)| *known == name);
            if again || !allowed.contains(&&*name) {
                return refuse(400, format!("the query parameter {name} is not known, or there twice"));
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(parameters)
    }

    /// Whether the body is declared as this type, with or without parameters.
    pub(super) fn is(&self, content_type: &str) -> bool {
        let declared = self.header("content-type").unwrap_or_default();
        declared.split(';').next().unwrap().trim().eq_ignore_ascii_case(content_type)
    }
}

impl Reply {
    /// Without a body.
    pub fn empty(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: String::new() }
    }

    pub fn json(status: u16, body: &Value) -> Reply {
        Reply::text(status, body.to_string())
    }

    /// JSON that is text already.
    pub fn text(status: u16, body: String) -> Reply {
        Reply { status, headers: vec![("content-type", "application/json".to_owned())], body }
    }
}

/// Refuses a call.
pub(super) fn refuse<T>(status: u16, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Plain(status, detail.into()))
}
