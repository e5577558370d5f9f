//! A good client while others flood the gateway with forgeries and hold thousands of slow connections: it is served as before,
//! the reject log stays within its bound, and memory is flat. What keeps connections out is told once.
//!
//!     tests/run --test edge flood::a_flood -- --nocapture                 # some seconds
//!     HOOKGATE_FLOOD=full tests/run --release --test edge flood::a_flood -- --nocapture
//!                                                                  # a minute: 50,000 forgeries, 5,000 slow connections
//!
//! How long the good client waits is printed, not asserted: that is a matter of the machine. The figures come as a table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fmt, io};

use hookgate::base::clock;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::{
    Client, Gateway, Home, assert_each_once, atelio, basiq, basiq_by_another_secret, investor_update, until,
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Interval;

#[tokio::test]
async fn silent_connections_to_the_admin_port_keep_nobody_else_from_it() {
    let gateway = Home::embedded().serve().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(gateway.admin).await.unwrap());
    }
    let mut idle = Client::connect(gateway.admin).await.unwrap();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.admin(path).await.status, 200, "{path}");
        assert_eq!(idle.get(path).await.unwrap().status, 200, "{path}");
    }
    until("it is told", async || gateway.log().contains("127.0.0.2")).await;
    // Those that have a place are closed for their silence, and so is one that asks no more.
    let closed = async {
        for mut stream in silent {
            assert!(!matches!(stream.read(&mut [0; 64]).await, Ok(1..)));
        }
        assert!(idle.closed().await);
    };
    within(Duration::from_secs(20), "silent connections are closed", closed).await;
    let said = gateway.log();
    assert_eq!(said.matches("each new one closes").count(), 1, "{said}");
    until("its end is told", async || gateway.log().contains("no longer closes connections early")).await;
}

#[tokio::test]
async fn eight_clients_that_take_every_place_of_the_admin_port_keep_nobody_else_from_it() {
    let gateway = Home::embedded().serve().await;
    let mut silent = Vec::new();
    for host in 2..10u8 {
        for _ in 0..32 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, host], 0).into()).unwrap();
            silent.push(socket.connect(gateway.admin).await.unwrap());
        }
    }
    let mut kept = Client::connect(gateway.admin).await.unwrap();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(kept.get(path).await.unwrap().status, 200, "{path}");
        assert_eq!(gateway.admin(path).await.status, 200, "{path}");
    }
    // At once, and not once those had been silent for too long.
    let mut open = 0;
    for stream in &silent {
        open += usize::from(stream.try_read(&mut [0; 1]).is_err());
    }
    assert!(open > 200, "{open}");
}

#[tokio::test]
async fn a_spell_without_file_descriptors_is_told_once_and_so_is_its_end() {
    let gateway = Home::embedded().with("edge.header_timeout", "3s").serve().await;
    let may_have = |files: u64| {
        let of = Pid::from_raw(i32::try_from(gateway.id()).unwrap());
        prlimit(of, Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) }).unwrap();
    };
    let files = std::fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap().count() as u64;
    may_have(files + 8);
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(gateway.edge).await.unwrap());
    }
    until("it is told", async || gateway.log().contains("cannot accept connections")).await;
    // It lasts until the first of them have been silent for too long.
    let mut nothing = [0];
    let closed = silent[0].read(&mut nothing);
    assert_eq!(within(Duration::from_secs(20), "it is closed", closed).await.unwrap(), 0);
    assert_eq!(gateway.log().matches("cannot accept").count(), 1, "{}", gateway.log());
    drop(silent);
    until("its end is told", async || gateway.log().contains("connections are accepted again")).await;
    gateway.deliver(&basiq("later")).await.assert_accepted("later");
    assert_eq!(gateway.log().matches("cannot accept").count(), 1, "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forgeries_and_slow_connections_costs_a_good_client_nothing_but_time() {
    let flood = Flood::of_this_run();
    let home = Home::embedded()
        .with("audit.max_bytes", format!("{AUDIT_BYTES}B"))
        .with("edge.max_in_flight", flood.max_in_flight);
    let gateway = home.serve().await;
    let phase = async |name: &'static str, lasts: Duration| {
        let served = deliver(name, gateway.edge, lasts).await;
        let memory = gateway.metric("process_resident_memory_bytes").await;
        Phase { name, served, memory, audit_bytes: home.audit_bytes() }
    };

    let quiet = phase("no flood", flood.lasts).await;
    let mut attack = Attack::default();
    attack.forge(gateway.edge, [127, 0, 0, 2], flood.forgeries_per_second);
    attack.linger(gateway.edge, [127, 0, 0, 3], flood.slow / 2, IN_THE_HEAD);
    attack.linger(gateway.edge, [127, 0, 0, 3], flood.slow / 2, IN_THE_BODY);
    let shed = async || rejects(&gateway, "overloaded").await;
    until("the flood is on", async || {
        attack.slow() >= flood.slow * 2 / 3 && attack.refused() > 50 && shed().await > 0
    })
    .await;
    let flooded = phase("flood, first third", flood.lasts / 3).await;
    let later = phase("flood, the rest", flood.lasts * 2 / 3).await;
    let held = gateway.metric("hookgate_connections").await;
    let refused = attack.finish().await;

    // To be pasted into README.md.
    println!(
        "\n{flood:?}: {refused} forgeries refused, {} requests shed, {held} connections\n",
        shed().await
    );
    let phases = [quiet, flooded, later];
    println!("| | deliveries | answered 200 | p50 | p99 | worst | resident | reject log |");
    println!("|---|---|---|---|---|---|---|---|");
    for phase in &phases {
        println!("{phase}");
    }
    println!();

    for phase in &phases {
        assert_eq!(phase.served.failed, [] as [String; 0], "{}", phase.name);
    }
    let grown = phases[2].memory - phases[1].memory;
    assert!(grown < MEMORY_GROWS_AT_MOST, "{} grew by {grown}", phases[1].memory);
    // The log says how many there were, whether or not it holds each.
    until("every forgery is counted", async || rejects(&gateway, "signature_mismatch").await >= refused)
        .await;
    let log = home.audit_bytes();
    assert!(log <= AUDIT_BYTES, "the reject log has {log} bytes");
    let verified = home.lines(&["audit", "verify", "--json"]);
    assert_eq!(verified.len(), 1, "{verified:?}");
    let ids: Vec<String> = phases.into_iter().flat_map(|phase| phase.served.ids).collect();
    assert_each_once(&home.events(), &ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_flooded_from_everywhere_takes_nothing_from_the_others() {
    let home = Home::embedded()
        .with("edge.max_in_flight", 32)
        .with("edge.body_timeout", "60s")
        .with("edge.request_timeout", "70s");
    let gateway = home.serve().await;
    let mut attack = Attack::default();
    attack.forge(gateway.edge, [127, 0, 0, 2], 100);
    // Of what one source can have, one client could have three quarters.
    for client in 3..=5 {
        attack.linger(gateway.edge, [127, 0, 0, client], 30, IN_THE_BODY);
    }
    let mut good = Client::connect(gateway.edge).await.unwrap();
    let mut ids = Vec::new();
    for number in 0.. {
        let answer = good.deliver(&basiq(&format!("probe-{number}"))).await.unwrap();
        if answer.status == 503 {
            answer.assert_come_again();
            break;
        }
        ids.push(answer.taken().1);
        assert!(number < 10_000, "the flooded source is never full");
        tokio::time::sleep(BETWEEN_DELIVERIES).await;
    }
    for number in 0..40 {
        for delivery in [atelio(&format!("customer-{number}"), ""), investor_update(number, "")] {
            let (status, id) = good.deliver(&delivery).await.unwrap().taken();
            assert_eq!(status, "accepted");
            ids.push(id);
        }
    }
    // It was so all the time.
    let answer = good.deliver(&basiq("probe")).await.unwrap();
    answer.assert_come_again();
    attack.finish().await;
    assert_each_once(&home.events(), &ids);
}

/// How hard, and how long.
#[derive(Debug)]
struct Flood {
    lasts: Duration,
    forgeries_per_second: u64,
    slow: usize,
    /// Of three sources one can have two thirds of it, which the slow bodies would fill, and one client half of it.
    max_in_flight: usize,
}

impl Flood {
    fn of_this_run() -> Flood {
        let (seconds, forgeries_per_second, slow) = match std::env::var("HOOKGATE_FLOOD").as_deref() {
            Ok("full") => (60, 50_000 / 60 + 1, 5_000),
            _ => (3, 500, 300),
        };
        let lasts = Duration::from_secs(seconds);
        Flood { lasts, forgeries_per_second, slow, max_in_flight: slow * 7 / 10 }
    }
}

/// A while of a good client, and the gateway at its end.
struct Phase {
    name: &'static str,
    served: Served,
    memory: f64,
    audit_bytes: u64,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Served { ids, failed, took } = &self.served;
        let all = ids.len() + failed.len();
        let share = 100.0 * ids.len() as f64 / all as f64;
        let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
        let (memory, log) = (self.memory / MIB, self.audit_bytes as f64 / MIB);
        write!(
            f,
            "| {} | {all} | {share:.1} % | {:.1} ms | {:.1} ms | {:.1} ms | ",
            self.name,
            at(50),
            at(99),
            at(100)
        )?;
        write!(f, "{memory:.0} MiB | {log:.2} MiB |")
    }
}

/// What a good client was given.
#[derive(Default)]
struct Served {
    ids: Vec<String>,
    /// What it was told instead.
    failed: Vec<String>,
    took: Vec<Duration>,
}

/// Delivers one event after the other on one connection, to the source that is flooded and to another by turns.
async fn deliver(name: &str, gateway: SocketAddr, lasts: Duration) -> Served {
    let mut client = Client::connect(gateway).await.unwrap();
    let (begun, mut served) = (clock::instant(), Served::default());
    while begun.elapsed() < lasts || served.took.len() < 2 {
        let number = served.took.len();
        let id = format!("{name}-{number}");
        let delivery = if number % 2 == 0 { basiq(&id) } else { atelio(&id, "") };
        let sent = clock::instant();
        let answer = client.deliver(&delivery).await;
        served.took.push(sent.elapsed());
        match answer {
            Ok(answer) if answer.status == 200 => served.ids.push(answer.taken().1),
            answer => {
                served.failed.push(format!("{answer:?}"));
                client = Client::connect(gateway).await.unwrap();
            }
        }
        tokio::time::sleep(BETWEEN_DELIVERIES).await;
    }
    served.took.sort();
    served
}

/// How often the source that is flooded has refused for this reason.
async fn rejects(gateway: &Gateway, reason: &str) -> usize {
    gateway.metric(&format!("hookgate_rejects_total{{reason=\"{reason}\",source=\"basiq\"}}")).await as usize
}

/// The attackers at work.
#[derive(Default)]
struct Attack {
    tasks: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    refused: AtomicUsize,
    slow: AtomicUsize,
}

impl Attack {
    /// So many forgeries a second from this address.
    fn forge(&mut self, gateway: SocketAddr, from: [u8; 4], per_second: u64) {
        let every = Duration::from_micros(1_000_000 * u64::from(FORGERS) / per_second);
        for number in 0..FORGERS {
            let due = clock::instant() + every * number / FORGERS;
            let due = tokio::time::interval_at(due.into(), every);
            self.tasks.spawn(forge(gateway, from, due, self.counts.clone()));
        }
    }

    /// So many connections from this address that begin like this and are slow from then on.
    fn linger(&mut self, gateway: SocketAddr, from: [u8; 4], connections: usize, opening: &'static str) {
        for number in 0..connections {
            // Spread over the second: all at once would be a flood of its own kind, and chiefly of the one who sends it.
            let after = BETWEEN_BYTES.mul_f64(number as f64 / connections as f64);
            let slow = linger(gateway, from, opening, self.counts.clone());
            self.tasks.spawn(async move {
                tokio::time::sleep(after).await;
                slow.await;
            });
        }
    }

    fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::Relaxed)
    }

    fn slow(&self) -> usize {
        self.counts.slow.load(Ordering::Relaxed)
    }

    /// Ends it: how many forgeries were refused.
    async fn finish(mut self) -> usize {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.counts.refused.load(Ordering::Relaxed)
    }
}

/// Forgeries, one after the other, each of which must be refused. A slow answer does not make for fewer: those that are overdue follow at once.
async fn forge(gateway: SocketAddr, from: [u8; 4], mut due: Interval, counts: Arc<Counts>) {
    let forgery = basiq_by_another_secret("forged").bytes();
    while let Ok(mut client) = connect(from, gateway).await.and_then(Client::over) {
        while !counts.stop.load(Ordering::Relaxed) {
            if client.send(&forgery).await.is_err() {
                break;
            }
            let Ok(answer) = client.answer().await else { break };
            assert!([401, 503].contains(&answer.status), "{answer:?}");
            counts.refused.fetch_add(usize::from(answer.status == 401), Ordering::Relaxed);
            due.tick().await;
        }
        if counts.stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A connection that sends a byte a second, and comes again once it is thrown out: later where it had no place at all.
async fn linger(gateway: SocketAddr, from: [u8; 4], opening: &str, counts: Arc<Counts>) {
    while !counts.stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = connect(from, gateway).await else {
            tokio::time::sleep(BETWEEN_BYTES).await;
            continue;
        };
        if stream.write_all(opening.as_bytes()).await.is_err() {
            continue;
        }
        counts.slow.fetch_add(1, Ordering::Relaxed);
        let (mut scratch, mut held) = ([0; 1024], false);
        while !counts.stop.load(Ordering::Relaxed) {
            let said = tokio::time::timeout(BETWEEN_BYTES, stream.read(&mut scratch)).await;
            // An answer, an end or a reset: whatever it is, the slow one has been found out.
            if said.is_ok() || stream.write_all(b"x").await.is_err() {
                break;
            }
            held = true;
        }
        counts.slow.fetch_sub(1, Ordering::Relaxed);
        if !held {
            tokio::time::sleep(BEFORE_COMING_AGAIN).await;
        }
    }
}

/// From an address of this machine: as this client.
async fn connect(from: [u8; 4], gateway: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Else the ports of those that were thrown out wait for a minute, until there is none for the next.
    socket.set_zero_linger()?;
    socket.bind((from, 0).into())?;
    socket.connect(gateway).await
}

const IN_THE_HEAD: &str = "POST /hooks/basiq HTTP/1.1\r\nhost: slow.test\r\nx-slow: ";
const IN_THE_BODY: &str = "POST /hooks/basiq HTTP/1.1\r\nhost: slow.test\r\ncontent-length: 1000\r\n\r\n";

const AUDIT_BYTES: u64 = 4 << 20;
const MIB: f64 = (1 << 20) as f64;
const MEMORY_GROWS_AT_MOST: f64 = 48.0 * MIB;
const FORGERS: u32 = 16;
const BETWEEN_BYTES: Duration = Duration::from_secs(1);
const BEFORE_COMING_AGAIN: Duration = Duration::from_secs(4);
const BETWEEN_DELIVERIES: Duration = Duration::from_millis(5);
