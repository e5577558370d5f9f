//! Each broker behind the whole gateway: what was answered 200 is in the queue, once, as the protocol's binding says, or is kept
//! for whoever looks after what the broker does not take.
//!
//! Kafka's server is librdkafka's own mock cluster.

use async_nats::jetstream::{self, stream};
use serde_json::Value;
use support::{
    Gateway, Home, Nats, Persistence, Rabbitmq, Redis, Request, STANDARD_SECRET, Taken, atelio, basiq,
    basiq_about, until,
};

/// A gateway before a broker, with two sources of one provider. It traces where it can; no collector is there.
fn over(kind: &str, url: &str) -> Home {
    let home = Home::embedded();
    let home = if cfg!(feature = "otlp") { home.with("tracing.otlp", "http://127.0.0.1:1") } else { home };
    home.with("queue.kind", kind)
        .with("queue.url", url)
        .with("sources.basiq-two.provider", "basiq")
        .with("sources.basiq-two.secrets", vec![STANDARD_SECRET])
}

fn claiming_in(redis: &Redis, home: Home) -> Home {
    home.with("dedupe.store", "redis").with("redis.url", redis.url())
}

/// Delivers one event to both sources of its provider, and a customer's result in two versions, each twice. Tells the ids under
/// which they are accepted.
async fn delivered(home: &Home) -> Vec<String> {
    let gateway = home.serve().await;
    let (one, other) = (atelio("customer", "one"), atelio("customer", "other"));
    let shared = basiq("shared");
    let mut ids = Vec::new();
    for delivery in [&shared, &shared.clone().to("/hooks/basiq-two"), &one, &other] {
        let (status, id) = gateway.deliver(delivery).await.taken();
        assert_eq!(status, "accepted");
        gateway.deliver(delivery).await.assert_duplicate(&id);
        ids.push(id);
    }
    gateway.deliver(&one).await.assert_duplicate(&ids[2]);
    assert_eq!(ids[..2], ["shared", "shared"]);
    assert_eq!(ids[3], ids[2].clone() + &other.conflict_suffix());
    assert_eq!(gateway.metric("hookgate_conflicts_total{source=\"atelio\"}").await, 1.0);
    ids
}

/// Fails unless these messages hold the delivered events, in their order and nothing else.
fn assert_events(messages: &[Taken], ids: &[String]) {
    let schema: Value = serde_json::from_str(hookgate::event::SCHEMA).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let events: Vec<Value> = messages.iter().map(|one| serde_json::from_str(&one.body).unwrap()).collect();
    for (event, message) in events.iter().zip(messages) {
        assert!(schema.is_valid(event), "{event}");
        assert_eq!(message.header("content-type"), "application/cloudevents+json");
        let trace = event.get("traceparent").map_or("", |trace| trace.as_str().unwrap());
        assert_eq!((message.header("traceparent"), trace.is_empty()), (trace, !cfg!(feature = "otlp")));
    }
    assert_eq!(support::ids(&events), ids);
    let of = |attribute: &str| events.iter().map(|event| event[attribute].clone()).collect::<Vec<_>>();
    assert_eq!(of("source"), ["/hooks/basiq", "/hooks/basiq-two", "/hooks/atelio", "/hooks/atelio"]);
    assert_eq!(of("conflict"), [Value::Null, Value::Null, Value::Null, true.into()]);
    assert_eq!(of("type"), TYPES);
}

/// What tells messages apart, for a broker that drops a second copy: an id that two sources share does not.
fn assert_message_ids(messages: &[Taken], ids: &[String]) {
    let told: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(told, ["basiq/shared", "basiq-two/shared", &ids[2], &ids[3]]);
}

fn names(messages: &[Taken]) -> Vec<&str> {
    messages.iter().map(|message| message.name.as_str()).collect()
}

async fn spooled(gateway: &Gateway) -> f64 {
    gateway.metric("hookgate_spool_events").await
}

/// Delivers what the broker never takes; it is answered 200, and ends as a dead letter. Tells why.
async fn dies(home: &Home, gateway: &Gateway, delivery: &Request, id: &str) -> String {
    gateway.deliver(delivery).await.assert_accepted(id);
    let died = "hookgate_spool_dead_total{source=\"basiq\"}";
    until("it is dead", async || gateway.metric(died).await == 1.0).await;
    assert_eq!(spooled(gateway).await, 0.0);
    let letters = home.lines(&["events", "dead", "list", "--json"]);
    assert_eq!(support::ids(&letters), [id]);
    assert_eq!((&letters[0]["source"], &letters[0]["type"]), (&"basiq".into(), &"user.created".into()));
    letters[0]["why"].as_str().unwrap().to_owned()
}

/// Sends the dead letter back, and waits until the broker has it.
async fn lives(home: &Home, gateway: &Gateway, delivery: &Request, id: &str) {
    let confirmed = async || {
        let of = |queue: &'static str| async move {
            gateway.metric(&format!("hookgate_enqueue_batch_events_count{{queue=\"{queue}\"}}")).await
        };
        of("nats").await + of("amqp").await
    };
    let before = confirmed().await;
    let told = home.lines(&["events", "dead", "retry", "--all", "--json"]);
    assert_eq!(told[0]["retried"], 1);
    until("it is in the queue", async || confirmed().await > before).await;
    assert!(home.lines(&["events", "dead", "list", "--json"]).is_empty());
    // While the spool is on its way out, what the queue has is not known; it does not get there twice.
    assert_eq!(gateway.deliver(delivery).await.taken().1, id);
    until("it is drained", async || spooled(gateway).await == 0.0).await;
}

#[tokio::test]
async fn nats_gets_each_event_once() {
    let (nats, redis) = (Nats::start().await, Redis::start(Persistence::Off).await);
    nats.create_stream("PLAIN", &["hookgate.events"]).await;
    let ids = delivered(&over("nats", &nats.url())).await;
    let messages = nats.messages("PLAIN").await;
    assert_events(&messages, &ids);
    assert_message_ids(&messages, &ids);
    assert_eq!(names(&messages), ["hookgate.events"; 4]);

    nats.create_stream("BY_TYPE", &["hooks.>"]).await;
    let home = claiming_in(&redis, over("nats", &nats.url())).with("queue.name", "hooks.{provider}.{type}");
    let ids = delivered(&home).await;
    let messages = nats.messages("BY_TYPE").await;
    assert_events(&messages, &ids);
    assert_message_ids(&messages, &ids);
    let of = |provider: &str, kind: &str| format!("hooks.{provider}.{kind}");
    let (basiq, atelio) = (of("basiq", TYPES[0]), of("atelio", TYPES[2]));
    assert_eq!(names(&messages), [&basiq, &basiq, &atelio, &atelio]);
}

/// Down, and told: with one subject and with one a type.
#[tokio::test]
async fn a_broker_without_a_place_for_events_is_down() {
    for name in ["hookgate.events", "hookgate.{type}"] {
        let nats = Nats::start().await;
        let home = over("nats", &nats.url()).with("queue.name", name).with("spool.enabled", true);
        let gateway = home.serve().await;
        let missing = name.replace("{type}", "");
        let why = async || gateway.readiness().await["queue_detail"].as_str().unwrap_or_default().to_owned();
        until("the place is missed", async || why().await.contains("no JetStream stream takes")).await;
        assert!(why().await.contains(&missing), "{}", why().await);
        let up = async || gateway.metric("hookgate_queue_up{queue=\"nats\"}").await;
        let held = "events go to the spool";
        gateway.deliver(&basiq("one")).await.assert_accepted("one");
        until("it is in the spool", async || gateway.log().contains(held)).await;
        assert_eq!((up().await, &gateway.readiness().await["queue"]), (0.0, &"down".into()));
        let said = gateway.log();
        assert!(!said.contains("the broker takes messages"), "{said}");
        let told = |line: &&str| line.contains("the broker takes no messages") && line.contains(&missing);
        assert!(said.lines().any(|line| told(&line)), "{said}");
        assert!(said.contains("\"queue\":\"nats\""), "the config's word: {said}");
        let unsafe_setting = "hookgate_unsafe_settings{setting=\"nats_stream\"}";
        until("the setting is told", async || gateway.metric(unsafe_setting).await == 1.0).await;

        nats.create_stream("HOOKS", &["hookgate.>"]).await;
        until("it is up", async || up().await == 1.0).await;
        until("it is drained", async || spooled(&gateway).await == 0.0).await;
        assert_eq!(gateway.readiness().await.get("queue_detail"), None);
        assert_eq!(nats.messages("HOOKS").await[0].id, "basiq/one");
    }
}

/// Full, not up and not down, and told: with one subject and with one a type.
#[tokio::test]
async fn a_stream_of_nats_without_room_is_full() {
    for name in ["hookgate.events", "hookgate.{type}"] {
        let nats = Nats::start().await;
        let subjects = vec!["hookgate.>".to_owned()];
        let (max_messages, discard) = (2, stream::DiscardPolicy::New);
        let full = stream::Config {
            name: "HOOKS".to_owned(),
            subjects,
            max_messages,
            discard,
            ..Default::default()
        };
        nats.create(full.clone()).await;
        let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        for _ in 0..2 {
            jetstream.publish("hookgate.before", "{}".into()).await.unwrap().await.unwrap();
        }
        let home = over("nats", &nats.url()).with("queue.name", name).with("spool.enabled", true);
        let gateway = home.serve().await;
        let of = async |metric: &str| gateway.metric(&format!("{metric}{{queue=\"nats\"}}")).await;
        gateway.deliver(&basiq("one")).await.assert_accepted("one");
        until("it is full", async || of("hookgate_queue_full").await == 1.0).await;
        let readiness = gateway.readiness().await;
        assert_eq!((of("hookgate_queue_up").await, &readiness["queue"]), (0.0, &"full".into()));
        let why = readiness["queue_detail"].as_str().unwrap_or_default();
        assert!(why.contains("maximum messages exceeded") && why.contains("max_msgs"), "{why}");
        let told =
            |line: &str| line.contains("the broker has no room for messages") && line.contains("hookgate.");
        assert!(gateway.log().lines().any(told), "{}", gateway.log());

        jetstream.update_stream(stream::Config { max_messages: -1, ..full }).await.unwrap();
        until("it is up", async || of("hookgate_queue_up").await == 1.0).await;
        until("it is drained", async || spooled(&gateway).await == 0.0).await;
        assert_eq!(
            (of("hookgate_queue_full").await, &gateway.readiness().await["queue"]),
            (0.0, &"up".into())
        );
        assert_eq!(nats.messages("HOOKS").await[2].id, "basiq/one");
    }
}

#[tokio::test]
async fn what_a_stream_of_nats_does_not_take_waits_for_its_limit_to_be_raised() {
    let nats = Nats::start().await;
    let (name, subjects) = ("HOOKS".to_owned(), vec!["hookgate.events".to_owned()]);
    let small = stream::Config { name, subjects, max_message_size: 4096, ..Default::default() };
    nats.create(small.clone()).await;
    let home = over("nats", &nats.url()).with("spool.enabled", true);
    let gateway = home.serve().await;
    let large = basiq_about("large", &"x".repeat(8000));
    let why = dies(&home, &gateway, &large, "large").await;
    assert!(why.contains("never take"), "{why}");
    gateway.deliver(&large).await.assert_duplicate("large");
    gateway.deliver(&basiq("small")).await.assert_accepted("small");

    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    jetstream.update_stream(stream::Config { max_message_size: -1, ..small }).await.unwrap();
    lives(&home, &gateway, &large, "large").await;
    let stored: Vec<String> = nats.messages("HOOKS").await.into_iter().map(|message| message.id).collect();
    assert_eq!(stored, ["basiq/small", "basiq/large"]);
}

#[tokio::test]
async fn what_is_over_the_max_payload_of_nats_is_kept() {
    let nats = Nats::start().await;
    nats.create_stream("HOOKS", &["hookgate.events"]).await;
    let home = over("nats", &nats.url()).with("spool.enabled", true).with("edge.max_body", "2MiB");
    let gateway = home.serve().await;
    let large = basiq_about("large", &"x".repeat(1_200_000));
    let why = dies(&home, &gateway, &large, "large").await;
    assert!(why.contains("max_payload"), "{why}");
    assert!(nats.messages("HOOKS").await.is_empty());
}

#[tokio::test]
async fn rabbitmq_gets_each_event_once_or_it_is_kept() {
    // One server for all of it: it takes long to start.
    let (rabbitmq, redis) = (Rabbitmq::start().await, Redis::start(Persistence::Off).await);
    let home = || over("amqp", &rabbitmq.url());
    rabbitmq.create_exchange("hookgate.events").await;
    rabbitmq.bind("plain", "hookgate.events", "#").await;
    let ids = delivered(&home()).await;
    let messages = rabbitmq.messages("plain").await;
    assert_events(&messages, &ids);
    assert_message_ids(&messages, &ids);
    assert_eq!(names(&messages), TYPES, "the routing key is the type");
    assert!(messages.iter().all(|message| message.header("delivery-mode") == "2"), "persistent");

    for provider in ["basiq", "atelio"] {
        rabbitmq.create_exchange(&format!("hooks.{provider}")).await;
        rabbitmq.bind("by-provider", &format!("hooks.{provider}"), "#").await;
    }
    let ids = delivered(&claiming_in(&redis, home()).with("queue.name", "hooks.{provider}")).await;
    let messages = rabbitmq.messages("by-provider").await;
    assert_events(&messages, &ids);
    assert_message_ids(&messages, &ids);
    let exchanges: Vec<&str> = messages.iter().map(|message| message.header("exchange")).collect();
    assert_eq!(exchanges, ["hooks.basiq", "hooks.basiq", "hooks.atelio", "hooks.atelio"]);

    too_large_for_rabbitmq(&rabbitmq, home()).await;
    without_a_queue(&rabbitmq, home()).await;
}

async fn too_large_for_rabbitmq(rabbitmq: &Rabbitmq, home: Home) {
    let home = home.with("spool.enabled", true);
    let gateway = home.serve().await;
    let large = basiq_about("large", &"x".repeat(Rabbitmq::MAX_MESSAGE));
    let why = dies(&home, &gateway, &large, "large").await;
    assert!(why.contains("never take"), "{why}");
    gateway.deliver(&basiq("small")).await.assert_accepted("small");
    let stored: Vec<String> = rabbitmq.messages("plain").await.into_iter().map(|one| one.id).collect();
    assert_eq!(stored, ["basiq/small"]);
}

async fn without_a_queue(rabbitmq: &Rabbitmq, home: Home) {
    rabbitmq.create_exchange("unbound").await;
    let home = home.with("spool.enabled", true).with("queue.name", "unbound");
    // Something else goes through, so that it is not the queue as a whole.
    rabbitmq.bind("others", "unbound", "kyc.#").await;
    let gateway = home.serve().await;
    let lost = basiq("lost");
    gateway.deliver(&lost).await.assert_accepted("lost");
    let mut others = 0;
    until("it is dead", async || {
        gateway.deliver(&atelio(&format!("customer-{others}"), "")).await.taken();
        others += 1;
        gateway.metric("hookgate_spool_dead_total{source=\"basiq\"}").await == 1.0
    })
    .await;
    let letters = home.lines(&["events", "dead", "list", "--json"]);
    let why = letters[0]["why"].as_str().unwrap();
    assert!(why.contains("no destination"), "{why}");
    rabbitmq.bind("late", "unbound", "user.#").await;
    lives(&home, &gateway, &lost, "lost").await;
    let stored: Vec<String> = rabbitmq.messages("late").await.into_iter().map(|one| one.id).collect();
    assert_eq!(stored, ["basiq/lost"]);
    // The client library would log what was returned, body and all.
    for line in gateway.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["target"].as_str().unwrap().starts_with("hookgate"), "{line}");
    }
}

const TYPES: [&str; 4] = ["user.created", "user.created", "kyc.verified", "kyc.verified"];

#[cfg(feature = "kafka")]
mod kafka {
    use rdkafka::mocking::MockCluster;
    use support::kafka_messages;

    use super::*;

    #[tokio::test]
    async fn kafka_gets_each_event_once() {
        let (cluster, redis) = (MockCluster::new(1).unwrap(), Redis::start(Persistence::Off).await);
        let (plain, basiq, atelio) =
            ("hookgate.events", "hooks.basiq.user.created", "hooks.atelio.kyc.verified");
        for topic in [plain, basiq, atelio] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let url = cluster.bootstrap_servers();
        let home = || over("kafka", &url);
        let ids = delivered(&home()).await;
        let messages = kafka_messages(&url, plain);
        assert_events(&messages, &ids);
        assert_keys(&messages);

        let home = claiming_in(&redis, home()).with("queue.name", "hooks.{provider}.{type}");
        let ids = delivered(&home).await;
        let messages = [kafka_messages(&url, basiq), kafka_messages(&url, atelio)].concat();
        assert_events(&messages, &ids);
        assert_keys(&messages);
    }

    fn assert_keys(messages: &[Taken]) {
        let keys: Vec<&str> = messages.iter().map(|message| message.header("key")).collect();
        assert_eq!(keys, ["user/user-1", "user/user-1", "customer/customer", "customer/customer"]);
    }
}
