//! The brokers against real servers: what a publish says of its message is so, however the server fares.
//!
//! Kafka's server is librdkafka's own mock cluster.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream;
use hookgate::base::clock;
use hookgate::base::trace_context::TraceContext;
use hookgate::config::queue_name::{PlaceholderValues, QueueName};
use hookgate::config::secret::Secret;
use hookgate::durable::broker::{Broker, Message, Options, PublishError, Watch, amqp, nats};
use hookgate::event::{Attributes, Event, Payload};
use hookgate::observe::admin::{QueueState, Readiness};
use hookgate::observe::metrics::Metrics;
use support::{Nats, Rabbitmq, Taken, until, within};

/// A broker under test.
struct Published {
    broker: Broker,
    readiness: Arc<Readiness>,
}

impl Published {
    async fn to_nats(url: &str, name: &str) -> Published {
        Published::open(url, name, async |options, watch| {
            Broker::Nats(nats::Nats::open(options, watch).await.unwrap())
        })
        .await
    }

    async fn to_rabbitmq(url: &str, name: &str) -> Published {
        Published::open(url, name, async |options, watch| {
            Broker::Amqp(amqp::Amqp::open(options, watch).await.unwrap())
        })
        .await
    }

    /// Of a template it is not known here what it stands for.
    async fn open(url: &str, name: &str, open: impl AsyncFnOnce(Options, Watch) -> Broker) -> Published {
        let names: &[&str] = if name.contains('{') { &[] } else { &[name] };
        Published::open_for(url, name, names, open).await
    }

    async fn open_for(
        url: &str,
        name: &str,
        names: &[&str],
        open: impl AsyncFnOnce(Options, Watch) -> Broker,
    ) -> Published {
        let options = Options {
            name: QueueName::parse(name).unwrap(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            url: Secret::new(url),
            within: Duration::from_secs(5),
        };
        let readiness = Arc::new(Readiness::default());
        readiness.set_dedupe(true);
        let metrics = Metrics::new().unwrap().queue("test");
        let broker = open(options, Watch { metrics, readiness: readiness.clone() }).await;
        Published { broker, readiness }
    }

    async fn is_up(&self) {
        until("the broker is up", async || self.readiness.ready()).await;
    }

    async fn is_down(&self) {
        until("the broker is down", async || !self.readiness.ready()).await;
    }

    /// Fails unless readiness says this of the broker.
    #[track_caller]
    fn says(&self, what: &str) {
        let why = self.readiness.queue_detail().unwrap_or_default();
        assert!(why.contains(what), "{why}");
    }

    /// Publishes a small event.
    async fn publish(&self, id: &str) -> Result<(), PublishError> {
        self.publish_event(&event(id, "kyc.verified", 0)).await
    }

    /// Publishes within the time that a gateway gives.
    async fn publish_event(&self, event: &Event) -> Result<(), PublishError> {
        let names = PlaceholderValues { provider: "basiq", source: "test", kind: &event.kind };
        let deadline = clock::instant() + DEADLINE;
        let published = self.broker.publish(Message { id: &event.id, names, event }, deadline);
        within(DEADLINE + Duration::from_secs(2), "a publish ends by its deadline", published).await
    }

    /// Publishes until it is confirmed.
    async fn publish_at_last(&self, id: &str) {
        // The output is shown if the wait fails: it tells what was in the way.
        until("a publish is confirmed", async || {
            self.publish(id).await.inspect_err(|why| eprintln!("not yet: {why:?}")).is_ok()
        })
        .await;
    }
}

/// An event with a payload of about so many bytes.
fn event(id: &str, kind: &'static str, size: usize) -> Event {
    let of = Attributes {
        id: id.to_owned(),
        source: &"/hooks/test".into(),
        kind: Cow::Borrowed(kind),
        subject: Some(("user", "7")),
        time: None,
        recorded: Default::default(),
        provider: "basiq",
        sequence: None,
        verified_by: "standard-webhooks",
        trace: Some(TraceContext::root([0xab; 16], [0xcd; 8])),
        event: None,
        tenant: None,
        related: vec![],
        status: None,
        links: &[],
    };
    let payload = format!("{{\"fill\":\"{}\"}}", "x".repeat(size));
    Event::new(of, Payload::Object { text: &payload, bytes: None })
}

fn ids(messages: &[Taken]) -> Vec<&str> {
    messages.iter().map(|message| message.id.as_str()).collect()
}

#[tokio::test]
async fn nats_has_what_it_confirmed_once() {
    let server = Nats::start().await;
    server.create_stream("HOOKS", &["hooks.>"]).await;
    let to = Published::to_nats(&server.url(), "hooks.{provider}.{type}").await;
    to.is_up().await;
    let first = event("first", "kyc.verified", 0);
    assert_eq!(to.publish_event(&first).await, Ok(()));
    assert_eq!(to.publish_event(&first).await, Ok(()), "a duplicate is in the stream");
    assert_eq!(to.publish_event(&event("line\nbreak", "unmapped.a..b", 0)).await, Ok(()));

    let messages = server.messages("HOOKS").await;
    assert_eq!(ids(&messages), ["first", "line%0Abreak"]);
    assert_eq!(messages[0].name, "hooks.basiq.kyc.verified");
    assert_eq!(messages[0].header("content-type"), "application/cloudevents+json");
    assert_eq!(Some(messages[0].header("traceparent")), first.traceparent());
    assert_eq!(messages[0].body, first.json);
    assert_eq!(messages[1].name, "hooks.basiq.unmapped.a._.b");
    to.broker.close().await;
}

#[tokio::test]
async fn nats_dies_and_comes_back() {
    let mut server = Nats::start().await;
    server.create_stream("HOOKS", &["hooks"]).await;
    let to = Published::to_nats(&server.url(), "hooks").await;
    to.is_up().await;
    assert_eq!(to.publish("before").await, Ok(()));

    server.kill9();
    to.is_down().await;
    assert_eq!(to.publish("meanwhile").await, Err(PublishError::Unreachable));
    server.restart().await;
    to.is_up().await;
    to.publish_at_last("after").await;
    assert_eq!(ids(&server.messages("HOOKS").await), ["before", "after"], "nothing waited to go out later");
}

#[tokio::test]
async fn nats_freezes_and_goes_on() {
    let server = Nats::start().await;
    server.create_stream("HOOKS", &["hooks"]).await;
    let to = Published::to_nats(&server.url(), "hooks").await;
    to.is_up().await;

    server.pause();
    assert_eq!(to.publish("into the freeze").await, Err(PublishError::Unknown));
    assert_eq!(to.publish("later").await, Err(PublishError::Unreachable));
    assert!(!to.readiness.ready());
    server.resume();
    to.is_up().await;
    // The first try may have got in when the server went on.
    to.publish_at_last("into the freeze").await;
    assert_eq!(ids(&server.messages("HOOKS").await), ["into the freeze"]);
}

#[tokio::test]
async fn nats_without_a_stream_refuses_until_there_is_one() {
    let server = Nats::start().await;
    let to = Published::to_nats(&server.url(), "hooks").await;
    until("it is connected", async || to.publish("early").await != Err(PublishError::Unreachable)).await;
    assert!(matches!(to.publish("early").await, Err(PublishError::Refused(why)) if why.contains("hooks")));
    assert!(!to.readiness.ready());

    server.create_stream("HOOKS", &["hooks"]).await;
    to.is_up().await;
    assert_eq!(to.publish("late").await, Ok(()));
    assert_eq!(ids(&server.messages("HOOKS").await), ["late"]);
}

/// Nothing is published meanwhile.
#[tokio::test]
async fn nats_is_down_as_soon_as_its_stream_is_gone() {
    let server = Nats::start().await;
    server.create_stream("HOOKS", &["hooks"]).await;
    let to = Published::to_nats(&server.url(), "hooks").await;
    to.is_up().await;
    server.delete_stream("HOOKS").await;
    to.is_down().await;
    to.says("no JetStream stream takes hooks");
    server.create_stream("HOOKS", &["hooks"]).await;
    to.is_up().await;
}

/// Without the right to look at streams, the gateway learns of a missing stream from the answer to a message.
#[tokio::test]
async fn nats_without_a_stream_is_down_for_a_user_who_may_only_publish() {
    let server = Nats::start_with_user("{ publish: [\"hooks\"], subscribe: [\"_INBOX.>\"] }").await;
    let to = Published::to_nats(&server.url_of_gate(), "hooks").await;
    to.is_up().await;
    assert!(matches!(to.publish("early").await, Err(PublishError::Refused(_))));
    assert!(!to.readiness.ready());
    to.says("no JetStream stream takes hooks");
    server.create_stream("HOOKS", &["hooks"]).await;
    to.publish_at_last("late").await;
    assert!(to.readiness.ready());

    let to = Published::to_nats(&server.url_of_gate(), "forbidden").await;
    to.is_up().await;
    assert_eq!(to.publish("never").await, Err(PublishError::Unknown));
    to.says("may not use the subject forbidden");
}

#[tokio::test]
async fn a_template_is_up_while_one_of_its_names_has_a_place() {
    let server = Nats::start().await;
    let names = ["hooks.a", "hooks.b", "hooks.c"];
    let to = Published::open_for(&server.url(), "hooks.{type}", &names, async |options, watch| {
        Broker::Nats(nats::Nats::open(options, watch).await.unwrap())
    })
    .await;
    until("it has looked", async || to.readiness.queue_detail().is_some_and(|why| why.contains("hooks.a")))
        .await;
    to.says("(2 other names have none either)");
    assert!(!to.readiness.ready());
    server.create_stream("SOME", &["hooks.b"]).await;
    to.is_up().await;
    let elsewhere = to.publish_event(&event("1", "c", 0)).await;
    assert!(matches!(elsewhere, Err(PublishError::Unroutable(_))), "{elsewhere:?}");
    assert!(to.readiness.ready(), "that is this event's misfortune");
    assert_eq!(to.publish_event(&event("2", "b", 0)).await, Ok(()));
    to.broker.set_names(&["hooks.c".to_owned()].into());
    to.is_down().await;
}

/// One type's stream has no room, another's has.
#[tokio::test]
async fn a_template_is_up_while_one_of_its_names_has_room() {
    let server = Nats::start().await;
    let (name, subjects) = ("SMALL".to_owned(), vec!["hooks.a".to_owned()]);
    let discard = stream::DiscardPolicy::New;
    let small = stream::Config { name, subjects, max_bytes: 2000, discard, ..Default::default() };
    server.create(small).await;
    server.create_stream("LARGE", &["hooks.b"]).await;
    let to = Published::open_for(
        &server.url(),
        "hooks.{type}",
        &["hooks.a", "hooks.b"],
        async |options, watch| Broker::Nats(nats::Nats::open(options, watch).await.unwrap()),
    )
    .await;
    to.is_up().await;
    let refused = |told: Result<(), PublishError>| matches!(told, Err(PublishError::Refused(_)));
    assert_eq!(to.publish_event(&event("1", "b", 0)).await, Ok(()));
    assert!(refused(to.publish_event(&event("2", "a", 2500)).await));
    assert_eq!(to.readiness.queue(), QueueState::Up, "that is this event's misfortune");

    let to = Published::open_for(
        &server.url(),
        "hooks.{type}",
        &["hooks.a", "hooks.b"],
        async |options, watch| Broker::Nats(nats::Nats::open(options, watch).await.unwrap()),
    )
    .await;
    to.is_up().await;
    assert!(refused(to.publish_event(&event("3", "a", 2500)).await));
    assert_eq!(to.readiness.queue(), QueueState::Full, "nothing has been taken");
    to.says("maximum bytes exceeded");
    assert_eq!(to.publish_event(&event("4", "b", 0)).await, Ok(()));
    assert_eq!(to.readiness.queue(), QueueState::Up);
}

#[tokio::test]
async fn nats_says_why_it_lets_nobody_in() {
    let server = Nats::start_with_user("{}").await;
    let url = server.url_of_gate().replace("gate:pass", "gate:wrong");
    let to = Published::to_nats(&url, "hooks").await;
    until("it is told", async || to.readiness.queue_detail().is_some_and(|why| why.contains("login"))).await;
    to.says("NATS refuses the login");
}

#[tokio::test]
async fn nats_never_takes_what_is_too_large() {
    let server = Nats::start().await;
    let (name, subjects) = ("HOOKS".to_owned(), vec!["hooks".to_owned()]);
    let discard = stream::DiscardPolicy::New;
    server
        .create(stream::Config {
            name,
            subjects,
            max_message_size: 10_000,
            max_messages: 2,
            discard,
            ..Default::default()
        })
        .await;
    let to = Published::to_nats(&server.url(), "hooks").await;
    to.is_up().await;
    let too_large = |why: Result<(), PublishError>| matches!(why, Err(PublishError::Unacceptable(_)));
    assert_eq!(to.publish("a").await, Ok(()));
    assert!(too_large(to.publish_event(&event("over the stream's", "kyc.verified", 20_000)).await));
    assert!(too_large(to.publish_event(&event("over the server's", "kyc.verified", 2 << 20)).await));
    assert_eq!(to.publish("b").await, Ok(()), "the connection is as good as before");
    assert!(matches!(to.publish("c").await, Err(PublishError::Refused(_))), "the stream is full");
    assert_eq!(ids(&server.messages("HOOKS").await), ["a", "b"]);
}

#[tokio::test]
async fn nats_lets_in_who_the_url_says() {
    let url = "nats://127.0.0.1:1,nats://127.0.0.1:2";
    let to = Published::to_nats(url, "hooks").await;
    assert_eq!(to.publish("a").await, Err(PublishError::Unreachable));
    assert!(!to.readiness.ready());
    within(DEADLINE, "it closes without a server", to.broker.close()).await;
}

/// One server, as it takes ten seconds to start.
#[tokio::test]
async fn rabbitmq() {
    let mut server = Rabbitmq::start().await;
    rabbitmq_has_what_it_confirmed(&server).await;
    rabbitmq_returns_what_has_no_queue(&server).await;
    rabbitmq_without_an_exchange_refuses_until_there_is_one(&server).await;
    rabbitmq_without_a_queue_is_down_until_one_is_bound(&server).await;
    rabbitmq_says_what_a_full_queue_said(&server).await;
    rabbitmq_says_why_it_lets_nobody_in(&server).await;
    rabbitmq_never_takes_what_is_too_large(&server).await;
    rabbitmq_keeps_apart_what_goes_side_by_side(&server).await;
    rabbitmq_out_of_memory_refuses(&server).await;
    rabbitmq_freezes_and_goes_on(&server).await;
    rabbitmq_dies_and_comes_back(&mut server).await;
}

async fn rabbitmq_has_what_it_confirmed(server: &Rabbitmq) {
    server.create_exchange("basiq.taken").await;
    server.bind("taken", "basiq.taken", "kyc.#").await;
    let to = Published::to_rabbitmq(&server.url(), "{provider}.taken").await;
    to.is_up().await;
    let first = event("first", "kyc.verified", 0);
    assert_eq!(to.publish_event(&first).await, Ok(()));
    let [message] = &server.messages("taken").await[..] else { panic!("one message") };
    assert_eq!((&*message.id, &*message.name, &message.body), ("first", "kyc.verified", &first.json));
    for (name, value) in [
        ("content-type", "application/cloudevents+json"),
        ("type", "kyc.verified"),
        ("app-id", "hookgate"),
        ("delivery-mode", "2"),
        ("exchange", "basiq.taken"),
        ("traceparent", first.traceparent().unwrap()),
    ] {
        assert_eq!(message.header(name), value, "{name}");
    }
    to.broker.close().await;
}

async fn rabbitmq_returns_what_has_no_queue(server: &Rabbitmq) {
    server.create_exchange("returns").await;
    server.bind("returns", "returns", "kyc.#").await;
    let to = Published::to_rabbitmq(&server.url(), "returns").await;
    to.is_up().await;
    let unbound = event("unbound", "user.created", 0);
    assert!(matches!(to.publish_event(&unbound).await, Err(PublishError::Unroutable(_))));
    assert_eq!(to.publish("bound").await, Ok(()));
    assert_eq!(ids(&server.messages("returns").await), ["bound"]);
}

async fn rabbitmq_without_an_exchange_refuses_until_there_is_one(server: &Rabbitmq) {
    let to = Published::to_rabbitmq(&server.url(), "absent").await;
    until("it is connected", async || to.publish("early").await != Err(PublishError::Unreachable)).await;
    assert!(matches!(to.publish("early").await, Err(PublishError::Refused(why)) if why.contains("absent")));
    assert!(!to.readiness.ready());

    server.create_exchange("absent").await;
    server.bind("absent", "absent", "#").await;
    to.is_up().await;
    assert_eq!(to.publish("late").await, Ok(()));
    assert_eq!(ids(&server.messages("absent").await), ["late"]);

    server.delete_exchange("absent").await;
    assert!(matches!(to.publish("too late").await, Err(PublishError::Refused(_))));
    to.is_down().await;
    to.says("no such exchange: absent");

    // Nothing is published meanwhile.
    server.create_exchange("absent").await;
    to.is_up().await;
    server.delete_exchange("absent").await;
    to.is_down().await;
}

async fn rabbitmq_without_a_queue_is_down_until_one_is_bound(server: &Rabbitmq) {
    server.create_exchange("unbound").await;
    let to = Published::to_rabbitmq(&server.url(), "unbound").await;
    to.is_up().await;
    let unroutable = |told: Result<(), PublishError>| matches!(told, Err(PublishError::Unroutable(_)));
    assert!(unroutable(to.publish("early").await));
    assert!(!to.readiness.ready());
    to.says("no queue is bound to the exchange unbound for the routing key kyc.verified; bind one");
    server.bind("unbound", "unbound", "kyc.#").await;
    assert_eq!(to.publish("late").await, Ok(()));
    assert!(to.readiness.ready());

    let other = event("other", "user.created", 0);
    assert!(unroutable(to.publish_event(&other).await));
    assert!(to.readiness.ready(), "the types that are bound are taken");
    server.delete_queue("unbound").await;
    assert!(unroutable(to.publish("too late").await));
    assert!(!to.readiness.ready());
}

async fn rabbitmq_says_what_a_full_queue_said(server: &Rabbitmq) {
    server.create_exchange("full").await;
    let small = [("x-max-length", "1"), ("x-overflow", "reject-publish")];
    server.bind_with("full", "full", "#", &small).await;
    let to = Published::to_rabbitmq(&server.url(), "full").await;
    to.is_up().await;
    let mut number = 0;
    until("it is full", async || {
        number += 1;
        let told = to.publish(&number.to_string()).await;
        matches!(told, Err(PublishError::Unconfirmed(why)) if why.contains("basic.nack"))
    })
    .await;
    assert!(!to.readiness.ready());
    assert_eq!(to.readiness.queue(), QueueState::Full);
    to.says("a queue bound to the exchange full did not take it");
    server.messages("full").await;
    assert_eq!(to.publish("after").await, Ok(()));
    assert!(to.readiness.ready());
}

async fn rabbitmq_says_why_it_lets_nobody_in(server: &Rabbitmq) {
    for (from, into, says) in [
        ("guest:guest@", "guest:wrong@", "RabbitMQ refuses the login"),
        ("/%2f", "/absent", "RabbitMQ refuses the virtual host"),
    ] {
        let to = Published::to_rabbitmq(&server.url().replace(from, into), "hooks").await;
        until("it is told", async || to.readiness.queue_detail().is_some_and(|why| why.contains(says))).await;
    }
}

async fn rabbitmq_never_takes_what_is_too_large(server: &Rabbitmq) {
    server.create_exchange("large").await;
    server.bind("large", "large", "#").await;
    let to = Published::to_rabbitmq(&server.url(), "large").await;
    to.is_up().await;
    let large = event("large", "kyc.verified", Rabbitmq::MAX_MESSAGE);
    assert!(matches!(to.publish_event(&large).await, Err(PublishError::Unacceptable(_))));
    assert!(to.readiness.ready(), "the connection is as good as before");
    assert_eq!(to.publish("small").await, Ok(()));
    assert_eq!(ids(&server.messages("large").await), ["small"]);
}

/// What is said of one message is not said of another that is in flight with it.
async fn rabbitmq_keeps_apart_what_goes_side_by_side(server: &Rabbitmq) {
    server.create_exchange("kyc.verified").await;
    server.create_exchange("kyc.rejected").await;
    server.bind("apart", "kyc.verified", "#").await;
    let to = Arc::new(Published::to_rabbitmq(&server.url(), "{type}").await);
    to.is_up().await;
    let mut tries = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (to, kind) = (to.clone(), ["kyc.verified", "kyc.rejected", "user.created"][number % 3]);
        tries.spawn(async move { (kind, to.publish_event(&event(&number.to_string(), kind, 0)).await) });
    }
    for (kind, said) in tries.join_all().await {
        match kind {
            "kyc.verified" => assert_eq!(said, Ok(())),
            // Nothing is bound to the one exchange, and the other is not there: no more than these events' own misfortune.
            _ => assert!(matches!(said, Err(PublishError::Unroutable(_))), "{said:?}"),
        }
    }
    assert_eq!(server.messages("apart").await.len(), 67);
}

async fn rabbitmq_out_of_memory_refuses(server: &Rabbitmq) {
    server.create_exchange("memory").await;
    server.bind("memory", "memory", "#").await;
    let to = Published::to_rabbitmq(&server.url(), "memory").await;
    to.is_up().await;
    server.control(&["set_vm_memory_high_watermark", "absolute", "1"]);
    // The broker tells a connection so when that publishes.
    assert_eq!(to.publish("into the alarm").await, Err(PublishError::Unknown));
    to.is_down().await;
    // On a starved machine the connection may be lost meanwhile: the next one is told when it publishes, as this one was.
    let refused = async || matches!(to.publish("meanwhile").await, Err(PublishError::Refused(_)));
    until("publishers are refused", refused).await;
    assert_eq!(to.readiness.queue(), QueueState::Full);
    server.control(&["set_vm_memory_high_watermark", "0.4"]);
    to.is_up().await;
    assert_eq!(to.publish("after").await, Ok(()));
}

async fn rabbitmq_freezes_and_goes_on(server: &Rabbitmq) {
    server.create_exchange("freeze").await;
    server.bind("freeze", "freeze", "#").await;
    let to = Published::to_rabbitmq(&server.url(), "freeze").await;
    to.is_up().await;
    assert_eq!(to.publish("before").await, Ok(()));

    server.pause();
    assert_eq!(to.publish("into the freeze").await, Err(PublishError::Unknown));
    to.is_down().await;
    assert_eq!(to.publish("later").await, Err(PublishError::Unreachable));
    server.resume();
    to.is_up().await;
    to.publish_at_last("after").await;
    let messages = server.messages("freeze").await;
    let taken = ids(&messages);
    assert!(taken.contains(&"before") && taken.contains(&"after") && !taken.contains(&"later"), "{taken:?}");
}

async fn rabbitmq_dies_and_comes_back(server: &mut Rabbitmq) {
    server.create_exchange("death").await;
    server.bind("death", "death", "#").await;
    let to = Published::to_rabbitmq(&server.url(), "death").await;
    to.is_up().await;
    assert_eq!(to.publish("before").await, Ok(()));

    server.kill9();
    to.is_down().await;
    assert_eq!(to.publish("meanwhile").await, Err(PublishError::Unreachable));
    server.restart().await;
    to.is_up().await;
    to.publish_at_last("after").await;
    assert_eq!(ids(&server.messages("death").await), ["before", "after"]);
}

const DEADLINE: Duration = Duration::from_secs(5);

#[cfg(feature = "kafka")]
mod kafka {
    use hookgate::durable::broker::kafka::Kafka;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    fn cluster() -> Cluster {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["hooks", "hooks.kyc.verified"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        cluster
    }

    async fn to(cluster: &Cluster, name: &str) -> Published {
        Published::open(&cluster.bootstrap_servers(), name, async |options, watch| {
            Broker::Kafka(Kafka::open(options, watch).await.unwrap())
        })
        .await
    }

    fn messages(cluster: &Cluster, topic: &str) -> Vec<Taken> {
        support::kafka_messages(&cluster.bootstrap_servers(), topic)
    }

    #[tokio::test]
    async fn kafka_has_what_it_confirmed() {
        let cluster = cluster();
        let to = to(&cluster, "hooks.{type}").await;
        to.is_up().await;
        let first = event("first", "kyc.verified", 0);
        assert_eq!(to.publish_event(&first).await, Ok(()));
        let taken = messages(&cluster, "hooks.kyc.verified");
        assert_eq!(ids(&taken), ["first"]);
        assert_eq!(taken[0].header("key"), "user/7");
        assert_eq!(taken[0].header("content-type"), "application/cloudevents+json");
        assert_eq!(Some(taken[0].header("traceparent")), first.traceparent());
        assert_eq!(taken[0].body, first.json);
        to.broker.close().await;
    }

    #[tokio::test]
    async fn kafka_dies_and_comes_back() {
        let cluster = cluster();
        let to = to(&cluster, "hooks").await;
        to.is_up().await;
        assert_eq!(to.publish("before").await, Ok(()));
        cluster.broker_down(1).unwrap();
        to.is_down().await;
        assert_eq!(to.publish("meanwhile").await, Err(PublishError::Unreachable));
        cluster.broker_up(1).unwrap();
        to.is_up().await;
        to.publish_at_last("after").await;
        assert_eq!(ids(&messages(&cluster, "hooks")), ["before", "after"]);
    }

    #[tokio::test]
    async fn kafka_freezes_and_goes_on() {
        let cluster = cluster();
        let to = to(&cluster, "hooks").await;
        to.is_up().await;
        cluster.broker_round_trip_time(1, Duration::from_secs(60)).unwrap();
        assert_eq!(to.publish("into the freeze").await, Err(PublishError::Unknown));
        to.is_down().await;
        assert_eq!(to.publish("later").await, Err(PublishError::Unreachable));
        cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
        to.is_up().await;
        to.publish_at_last("after").await;
    }

    #[tokio::test]
    async fn kafka_has_no_place_for_what_is_too_large() {
        let cluster = cluster();
        let to = to(&cluster, "hooks").await;
        to.is_up().await;
        let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
        cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
        // It may have been the batch.
        assert!(matches!(to.publish("large").await, Err(PublishError::Unroutable(_))));
        assert_eq!(to.publish("small").await, Ok(()));
        assert_eq!(ids(&messages(&cluster, "hooks")), ["small"]);
    }

    /// A fatal error ends a producer for good, and what it held is of unknown fate.
    #[tokio::test]
    async fn kafka_goes_on_after_a_fatal_error() {
        let cluster = cluster();
        let to = to(&cluster, "hooks").await;
        to.is_up().await;
        assert_eq!(to.publish("before").await, Ok(()));
        let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
        assert!(to.publish("fatal").await.is_err(), "nobody may take it for confirmed");
        // At once, as another producer has taken its place.
        assert_eq!(to.publish("fatal").await, Ok(()));
        assert_eq!(to.publish("after").await, Ok(()));
        let taken = messages(&cluster, "hooks");
        let taken = ids(&taken);
        assert!(["before", "fatal", "after"].iter().all(|id| taken.contains(id)), "{taken:?}");
        to.broker.close().await;
    }

    /// The mock cluster can hide a topic, and cannot delete one. So this shows that records are taken again once the topic is
    /// back; it passes without a new producer too.
    #[tokio::test]
    async fn kafka_goes_on_when_its_topic_is_back() {
        let cluster = cluster();
        let to = to(&cluster, "hooks").await;
        to.is_up().await;
        assert_eq!(to.publish("before").await, Ok(()));
        let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.topic_error("hooks", unknown).unwrap();
        to.is_down().await;
        to.says("no such topic: hooks");
        until("it refuses", async || matches!(to.publish("meanwhile").await, Err(PublishError::Refused(_))))
            .await;
        cluster.topic_error("hooks", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
        to.is_up().await;
        // No second try: librdkafka waits for its next look at a topic that it knows to be away.
        assert_eq!(to.publish("after").await, Ok(()));
        assert_eq!(ids(&messages(&cluster, "hooks")), ["before", "after"]);
    }

    #[tokio::test]
    async fn kafka_without_a_topic_refuses_until_there_is_one() {
        let cluster = cluster();
        let to = to(&cluster, "hooks").await;
        to.is_up().await;
        let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.topic_error("hooks", unknown).unwrap();
        to.is_down().await;
        until("it refuses", async || matches!(to.publish("early").await, Err(PublishError::Refused(_))))
            .await;
        cluster.topic_error("hooks", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
        to.is_up().await;
        to.publish_at_last("late").await;
    }
}
