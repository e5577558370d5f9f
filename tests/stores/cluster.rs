//! Redis in the large: a cluster whose master dies, a master that Sentinels replace, replicas that must have an event before
//! it counts, TLS and passwords. Whatever happens, what was answered 200 is in the queue once.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::{
    Client, Cluster, Gateway, Home, Load, Nats, Persistence, Process, Redis, Sentinel, basiq, basiq_about,
    eventually, ids, until, within,
};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

#[tokio::test]
async fn a_cluster_loses_a_master_and_nothing_else() {
    let mut cluster = Cluster::start().await;
    let home = Home::redis_at(cluster.urls())
        .with("redis.cluster", true)
        .with("queue.partitions", 6)
        .with("queue.ack_replicas", 1);
    let gateway = home.serve().await;
    until("all masters take events", async || gateway.metric(UP).await == 1.0).await;
    let load = Load::spread(gateway.edge);
    load.taken(300).await;

    // The replica is held back, so that there is a time without a master.
    let _: String = cluster.replicas[0].run(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]).await;
    cluster.masters[0].kill9();
    until("the dead master is known", async || gateway.metric(UP).await == 0.0).await;
    load.taken(100).await;
    assert!(gateway.ready().await, "the other masters take events");
    assert_eq!(gateway.metric(UP).await, 0.0, "the dead master's partitions are still away");

    let _: String = cluster.replicas[0].run(&["CONFIG", "SET", "cluster-replica-no-failover", "no"]).await;
    until("the replica has taken over", async || {
        cluster.replicas[0].run::<String>(&["INFO", "replication"]).await.contains("role:master")
    })
    .await;
    // It comes back as the replica of the new master, without which nothing counts there.
    cluster.masters[0].restart().await;
    until("all masters take events", async || gateway.metric(UP).await == 1.0).await;
    load.taken(200).await;
    let sent = load.finish().await;

    let events = home.events();
    let all = ids(&events);
    let entered: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(entered.len(), all.len(), "an event entered twice");
    let lost: Vec<_> = sent.taken.iter().filter(|id| !entered.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "answered 200, and then lost: {lost:?}");
    for id in sent.taken.iter().take(50) {
        gateway.deliver(&basiq_about(id, id)).await.assert_duplicate(id);
    }
}

/// That the other masters are well helps nobody whose events all go to one.
#[tokio::test]
async fn a_queue_whose_own_master_takes_nothing_is_not_ready() {
    let mut cluster = Cluster::start().await;
    let home = Home::redis_at(cluster.urls()).with("redis.cluster", true);
    let gateway = home.serve().await;
    until("all masters take events", async || gateway.metric(UP).await == 1.0).await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");
    let slot: u16 = cluster.masters[0].run(&["CLUSTER", "KEYSLOT", STREAM]).await;
    let own = usize::from(slot) * 3 / 16384;
    let is_ready = async |ready: bool, why: &str| {
        until(why, async || gateway.ready().await == ready).await;
        let (word, up) = if ready { ("up", 1.0) } else { ("down", 0.0) };
        assert_eq!(gateway.readiness().await["queue"], word, "{why}");
        until(why, async || gateway.metric(UP).await == up).await;
    };

    let memory = async |limit: &str| {
        let no = ["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", limit];
        cluster.masters[own].run::<String>(&no).await
    };
    memory("1").await;
    is_ready(false, "it has no memory").await;
    gateway.deliver(&basiq("meanwhile")).await.assert_come_again();
    memory("0").await;
    is_ready(true, "it has memory").await;

    let _: String = cluster.replicas[own].run(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]).await;
    cluster.masters[own].kill9();
    is_ready(false, "it is dead").await;
    for _ in 0..3 {
        gateway.deliver(&basiq("meanwhile")).await.assert_come_again();
    }
    assert_eq!(gateway.readiness().await["ready"], false);
    let _: String = cluster.replicas[own].run(&["CONFIG", "SET", "cluster-replica-no-failover", "no"]).await;
    is_ready(true, "its replica has taken over").await;
    gateway.deliver(&basiq("meanwhile")).await.assert_accepted("meanwhile");

    for node in cluster.masters.iter().chain(&cluster.replicas) {
        // The dead one is asked too, and those that have heard already say no.
        let _ = node.try_run::<String>(&["CLUSTER", "DELSLOTS", &slot.to_string()]).await;
    }
    is_ready(false, "nobody has its slot").await;
    gateway.deliver(&basiq("late")).await.assert_come_again();
}

/// Of claims each master is asked by keys of its own.
#[tokio::test]
async fn a_cluster_takes_claims_while_any_of_its_masters_does() {
    let (cluster, nats) = (Cluster::start().await, Nats::start().await);
    nats.create_stream("ALL", &[STREAM]).await;
    let home = Home::redis_at(cluster.urls()).with("redis.cluster", true);
    let home = home.with("queue.kind", "nats").with("queue.url", nats.url());
    let gateway = home.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    let told = || gateway.log().matches("redis takes no writes").count();
    let checked = || home.check_live().out.matches("it refuses claims: SET: ").count();
    assert_eq!((told(), checked()), (0, 0), "{}", gateway.log());
    for (n, master) in (1..).zip(&cluster.masters) {
        let _: String = master.run(&["ACL", "SETUSER", "default", "-set"]).await;
        until("it is told", async || told() == n).await;
        assert_eq!(checked(), n);
        assert!(n == 3 || gateway.ready().await, "the others take claims");
    }
    until("the gateway is unready", async || !gateway.ready().await).await;
    let _: String = cluster.masters[0].run(&["ACL", "SETUSER", "default", "+set"]).await;
    until("the gateway is ready again", async || gateway.ready().await).await;
}

#[tokio::test]
async fn a_template_spreads_over_a_cluster_and_is_read_back() {
    let cluster = Cluster::start().await;
    let home = Home::redis_at(cluster.urls())
        .with("redis.cluster", true)
        .with("queue.name", "hooks.{source}.{type}")
        .with("queue.partitions", 4);
    let gateway = home.serve().await;
    until("all masters take events", async || gateway.metric(UP).await == 1.0).await;
    let all: Vec<String> = (0..40).map(|n| format!("event-{n}")).collect();
    for id in &all {
        gateway.deliver(&basiq_about(id, id)).await.assert_accepted(id);
    }
    let mut used = 0;
    for master in &cluster.masters {
        used += usize::from(!master.run::<Vec<String>>(&["KEYS", "hooks.*"]).await.is_empty());
    }
    assert!(used > 1, "the streams are on several masters");
    support::assert_each_once(&home.events(), &all);
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let mut cluster = Cluster::start().await;
    // Given one of them, it finds the others; that one is not asked for ever.
    const GIVEN: usize = 2;
    let home = Home::redis_at(cluster.urls().split_off(GIVEN)[..1].to_vec()).with("redis.cluster", true);
    let gateway = home.serve().await;
    until("all masters take events", async || gateway.metric(UP).await == 1.0).await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");
    let slot: u16 = cluster.masters[0].run(&["CLUSTER", "KEYSLOT", "hookgate.events"]).await;
    let from = usize::from(slot) * 3 / 16384;
    let to = 1 - from;
    cluster.masters[GIVEN].kill9();
    let (from, to) = (&cluster.masters[from], &cluster.masters[to]);
    let (slot, new): (String, String) = (slot.to_string(), to.run(&["CLUSTER", "MYID"]).await);
    let old: String = from.run(&["CLUSTER", "MYID"]).await;
    let _: String = to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &old]).await;
    let _: String = from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &new]).await;
    let keys: Vec<String> = from.run(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
    let mut migrate = vec!["MIGRATE", "127.0.0.1", "", "", "0", "5000", "KEYS"];
    let port = to.port().to_string();
    migrate[2] = &port;
    migrate.extend(keys.iter().map(String::as_str));
    let _: String = from.run(&migrate).await;
    // Between the two: the old has it no more, the new not yet.
    gateway.deliver(&basiq("meanwhile")).await.assert_come_again();
    for node in [to, from] {
        let _: String = node.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &new]).await;
    }
    until("it is taken at its new place", async || gateway.deliver(&basiq("meanwhile")).await.status == 200)
        .await;
    gateway.deliver(&basiq("before")).await.assert_duplicate("before");
    assert_eq!(to.run::<u64>(&["XLEN", "hookgate.events"]).await, 2);
    // Once it is gone altogether that is told, and not each time that it is looked for.
    cluster.masters[..GIVEN].iter_mut().for_each(Redis::kill9);
    cluster.replicas.iter_mut().for_each(Redis::kill9);
    let told = || gateway.log().matches("no node of the redis cluster can be reached").count();
    until("it is told", async || told() > 0).await;
    cluster.masters[0].restart().await;
    until("a node is found again", async || {
        cluster.masters[0].run::<String>(&["INFO", "commandstats"]).await.contains("cluster|slots")
    })
    .await;
    cluster.masters[0].kill9();
    until("it is told anew", async || told() > 1).await;
    assert_eq!(told(), 2);
}

#[tokio::test]
async fn sentinels_are_asked_for_the_master_whenever_it_is_lost() {
    let user = ["--user", "gate", "on", ">s3same", "~*", "&*", "+@all"];
    let mut first = Redis::start_with(Persistence::Off, &user).await;
    let second = replica_of(&first, &user).await;
    let sentinel = Sentinel::watch(&first).await;
    // The first of them is none: the next is asked.
    let urls = vec!["redis://gate:s3same@127.0.0.1:1".to_owned(), sentinel.url()];
    let home = Home::redis_at(urls).with("redis.sentinel", Sentinel::NAME);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("first")).await.assert_accepted("first");
    let mut follower = Follower::start(&home);
    assert_eq!(follower.next().await, "first");
    until("the replica has it", async || {
        second.try_run::<usize>(&["XLEN", STREAM]).await.is_ok_and(|length| length == 1)
    })
    .await;

    first.kill9();
    until("the gateway has noticed", async || !gateway.ready().await).await;
    until("the gateway has found the new master", async || gateway.ready().await).await;
    gateway.deliver(&basiq("second")).await.assert_accepted("second");
    gateway.deliver(&basiq("first")).await.assert_duplicate("first");
    assert_eq!(second.run::<usize>(&["XLEN", STREAM]).await, 2);

    // This time the old master lives on, as a replica that refuses writes.
    first.restart().await;
    until("the old master is a replica", async || {
        first.try_run::<usize>(&["XLEN", STREAM]).await.is_ok_and(|length| length == 2)
    })
    .await;
    sentinel.fail_over().await;
    until("a replica is master again", async || {
        // Whoever changes roles drops connections.
        let role = first.try_run::<String>(&["INFO", "replication"]).await;
        role.is_ok_and(|role| role.contains("role:master"))
    })
    .await;
    until("the gateway has followed", async || {
        gateway.deliver(&basiq("third")).await.status == 200
            && first.try_run::<usize>(&["XLEN", STREAM]).await.is_ok_and(|length| length == 3)
    })
    .await;
    assert_eq!(ids(&home.events()), ["first", "second", "third"]);
    // Over both failovers, each once.
    assert_eq!([follower.next().await, follower.next().await], ["second", "third"]);
    follower.ends().await;
}

/// As when the old master is cut off from the Sentinels, and not from the gateway: it does not learn that it was replaced.
#[tokio::test]
async fn a_replaced_master_is_left_though_it_takes_events_and_knows_of_nothing() {
    let deaf = ["--rename-command", "SLAVEOF", "", "--rename-command", "REPLICAOF", ""];
    let first = Redis::start_with(Persistence::Off, &deaf).await;
    let second = replica_of(&first, &[]).await;
    let sentinel = Sentinel::watch(&first).await;
    let home = Home::redis_at(sentinel.url()).with("redis.sentinel", Sentinel::NAME);
    // The Sentinels' user is not one of the servers'.
    for server in [&first, &second] {
        let _: String = server.run(&["ACL", "SETUSER", "gate", "on", ">s3same", "~*", "&*", "+@all"]).await;
    }
    let gateway = home.serve().await;
    gateway.deliver(&basiq("first")).await.assert_accepted("first");
    let mut follower = Follower::start(&home);
    assert_eq!(follower.next().await, "first");
    until("the replica has it", async || second.run::<usize>(&["XLEN", STREAM]).await == 1).await;

    sentinel.fail_over().await;
    until("there are two masters", async || {
        let role = second.try_run::<String>(&["INFO", "replication"]).await;
        role.is_ok_and(|role| role.contains("role:master"))
    })
    .await;
    assert!(first.run::<String>(&["INFO", "replication"]).await.contains("role:master"));
    until("the gateway has left the old one", async || {
        gateway.log().contains("the Sentinels name another master") && gateway.ready().await
    })
    .await;
    gateway.deliver(&basiq("second")).await.assert_accepted("second");
    assert_eq!(ids(&home.events()), ["first", "second"]);
    assert_eq!(first.run::<usize>(&["XLEN", STREAM]).await, 1);
    assert_eq!(gateway.log().matches("the Sentinels name another master").count(), 1, "it stays");
    assert_eq!(follower.next().await, "second", "the follower leaves it too");
}

/// Lanes share a connection, and WAIT counts what its connection wrote last: that must be what its own lane wrote.
#[tokio::test]
async fn each_partition_waits_for_its_own_events_to_be_replicated() {
    let master = Redis::start(Persistence::Off).await;
    let replica = replica_of(&master, &[]).await;
    let home = Home::redis(&master).with("queue.ack_replicas", 1).with("queue.partitions", 8);
    let gateway = home.serve().await;
    let deliver = async |round: &str| {
        let mut all = tokio::task::JoinSet::new();
        for n in 0..40 {
            let delivery = basiq_about(&format!("{round}-{n}"), &format!("user-{n}"));
            let edge = gateway.edge;
            all.spawn(async move {
                Client::connect(edge).await.unwrap().deliver(&delivery).await.unwrap().status
            });
        }
        all.join_all().await
    };
    let length = async |of: &Redis| {
        let mut length = 0;
        for n in 0..8 {
            length += of.run::<usize>(&["XLEN", &format!("{STREAM}.{n}")]).await;
        }
        length
    };
    for round in 0..5 {
        let taken = deliver(&format!("up-{round}")).await;
        assert!(taken.iter().all(|status| *status == 200), "{taken:?}");
        // Not a moment later: what was answered is there.
        assert_eq!(length(&replica).await, 40 * (round + 1));
    }
    replica.pause();
    let taken = deliver("away").await;
    assert!(taken.iter().all(|status| *status == 503), "{taken:?}");
    replica.resume();
    until("the gateway is ready again", async || gateway.ready().await).await;
}

#[tokio::test]
async fn a_follower_of_the_queue_waits_for_a_redis_that_is_away_and_goes_on() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis).with("queue.partitions", 3);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    let mut follower = Follower::start(&home);
    assert_eq!(follower.next().await, "a");
    for id in ["b", "c"] {
        redis.kill9();
        until("the gateway has noticed", async || !gateway.ready().await).await;
        redis.restart().await;
        until("the gateway is ready again", async || gateway.ready().await).await;
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
        assert_eq!(follower.next().await, id);
    }
    let said = follower.ends().await;
    assert!(said.contains("trying again, and continuing from here"), "{said}");
    // What does not follow does not wait.
    redis.kill9();
    assert_eq!(home.command(&["events", "tail"]).status().unwrap().code(), Some(1));
}

/// `events tail --follow`, up to the third event.
struct Follower {
    process: Process,
    lines: UnboundedReceiver<String>,
}

impl Follower {
    fn start(home: &Home) -> Follower {
        let mut command = home.command(&["events", "tail", "--json", "--follow", "--limit", "3"]);
        let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (tell, lines) = unbounded_channel();
        let stdout = process.stdout();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines();
            lines.map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Follower { process, lines }
    }

    /// The id of the next event.
    async fn next(&mut self) -> String {
        let line = within(PATIENCE, "the next event", self.lines.recv()).await.unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["event"]["id"].as_str().unwrap().to_owned()
    }

    /// Waits for its end, and gives what it said.
    async fn ends(mut self) -> String {
        assert_eq!(within(PATIENCE, "its last line", self.lines.recv()).await, None);
        let ended = eventually("it ends at its limit", async || self.process.ended()).await;
        assert!(ended.success(), "{ended:?}");
        std::io::read_to_string(self.process.stderr()).unwrap()
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_too_few_replicas_have_is_not_taken() {
    let master = Redis::start(Persistence::Off).await;
    let replica = replica_of(&master, &[]).await;
    let home = Home::redis(&master).with("queue.ack_replicas", 1);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");

    replica.pause();
    // The first gets in and is not told so, and neither is it when it is known already.
    for _ in 0..3 {
        gateway.deliver(&basiq("b")).await.assert_come_again();
    }
    until("the gateway is unready", async || !gateway.ready().await).await;
    assert_eq!(gateway.metric(UP).await, 0.0);
    assert!(master.run::<usize>(&["XLEN", STREAM]).await <= 2);
    replica.resume();
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&basiq("b")).await.taken();
    gateway.deliver(&basiq("a")).await.assert_duplicate("a");
    assert_eq!(ids(&home.events()), ["a", "b"]);
}

#[tokio::test]
async fn tls_is_held_against_the_configured_authority() {
    let (own, other) = (Authority::new(), Authority::new());
    let redis = own.redis().await;
    let port: (String, String) = redis.run(&["CONFIG", "GET", "tls-port"]).await;
    let home = || Home::redis_at(format!("rediss://127.0.0.1:{}/0", port.1));

    let right = home().with("redis.ca", own.file());
    let gateway = right.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    assert_eq!(ids(&right.events()), ["a"]);

    let wrong = home().with("redis.ca", other.file()).serve_unready().await;
    is_refused(&wrong, "certificate").await;
}

/// Each node is found by what another says of it, and speaks TLS too.
#[tokio::test]
async fn a_cluster_is_reached_over_tls() {
    let (own, other) = (Authority::new(), Authority::new());
    let mut nodes = Vec::new();
    for slots in [("0", "8191"), ("8192", "16383")] {
        let bus = support::free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
        let node = own.redis_with(&options).await;
        let _: String = node.run(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await;
        nodes.push((node, bus));
    }
    let (first, (second, bus)) = (&nodes[0].0, &nodes[1]);
    let _: String = first.run(&["CLUSTER", "MEET", "127.0.0.1", &tls_port(second).await, bus]).await;
    until("the cluster is whole", async || {
        let info = [first.run::<String>(&["CLUSTER", "INFO"]).await, second.run(&["CLUSTER", "INFO"]).await];
        info.iter().all(|info| info.contains("cluster_state:ok") && info.contains("cluster_size:2"))
    })
    .await;
    let url = format!("rediss://127.0.0.1:{}", tls_port(first).await);
    let home = || Home::redis_at(vec![url.clone()]).with("redis.cluster", true).with("queue.partitions", 4);
    let right = home().with("redis.ca", own.file());
    let gateway = right.serve().await;
    until("both masters take events", async || gateway.metric(UP).await == 1.0).await;
    for n in 0..20 {
        let id = format!("e{n}");
        gateway.deliver(&basiq_about(&id, &format!("user-{n}"))).await.assert_accepted(&id);
    }
    assert_eq!(right.events().len(), 20);
    for node in [first, second] {
        assert!(node.run::<u64>(&["DBSIZE"]).await > 0, "both have some");
    }
    let wrong = home().with("redis.ca", other.file()).serve_unready().await;
    until("it says why", async || wrong.log().contains("certificate")).await;
    assert!(!wrong.ready().await);
}

#[tokio::test]
async fn sentinels_and_the_master_that_they_name_are_reached_over_tls() {
    let (own, other) = (Authority::new(), Authority::new());
    let redis = own.redis().await;
    let options = own.options();
    let port = &options[1];
    let mut text = format!("port 0\nbind 127.0.0.1\ndir {}\ntls-replication yes\n", own.at(""));
    for option in options.chunks(2) {
        text += &format!("{} {}\n", option[0].trim_start_matches("--"), option[1]);
    }
    text += &format!("sentinel monitor main 127.0.0.1 {} 1\n", tls_port(&redis).await);
    std::fs::write(own.at("sentinel.conf"), text).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(own.at("sentinel.conf")).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
    let _sentinel = Process::spawn(&mut command);

    let home = || Home::redis_at(format!("rediss://127.0.0.1:{port}/0")).with("redis.sentinel", "main");
    let right = home().with("redis.ca", own.file());
    let gateway = right.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    assert_eq!((ids(&right.events()), redis.run::<u64>(&["XLEN", STREAM]).await), (vec!["a"], 1));
    let wrong = home().with("redis.ca", other.file()).serve_unready().await;
    is_refused(&wrong, "certificate").await;
}

#[tokio::test]
async fn a_password_opens_and_a_wrong_one_is_told_without_it() {
    let redis = Redis::start(Persistence::Off).await;
    let _: String = redis.run(&["ACL", "SETUSER", "gate", "on", ">s3same", "~*", "+@all"]).await;
    let port = redis.port();
    let home = Home::redis_at(format!("redis://gate:s3same@127.0.0.1:{port}/0"));
    let gateway = home.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    assert_eq!(ids(&home.events()), ["a"]);

    let wrong = Home::redis_at(format!("redis://gate:wr0ng@127.0.0.1:{port}/0")).serve_unready().await;
    is_refused(&wrong, "authentication failed").await;
    assert!(!wrong.log().contains("wr0ng"));
    let _: String = redis.run(&["CONFIG", "SET", "requirepass", "another"]).await;
    let without = Home::redis_at(format!("redis://127.0.0.1:{port}/0")).serve_unready().await;
    is_refused(&without, "NOAUTH").await;
}

#[tokio::test]
async fn the_likely_mistake_in_a_url_is_named_with_its_fix() {
    let authority = Authority::new();
    let redis = authority.redis().await;
    let port: (String, String) = redis.run(&["CONFIG", "GET", "tls-port"]).await;
    let (plain, tls) = (redis.port(), port.1);
    let _: String = redis.run(&["ACL", "SETUSER", "gate", "on", ">s3/c@t", "~*", "+@all"]).await;
    // Without one it takes the port 10,000 above its own, which need not exist.
    let bus = support::free_port().to_string();
    let node =
        Redis::start_with(Persistence::Off, &["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
    let locked = Redis::start(Persistence::Off).await;
    let _: String = locked.run(&["CONFIG", "SET", "requirepass", "hush"]).await;
    let (node, locked) = (node.port(), locked.port());
    for (url, keys, said) in [
        (format!("rediss://127.0.0.1:{plain}/0"), &[][..], "answers without TLS"),
        (format!("redis://127.0.0.1:{tls}/0"), &[], "it speaks TLS; write the scheme rediss"),
        (format!("rediss://127.0.0.1:{tls}/0"), &[], "set redis.ca"),
        (format!("rediss://localhost:{tls}/0"), &["ca"], "for other names"),
        (format!("redis://127.0.0.1:{plain}/99"), &[], "its setting `databases`"),
        (format!("redis://gate:wr0ng@127.0.0.1:{plain}/0"), &[], "percent-encoded"),
        (format!("redis://gate:s3/c@t@127.0.0.1:{plain}/0"), &[], "/ as %2F"),
        (format!("redis://gate:s3#c@127.0.0.1:{plain}/0"), &[], "# as %23"),
        (format!("redis://127.0.0.1:{plain}/one"), &[], "a database that is not a number"),
        (format!("127.0.0.1:{plain}"), &[], "has no scheme"),
        (format!("redis://127.0.0.1:{locked}/0"), &[], "it asks for a password, and the URL has none"),
        (format!("redis://hush@127.0.0.1:{locked}/0"), &[], "a password alone stands after a colon"),
        (format!("redis://127.0.0.1:{node}/0"), &[], "set redis.cluster = true"),
        (format!("redis://127.0.0.1:{node}/3"), &[], "set redis.cluster = true"),
        (format!("redis://127.0.0.1:{plain}"), &["cluster"], "leave out redis.cluster"),
        (format!("redis://127.0.0.1:{plain}"), &["sentinel"], "it is no Sentinel"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &url).unwrap();
        let from_file = Home::redis_at(String::new()).without("redis.url");
        let from_file = from_file.with("redis.url.file", file.path().to_str());
        for mut home in [Home::redis_at(url.clone()), from_file] {
            for key in keys {
                home = match *key {
                    "ca" => home.with("redis.ca", authority.file()),
                    "cluster" => home.with("redis.cluster", true),
                    _ => home.with("redis.sentinel", "main"),
                };
            }
            let mut command = home.command(&["check", "--live"]);
            let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
            let out = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(1), "{url}: {out}");
            assert!(
                out.lines().any(|line| line.contains(": redis.url") && line.contains(said)),
                "{url}: {out}"
            );
            for secret in ["s3/c", "wr0ng", "s3#c", "hush"] {
                assert!(!out.contains(secret), "{url}: {out}");
            }
        }
    }
    // The log of a gateway says the same.
    let gateway = Home::redis_at(format!("rediss://127.0.0.1:{plain}/0")).serve_unready().await;
    is_refused(&gateway, "answers without TLS").await;
}

/// It says why, takes nothing, and is not ready.
async fn is_refused(gateway: &Gateway, why: &str) {
    until("the log says why", async || {
        gateway.log().lines().any(|line| line.contains("redis cannot be reached") && line.contains(why))
    })
    .await;
    assert!(!gateway.ready().await);
    gateway.deliver(&basiq("refused")).await.assert_come_again();
}

async fn replica_of(master: &Redis, options: &[&str]) -> Redis {
    let of = format!("127.0.0.1 {}", master.port());
    let options = [options, &["--replicaof", &of]].concat();
    let replica = Redis::start_with(Persistence::Off, &options).await;
    let _: String = master.run(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    until("the replica follows", async || {
        replica.run::<String>(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    // Of a master that has written nothing yet, a replica has everything before it says anything.
    let _: String = master.run(&["SET", "written", "1"]).await;
    until("the replica acknowledges", async || master.run::<u32>(&["WAIT", "1", "100"]).await == 1).await;
    replica
}

/// Makes certificates.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let (mut params, key) = (CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { folder, issuer: Issuer::new(params, key) }
    }

    /// What it signs is to be held against.
    fn file(&self) -> String {
        self.at("ca.pem")
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A server that speaks TLS on a port besides its plain one.
    async fn redis(&self) -> Redis {
        self.redis_with(&[]).await
    }

    /// The same with more on its command line.
    async fn redis_with(&self, more: &[&str]) -> Redis {
        let options = self.options();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Redis::start_with(Persistence::Off, &options).await
    }

    /// For `redis-server`: a port that speaks TLS, and a certificate for it.
    fn options(&self) -> Vec<String> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        // Another than the authority's, or OpenSSL takes it for its own issuer.
        params.distinguished_name.push(DnType::CommonName, "redis");
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.at("server.pem"), certificate.pem()).unwrap();
        std::fs::write(self.at("server.key"), key.serialize_pem()).unwrap();
        let port = support::free_port().to_string();
        let [ca, certificate, key] = ["ca.pem", "server.pem", "server.key"].map(|name| self.at(name));
        let options = [
            ["--tls-port", &port],
            ["--tls-ca-cert-file", &ca],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-auth-clients", "no"],
        ];
        options.as_flattened().iter().map(|option| (*option).to_owned()).collect()
    }
}

async fn tls_port(redis: &Redis) -> String {
    let (_, port): (String, String) = redis.run(&["CONFIG", "GET", "tls-port"]).await;
    port
}

const STREAM: &str = "hookgate.events";
const UP: &str = "hookgate_queue_up{queue=\"redis\"}";
