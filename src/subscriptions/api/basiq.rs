//! Basiq: a subscription is a URL. An event type belongs to one webhook of the account.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::attempts::Attempts;
use super::call::{Call, Response, deleted, text};
use super::json::{self, items, listed, required, segment, texts};
use super::{Access, Answer, Api, ApiError, Caller, Declared, Facts, Failed, Registered, SecretTold, State};
use crate::base::clock;
use crate::config::secret::Secret;

/// The client.
pub struct Basiq {
    caller: Caller,
    key: Option<Secret>,
    token: Mutex<Option<Token>>,
}

/// A bearer token, which the key was exchanged for.
struct Token {
    text: Secret,
    /// When to exchange again.
    until: Instant,
}

/// A page of messages that was not read yet.
pub struct NextPage(Call);

/// A message of a webhook's log.
#[derive(Clone, Debug)]
pub struct Message {
    /// The message's id.
    pub id: String,
    /// The payload, as the log writes it. None: the list has none.
    pub payload: Option<String>,
}

impl NextPage {
    /// The page's URL.
    pub fn url(&self) -> &str {
        self.0.url()
    }
}

impl Basiq {
    pub(super) fn new(caller: Caller, access: Access) -> Basiq {
        Basiq { caller, key: access.key, token: Mutex::new(None) }
    }

    /// The first page of a webhook's messages of this time, the ends included, to the second. The API compares a message's
    /// date.
    pub fn first_page(&self, webhook: &str, (since, until): (Timestamp, Timestamp)) -> NextPage {
        let until = until.checked_add(Duration::from_secs(1)).unwrap_or(until);
        let filter = format!("message.date.bt('{since:.0}','{until:.0}')");
        let call = self.caller.call(Method::GET, &format!("{}/messages", path(webhook)));
        NextPage(call.query("limit", PAGE_MESSAGES).query("filter", &filter))
    }

    /// A page of messages, and the page after it.
    ///
    /// # Errors
    /// When the API refuses or cannot be asked.
    pub async fn messages(&self, page: &mut NextPage) -> Result<(Vec<Message>, Option<NextPage>), ApiError> {
        let answer = self.send(&mut page.0).await?;
        let (messages, next) = read_messages(&answer)?;
        let next = next.map(|next| self.caller.follow(&page.0, &next).map(NextPage)).transpose()?;
        Ok((messages, next))
    }

    /// The payload of a message whose list did not have it.
    ///
    /// # Errors
    /// When the API refuses or cannot be asked.
    pub async fn payload(&self, webhook: &str, message: &str) -> Result<Option<String>, ApiError> {
        #[derive(Deserialize)]
        struct View<'a> {
            #[serde(borrow)]
            payload: Option<&'a RawValue>,
        }
        let answer = self.send(&mut self.caller.call(Method::GET, &message_path(webhook, message))).await?;
        let unreadable = |_| ApiError::Unreadable("a message is not as documented".to_owned());
        let view: View<'_> = serde_json::from_slice(answer.body()).map_err(unreadable)?;
        Ok(view.payload.map(payload))
    }

    /// When a message was first attempted. None: it was not.
    ///
    /// # Errors
    /// When the API refuses or cannot be asked, or the attempts have no time that can be read.
    pub async fn first_attempt(&self, webhook: &str, message: &str) -> Result<Option<Timestamp>, ApiError> {
        let path = message_path(webhook, message);
        let answer = self.send(&mut self.caller.call(Method::GET, &path)).await?.json()?;
        let attempts = items(answer.get("attempts"));
        let time = |attempt: &&Value| json::time(&json::text(attempt, &["timestamp"])?);
        let first = attempts.iter().filter_map(time).min();
        if first.is_none() && !attempts.is_empty() {
            return Err(ApiError::Unreadable(
                "a message's attempts have no time that can be read".to_owned(),
            ));
        }
        Ok(first)
    }

    /// Sends a call with a token. A refused token is exchanged once more.
    async fn send(&self, call: &mut Call) -> Result<Response, ApiError> {
        let mut attempts = Attempts::default();
        loop {
            match self.attempt(call).await {
                Ok(response) => return Ok(response),
                Err(failed) => attempts.wait(failed).await?,
            }
        }
    }

    async fn attempt(&self, call: &mut Call) -> Result<Response, Failed> {
        self.authorize(call).await?;
        match self.caller.attempt(call).await {
            Err(Failed { why: ApiError::Denied { .. }, .. }) => {
                *self.token.lock().await = None;
                self.authorize(call).await?;
                self.caller.attempt(call).await
            }
            done => done,
        }
    }

    async fn authorize(&self, call: &mut Call) -> Result<(), ApiError> {
        let mut token = self.token.lock().await;
        let token = match &*token {
            Some(known) if clock::instant() < known.until => known,
            _ => token.insert(self.exchange().await?),
        };
        call.set_header("authorization", &format!("Bearer {}", token.text.expose()))
    }

    async fn exchange(&self) -> Result<Token, ApiError> {
        let call = self.caller.call(Method::POST, "/token").form("scope=SERVER_ACCESS");
        let key = format!("Basic {}", text(self.key.as_ref()).trim());
        let call = call.header("authorization", &key)?.header("basiq-version", "3.0")?;
        let asked = clock::instant();
        let answer = self.caller.send(&call).await?.json()?;
        let seconds = answer.get("expires_in").and_then(Value::as_u64).unwrap_or(DEFAULT_EXPIRY);
        // Renewed before it ends.
        let lasts = Duration::from_secs(seconds.min(MAX_EXPIRY)).mul_f32(0.9);
        Ok(Token { text: Secret::new(required(&answer, &["access_token"])?), until: asked + lasts })
    }

    /// All pages of a list.
    async fn list_all<T>(
        &self,
        path: &str,
        read: fn(&Value) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let mut call = self.caller.call(Method::GET, path);
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.send(&mut call).await?.json()?;
            found.extend(listed(&answer, &["data"])?.into_iter().cloned());
            let Some(next) = answer.pointer("/links/next").and_then(Value::as_str) else {
                return json::readable(&found, read);
            };
            call = self.caller.follow(&call, next)?;
        }
        Err(ApiError::Unreadable("its list does not end".to_owned()))
    }
}

impl Api for Basiq {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn list<'a>(&'a self, _known: &'a [String]) -> Answer<'a, Vec<Registered>> {
        Box::pin(self.list_all(WEBHOOKS, read))
    }

    fn types(&self) -> Answer<'_, Option<Vec<String>>> {
        Box::pin(async { self.list_all("/events/types", |item| required(item, &["id"])).await.map(Some) })
    }

    fn create<'a>(&'a self, declared: &'a Declared, _key: &'a str) -> Answer<'a, Registered, Failed> {
        Box::pin(async {
            let mut call = self.caller.call(Method::POST, WEBHOOKS).json(&body(declared, &declared.name));
            Ok(read(&self.attempt(&mut call).await?.json()?)?)
        })
    }

    fn update<'a>(&'a self, registered: &'a Registered, declared: &'a Declared) -> Answer<'a, Registered> {
        Box::pin(async {
            let name = registered.name.as_ref().unwrap_or(&declared.name);
            let mut call = self.caller.call(Method::POST, &path(&registered.id)).json(&body(declared, name));
            read(&self.send(&mut call).await?.json()?)
        })
    }

    fn delete<'a>(&'a self, registered: &'a Registered) -> Answer<'a, ()> {
        Box::pin(async {
            deleted(self.send(&mut self.caller.call(Method::DELETE, &path(&registered.id))).await)
        })
    }

    fn secret<'a>(&'a self, registered: &'a Registered) -> Answer<'a, Option<Secret>> {
        Box::pin(async {
            if registered.secret.is_some() {
                return Ok(registered.secret.clone());
            }
            let mut call = self.caller.call(Method::GET, &path(&registered.id));
            Ok(read(&self.send(&mut call).await?.json()?)?.secret)
        })
    }

    fn test<'a>(&'a self, kind: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let call = self.caller.call(Method::POST, "/notifications/messages/test");
            self.send(&mut call.json(&json!({ "eventTypeId": kind }))).await.map(drop)
        })
    }
}

fn path(id: &str) -> String {
    format!("{WEBHOOKS}/{}", segment(id))
}

fn message_path(webhook: &str, message: &str) -> String {
    format!("{}/messages/{}", path(webhook), segment(message))
}

fn body(declared: &Declared, name: &str) -> Value {
    json!({
        "name": name, "description": declared.description, "url": declared.url,
        "subscribedEvents": declared.events,
    })
}

fn read(value: &Value) -> Result<Registered, ApiError> {
    let state = match json::text(value, &["status"]).as_deref() {
        Some("active") | None => State::Active,
        Some("pending-approval") => State::Pending,
        Some(_) => State::Disabled,
    };
    Ok(Registered {
        id: required(value, &["id"])?,
        scope: None,
        url: required(value, &["url"])?,
        events: texts(value.get("subscribedEvents")),
        state,
        name: json::text(value, &["name"]).filter(|name| !name.is_empty()),
        description: json::text(value, &["description"]),
        secret: json::text(value, &["secret"]).filter(|secret| !secret.is_empty()).map(Secret::new),
        nonce: None,
    })
}

/// The messages of a page, their payloads as they are written, and the link to the next page.
fn read_messages(answer: &Response) -> Result<(Vec<Message>, Option<String>), ApiError> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
        links: Option<Links>,
    }
    #[derive(Deserialize)]
    struct Links {
        next: Option<String>,
    }
    #[derive(Deserialize)]
    struct Item<'a> {
        id: String,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    let unreadable = |_| ApiError::Unreadable("its list of messages is not as documented".to_owned());
    let page: Page<'_> = serde_json::from_slice(answer.body()).map_err(unreadable)?;
    let list = page.data.get();
    let items: Vec<Item<'_>> = if list.starts_with('[') {
        serde_json::from_str(list).map_err(unreadable)?
    } else {
        vec![serde_json::from_str(list).map_err(unreadable)?]
    };
    let message = |item: Item<'_>| Message { id: item.id, payload: item.payload.map(payload) };
    Ok((items.into_iter().map(message).collect(), page.links.and_then(|links| links.next)))
}

/// A payload's JSON. A log may write it as a text.
fn payload(raw: &RawValue) -> String {
    serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

const WEBHOOKS: &str = "/notifications/webhooks";
/// The most that a page can have.
const PAGE_MESSAGES: &str = "500";
const MAX_PAGES: usize = 1000;
/// Seconds, for an answer that does not say how long a token lasts.
const DEFAULT_EXPIRY: u64 = 3600;
const MAX_EXPIRY: u64 = 86_400;

static FACTS: Facts = Facts {
    scope: None,
    one_type_each: false,
    takes_patterns: false,
    repeats_creates: false,
    secret: SecretTold::OnWrite,
    lists: true,
    validates_url: false,
    sends_tests: true,
};
