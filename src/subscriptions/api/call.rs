//! Calls to a provider's API over HTTPS: deadlines, retries, and errors in plain words.
//!
//! Keeps true: a call takes at most ten seconds. No redirect and no proxy leads it elsewhere. No text holds a key, a
//! token or a secret: the words of a provider are cut, and cleaned of them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::fmt::rfc2822;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, StatusCode, Url, retry};
use rustls::ClientConfig;
use serde_json::Value;

use super::attempts::{Attempts, Failed};
use crate::base::causes::causes;
use crate::base::clock::Clock;
use crate::config::secret::Secret;
use crate::subscriptions::hidden::Hidden;

/// Calls one provider's API.
pub struct Caller {
    client: Client,
    base: Url,
    hidden: Hidden,
    /// The config keys to look at when the provider refuses the key.
    keys: String,
    clock: Clock,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// 401 or 403.
    Denied {
        /// The status.
        status: u16,
        /// The config keys to look at.
        keys: String,
        /// The provider's words.
        said: String,
    },
    /// 404.
    NotFound(String),
    /// Another status that no retry changes.
    Refused {
        /// The status.
        status: u16,
        /// The provider's words.
        said: String,
    },
    /// 429 or 5xx, at the last attempt.
    Failing {
        /// The status.
        status: u16,
        /// The provider's words.
        said: String,
    },
    /// It asks to wait longer than a command waits, in seconds.
    Busy(u64),
    /// The connection failed, or no answer came in time.
    Unreachable(String),
    /// The answer is not what the provider documents.
    Unreadable(String),
    /// The config gives a value that no header can hold.
    Unusable(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Denied { status, keys, said } => {
                write!(f, "the provider's API answered {status}{said}: look at {keys}")
            }
            ApiError::NotFound(said) => write!(f, "the provider's API answered 404{said}"),
            ApiError::Refused { status: status @ 300..400, .. } => {
                write!(
                    f,
                    "the provider's API answered {status}, a redirect, which is not followed: look at api.base"
                )
            }
            ApiError::Refused { status, said } => write!(f, "the provider's API answered {status}{said}"),
            ApiError::Failing { status, said } => {
                write!(f, "the provider's API answered {status}{said}, also when it was asked again")
            }
            ApiError::Busy(seconds) => {
                write!(f, "the provider's API asks to wait {seconds} s; run the command again after that")
            }
            ApiError::Unreachable(why) => write!(f, "the provider's API cannot be reached: {why}"),
            ApiError::Unreadable(what) => {
                write!(f, "the provider's API answered something unexpected: {what}")
            }
            ApiError::Unusable(what) => f.write_str(what),
        }
    }
}

impl Error for ApiError {}

/// An answer with a status of success.
pub(super) struct Response {
    body: Bytes,
}

impl Response {
    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.body)
            .map_err(|why| ApiError::Unreadable(format!("its answer is no JSON (line {})", why.line())))
    }

    /// The raw body.
    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }
}

/// A call to be sent, any number of times.
pub(super) struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl Call {
    /// Adds a header.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Result<Call, ApiError> {
        self.set_header(name, value)?;
        Ok(self)
    }

    /// Sets a header. Its value is never shown.
    pub(super) fn set_header(&mut self, name: &'static str, value: &str) -> Result<(), ApiError> {
        let unusable = |_| {
            ApiError::Unusable(format!(
                "its value for the header {name} holds characters that no header can hold"
            ))
        };
        let mut value = HeaderValue::from_str(value.trim()).map_err(unusable)?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(())
    }

    /// Adds a header if there is a value.
    pub(super) fn header_if(self, name: &'static str, value: Option<&str>) -> Result<Call, ApiError> {
        match value {
            Some(value) => self.header(name, value),
            None => Ok(self),
        }
    }

    /// Adds a parameter to the query.
    pub(super) fn query(mut self, name: &str, value: &str) -> Call {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// Sets a JSON body.
    pub(super) fn json(self, body: &Value) -> Call {
        self.body("application/json", body.to_string())
    }

    /// Sets a form as the body.
    pub(super) fn form(self, body: &str) -> Call {
        self.body("application/x-www-form-urlencoded", body.to_owned())
    }

    fn body(mut self, kind: &'static str, body: String) -> Call {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        self.body = Some(body.into_bytes());
        self
    }

    /// The URL.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    fn request(&self) -> Request {
        let mut request = Request::new(self.method.clone(), self.url.clone());
        *request.headers_mut() = self.headers.clone();
        // An empty body has a length of 0, without which some servers refuse a POST.
        let empty = (self.method != Method::GET).then(Vec::new);
        *request.body_mut() = self.body.clone().or(empty).map(Into::into);
        request
    }

    /// A provider's words without what this call's headers hold: a token that the provider gave out is in no config.
    fn hide(&self, words: &str) -> String {
        let sensitive = self.headers.values().filter(|value| value.is_sensitive());
        let credentials = sensitive.filter_map(|value| value.to_str().ok()?.split_whitespace().last());
        let mut hidden = Hidden::default();
        credentials.for_each(|text| hidden.add(&Secret::new(text)));
        hidden.hide(words)
    }
}

impl Caller {
    /// Calls the API at `base`. `keys` names the config keys of its credentials.
    ///
    /// # Errors
    /// When the client library does not start, or `base` is no URL.
    pub fn new(
        tls: Arc<ClientConfig>,
        base: &str,
        keys: String,
        hidden: Hidden,
        clock: Clock,
    ) -> Result<Caller, ApiError> {
        let unusable = |why: String| ApiError::Unusable(why);
        let client = client(&tls).map_err(|why| unusable(why.without_url().to_string()))?;
        let base = Url::parse(base).map_err(|why| unusable(format!("api.base is no URL: {why}")))?;
        Ok(Caller { client, base, hidden, keys, clock })
    }

    /// A call to a path below the base.
    pub(super) fn call(&self, method: Method, path: &str) -> Call {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("application/json"));
        Call { method, url, headers, body: None }
    }

    /// A call to the `next` link of a page, which must be on the base's host.
    pub(super) fn follow(&self, page: &Call, link: &str) -> Result<Call, ApiError> {
        let url =
            page.url.join(link).map_err(|_| ApiError::Unreadable("its next link is no URL".to_owned()))?;
        if url.origin() != self.base.origin() {
            return Err(ApiError::Unreadable(
                "its next link leads to another host, and is not followed".to_owned(),
            ));
        }
        Ok(Call { url, ..self.call(Method::GET, "") })
    }

    /// Sends a call once.
    pub(super) async fn attempt(&self, call: &Call) -> Result<Response, Failed> {
        let broken = |why: reqwest::Error| Failed {
            why: ApiError::Unreachable(reason(&why)),
            again_in: Some(Duration::ZERO),
        };
        let exchange = async {
            let mut response = self.client.execute(call.request()).await.map_err(broken)?;
            let status = response.status();
            let wait = response.headers().get(RETRY_AFTER).and_then(|value| self.seconds(value));
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(broken)? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ANSWER {
                    return Err(ApiError::Unreadable("its answer is longer than 16 MiB".to_owned()).into());
                }
            }
            self.judge(call, status, wait, body.into())
        };
        let late = Failed {
            why: ApiError::Unreachable(format!("no answer within {} s", DEADLINE.as_secs())),
            again_in: Some(Duration::ZERO),
        };
        tokio::time::timeout(DEADLINE, exchange).await.unwrap_or(Err(late))
    }

    /// Sends a call, up to three times.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, ApiError> {
        let mut attempts = Attempts::default();
        loop {
            match self.attempt(call).await {
                Ok(response) => return Ok(response),
                Err(failed) => attempts.wait(failed).await?,
            }
        }
    }

    fn judge(
        &self,
        call: &Call,
        status: StatusCode,
        wait: Option<u64>,
        body: Bytes,
    ) -> Result<Response, Failed> {
        if status.is_success() {
            return Ok(Response { body });
        }
        let said = call.hide(&self.words(&body));
        let status = status.as_u16();
        match status {
            401 | 403 => Err(ApiError::Denied { status, keys: self.keys.clone(), said }.into()),
            404 => Err(ApiError::NotFound(said).into()),
            429 | 500.. => match wait {
                Some(seconds) if seconds > MAX_WAIT => Err(ApiError::Busy(seconds).into()),
                wait => Err(Failed {
                    why: ApiError::Failing { status, said },
                    again_in: Some(Duration::from_secs(wait.unwrap_or_default())),
                }),
            },
            _ => Err(ApiError::Refused { status, said }.into()),
        }
    }

    /// The seconds that a `Retry-After` asks for.
    fn seconds(&self, value: &HeaderValue) -> Option<u64> {
        let text = value.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(seconds);
        }
        let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        u64::try_from(at.as_second() - self.clock.now().as_second()).ok()
    }

    /// The provider's words in an error's body, after a blank and in brackets. Empty: it says nothing that can be shown.
    fn words(&self, body: &[u8]) -> String {
        let mut words = Vec::new();
        if let Ok(value) = serde_json::from_slice::<Value>(body) {
            collect_words(&value, &mut words);
        }
        let words = self.hidden.hide(&words.join(", "));
        let cut: String = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
        if cut.is_empty() { cut } else { format!(" ({cut})") }
    }
}

/// Adds the texts of an error's usual fields.
fn collect_words(value: &Value, words: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for name in ["code", "title", "message", "detail", "error", "data"] {
                match fields.get(name) {
                    Some(Value::String(text)) => words.push(text.clone()),
                    Some(inner @ (Value::Object(_) | Value::Array(_))) => collect_words(inner, words),
                    _ => {}
                }
            }
        }
        Value::Array(items) => items.iter().take(3).for_each(|item| collect_words(item, words)),
        Value::String(text) => words.push(text.clone()),
        _ => {}
    }
}

/// A client that follows no redirect and uses no proxy.
///
/// # Errors
/// When the library does not start.
pub(in crate::subscriptions) fn client(tls: &ClientConfig) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .no_proxy()
        .redirect(Policy::none())
        .retry(retry::never())
        .user_agent(concat!("hookgate/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The innermost cause of a broken exchange. It names no URL.
pub(in crate::subscriptions) fn reason(error: &reqwest::Error) -> String {
    let innermost = causes(error).last().map(ToString::to_string).unwrap_or_default();
    if error.is_connect() { format!("cannot connect: {innermost}") } else { innermost }
}

/// The result of a delete. What is gone is deleted.
pub(super) fn deleted<T>(done: Result<T, ApiError>) -> Result<(), ApiError> {
    match done {
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(why) => Err(why),
    }
}

/// A secret as a header's text.
pub(super) fn text(secret: Option<&Secret>) -> &str {
    secret.map_or("", Secret::expose)
}

const DEADLINE: Duration = Duration::from_secs(10);
/// Seconds. A longer `Retry-After` fails at once.
const MAX_WAIT: u64 = 60;
const MAX_ANSWER: usize = 16 << 20;
/// Characters of a provider's words that are shown.
const MAX_WORDS: usize = 200;
