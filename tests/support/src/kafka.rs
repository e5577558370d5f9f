//! The records of a topic in librdkafka's mock cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::Taken;

/// All records of a topic's only partition, in order. A record has no id of its own, so its event's stands in.
pub fn kafka_messages(servers: &str, topic: &str) -> Vec<Taken> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "test");
    let consumer: BaseConsumer = config.create().unwrap();
    let (first, end) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
    let mut partition = TopicPartitionList::new();
    partition.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partition).unwrap();
    let taken = (first..end).map(|_| {
        let message = consumer.poll(PATIENCE).unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = message.headers().unwrap().iter();
        let headers = headers.map(|header| (header.key.to_owned(), text(header.value.unwrap())));
        let body: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let mut headers: BTreeMap<_, _> = headers.collect();
        headers.insert("key".to_owned(), text(message.key().unwrap()));
        Taken {
            id: body["id"].as_str().unwrap().to_owned(),
            name: message.topic().to_owned(),
            headers,
            body: text(message.payload().unwrap()),
        }
    });
    taken.collect()
}

const PATIENCE: Duration = Duration::from_secs(20);
