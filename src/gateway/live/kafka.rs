//! Checks Kafka: every topic exists, keeps every record, and acknowledges a record only once more than one broker has
//! it.
//!
//! Keeps true: a check creates no topic. Settings that cannot be read are a finding.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::{CONNECT, Finding, MIN_RETENTION, Setting, human_duration, listed};
use crate::config::secret::Secret;
use crate::durable::broker::kafka::reasons::Reasons;
use crate::durable::broker::kafka::{self, no_topic};

type Client = AdminClient<Reasons>;

/// Checks these topics.
pub(super) async fn check(url: &Secret, topics: &BTreeSet<String>) -> Vec<Finding> {
    let unreachable = |what: &str| vec![Finding::new(Setting::QueueUnreachable, format!("Kafka {what}"))];
    let servers = match kafka::servers(url) {
        Ok(servers) => servers,
        Err(why) => return unreachable(why),
    };
    let reasons = Reasons::new(|_| {});
    let last_reason = reasons.clone();
    // The library has only a blocking call for this.
    let connected = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("log_level", "2");
        let client: Client = config.create_with_context(reasons)?;
        let existing = writable_topics(&client)?;
        Ok::<_, KafkaError>((client, existing))
    });
    let Ok(Ok((client, existing))) = connected.await else { return unreachable(last_reason.last()) };
    let mut found = Vec::new();
    let missing: Vec<_> = topics.difference(&existing).collect();
    if !missing.is_empty() {
        found.push(Finding::new(Setting::KafkaTopic, no_topic(&listed(&missing))));
    }
    let present: Vec<_> = topics.intersection(&existing).collect();
    if !present.is_empty() {
        found.extend(check_settings(&client, &present).await);
    }
    found
}

/// The topics that can be written to. Lists all topics, since asking for one by name may create it.
fn writable_topics(client: &Client) -> Result<BTreeSet<String>, KafkaError> {
    let metadata = client.inner().fetch_metadata(None, CONNECT)?;
    let usable = metadata.topics().iter().filter(|topic| topic.error().is_none());
    Ok(usable.map(|topic| topic.name().to_owned()).collect())
}

/// Reads and checks the settings of these topics.
async fn check_settings(client: &Client, topics: &[&String]) -> Vec<Finding> {
    let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(CONNECT));
    let configs = client.describe_configs(&asked, &options).await.unwrap_or_default();
    let mut known = Vec::new();
    let (mut unread, mut denied) = (topics.len(), false);
    for (topic, config) in topics.iter().zip(configs) {
        match config {
            Ok(config) => {
                known.push((topic.as_str(), config));
                unread -= 1;
            }
            Err(why) => {
                denied |= matches!(why, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)
            }
        }
    }
    let mut found = findings(&known);
    if unread > 0 {
        let why = if denied { ": this user may not describe them (DESCRIBE_CONFIGS)" } else { "" };
        let what = format!(
            "the topics' settings cannot be read{why}; whether min.insync.replicas is over 1, and whether cleanup.policy \
             and retention keep every record, is not known"
        );
        found.push(Finding::new(Setting::KafkaUnreadable, what));
    }
    found
}

/// Makes one finding for each unsafe setting, with all topics that have it.
fn findings(topics: &[(&str, ConfigResource)]) -> Vec<Finding> {
    let with = |is_bad: &dyn Fn(&ConfigResource) -> bool| {
        let bad = topics.iter().filter(|(_, config)| is_bad(config)).map(|(topic, _)| *topic);
        let bad: Vec<_> = bad.collect();
        (!bad.is_empty()).then(|| listed(&bad))
    };
    let mut found = Vec::new();
    if let Some(single) = with(&|topic| value(topic, "min.insync.replicas") == Some("1")) {
        let what = format!(
            "min.insync.replicas is 1 at {single}: an acknowledged record is lost with one broker; set 2, with three replicas"
        );
        found.push(Finding::new(Setting::KafkaMinInsync, what));
    }
    if let Some(compacted) = with(&|topic| value(topic, "cleanup.policy").is_some_and(is_compacted)) {
        let what = format!(
            "cleanup.policy is compact at {compacted}: only the last event of each subject is kept; set delete"
        );
        found.push(Finding::new(Setting::KafkaCompaction, what));
    }
    if let Some(short) = with(&|topic| millis(topic, "retention.ms").is_some_and(|kept| kept < MIN_RETENTION))
    {
        let what = format!(
            "retention.ms is under {} at {short}: records are discarded, read or not, and a consumer may be down for longer",
            human_duration(MIN_RETENTION)
        );
        found.push(Finding::new(Setting::KafkaRetention, what));
    }
    if let Some(bounded) = with(&|topic| value(topic, "retention.bytes").is_some_and(|bytes| bytes != "-1")) {
        let what = format!(
            "retention.bytes is set at {bounded}: the oldest records are discarded at that size, read or not"
        );
        found.push(Finding::new(Setting::KafkaRetentionBytes, what));
    }
    found
}

fn value<'a>(topic: &'a ConfigResource, name: &str) -> Option<&'a str> {
    topic.get(name).and_then(|entry| entry.value.as_deref())
}

fn is_compacted(policy: &str) -> bool {
    policy.split(',').any(|policy| policy.trim() == "compact")
}

/// `None` for -1, which means no limit.
fn millis(topic: &ConfigResource, name: &str) -> Option<Duration> {
    value(topic, name)?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    fn topic(settings: &[(&str, &str)]) -> ConfigResource {
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            source: ConfigSource::Default,
            is_read_only: false,
            is_default: true,
            is_sensitive: false,
        };
        ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("hooks".to_owned()),
            entries: settings.iter().map(entry).collect(),
        }
    }

    fn found(settings: &[(&str, &str)]) -> Vec<Setting> {
        findings(&[("hooks", topic(settings))]).iter().map(|found| found.setting).collect()
    }

    #[test]
    fn each_unsafe_setting_of_a_topic_is_found() {
        let safe = [
            ("min.insync.replicas", "2"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
        ];
        assert_eq!(found(&safe), []);
        assert_eq!(found(&[("min.insync.replicas", "10"), ("retention.ms", "-1")]), []);
        for (name, value, setting) in [
            ("min.insync.replicas", "1", Setting::KafkaMinInsync),
            ("cleanup.policy", "compact", Setting::KafkaCompaction),
            ("cleanup.policy", "delete, compact", Setting::KafkaCompaction),
            ("cleanup.policy", "compact,delete", Setting::KafkaCompaction),
            ("retention.ms", "3600000", Setting::KafkaRetention),
            ("retention.bytes", "1073741824", Setting::KafkaRetentionBytes),
        ] {
            assert_eq!(found(&[(name, value)]), [setting], "{name}={value}");
        }
    }
}
