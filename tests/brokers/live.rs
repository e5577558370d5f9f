//! `check --live` against real servers: what their own settings put at risk is told with the line of the config that leads to
//! them, and fails the check; what is in order is not mentioned. `serve` says the same in its log and its metrics.
//!
//! A server's age and its clock cannot be had wrong here: what is read of them has tests beside it.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use serde_json::Value;
use support::{Cluster, Home, Nats, Persistence, Process, Rabbitmq, Ran, Redis, free_port, until};
use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

/// What a check said of the servers.
struct Checked {
    code: Option<i32>,
    errors: Vec<String>,
    warnings: Vec<String>,
    /// All of its output.
    said: String,
}

impl Checked {
    /// Fails unless this is all there is to tell.
    fn is_ok(&self) {
        assert!(self.errors.is_empty() && self.warnings.is_empty(), "{}", self.said);
        assert_eq!(self.code, Some(0), "{}", self.said);
    }

    /// Fails unless there is this one error, which says all of this.
    fn fails(&self, says: &[&str]) {
        assert_eq!((self.code, self.errors.len()), (Some(1), 1), "{}", self.said);
        self.says(&self.errors, says);
    }

    /// Fails unless there is nothing but a warning, which says all of this.
    fn warns(&self, says: &[&str]) {
        assert_eq!((self.code, self.errors.len(), self.warnings.len()), (Some(0), 0, 1), "{}", self.said);
        self.says(&self.warnings, says);
    }

    fn says(&self, findings: &[String], says: &[&str]) {
        for what in says {
            assert!(findings[0].contains(what), "{what:?} is missing: {}", self.said);
        }
        assert!(!self.said.contains("://") && !self.said.contains(HUSH), "{}", self.said);
    }
}

fn check(home: &Home) -> Checked {
    let mut command = home.command(&["check", "--live", "--json"]);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |severity: &str| {
        let of_servers = lines.iter().filter(|line| {
            line["severity"] == severity
                && ["redis.url", "queue.url"].contains(&line["key"].as_str().unwrap())
        });
        of_servers.map(|line| line["what"].as_str().unwrap().to_owned()).collect()
    };
    let said = out.clone() + &String::from_utf8(output.stderr).unwrap();
    Checked { code: output.status.code(), errors: of("error"), warnings: of("warning"), said }
}

/// A URL where no config file shows it.
fn hidden(home: Home, key: &str, url: &str) -> (Home, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), url).unwrap();
    (home.with(&format!("{key}.file"), file.path().to_str()), file)
}

fn over(kind: &str, url: impl Into<Value>) -> Home {
    Home::embedded().with("queue.kind", kind).with("queue.url", url)
}

/// Redis, with the credentials of a user.
fn as_user(redis: &Redis, who: &str) -> (Home, tempfile::NamedTempFile) {
    let home = Home::embedded().with("dedupe.store", "redis").with("queue.kind", "redis");
    hidden(home, "redis.url", &format!("redis://{who}@127.0.0.1:{}/0", redis.port()))
}

async fn set(redis: &Redis, setting: &str, value: &str) {
    let _: String = redis.run(&["CONFIG", "SET", setting, value]).await;
}

#[tokio::test]
async fn nothing_is_asked_where_there_is_no_server() {
    check(&Home::embedded()).is_ok();
}

#[tokio::test]
async fn a_finding_is_told_with_its_place_in_the_config() {
    let port = free_port();
    let Ran { code, out: said, .. } = Home::redis_at(format!("redis://127.0.0.1:{port}/0")).check_live();
    assert_eq!(code, 1, "{said}");
    let line = said.lines().find(|line| line.contains("redis.url")).unwrap();
    let (_, place) = line.split_once("hookgate.toml").unwrap();
    assert!(place.starts_with(&format!(":5:13: redis.url: 127.0.0.1:{port}: ")), "{said}");
    assert!(!said.contains("redis://"), "{said}");
}

#[tokio::test]
async fn redis_is_not_there_or_silent() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis);
    check(&home).is_ok();
    redis.pause();
    check(&home).fails(&[&redis.port().to_string()]);
    redis.resume();
    drop(redis);
    check(&home).fails(&["refused"]);
}

#[tokio::test]
async fn redis_may_not_evict() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis);
    for policy in ["allkeys-lru", "volatile-ttl"] {
        set(&redis, "maxmemory-policy", policy).await;
        check(&home).fails(&["maxmemory-policy is", policy]);
    }
    set(&redis, "maxmemory-policy", "noeviction").await;
    check(&home).is_ok();
    // As a dedupe store alone it is no less asked.
    set(&redis, "maxmemory-policy", "allkeys-lru").await;
    let nats = Nats::start().await;
    nats.create_stream("HOOKS", &["hookgate.>"]).await;
    let home = over("nats", nats.url()).with("dedupe.store", "redis").with("redis.url", redis.url());
    check(&home).fails(&["maxmemory-policy"]);
}

#[tokio::test]
async fn redis_keeps_what_it_has_by_either_way() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    check(&home).fails(&["no persistence", "appendonly yes"]);
    set(&redis, "save", "3600 1").await;
    check(&home).is_ok();
    set(&redis, "save", "").await;
    check(&home).fails(&["no persistence"]);
    set(&redis, "appendonly", "yes").await;
    check(&home).is_ok();
}

#[tokio::test]
async fn a_user_of_redis_may_not_ask_everything() {
    let redis = Redis::start(Persistence::Off).await;
    let password = format!(">{HUSH}");
    let _: String =
        redis.run(&["ACL", "SETUSER", "gate", "on", &password, "~*", "&*", "+@all", "-config"]).await;
    let (home, _url) = as_user(&redis, &format!("gate:{HUSH}"));
    check(&home).warns(&["CONFIG GET save is not allowed", "not known"]);
    set(&redis, "appendonly", "yes").await;
    check(&home).is_ok();
    set(&redis, "maxmemory-policy", "allkeys-lru").await;
    check(&home).fails(&["maxmemory-policy"]);
    let _: String = redis.run(&["ACL", "SETUSER", "gate", "-info"]).await;
    check(&home).warns(&["INFO is not allowed", "not known"]);
}

#[tokio::test]
async fn what_keeps_every_event_out_of_redis_is_told() {
    let redis = Redis::start(Persistence::Always).await;
    let password = format!(">{HUSH}");
    let _: String = redis.run(&["ACL", "SETUSER", "gate", "on", &password, "~*", "&*", "+@all"]).await;
    let (home, _url) = as_user(&redis, &format!("gate:{HUSH}"));
    check(&home).is_ok();
    let cases: [(&[&str], &[&str], &str); 4] = [
        (&["-xadd"], &["+xadd"], "XADD: "),
        (&["-script"], &["+script"], "NOPERM"),
        (&["resetkeys", "~other:*"], &["allkeys"], "NOPERM"),
        (&["resetkeys", "~hookgate.events"], &["allkeys"], "NOPERM"),
    ];
    for (takes_away, gives_back, says) in cases {
        let _: String = redis.run(&["SCRIPT", "FLUSH"]).await;
        let _: String = redis.run(&[&["ACL", "SETUSER", "gate"], takes_away].concat()).await;
        check(&home).fails(&["it refuses events for hookgate.events: ", says]);
        let _: String = redis.run(&[&["ACL", "SETUSER", "gate"], gives_back].concat()).await;
    }
    check(&home).is_ok();
    assert_eq!(redis.run::<u64>(&["DBSIZE"]).await, 0, "asking changes nothing");
    let home = home.with("queue.name", "hooks.{source}").with("queue.partitions", 2);
    let _: String = redis.run(&["SET", "hooks.basiq.1", "no stream"]).await;
    check(&home)
        .fails(&["it refuses events for hooks.basiq.1: XLEN: WRONGTYPE", "see that the key is a stream"]);
    let _: u32 = redis.run(&["DEL", "hooks.basiq.1"]).await;
    let last = format!("{}-{}", u64::MAX, u64::MAX);
    let _: String = redis.run(&["XADD", "hooks.basiq.1", &last, "added", "by hand"]).await;
    let checked = check(&home);
    let shut = checked.errors.iter().find(|error| error.contains("it refuses events for hooks.basiq.1: "));
    assert!(shut.is_some_and(|why| why.contains("XDEL it and XSETID the stream")), "{}", checked.said);
}

#[tokio::test]
async fn redis_that_takes_no_writes_of_anybody_is_told() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis);
    // What is in it takes more than this.
    for (setting, refuses, allows, says) in [
        ("maxmemory", "1", "0", ["it refuses writes: OOM", "raise maxmemory"]),
        ("min-replicas-to-write", "1", "0", ["it refuses writes: NOREPLICAS", "min-replicas-to-write"]),
    ] {
        set(&redis, setting, refuses).await;
        check(&home).fails(&says);
        set(&redis, setting, allows).await;
        check(&home).is_ok();
    }
    check(&home.with("queue.ack_replicas", 1))
        .fails(&["0 replicas are online, fewer than queue.ack_replicas = 1"]);
    let master = Redis::start(Persistence::Always).await;
    let _: String = redis.run(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    let home = Home::redis(&redis);
    check(&home).fails(&["it refuses writes: READONLY", "it is a replica"]);
    // As a dedupe store alone it is no less asked.
    let nats = Nats::start().await;
    nats.create_stream("HOOKS", &["hookgate.>"]).await;
    let home = over("nats", nats.url()).with("dedupe.store", "redis").with("redis.url", redis.url());
    check(&home).fails(&["it refuses writes: READONLY"]);
}

#[tokio::test]
async fn what_is_no_redis_is_told_on_one_line() {
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = http.local_addr().unwrap();
    let answering = TaskTracker::new().spawn(async move {
        loop {
            let (mut client, _) = http.accept().await.unwrap();
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let home = Home::redis_at(format!("redis://{address}/0"));
    let checked = tokio::task::spawn_blocking(move || check(&home)).await.unwrap();
    checked.fails(&["no Redis answers there"]);
    assert!(!checked.errors[0].contains('\n'), "{:?}", checked.errors);
    answering.abort();
}

#[tokio::test]
async fn a_wrong_password_of_redis_is_told_as_that() {
    let redis = Redis::start(Persistence::Always).await;
    let _: String = redis.run(&["ACL", "SETUSER", "gate", "on", ">another", "~*", "+@all"]).await;
    let (home, _url) = as_user(&redis, &format!("gate:{HUSH}"));
    check(&home).fails(&["Password authentication failed"]);
    let _: String = redis.run(&["ACL", "SETUSER", "default", "resetpass"]).await;
    check(&Home::redis(&redis)).fails(&["NOAUTH"]);
}

#[tokio::test]
async fn every_master_of_a_cluster_is_asked() {
    let cluster = Cluster::start().await;
    let home = Home::redis_at(cluster.urls()).with("redis.cluster", true);
    let ports: Vec<String> = cluster.masters.iter().map(|master| master.port().to_string()).collect();
    let checked = check(&home);
    assert_eq!((checked.code, checked.errors.len()), (Some(1), 3), "{}", checked.said);
    for port in &ports {
        let of_port = |what: &&String| what.starts_with(&format!("127.0.0.1:{port}: no persistence"));
        assert_eq!(checked.errors.iter().filter(of_port).count(), 1, "{}", checked.said);
    }
    for master in &cluster.masters[..2] {
        set(master, "appendonly", "yes").await;
    }
    check(&home).fails(&[&ports[2], "no persistence"]);
    set(&cluster.masters[2], "appendonly", "yes").await;
    check(&home).is_ok();
}

#[tokio::test]
async fn a_cluster_without_slots_is_none() {
    let bus = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let node = Redis::start_with(Persistence::Always, &options).await;
    let url = format!("redis://127.0.0.1:{}", node.port());
    check(&Home::redis_at(url).with("redis.cluster", true)).fails(&["no node has any slots"]);
}

#[tokio::test]
async fn nats_without_a_stream_or_with_a_short_memory() {
    let nats = Nats::start().await;
    let home = over("nats", nats.url()).with("dedupe.lease", "10s");
    check(&home).fails(&["no JetStream stream takes hookgate.events"]);
    let (name, subjects) = ("HOOKS".to_owned(), vec!["hookgate.>".to_owned()]);
    let duplicate_window = Duration::from_secs(9);
    nats.create(stream::Config { name, subjects, duplicate_window, ..Default::default() }).await;
    check(&home).fails(&["HOOKS", "9 s", "dedupe.lease, 10 s"]);
    let home = home.with("dedupe.lease", "9s");
    check(&home).is_ok();
    drop(nats);
    check(&home).fails(&["NATS cannot be reached"]);
}

#[tokio::test]
async fn nats_has_to_take_every_name_that_a_template_stands_for() {
    let nats = Nats::start().await;
    let home = over("nats", nats.url()).with("queue.name", "hooks.{provider}.{source}.{type}");
    nats.create_stream("SOME", &["hooks.basiq.>", "hooks.atelio.>"]).await;
    check(&home).fails(&["no JetStream stream takes hooks.securitize.securitize.kyc.updated, \
         hooks.securitize.securitize.subscription.agreement_updated;"]);
    nats.create_stream("REST", &["hooks.securitize.>"]).await;
    check(&home).is_ok();
    let elsewhere = home.with("queue.name", "elsewhere.{provider}.{type}");
    let checked = check(&elsewhere);
    checked.fails(&["elsewhere.atelio.", " more; "]);
    assert_eq!(checked.errors[0].matches("elsewhere.").count(), 5, "{}", checked.said);
}

/// Each with a queue of its own.
#[tokio::test]
async fn nats_that_loses_what_it_acknowledged() {
    let nats = Nats::start().await;
    let over = |subject: &str| over("nats", nats.url()).with("queue.name", subject);
    let config = |subject: &str| stream::Config {
        name: subject.to_uppercase(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    };
    let loses = async |settings: stream::Config, says: &[&str]| {
        let subject = settings.subjects[0].clone();
        nats.create(settings).await;
        check(&over(&subject)).fails(&[&[&*subject.to_uppercase()], says].concat());
    };
    let (old, new) = (stream::DiscardPolicy::Old, stream::DiscardPolicy::New);
    loses(
        stream::Config { storage: stream::StorageType::Memory, ..config("a") },
        &["memory", "storage=file"],
    )
    .await;
    loses(stream::Config { max_messages: 10, discard: old, ..config("b") }, &["max_msgs", "discard=new"])
        .await;
    loses(stream::Config { max_bytes: 10_000, ..config("c") }, &["max_bytes", "discard=new"]).await;
    let per_subject = stream::Config { max_messages_per_subject: 5, ..config("d") };
    loses(per_subject, &["max_msgs_per_subject", "discard_new_per_subject"]).await;
    let by_new = stream::Config { max_messages_per_subject: 5, max_messages: 9, discard: new, ..config("e") };
    loses(by_new, &["max_msgs_per_subject"]).await;
    loses(stream::Config { max_age: Duration::from_secs(3600), ..config("f") }, &["max_age, 60 min"]).await;
    loses(stream::Config { no_ack: true, ..config("g") }, &["no_ack"]).await;
    let interest = stream::Config { retention: stream::RetentionPolicy::Interest, ..config("h") };
    loses(interest, &["interest retention", "no durable consumer reads h"]).await;
    let work = stream::Config { retention: stream::RetentionPolicy::WorkQueue, ..config("i") };
    loses(work, &["work-queue retention", "no durable consumer reads i"]).await;

    // The same as it should be.
    for (stream, subject) in [("H", "h"), ("I", "i")] {
        nats.create_consumer(stream, subject).await;
        check(&over(subject)).is_ok();
    }
    let (max_messages, max_bytes, max_age) = (10, 100_000, Duration::from_secs(7 * 86_400));
    nats.create(stream::Config { max_messages, max_bytes, max_age, discard: new, ..config("j") }).await;
    check(&over("j")).is_ok();
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    for (subject, max_messages, max_bytes, says) in
        [("l", 2, -1, "2 messages, max_msgs is 2"), ("m", -1, 500, "bytes, max_bytes is 500")]
    {
        nats.create(stream::Config { max_messages, max_bytes, discard: new, ..config(subject) }).await;
        check(&over(subject)).is_ok();
        for _ in 0..2 {
            jetstream.publish(subject, vec![b'x'; 150].into()).await.unwrap().await.unwrap();
        }
        check(&over(subject)).fails(&["is full", says]);
    }
    let two = vec!["k.a".to_owned(), "k.b".to_owned()];
    let retention = stream::RetentionPolicy::Interest;
    nats.create(stream::Config { subjects: two, retention, ..config("k") }).await;
    nats.create_consumer("K", "k.a").await;
    check(&over("k.a")).is_ok();
    check(&over("k.b")).fails(&["no durable consumer reads k.b"]);
}

#[tokio::test]
async fn nats_without_jetstream() {
    let port = free_port();
    let mut server = Command::new("nats-server");
    server.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
    let _server = Process::spawn(server.stdout(Stdio::null()).stderr(Stdio::null()));
    until("nats-server listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let home = over("nats", format!("nats://127.0.0.1:{port}"));
    check(&home).fails(&["JetStream is not enabled", "--jetstream"]);
}

#[tokio::test]
async fn a_user_of_nats_may_not_look_at_streams() {
    let nats = Nats::start_with_user("{ publish: [\"hookgate.>\"], subscribe: [\"_INBOX.>\"] }").await;
    nats.create_stream("HOOKS", &["hookgate.>"]).await;
    let (home, _url) = hidden(Home::embedded().with("queue.kind", "nats"), "queue.url", &nats.url_of_gate());
    check(&home).warns(&["may not publish to $JS.API.STREAM.NAMES", "not known"]);
    drop(nats);

    let api = "[\"hookgate.>\", \"$JS.API.STREAM.NAMES\"]";
    let nats = Nats::start_with_user(&format!("{{ publish: {api}, subscribe: [\"_INBOX.>\"] }}")).await;
    nats.create_stream("HOOKS", &["hookgate.>"]).await;
    let (home, _url) = hidden(home, "queue.url", &nats.url_of_gate());
    check(&home).warns(&["may not publish to $JS.API.STREAM.INFO.HOOKS", "not known"]);
}

/// What is likely wrong is said, and what to write instead; never a password.
#[tokio::test]
async fn a_url_of_a_broker_that_leads_nowhere() {
    let nats = Nats::start().await;
    let address = nats.url().split_once("://").unwrap().1.to_owned();
    let at = |kind: &str, url: String| hidden(Home::embedded().with("queue.kind", kind), "queue.url", &url);
    let told = |kind: &str, url: String, says: &[&str]| {
        let (home, _url) = at(kind, url);
        check(&home).fails(says);
    };
    told("nats", format!("tls://{address}"), &["does not speak TLS", "Write nats as the scheme"]);
    told("nats", format!("nats://gate:{HUSH}/1@{address}"), &["%2F", "cut off"]);
    told("nats", format!("nats://gate:12?{HUSH}@{address}"), &["%3F"]);
    told("nats", "nats://no-such-host.invalid".to_owned(), &["host name is not known"]);
    told("nats", format!("nats://127.0.0.1:{}", free_port()), &["nothing listens"]);
    // A server that speaks before it is spoken to, and no AMQP.
    told("amqp", format!("amqp://{address}/%2f"), &["speaks no AMQP"]);
    told("amqp", format!("amqps://{address}/%2f"), &["does not speak TLS", "Write amqp as the scheme"]);
    told("amqp", format!("amqp://gate:12/{HUSH}@{address}/%2f"), &["%2F", "cut off"]);
    told("amqp", format!("amqp://127.0.0.1:{}", free_port()), &["nothing listens"]);
}

#[tokio::test]
async fn a_password_of_nats_is_read_as_serve_reads_it() {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let mut server = Command::new("nats-server");
    server.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]);
    server.arg(folder.path()).args(["--user", "gate", "--pass", "hush@home"]);
    let _server = Process::spawn(server.stdout(Stdio::null()).stderr(Stdio::null()));
    until("nats-server listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let with = |password: &str| {
        let home = Home::embedded().with("queue.kind", "nats");
        hidden(home, "queue.url", &format!("nats://gate:{password}@127.0.0.1:{port}"))
    };
    let (home, _url) = with(HUSH);
    check(&home).fails(&["NATS refuses the login"]);
    let (home, _url) = with("hush%40home");
    check(&home).fails(&["no JetStream stream takes hookgate.events"]);
}

#[tokio::test]
async fn rabbitmq_without_an_exchange() {
    let mut rabbitmq = Rabbitmq::start().await;
    rabbitmq.create_exchange("hookgate.events").await;
    let home = over("amqp", rabbitmq.url());
    let checked = check(&home);
    assert_eq!((checked.code, checked.errors.len()), (Some(0), 0), "{}", checked.said);

    let home = home.with("queue.name", "absent");
    check(&home).fails(&["no such exchange", "absent; declare it"]);
    check(&home.with("queue.name", "x".repeat(256))).fails(&["no such exchange"]);
    let home = over("amqp", rabbitmq.url()).with("queue.name", "hooks.{provider}");
    rabbitmq.create_exchange("hooks.basiq").await;
    check(&home).fails(&["hooks.atelio, hooks.securitize; declare it"]);

    let at = |who: &str, vhost: &str| {
        let address = rabbitmq.url().split_once('@').unwrap().1.replace("%2f", vhost);
        hidden(Home::embedded().with("queue.kind", "amqp"), "queue.url", &format!("amqp://{who}@{address}"))
    };
    let (home, _url) = at(&format!("guest:{HUSH}"), "%2f");
    check(&home).fails(&["RabbitMQ refuses the login"]);
    let (home, _url) = at("guest:guest", "absent");
    check(&home).fails(&["RabbitMQ refuses the virtual host"]);
    let (home, _url) = at("guest:guest", "%2f");
    rabbitmq.kill9();
    check(&home).fails(&["RabbitMQ cannot be reached"]);
}

/// AMQP tells nothing of queues: the management API does.
#[tokio::test]
async fn rabbitmq_whose_queues_lose_what_they_confirmed() {
    let rabbitmq = Rabbitmq::start_with_management().await;
    rabbitmq.create_exchange("hookgate.events").await;
    let (home, _url) = hidden(Home::embedded().with("queue.kind", "amqp"), "queue.url", &rabbitmq.url());
    until("the management API answers", async || check(&home).warnings.is_empty()).await;
    check(&home).fails(&["no queue is bound to the exchange hookgate.events", "bind one"]);
    rabbitmq.bind("safe", "hookgate.events", "#").await;
    check(&home).is_ok();

    for (arguments, says) in [
        (&[("x-max-length", "10")][..], &["drops its oldest messages at max-length", "reject-publish"][..]),
        (&[("x-max-length-bytes", "10"), ("x-queue-type", "quorum")], &["at max-length-bytes"]),
        (&[("x-message-ttl", "60000")], &["60 s (message-ttl)"]),
        (&[("x-expires", "60000")], &["60 s (expires)"]),
    ] {
        rabbitmq.bind_with("bad", "hookgate.events", "kyc.#", arguments).await;
        check(&home).fails(&[says, &["queue bad"]].concat());
        rabbitmq.delete_queue("bad").await;
    }
    let good = [("x-max-length", "10"), ("x-overflow", "reject-publish")];
    rabbitmq.bind_with("good", "hookgate.events", "#", &good).await;
    check(&home).is_ok();
    rabbitmq.control(&["set_policy", "small", "safe", r#"{"max-length":5}"#]);
    // The API has it a moment later.
    until("the policy is found", async || check(&home).code == Some(1)).await;
    check(&home).fails(&["queue safe", "at max-length", "policy"]);
    rabbitmq.control(&["set_policy", "small", "safe", r#"{"max-length":5,"overflow":"reject-publish"}"#]);
    until("the policy is changed", async || check(&home).code == Some(0)).await;

    rabbitmq.create_exchange("behind").await;
    rabbitmq.bind_exchange("behind", "front").await;
    let behind = home.with("queue.name", "front");
    check(&behind).fails(&["no queue is bound to the exchange front"]);
    rabbitmq.bind_with("far", "behind", "#", &[("x-max-length", "10")]).await;
    check(&behind).fails(&["queue far", "at max-length"]);

    rabbitmq.control(&["set_user_tags", "guest"]);
    until("the user has lost its tag", async || check(&behind).code == Some(0)).await;
    check(&behind).warns(&["may not use the management API", "the tag management", "not known"]);
}

#[tokio::test]
async fn serve_tells_the_same_and_looks_again() {
    let mut redis = Redis::start(Persistence::Always).await;
    redis.kill9();
    let gateway = Home::redis(&redis).serve_unready().await;
    let setting =
        async |name: &str| gateway.metric(&format!("hookgate_unsafe_settings{{setting=\"{name}\"}}")).await;
    until("it is exported", async || setting("redis_unreachable").await == 1.0).await;
    let text = gateway.admin("/metrics").await.body;
    let series: Vec<_> = text.lines().filter(|line| line.starts_with("hookgate_unsafe_settings{")).collect();
    assert_eq!(series.iter().filter(|line| line.ends_with(" 0")).count(), series.len() - 1, "{series:?}");
    let logged = || {
        let said = gateway.log();
        let lines = said.lines().filter(|line| line.contains("redis_unreachable"));
        lines.map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((logged().len(), &logged()[0]["level"]), (1, &"WARN".into()), "{}", gateway.log());

    redis.restart().await;
    set(&redis, "maxmemory-policy", "allkeys-lru").await;
    until("it is mended", async || setting("redis_unreachable").await == 0.0).await;
    assert_eq!(setting("redis_maxmemory_policy").await, 1.0, "another is found meanwhile");
    assert!(gateway.log().contains("maxmemory-policy is allkeys-lru"));
    assert!(!gateway.log().contains("redis://"), "{}", gateway.log());
}

const HUSH: &str = "hush-hush";

/// librdkafka's mock cluster does not tell a topic's settings: what is read of them has a test beside it.
#[cfg(feature = "kafka")]
mod kafka {
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[tokio::test]
    async fn kafka_without_a_topic() {
        let cluster = MockCluster::new(1).unwrap();
        let home = over("kafka", cluster.bootstrap_servers());
        check(&home).fails(&["no such topic: hookgate.events; make it"]);
        cluster.create_topic("hookgate.events", 1, 1).unwrap();
        check(&home).warns(&["min.insync.replicas", "not known"]);
        let home = home.with("queue.name", "hooks.{provider}");
        cluster.create_topic("hooks.basiq", 1, 1).unwrap();
        let checked = check(&home);
        checked.fails(&["no such topic: hooks.atelio, hooks.securitize; make it"]);
        assert_eq!(checked.warnings.len(), 1, "{}", checked.said);
    }

    #[tokio::test]
    async fn kafka_is_not_there() {
        check(&over("kafka", format!("127.0.0.1:{}", free_port()))).fails(&["Kafka cannot be reached"]);
    }
}
