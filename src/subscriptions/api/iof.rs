//! Islamic Open Finance: a subscription is a URL. It lists none, and shows a secret once.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::call::{Call, deleted, text};
use super::json::{self, required, segment, texts};
use super::{Access, Answer, Api, ApiError, Caller, Declared, Facts, Registered, SecretTold, State};
use crate::config::secret::Secret;

/// The client.
pub struct Iof {
    caller: Caller,
    access: Access,
}

/// An event of which the provider says that its delivery failed.
#[derive(Clone, Debug)]
pub struct FailedEvent {
    /// The provider's id for it.
    pub id: String,
    /// Its type, as sent.
    pub kind: Option<String>,
    /// When it happened, as sent.
    pub created: Option<String>,
}

impl Iof {
    pub(super) fn new(caller: Caller, access: Access) -> Iof {
        Iof { caller, access }
    }

    fn call(&self, method: Method, path: &str) -> Result<Call, ApiError> {
        let Access { key, tenant, workspace, .. } = &self.access;
        let key = format!("Bearer {}", text(key.as_ref()).trim());
        let call = self.caller.call(method, path).header("authorization", &key)?;
        call.header_if("x-tenant-id", tenant.as_deref())?.header_if("x-workspace-id", workspace.as_deref())
    }

    /// The events of an endpoint whose delivery failed, all pages.
    ///
    /// # Errors
    /// When the API refuses or cannot be asked.
    pub async fn failed_events(&self, endpoint: &str) -> Result<Vec<FailedEvent>, ApiError> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let event = |item: &Value| {
            Ok(FailedEvent {
                id: required(item, &["id"])?,
                kind: json::text(item, &["type", "event_type"]),
                created: json::text(item, &["created", "timestamp", "created_at", "createdAt"]),
            })
        };
        for page in 1..=MAX_PAGES {
            let call =
                self.call(Method::GET, EVENTS)?.query("endpointId", endpoint).query("status", "failed");
            let call = call.query("limit", PAGE_EVENTS);
            let call = if page == 1 { call } else { call.query("page", &page.to_string()) };
            let answer = self.caller.send(&call).await?.json()?;
            let before = found.len();
            let events = json::readable(json::listed(&answer, &["data", "events"])?, event)?;
            found.extend(events.into_iter().filter(|event| seen.insert(event.id.clone())));
            let more = answer.pointer("/pagination/hasMore").and_then(Value::as_bool).unwrap_or(false);
            // A page without anything new is the last, whatever the API says.
            if !more || found.len() == before {
                break;
            }
        }
        Ok(found)
    }

    /// Asks the provider to deliver an event once more.
    ///
    /// # Errors
    /// When the API refuses or cannot be asked.
    pub async fn retry(&self, event: &str) -> Result<(), ApiError> {
        let call = self.call(Method::POST, &format!("{EVENTS}/{}/retry", segment(event)))?;
        self.caller.send(&call).await.map(drop)
    }

    async fn view(&self, id: &str) -> Result<Option<Registered>, ApiError> {
        match self.caller.send(&self.call(Method::GET, &path(id))?).await {
            Ok(answer) => read(one(&answer.json()?)).map(Some),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(why) => Err(why),
        }
    }
}

impl Api for Iof {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn list<'a>(&'a self, known: &'a [String]) -> Answer<'a, Vec<Registered>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for id in known {
                found.extend(self.view(id).await?);
            }
            Ok(found)
        })
    }

    fn types(&self) -> Answer<'_, Option<Vec<String>>> {
        Box::pin(async { Ok(None) })
    }

    fn create<'a>(&'a self, declared: &'a Declared, key: &'a str) -> Answer<'a, Registered, super::Failed> {
        Box::pin(async {
            let body = json!({ "url": declared.url, "events": declared.events });
            let call = self.call(Method::POST, ENDPOINTS)?.header("x-idempotency-key", key)?.json(&body);
            Ok(read(one(&self.caller.attempt(&call).await?.json()?))?)
        })
    }

    fn update<'a>(&'a self, registered: &'a Registered, declared: &'a Declared) -> Answer<'a, Registered> {
        Box::pin(async {
            // Only the events are documented for an update, so it names what differs and no more.
            let mut body = Map::new();
            if registered.url != declared.url {
                body.insert("url".to_owned(), json!(declared.url));
            }
            body.insert("events".to_owned(), json!(declared.events));
            if registered.state == State::Disabled {
                body.insert("status".to_owned(), json!("active"));
            }
            let call = self.call(Method::PATCH, &path(&registered.id))?.json(&Value::Object(body));
            // The documents do not show what it answers.
            self.caller.send(&call).await.map(|_| registered.clone())
        })
    }

    fn delete<'a>(&'a self, registered: &'a Registered) -> Answer<'a, ()> {
        Box::pin(async {
            deleted(self.caller.send(&self.call(Method::DELETE, &path(&registered.id))?).await)
        })
    }
}

fn path(id: &str) -> String {
    format!("{ENDPOINTS}/{}", segment(id))
}

fn one(answer: &Value) -> &Value {
    answer.get("data").filter(|data| data.is_object()).unwrap_or(answer)
}

fn read(value: &Value) -> Result<Registered, ApiError> {
    let is_active = json::text(value, &["status"]).is_none_or(|status| {
        let status = status.to_ascii_lowercase();
        matches!(&*status, "active" | "enabled")
    });
    Ok(Registered {
        id: required(value, &["id"])?,
        scope: None,
        url: required(value, &["url"])?,
        events: texts(value.get("events")),
        state: if is_active { State::Active } else { State::Disabled },
        name: None,
        description: None,
        secret: json::text(value, &["secret"]).filter(|secret| !secret.is_empty()).map(Secret::new),
        nonce: None,
    })
}

const ENDPOINTS: &str = "/v1/webhooks/endpoints";
const EVENTS: &str = "/v1/webhooks/events";
const PAGE_EVENTS: &str = "100";
const MAX_PAGES: usize = 1000;

static FACTS: Facts = Facts {
    scope: None,
    one_type_each: false,
    takes_patterns: true,
    repeats_creates: true,
    secret: SecretTold::Once,
    lists: false,
    validates_url: false,
    sends_tests: false,
};
