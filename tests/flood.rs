//! A good client while others flood the gateway with forgeries and hold thousands of slow connections: it is served as before,
//! the reject log stays within its bound, and memory is flat.
//!
//!     tests/run --test flood -- --nocapture                        # some seconds
//!     HOOKGATE_FLOOD=full tests/run --test flood -- --nocapture    # a minute: 50,000 forgeries, 5,000 slow connections
//!
//! How long the good client waits is printed, not asserted: that is a matter of the machine.

// The lint knows `#[test]` functions, not what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hookgate::clock;
use support::{Client, Delivery, Home, assert_each_once, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forgeries_and_slow_connections_costs_a_good_client_nothing_but_time() {
    let flood = Flood::of_this_run();
    let home = Home::embedded().with("audit.max_bytes", format!("{AUDIT_BYTES}B"));
    let gateway = home.serve().await;

    let quiet = deliver("quiet", gateway.edge, flood.lasts).await;
    let attack = Attack::start(gateway.edge, &flood);
    until("the flood is on", async || attack.slow() >= flood.slow * 9 / 10 && attack.refused() > 50).await;
    let flooded = deliver("flooded", gateway.edge, flood.lasts / 3).await;
    let memory = gateway.metric("process_resident_memory_bytes").await;
    let later = deliver("later", gateway.edge, flood.lasts * 2 / 3).await;
    let memory_later = gateway.metric("process_resident_memory_bytes").await;
    let held = gateway.metric("hookgate_connections").await;
    let refused = attack.finish().await;

    println!("{flood:?}");
    for (name, served) in [("quiet", &quiet), ("flooded", &flooded), ("flooded on", &later)] {
        println!(
            "{name:<12} {:>6} deliveries, all taken; p50 {:?}, p99 {:?}, worst {:?}",
            served.ids.len(),
            served.at(50),
            served.at(99),
            served.at(100)
        );
    }
    println!(
        "{refused} forgeries refused; {held} connections; {:.0} MiB resident, later {:.0} MiB",
        memory / MIB,
        memory_later / MIB
    );

    assert!(memory_later - memory < MEMORY_GROWS_AT_MOST, "{memory} grew to {memory_later}");
    // The log says how many there were, whether or not it holds each.
    let mismatches = async || {
        gateway.metric("hookgate_rejects_total{reason=\"signature_mismatch\",source=\"basiq\"}").await
            as usize
    };
    until("every forgery is counted", async || mismatches().await >= refused).await;
    let log = home.audit_bytes();
    assert!(log <= AUDIT_BYTES, "the reject log has {log} bytes");
    let verified = home.lines(&["audit", "verify", "--json"]);
    assert_eq!(verified.len(), 1, "{verified:?}");
    let ids: Vec<String> = [quiet, flooded, later].into_iter().flat_map(|served| served.ids).collect();
    assert_each_once(&home.events(), &ids);
}

/// How hard, and how long.
#[derive(Debug)]
struct Flood {
    lasts: Duration,
    forgeries_per_second: u64,
    slow: usize,
}

impl Flood {
    fn of_this_run() -> Flood {
        match std::env::var("HOOKGATE_FLOOD").as_deref() {
            Ok("full") => {
                Flood { lasts: Duration::from_secs(60), forgeries_per_second: 50_000 / 60 + 1, slow: 5_000 }
            }
            _ => Flood { lasts: Duration::from_secs(3), forgeries_per_second: 500, slow: 300 },
        }
    }
}

/// What a good client was given.
struct Served {
    ids: Vec<String>,
    took: Vec<Duration>,
}

impl Served {
    fn at(&self, percent: usize) -> Duration {
        self.took[(self.took.len() - 1) * percent / 100]
    }
}

/// Delivers one event after the other on one connection; each must be accepted.
async fn deliver(name: &str, gateway: SocketAddr, lasts: Duration) -> Served {
    let mut client = Client::connect(gateway).await.unwrap();
    let (begun, mut served) = (clock::instant(), Served { ids: Vec::new(), took: Vec::new() });
    while begun.elapsed() < lasts || served.ids.is_empty() {
        let id = format!("{name}-{}", served.ids.len());
        let sent = clock::instant();
        client.deliver(&Delivery::basiq(&id)).await.unwrap().assert_accepted(&id);
        served.took.push(sent.elapsed());
        served.ids.push(id);
        tokio::time::sleep(BETWEEN_DELIVERIES).await;
    }
    served.took.sort();
    served
}

/// The attackers at work.
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
    fn start(gateway: SocketAddr, flood: &Flood) -> Attack {
        let (mut tasks, counts) = (JoinSet::new(), Arc::<Counts>::default());
        let pause = Duration::from_micros(1_000_000 * FORGERS / flood.forgeries_per_second);
        for _ in 0..FORGERS {
            tasks.spawn(forge(gateway, pause, counts.clone()));
        }
        for number in 0..flood.slow {
            tasks.spawn(linger(gateway, number % 2 == 0, counts.clone()));
        }
        Attack { tasks, counts }
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

/// Forgeries, one after the other, each of which must be refused.
async fn forge(gateway: SocketAddr, pause: Duration, counts: Arc<Counts>) {
    let forgery = Delivery::basiq_by_another_secret("forged");
    while let Ok(mut client) = Client::connect(gateway).await {
        while !counts.stop.load(Ordering::Relaxed) {
            let Ok(answer) = client.deliver(&forgery).await else { break };
            assert!([401, 503].contains(&answer.status), "{answer:?}");
            counts.refused.fetch_add(usize::from(answer.status == 401), Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
        if counts.stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A connection that sends a byte a second of a head, or of a body, and comes again once it is thrown out.
async fn linger(gateway: SocketAddr, in_the_head: bool, counts: Arc<Counts>) {
    let opening: &[u8] = if in_the_head {
        b"POST /hooks/basiq HTTP/1.1\r\nhost: slow.test\r\nx-slow: "
    } else {
        b"POST /hooks/basiq HTTP/1.1\r\nhost: slow.test\r\ncontent-length: 1000\r\n\r\n"
    };
    while !counts.stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(gateway).await else {
            tokio::time::sleep(BETWEEN_BYTES).await;
            continue;
        };
        if stream.write_all(opening).await.is_err() {
            continue;
        }
        counts.slow.fetch_add(1, Ordering::Relaxed);
        let mut scratch = [0; 1024];
        while !counts.stop.load(Ordering::Relaxed) {
            let said = tokio::time::timeout(BETWEEN_BYTES, stream.read(&mut scratch)).await;
            // An answer, an end or a reset: whatever it is, the slow one has been found out.
            if said.is_ok() || stream.write_all(b"x").await.is_err() {
                break;
            }
        }
        counts.slow.fetch_sub(1, Ordering::Relaxed);
    }
}

const AUDIT_BYTES: u64 = 4 << 20;
const MIB: f64 = (1 << 20) as f64;
const MEMORY_GROWS_AT_MOST: f64 = 48.0 * MIB;
const FORGERS: u64 = 16;
const BETWEEN_BYTES: Duration = Duration::from_secs(1);
const BETWEEN_DELIVERIES: Duration = Duration::from_millis(5);
