//! Securitize: a subscription is a domain and an event type.

use reqwest::Method;
use serde_json::{Value, json};

use super::call::{Call, deleted, text};
use super::json::{self, listed, readable, required, segment};
use super::{Access, Answer, Api, ApiError, Caller, Declared, Facts, Registered, SecretTold, State};
use crate::config::secret::Secret;

/// The client.
pub struct Securitize {
    caller: Caller,
    key: Option<Secret>,
}

impl Securitize {
    pub(super) fn new(caller: Caller, access: Access) -> Securitize {
        Securitize { caller, key: access.key }
    }

    fn call(&self, method: Method, path: &str) -> Result<Call, ApiError> {
        let key = format!("apiKey {}", text(self.key.as_ref()).trim());
        self.caller.call(method, path).header("authorization", &key)
    }
}

impl Api for Securitize {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn list<'a>(&'a self, _known: &'a [String]) -> Answer<'a, Vec<Registered>> {
        Box::pin(async {
            let answer = self.caller.send(&self.call(Method::GET, SUBSCRIPTIONS)?).await?.json()?;
            readable(listed(&answer, &["data"])?, read)
        })
    }

    fn types(&self) -> Answer<'_, Option<Vec<String>>> {
        Box::pin(async {
            let answer = self.caller.send(&self.call(Method::GET, "/v1/webhooks/events")?).await?.json()?;
            readable(listed(&answer, &["data"])?, |item| required(item, &["eventType"])).map(Some)
        })
    }

    fn create<'a>(&'a self, declared: &'a Declared, _key: &'a str) -> Answer<'a, Registered, super::Failed> {
        Box::pin(async {
            let body = json!({
                "domainId": declared.scope, "eventType": declared.events.first(), "payloadUrl": declared.url,
                "isActive": true,
            });
            let call = self.call(Method::POST, SUBSCRIPTIONS)?.json(&body);
            Ok(read(&self.caller.attempt(&call).await?.json()?)?)
        })
    }

    fn update<'a>(&'a self, registered: &'a Registered, declared: &'a Declared) -> Answer<'a, Registered> {
        Box::pin(async {
            let body = json!({ "payloadUrl": declared.url, "isActive": true });
            let call = self.call(Method::PATCH, &path(&registered.id))?.json(&body);
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
    format!("{SUBSCRIPTIONS}/{}", segment(id))
}

fn read(value: &Value) -> Result<Registered, ApiError> {
    let is_active = value.get("isActive").and_then(Value::as_bool).unwrap_or(true);
    Ok(Registered {
        id: required(value, &["id"])?,
        scope: json::text(value, &["domainId"]),
        url: required(value, &["payloadUrl"])?,
        events: json::text(value, &["eventType"]).into_iter().collect(),
        state: if is_active { State::Active } else { State::Disabled },
        name: None,
        description: None,
        secret: None,
        nonce: json::text(value, &["nonce"]).and_then(|nonce| nonce.parse().ok()),
    })
}

const SUBSCRIPTIONS: &str = "/v1/webhooks/subscriptions";

static FACTS: Facts = Facts {
    scope: Some("domain"),
    one_type_each: true,
    takes_patterns: false,
    repeats_creates: false,
    secret: SecretTold::Never,
    lists: true,
    validates_url: false,
    sends_tests: false,
};
