//! Makes the provider's side as declared, step by step.
//!
//! Keeps true: a create is never repeated blindly. Either its idempotency key makes the repeat harmless, or the
//! provider is looked at first. A step that fails does not stop the others, and all of it can be run again. But what may
//! deliver in place of a subscription is not deleted unless that one was made.

mod challenge;

use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::{Value, json};

use super::api::{ApiError, Attempts, Declared, Failed, Registered, SecretTold};
use super::kept::{self, Kept, KeptSource, PendingCreate};
use super::owned::Owned;
use super::plan::{self, Action, Options, SecretFlaw, Step};
use super::secret_file::SecretFile;
use super::source::SourceSubscription;
use crate::base::clock;
use crate::config::secret::Secret;

/// A step that was taken or tried.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was to be done.
    pub action: Action,
    /// The subscription's id.
    pub id: Option<String>,
    /// What a person reads, without path tokens.
    pub detail: Value,
    /// Why it failed.
    pub error: Option<String>,
}

impl Line {
    /// A delete that has to wait.
    fn left(step: Step) -> Line {
        let why =
            "not deleted: a step before it failed, and until that succeeds this one may be what delivers";
        let id = step.registered.map(|one| one.id);
        Line { action: step.action, id, detail: step.detail, error: Some(why.to_owned()) }
    }
}

/// Applies one source's plan. Passes each line to `out` as it is done.
pub async fn apply(
    source: &SourceSubscription,
    kept: &mut Kept,
    owned: &Owned,
    options: Options,
    tls: &Arc<ClientConfig>,
    out: &mut dyn FnMut(Line),
) {
    let mut run = Run { source, of: kept.source(&source.name, &source.base), kept, unanswered: None };
    if let Err(line) = run.settle_pending(out).await {
        out(line);
        return;
    }
    let steps = match plan::plan(source, &run.of, owned, Options { secrets: true, ..options }).await {
        Ok(steps) => steps,
        Err(why) => {
            let error = Some(source.hidden.hide(&why.to_string()));
            out(Line { action: Action::None, id: None, detail: json!({}), error });
            return;
        }
    };
    let sends_url = |step: &Step| matches!(step.action, Action::Create | Action::Update);
    if source.facts().validates_url && steps.iter().any(sends_url) {
        run.unanswered = challenge::refused(tls, &source.url).await.map(|why| {
            format!(
                "the gateway does not answer the validation request at {}: {why}",
                source.hidden.hide(&source.url)
            )
        });
    }
    let mut failed = false;
    for step in steps {
        let line = if failed && step.replaces { Line::left(step) } else { run.take(step).await };
        failed |= line.error.is_some() && line.action != Action::Delete;
        out(line);
    }
}

/// The plan of one source on its way.
struct Run<'a> {
    source: &'a SourceSubscription,
    kept: &'a mut Kept,
    of: KeptSource,
    /// Why the provider's validation of the URL will fail.
    unanswered: Option<String>,
}

impl Run<'_> {
    async fn take(&mut self, step: Step) -> Line {
        let Step { action, registered, declared, secret, detail, is_drift, .. } = step;
        let id = registered.as_ref().map(|one| one.id.clone());
        let done = match (action, registered, declared) {
            (Action::Create, _, Some(declared)) => self.create(&declared).await.map(Some),
            (Action::Update, Some(one), Some(declared)) => {
                self.update(one, &declared, secret, is_drift).await.map(|()| id.clone())
            }
            (Action::Delete, Some(one), _) => self.delete(&one).await.map(|()| id.clone()),
            (Action::None, Some(one), _) => self.keep(&one).map(|()| id.clone()),
            _ => Ok(id.clone()),
        };
        match done {
            Ok(id) => Line { action, id, detail, error: None },
            Err(why) => {
                let why = match &self.unanswered {
                    Some(unanswered) if action != Action::Delete => format!("{why}; {unanswered}"),
                    _ => why,
                };
                Line { action, id, detail, error: Some(self.source.hidden.hide(&why)) }
            }
        }
    }

    /// Remembers a subscription as ours.
    fn keep(&mut self, one: &Registered) -> Result<(), String> {
        self.of.add(&one.id);
        self.save()
    }

    fn save(&mut self) -> Result<(), String> {
        self.kept.set(&self.source.name, self.of.clone()).map_err(|why| why.to_string())
    }

    async fn create(&mut self, declared: &Declared) -> Result<String, String> {
        let file = self.reserve()?;
        let key = hex::encode(clock::random::<16>());
        if !self.source.facts().lists {
            let url = self.source.hidden.hide(&declared.url);
            self.of.create = Some(PendingCreate::of(declared, key.clone(), url));
            self.save()?;
        }
        let created = self.create_once(declared, &key).await;
        if created.as_ref().is_err_and(is_definite) {
            self.of.create = None;
            self.save()?;
        }
        self.created(created.map_err(|why| why.to_string())?, declared, file).await
    }

    /// Keeps a new subscription, and writes its secret.
    async fn created(
        &mut self,
        created: Registered,
        declared: &Declared,
        file: Option<SecretFile>,
    ) -> Result<String, String> {
        // First, since the secret file holds its secret: an older one that is left is the one to go.
        self.of.ids.insert(0, created.id.clone());
        let secret = match (self.source.facts().secret, &created.secret) {
            (SecretTold::Never, _) => None,
            (_, Some(secret)) => Some(secret.clone()),
            (SecretTold::Once, None) => None,
            // Found by looking, so its secret was not told.
            (_, None) => {
                self.save()?;
                self.asked_secret(&created, declared).await.map_err(|why| why.to_string())?
            }
        };
        if let Some(file) = file {
            let Some(secret) = secret else {
                self.of.create = None;
                self.save()?;
                return Err("it was created, but its secret was not told: run `hookgate subscriptions apply --recreate`".to_owned());
            };
            self.write(file, &secret)?;
        }
        // Not before the secret is written: until then only the pending create leads to it.
        self.of.create = None;
        self.save()?;
        Ok(created.id)
    }

    /// Creates a subscription, however often it has to be asked.
    async fn create_once(&mut self, declared: &Declared, key: &str) -> Result<Registered, ApiError> {
        let (api, facts) = (self.source.client.api(), self.source.facts());
        let mut attempts = Attempts::default();
        loop {
            let failed: Failed = match api.create(declared, key).await {
                Ok(created) => return Ok(created),
                Err(failed) => failed,
            };
            attempts.wait(failed).await?;
            if facts.repeats_creates {
                continue;
            }
            let found = api.list(&self.of.ids).await?;
            let is_new = |one: &Registered| plan::is_created(one, declared) && !self.of.ids.contains(&one.id);
            if let Some(created) = found.into_iter().find(is_new) {
                return Ok(created);
            }
        }
    }

    async fn update(
        &mut self,
        one: Registered,
        declared: &Declared,
        secret: SecretFlaw,
        is_drift: bool,
    ) -> Result<(), String> {
        let told = self.source.facts().secret;
        if secret != SecretFlaw::None && told == SecretTold::Once {
            if is_drift {
                self.source.client.api().update(&one, declared).await.map_err(|why| why.to_string())?;
            }
            return Err(format!(
                "{}; the provider shows a secret once: run `hookgate subscriptions apply --recreate` to replace the \
                 subscription by one with a new secret",
                match secret {
                    SecretFlaw::Missing => "the secret file is missing",
                    _ => "the secret file holds another text than the one that was written",
                }
            ));
        }
        // Basiq answers an update with the secret.
        let file =
            if told == SecretTold::OnWrite || secret != SecretFlaw::None { self.reserve()? } else { None };
        let updated = if is_drift || told == SecretTold::OnWrite {
            self.source.client.api().update(&one, declared).await.map_err(|why| why.to_string())?
        } else {
            one.clone()
        };
        self.of.add(&one.id);
        match (updated.secret.or(one.secret), file) {
            (Some(secret), Some(file)) if plan::needs_writing(self.source, &secret) => {
                self.write(file, &secret)?
            }
            (Some(secret), _) if told != SecretTold::Never && told != SecretTold::Once => {
                self.of.secret = Some(kept::digest(&secret));
            }
            (None, Some(_)) if secret != SecretFlaw::None => {
                self.save()?;
                return Err("the provider did not tell the secret in its answer".to_owned());
            }
            _ => {}
        }
        self.save()
    }

    async fn delete(&mut self, one: &Registered) -> Result<(), String> {
        self.source.client.api().delete(one).await.map_err(|why| why.to_string())?;
        self.of.remove(&one.id);
        self.save()
    }

    /// Sends a create again whose answer was lost, under its idempotency key.
    async fn settle_pending(&mut self, out: &mut dyn FnMut(Line)) -> Result<(), Line> {
        let Some(pending) = self.of.create.clone() else { return Ok(()) };
        let detail = json!({ "url": pending.url, "events": pending.events, "answer": "lost before" });
        let line = |id, error| Line { action: Action::Create, id, detail, error };
        // The kept URL has no path token, so the current one takes its place.
        let Some(url) = self.source.with_token(&pending.url) else {
            let why = "its URL had a path token, and the source has none now: set path_token as it was, and apply again";
            return Err(line(None, Some(why.to_owned())));
        };
        let declared = Declared {
            scope: None,
            url,
            events: pending.events.clone(),
            name: self.source.name.clone(),
            description: self.source.description.clone(),
        };
        let file = match self.reserve() {
            Ok(file) => file,
            Err(why) => return Err(line(None, Some(why))),
        };
        let done = match self.create_once(&declared, &pending.key).await {
            // It never took effect, so the plan begins anew.
            Err(why) if is_definite(&why) => {
                self.of.create = None;
                return self.save().map_err(|why| line(None, Some(why)));
            }
            Err(why) => Err(why.to_string()),
            Ok(created) => self.created(created, &declared, file).await,
        };
        match done {
            Ok(id) => {
                out(line(Some(id), None));
                Ok(())
            }
            Err(why) => Err(line(None, Some(self.source.hidden.hide(&why)))),
        }
    }

    /// The secret of a subscription that was found, not created now.
    async fn asked_secret(&self, one: &Registered, declared: &Declared) -> Result<Option<Secret>, ApiError> {
        let api = self.source.client.api();
        if let Some(secret) = api.secret(one).await? {
            return Ok(Some(secret));
        }
        Ok(api.update(one, declared).await?.secret)
    }

    /// Makes sure that the secret file can be written.
    fn reserve(&self) -> Result<Option<SecretFile>, String> {
        match &self.source.secret_file {
            Some(path) if self.source.facts().secret != SecretTold::Never => {
                SecretFile::reserve(path).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn write(&mut self, file: SecretFile, secret: &Secret) -> Result<(), String> {
        file.write(secret)?;
        self.of.secret = Some(kept::digest(secret));
        Ok(())
    }
}

/// Whether the provider refused the create itself. A refused key says nothing of an attempt before whose answer was lost.
fn is_definite(why: &ApiError) -> bool {
    matches!(why, ApiError::Refused { .. })
}
