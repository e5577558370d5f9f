//! Opens what a provider's API knows of events that never arrived.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::api::{ApiError, Client, Kind, Message, NextPage, Registered};
use super::catch_up::{
    Answer, CatchUp, FailedEvent, FailedEvents, LogError, LoggedMessage, MessageLog, Nonces, OpenError,
    SubscriptionNonce,
};
use super::kept::Kept;
use super::source::SourceSubscription;
use crate::base::clock::Clock;
use crate::config::{Config, Source};
use crate::event::time;
use crate::net::tls::client;
use crate::provider::Catalog;

/// Opens what the source's provider offers, for the time from `since` up to `until`.
///
/// # Errors
/// When the source declares no subscription, its provider offers nothing or has no webhook of ours, or its API fails.
pub async fn open(
    config: &Config,
    source: &Source,
    since: Timestamp,
    until: Timestamp,
) -> Result<CatchUp, OpenError> {
    let name = &source.name.value;
    let unusable = |why: String| OpenError::Log(LogError(why));
    let catalog = Catalog::of(&config.providers, &mut Vec::new());
    let can_reconcile =
        catalog.by_name(&source.provider.value).and_then(Kind::of).is_some_and(Kind::can_reconcile);
    if !can_reconcile {
        return Err(OpenError::Unsupported(source.provider.value.clone()));
    }
    let tls = Arc::new(client::of_system_or_none().map_err(unusable)?);
    let opened = SourceSubscription::open(config, source, &catalog, &tls, &Clock::System);
    let opened = opened.map_err(|why| unusable(why.to_string()))?;
    let log = Log { source: opened.ok_or_else(|| OpenError::NoSubscription(name.clone()))? };
    let kept = Kept::read(&config.data_dir).map_err(|why| unusable(why.to_string()))?;
    let ids = kept.source(&log.source.name, &log.source.base).ids;
    let ours = log.ours(&ids).await?;
    if ours.is_empty() {
        return Err(OpenError::NoWebhook(name.clone()));
    }
    Ok(match &log.source.client {
        Client::Basiq(basiq) => {
            let pages =
                ours.iter().map(|one| (one.id.clone(), basiq.first_page(&one.id, (since, until)))).collect();
            CatchUp::Messages(Box::new(Messages { log, pages, read: HashSet::new(), webhooks: Vec::new() }))
        }
        Client::Iof(_) => {
            let endpoints = ours.into_iter().map(|one| one.id).collect();
            CatchUp::Retry(Box::new(Failures { log, endpoints, seen: HashSet::new(), time: (since, until) }))
        }
        Client::Securitize(_) => CatchUp::Nonces(Box::new(Counters { log, ids })),
        Client::Anduin(_) | Client::Atelio(_) => {
            return Err(OpenError::Unsupported(source.provider.value.clone()));
        }
    })
}

/// A source's log.
struct Log {
    source: SourceSubscription,
}

impl Log {
    fn failed(&self, why: &ApiError) -> LogError {
        LogError(self.source.hidden.hide(&why.to_string()))
    }

    async fn ours(&self, ids: &[String]) -> Result<Vec<Registered>, LogError> {
        let mut found = self.source.client.api().list(ids).await.map_err(|why| self.failed(&why))?;
        found.retain(|one| one.url == self.source.url || ids.contains(&one.id));
        Ok(found)
    }
}

/// Basiq's messages.
struct Messages {
    log: Log,
    /// The pages to read, the next one last.
    pages: Vec<(String, NextPage)>,
    /// The URLs of those that were read.
    read: HashSet<String>,
    /// The webhook of each message that was read.
    webhooks: Vec<(String, String)>,
}

impl MessageLog for Messages {
    fn next_page(&mut self) -> Answer<'_, Option<Vec<LoggedMessage>>> {
        Box::pin(async {
            let Client::Basiq(basiq) = &self.log.source.client else { return Ok(None) };
            let Some((webhook, mut page)) = self.pages.pop() else { return Ok(None) };
            self.read.insert(page.url().to_owned());
            let (messages, next) = basiq.messages(&mut page).await.map_err(|why| self.log.failed(&why))?;
            if let Some(next) = next {
                let is_known = self.read.contains(next.url());
                if (is_known && !messages.is_empty()) || self.read.len() >= MAX_PAGES {
                    return Err(LogError("the provider's list of messages does not end".to_owned()));
                }
                if !is_known {
                    self.pages.push((webhook.clone(), next));
                }
            }
            self.webhooks = messages.iter().map(|message| (message.id.clone(), webhook.clone())).collect();
            let mut logged = Vec::with_capacity(messages.len());
            for Message { id, payload } in messages {
                let payload = match payload {
                    Some(payload) => Some(payload),
                    None => basiq.payload(&webhook, &id).await.map_err(|why| self.log.failed(&why))?,
                };
                logged.push(LoggedMessage::new(id, payload.unwrap_or_default()));
            }
            Ok(Some(logged))
        })
    }

    fn first_attempt<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Timestamp>> {
        Box::pin(async move {
            let Client::Basiq(basiq) = &self.log.source.client else { return Ok(None) };
            let webhook = self.webhooks.iter().find(|(message, _)| message == id);
            let Some((_, webhook)) = webhook else { return Ok(None) };
            match basiq.first_attempt(webhook, id).await {
                Ok(first) => Ok(first),
                Err(ApiError::NotFound(_)) => Ok(None),
                Err(why) => Err(self.log.failed(&why)),
            }
        })
    }
}

/// IOF's failed events.
struct Failures {
    log: Log,
    endpoints: Vec<String>,
    /// The events that were read.
    seen: HashSet<String>,
    time: (Timestamp, Timestamp),
}

impl FailedEvents for Failures {
    fn next_page(&mut self) -> Answer<'_, Option<Vec<FailedEvent>>> {
        Box::pin(async {
            let Client::Iof(iof) = &self.log.source.client else { return Ok(None) };
            let Some(endpoint) = self.endpoints.pop() else { return Ok(None) };
            let mut failed = iof.failed_events(&endpoint).await.map_err(|why| self.log.failed(&why))?;
            failed.retain(|event| self.seen.insert(event.id.clone()));
            // The documents name no pages for this list. Events that are retried leave it, and later ones come up.
            if !failed.is_empty() {
                self.endpoints.push(endpoint);
            }
            let (since, until) = self.time;
            // An event whose time cannot be read may belong to it.
            let within = |created: Option<&String>| {
                let at: Option<Timestamp> = created.and_then(|text| time::utc(text)?.parse().ok());
                at.is_none_or(|at| since <= at && at < until)
            };
            let failed = failed.into_iter().filter(|event| within(event.created.as_ref()));
            Ok(Some(failed.map(|event| FailedEvent { id: event.id, kind: event.kind }).collect()))
        })
    }

    fn retry<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let Client::Iof(iof) = &self.log.source.client else { return Ok(()) };
            iof.retry(id).await.map_err(|why| self.log.failed(&why))
        })
    }
}

/// Securitize's counters.
struct Counters {
    log: Log,
    ids: Vec<String>,
}

impl Nonces for Counters {
    fn read(&mut self) -> Answer<'_, Vec<SubscriptionNonce>> {
        Box::pin(async {
            let ours = self.log.ours(&self.ids).await?.into_iter();
            let counter = |one: Registered| {
                let missing =
                    || LogError(format!("the provider tells no nonce of the subscription {}", one.id));
                Ok(SubscriptionNonce {
                    nonce: one.nonce.ok_or_else(missing)?,
                    subscription: one.id,
                    kind: one.events.into_iter().next().unwrap_or_default(),
                })
            };
            ours.map(counter).collect()
        })
    }
}

/// Half a million messages.
const MAX_PAGES: usize = 1000;
