//! Kafka: is there a topic of every name, and must more than one broker have a record?
//!
//! Keeps true: no topic is made by asking for it; what cannot be read is told as such.

use std::collections::BTreeSet;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;

use super::{CONNECT, Finding, Setting, listed};
use crate::broker::kafka;
use crate::secret::Secret;

type Client = AdminClient<DefaultClientContext>;

/// Asks the brokers about these topics.
pub(super) async fn look(url: &Secret, topics: &BTreeSet<String>) -> Vec<Finding> {
    let unreachable = |what: &str| vec![Finding::new(Setting::QueueUnreachable, format!("Kafka {what}"))];
    let servers = match kafka::servers(url) {
        Ok(servers) => servers,
        Err(why) => return unreachable(why),
    };
    // The one call that tells is a blocking one.
    let asked = tokio::task::spawn_blocking(move || {
        let client: Client =
            ClientConfig::new().set("bootstrap.servers", servers).set("log_level", "2").create()?;
        let there = there(&client)?;
        KafkaResult::Ok((client, there))
    });
    let Ok(Ok((client, there))) = asked.await else { return unreachable("cannot be reached") };
    let mut found = Vec::new();
    let missing: Vec<_> = topics.difference(&there).collect();
    if !missing.is_empty() {
        found
            .push(Finding::new(Setting::KafkaTopic, format!("no such topic: {}; make it", listed(&missing))));
    }
    let present: Vec<_> = topics.intersection(&there).collect();
    if !present.is_empty() {
        found.extend(replicas(&client, &present).await);
    }
    found
}

/// The topics that can be written to. Asked of all: to ask for one by name may make it.
fn there(client: &Client) -> KafkaResult<BTreeSet<String>> {
    let metadata = client.inner().fetch_metadata(None, CONNECT)?;
    let usable = metadata.topics().iter().filter(|topic| topic.error().is_none());
    Ok(usable.map(|topic| topic.name().to_owned()).collect())
}

/// Of which of these topics one broker's word is enough.
async fn replicas(client: &Client, topics: &[&String]) -> Option<Finding> {
    let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(CONNECT));
    let configs = client.describe_configs(&asked, &options).await.unwrap_or_default();
    let known = topics.iter().zip(configs).filter_map(|(topic, config)| Some((*topic, config.ok()?)));
    let known: Vec<_> = known.collect();
    if known.len() < topics.len() {
        let what = "the topics' settings cannot be read: whether min.insync.replicas is over 1 is not known";
        return Some(Finding::new(Setting::KafkaUnreadable, what));
    }
    let alone: Vec<_> =
        known.iter().filter(|(_, config)| one_is_enough(config)).map(|(topic, _)| *topic).collect();
    let what = || {
        format!(
            "min.insync.replicas is 1 at {}: an acknowledged record is lost with one broker; set 2, with three replicas",
            listed(&alone)
        )
    };
    (!alone.is_empty()).then(|| Finding::new(Setting::KafkaMinInsync, what()))
}

fn one_is_enough(topic: &ConfigResource) -> bool {
    topic.get("min.insync.replicas").is_some_and(|entry| entry.value.as_deref() == Some("1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    #[test]
    fn one_replica_is_not_enough() {
        let topic = |value: &str| ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("hooks".to_owned()),
            entries: vec![ConfigEntry {
                name: "min.insync.replicas".to_owned(),
                value: Some(value.to_owned()),
                source: ConfigSource::Default,
                is_read_only: false,
                is_default: true,
                is_sensitive: false,
            }],
        };
        assert!(one_is_enough(&topic("1")));
        assert!(!one_is_enough(&topic("2")) && !one_is_enough(&topic("10")));
    }
}
