//! Compares what a source declares with what its provider has.
//!
//! Keeps true: ours is a subscription whose URL is the declared one, or whose id is kept. Of others, only those under
//! `edge.public_url` are touched, on request, and only if no source has their URL or keeps their id. A plan reads and
//! changes nothing.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::api::{ApiError, Declared, Kind, Registered, SecretTold, State};
use super::kept::{self, KeptSource};
use super::owned::Owned;
use super::source::{SourceSubscription, read_secret};
use crate::config::secret::Secret;
use crate::event::type_pattern;

/// What the command asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether subscriptions under `edge.public_url` that no source declares are deleted.
    pub prune: bool,
    /// Whether a subscription whose secret cannot be read again is replaced.
    pub recreate: bool,
    /// Whether secret files are compared.
    pub secrets: bool,
}

/// What is to be done about one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The provider lacks it.
    Create,
    /// It differs.
    Update,
    /// It is to go.
    Delete,
    /// It is as declared.
    None,
}

impl Action {
    /// The action's word.
    pub fn label(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::None => "none",
        }
    }
}

/// A step of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// What the provider has. None for a create.
    pub registered: Option<Registered>,
    /// What it should have. None for a delete.
    pub declared: Option<Declared>,
    /// Whether the provider's side differs, and not only the secret file.
    pub is_drift: bool,
    /// What to do about the secret file.
    pub secret: SecretFlaw,
    /// Whether it deletes what may deliver in place of one that another step makes or changes.
    pub replaces: bool,
    /// What a person reads, without path tokens.
    pub detail: Value,
}

/// What is wrong with a secret file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFlaw {
    /// Nothing, or the provider has no secrets.
    None,
    /// It is not there.
    Missing,
    /// It holds another secret.
    Differs,
    /// It was never compared, since the provider does not tell the secret.
    Unknown,
}

impl SecretFlaw {
    fn word(self) -> Option<&'static str> {
        match self {
            SecretFlaw::None => None,
            SecretFlaw::Missing => Some("missing"),
            SecretFlaw::Differs => Some("differs"),
            SecretFlaw::Unknown => Some("not compared yet"),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The provider does not offer these.
    #[error("the provider offers no event type {}; `hookgate subscriptions events` lists those that it offers", .0.join(", "))]
    UnknownTypes(Vec<String>),
    /// It is not known which subscriptions are stale.
    #[error("{0}: without it a subscription of that source could be pruned; nothing was changed")]
    UnknownUrl(String),
    /// The API failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// The steps for one source, in the order in which to do them.
///
/// # Errors
/// When a declared type is not offered, the API fails, or it is not known which subscriptions are stale.
pub async fn plan(
    source: &SourceSubscription,
    kept: &KeptSource,
    owned: &Owned,
    options: Options,
) -> Result<Vec<Step>, PlanError> {
    if let Some(why) = owned.unknown.as_ref().filter(|_| options.prune) {
        return Err(PlanError::UnknownUrl(why.clone()));
    }
    let api = source.client.api();
    let declared = declared(source).await?;
    let registered = api.list(&kept.ids).await?;
    let is_ours = |one: &Registered| one.url == source.url || kept.ids.contains(&one.id);
    let (mut ours, others): (Vec<_>, Vec<_>) = registered.into_iter().partition(is_ours);
    let mut steps = Vec::new();
    for declared in &declared {
        match take(&mut ours, declared, source, kept) {
            Some(found) => steps.extend(compare(source, kept, found, declared.clone(), options).await?),
            None => steps.push(create(source, declared.clone())),
        }
    }
    let is_second = |one: &Registered| declared.iter().any(|declared| fits(source, one, declared));
    let mut deletes: Vec<Step> = ours
        .into_iter()
        .map(|one| match is_second(&one) {
            true => Step { replaces: true, ..delete(source, one, "a second one for this source") },
            false => delete(source, one, "not declared"),
        })
        .collect();
    if options.prune {
        let stale = others.into_iter().filter(|one| owned.is_stale(one));
        deletes.extend(stale.map(|one| delete(source, one, "no source has this URL")));
    }
    // A URL and an event type of Basiq belong to one webhook, so another one gives them back first.
    let (mut in_order, after): (Vec<_>, Vec<_>) =
        deletes.into_iter().partition(|one| source.kind == Kind::Basiq && is_in_the_way(one, &steps));
    in_order.append(&mut steps);
    in_order.extend(after);
    Ok(in_order)
}

/// Whether a subscription to be deleted has the URL, or an event, that a step needs for another one.
fn is_in_the_way(delete: &Step, steps: &[Step]) -> bool {
    let url = |of: &Step| of.registered.as_ref().map(|registered| registered.url.clone());
    let has = |of: &Option<Registered>, event: &String| {
        of.as_ref().is_some_and(|registered| registered.events.contains(event))
    };
    steps.iter().any(|step| {
        let has_url = step.declared.as_ref().map(|declared| &declared.url) == url(delete).as_ref();
        let mut needed = step.declared.iter().flat_map(|declared| &declared.events);
        has_url || needed.any(|event| has(&delete.registered, event) && !has(&step.registered, event))
    })
}

/// What the provider should have, its wildcards expanded.
async fn declared(source: &SourceSubscription) -> Result<Vec<Declared>, PlanError> {
    if source.patterns.is_empty() {
        return Ok(Vec::new());
    }
    let (offered, is_its_own) = match source.client.api().types().await? {
        Some(offered) => (offered, true),
        None => (known_types(source), false),
    };
    source.declared(&offered, is_its_own).map_err(PlanError::UnknownTypes)
}

/// The types that hookgate knows of a provider whose API lists none.
pub fn known_types(source: &SourceSubscription) -> Vec<String> {
    let all = source.provider.types.unwrap_or_default().iter().map(|(kind, _)| (*kind).to_owned());
    // The types of Anduin's current system have dots, and its API is not this one.
    all.filter(|kind| source.kind != Kind::Anduin || !kind.contains('.')).collect()
}

/// Takes the subscription out of `ours` that is to become the declared one: the first kept one, else one with its URL. At
/// Basiq one with its URL comes first.
fn take(
    ours: &mut Vec<Registered>,
    declared: &Declared,
    source: &SourceSubscription,
    kept: &KeptSource,
) -> Option<Registered> {
    let rank = |one: &Registered| {
        let kept_at = kept.ids.iter().position(|id| *id == one.id).unwrap_or(usize::MAX);
        // At Basiq a URL has one webhook, and an update tells its secret.
        let is_elsewhere = one.url != declared.url;
        (source.kind == Kind::Basiq && is_elsewhere, kept_at, is_elsewhere)
    };
    let (at, _) = ours
        .iter()
        .enumerate()
        .filter(|(_, one)| fits(source, one, declared))
        .min_by_key(|(at, one)| (rank(one), *at))?;
    Some(ours.remove(at))
}

/// Whether a subscription can become the declared one.
fn fits(source: &SourceSubscription, one: &Registered, declared: &Declared) -> bool {
    one.scope == declared.scope && (!source.facts().one_type_each || one.events == declared.events)
}

/// The step for a subscription that is there. Two where it is replaced.
async fn compare(
    source: &SourceSubscription,
    kept: &KeptSource,
    registered: Registered,
    declared: Declared,
    options: Options,
) -> Result<Vec<Step>, PlanError> {
    let mut detail = Map::new();
    let hide = |url: &str| source.hidden.hide(url);
    if registered.url != declared.url {
        detail.insert("url".to_owned(), json!({ "from": hide(&registered.url), "to": hide(&declared.url) }));
    }
    if !agree(&registered.events, &declared.events, source.facts().takes_patterns) {
        detail.insert("events".to_owned(), json!({ "from": registered.events, "to": declared.events }));
    }
    if registered.state == State::Disabled {
        detail.insert("active".to_owned(), json!({ "from": false, "to": true }));
    }
    if let Some(description) = registered.description.as_ref().filter(|told| **told != declared.description) {
        detail.insert("description".to_owned(), json!({ "from": description, "to": declared.description }));
    }
    let is_drift = !detail.is_empty();
    let secret =
        if options.secrets { secret_flaw(source, kept, &registered).await? } else { SecretFlaw::None };
    if let Some(word) = secret.word() {
        detail.insert("secret".to_owned(), word.into());
    }
    let action = if detail.is_empty() { Action::None } else { Action::Update };
    if let Some(scope) = &declared.scope {
        detail.insert(source.facts().scope.unwrap_or("scope").to_owned(), scope.clone().into());
    }
    if action == Action::None {
        detail.insert("url".to_owned(), hide(&registered.url).into());
        detail.insert("events".to_owned(), json!(registered.events));
    }
    let is_replaced =
        options.recreate && secret != SecretFlaw::None && source.facts().secret == SecretTold::Once;
    if is_replaced {
        let old = delete(source, registered, "replaced, for its secret");
        return Ok(vec![create(source, declared), Step { replaces: true, ..old }]);
    }
    let detail = Value::Object(detail);
    Ok(vec![Step {
        action,
        registered: Some(registered),
        declared: Some(declared),
        is_drift,
        secret,
        replaces: false,
        detail,
    }])
}

/// Whether the secret file holds the subscription's secret.
async fn secret_flaw(
    source: &SourceSubscription,
    kept: &KeptSource,
    registered: &Registered,
) -> Result<SecretFlaw, ApiError> {
    let Some(path) = source.secret_file.as_ref().filter(|_| source.facts().secret != SecretTold::Never)
    else {
        return Ok(SecretFlaw::None);
    };
    let Some(written) = read_secret(path) else { return Ok(SecretFlaw::Missing) };
    let told = match source.facts().secret {
        // A later answer may hold another text in the secret's place.
        SecretTold::Once | SecretTold::Never => None,
        SecretTold::Always | SecretTold::OnWrite => source.client.api().secret(registered).await?,
    };
    let same = |same: bool| if same { SecretFlaw::None } else { SecretFlaw::Differs };
    Ok(match (told, &kept.secret) {
        (Some(told), _) => same(told == written),
        (None, Some(digest)) => same(*digest == kept::digest(&written)),
        // A file that was there before the first `apply` is compared by asking for the secret.
        (None, None) => SecretFlaw::Unknown,
    })
}

fn create(source: &SourceSubscription, declared: Declared) -> Step {
    let mut detail = json!({ "url": source.hidden.hide(&declared.url), "events": declared.events });
    if let (Some(name), Some(scope)) = (source.facts().scope, &declared.scope) {
        detail[name] = scope.clone().into();
    }
    Step {
        action: Action::Create,
        registered: None,
        declared: Some(declared),
        is_drift: true,
        secret: SecretFlaw::Missing,
        replaces: false,
        detail,
    }
}

fn delete(source: &SourceSubscription, registered: Registered, why: &str) -> Step {
    let mut detail =
        json!({ "url": source.hidden.hide(&registered.url), "events": registered.events, "why": why });
    if let (Some(name), Some(scope)) = (source.facts().scope, &registered.scope) {
        detail[name] = scope.clone().into();
    }
    Step {
        action: Action::Delete,
        registered: Some(registered),
        declared: None,
        is_drift: true,
        secret: SecretFlaw::None,
        replaces: false,
        detail,
    }
}

/// Whether a provider's events are the declared ones. One that takes patterns may answer with the types that fit them.
fn agree(registered: &[String], declared: &[String], takes_patterns: bool) -> bool {
    let set = |events: &[String]| events.iter().cloned().collect::<BTreeSet<String>>();
    if set(registered) == set(declared) {
        return true;
    }
    let fits = |kind: &String| declared.iter().any(|pattern| type_pattern::fits(pattern, kind));
    let is_met = |pattern: &String| registered.iter().any(|kind| type_pattern::fits(pattern, kind));
    takes_patterns && registered.iter().all(fits) && declared.iter().all(is_met)
}

/// Whether the answer of a create is this declared subscription: how a lost answer is found again.
pub fn is_created(registered: &Registered, declared: &Declared) -> bool {
    registered.url == declared.url
        && registered.scope == declared.scope
        && agree(&registered.events, &declared.events, false)
}

/// Whether a secret file needs to be written with this secret.
pub fn needs_writing(source: &SourceSubscription, secret: &Secret) -> bool {
    source.secret_file.as_ref().is_some_and(|path| read_secret(path).as_ref() != Some(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expanded_patterns_agree_when_each_fits_the_other() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let agrees = |registered: &[&str], declared: &[&str]| agree(&list(registered), &list(declared), true);
        assert!(agrees(&["card.created", "card.closed"], &["card.*"]));
        assert!(agrees(&["b", "a"], &["a", "b"]));
        assert!(!agrees(&["card.created", "kyc.verified"], &["card.*"]), "a type that no pattern stands for");
        assert!(!agrees(&["card.created"], &["card.*", "kyc.*"]), "a pattern that stands for nothing");
        assert!(!agree(&list(&["card.created"]), &list(&["card.*"]), false));
    }
}
