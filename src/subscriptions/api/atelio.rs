//! Atelio: a subscription is a URL. Its secret can be read at any time.

use reqwest::Method;
use serde_json::{Value, json};

use super::call::{Call, deleted, text};
use super::json::{self, listed, readable, required, segment, texts};
use super::{Access, Answer, Api, ApiError, Caller, Declared, Facts, Registered, SecretTold, State};
use crate::config::secret::Secret;

/// The client.
pub struct Atelio {
    caller: Caller,
    access: Access,
}

impl Atelio {
    pub(super) fn new(caller: Caller, access: Access) -> Atelio {
        Atelio { caller, access }
    }

    fn call(&self, method: Method, path: &str) -> Result<Call, ApiError> {
        let Access { identity, authorization, .. } = &self.access;
        let call = self.caller.call(method, path).header("identity", text(identity.as_ref()))?;
        call.header("authorization", text(authorization.as_ref()))
    }

    fn body(&self, declared: &Declared) -> Value {
        json!({
            "events": declared.events, "url": declared.url, "description": declared.description,
            "version": self.access.version, "status": "STATUS_ENABLED",
        })
    }
}

impl Api for Atelio {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn list<'a>(&'a self, _known: &'a [String]) -> Answer<'a, Vec<Registered>> {
        Box::pin(async {
            let answer = self.caller.send(&self.call(Method::GET, WEBHOOKS)?).await?.json()?;
            readable(listed(&answer, &["webhook_subscriptions"])?, read)
        })
    }

    fn types(&self) -> Answer<'_, Option<Vec<String>>> {
        Box::pin(async { Ok(None) })
    }

    fn create<'a>(&'a self, declared: &'a Declared, key: &'a str) -> Answer<'a, Registered, super::Failed> {
        Box::pin(async {
            let call = self.call(Method::POST, WEBHOOKS)?.header("idempotency-key", key)?;
            let answer = self.caller.attempt(&call.json(&self.body(declared))).await?.json()?;
            Ok(read(one(&answer))?)
        })
    }

    fn update<'a>(&'a self, registered: &'a Registered, declared: &'a Declared) -> Answer<'a, Registered> {
        Box::pin(async {
            let call = self.call(Method::PATCH, &path(&registered.id))?.json(&self.body(declared));
            // Its list tells the secret, so the answer is not needed.
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
    format!("{WEBHOOKS}/{}", segment(id))
}

fn one(answer: &Value) -> &Value {
    answer.get("webhook_subscription").unwrap_or(answer)
}

fn read(value: &Value) -> Result<Registered, ApiError> {
    let is_enabled = json::text(value, &["status"]).is_none_or(|status| {
        let status = status.to_ascii_lowercase();
        matches!(&*status, "status_enabled" | "enabled" | "active")
    });
    Ok(Registered {
        id: required(value, &["id", "webhook_id"])?,
        scope: None,
        url: required(value, &["url"])?,
        events: texts(value.get("events")),
        state: if is_enabled { State::Active } else { State::Disabled },
        name: None,
        description: json::text(value, &["description"]),
        secret: json::text(value, &["secret"]).filter(|secret| !secret.is_empty()).map(Secret::new),
        nonce: None,
    })
}

const WEBHOOKS: &str = "/webhooks";

static FACTS: Facts = Facts {
    scope: None,
    one_type_each: false,
    takes_patterns: true,
    repeats_creates: true,
    secret: SecretTold::Always,
    lists: true,
    validates_url: false,
    sends_tests: false,
};
