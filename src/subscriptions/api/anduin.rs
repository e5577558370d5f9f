//! Anduin's legacy system: a subscription is a fund.

use reqwest::Method;
use serde_json::{Value, json};

use super::call::{Call, deleted, text};
use super::json::{listed, readable, required, segment, texts};
use super::{Access, Answer, Api, ApiError, Caller, Declared, Facts, Registered, SecretTold, State};
use crate::config::secret::Secret;

/// The client.
pub struct Anduin {
    caller: Caller,
    key: Option<Secret>,
    funds: Vec<String>,
}

impl Anduin {
    pub(super) fn new(caller: Caller, access: Access) -> Anduin {
        Anduin { caller, key: access.key, funds: access.scopes }
    }

    fn call(&self, method: Method, path: &str) -> Result<Call, ApiError> {
        let key = format!("Bearer {}", text(self.key.as_ref()).trim());
        self.caller.call(method, path).header("authorization", &key)
    }

    /// The path of a fund's endpoints, or of one.
    fn path(fund: Option<&str>, id: Option<&str>) -> Result<String, ApiError> {
        let fund =
            fund.ok_or_else(|| ApiError::Unusable("a subscription of anduin needs a fund".to_owned()))?;
        let below = id.map(|id| format!("/{}", segment(id))).unwrap_or_default();
        Ok(format!("/api/v1/fundsub/{}/webhook{below}", segment(fund)))
    }
}

impl Api for Anduin {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn list<'a>(&'a self, _known: &'a [String]) -> Answer<'a, Vec<Registered>> {
        Box::pin(async {
            let mut found = Vec::new();
            for fund in &self.funds {
                let call = self.call(Method::GET, &Anduin::path(Some(fund), None)?)?;
                let answer = self.caller.send(&call).await?.json()?;
                found.extend(readable(listed(&answer, &["webhooks"])?, |item| read(item, fund))?);
            }
            Ok(found)
        })
    }

    fn types(&self) -> Answer<'_, Option<Vec<String>>> {
        Box::pin(async { Ok(None) })
    }

    fn create<'a>(&'a self, declared: &'a Declared, _key: &'a str) -> Answer<'a, Registered, super::Failed> {
        Box::pin(async {
            let fund = declared.scope.as_deref();
            let call = self.call(Method::POST, &Anduin::path(fund, None)?)?.json(&body(declared));
            Ok(read(&self.caller.attempt(&call).await?.json()?, fund.unwrap_or_default())?)
        })
    }

    fn update<'a>(&'a self, registered: &'a Registered, declared: &'a Declared) -> Answer<'a, Registered> {
        Box::pin(async {
            let fund = declared.scope.as_deref();
            let path = Anduin::path(fund, Some(&registered.id))?;
            let call = self.call(Method::PUT, &path)?.json(&body(declared));
            self.caller.send(&call).await.map(|_| registered.clone())
        })
    }

    fn delete<'a>(&'a self, registered: &'a Registered) -> Answer<'a, ()> {
        Box::pin(async {
            let path = Anduin::path(registered.scope.as_deref(), Some(&registered.id))?;
            deleted(self.caller.send(&self.call(Method::DELETE, &path)?).await)
        })
    }
}

fn body(declared: &Declared) -> Value {
    json!({ "enabledEvents": declared.events, "url": declared.url })
}

fn read(value: &Value, fund: &str) -> Result<Registered, ApiError> {
    let is_active = value.get("isActive").and_then(Value::as_bool).unwrap_or(true);
    Ok(Registered {
        id: required(value, &["id"])?,
        scope: Some(fund.to_owned()),
        url: required(value, &["url"])?,
        events: texts(value.get("enabledEvents")),
        state: if is_active { State::Active } else { State::Disabled },
        name: None,
        description: None,
        secret: None,
        nonce: None,
    })
}

static FACTS: Facts = Facts {
    scope: Some("fund"),
    one_type_each: false,
    takes_patterns: false,
    repeats_creates: false,
    secret: SecretTold::Never,
    lists: true,
    validates_url: true,
    sends_tests: false,
};
