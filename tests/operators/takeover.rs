//! One gateway after the other on the same port: a client that connects meanwhile is served, by the one or by the other. They share
//! the port by themselves, or have it from systemd, which keeps it open.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use support::{
    Client, Home, Persistence, Redis, STANDARD_SECRET, assert_each_once, basiq, basiq_about,
    basiq_by_another_secret, free_port, until,
};
use tokio::task::JoinSet;

/// Senders who open a connection for every event, and take nothing but 200 for an answer.
struct Callers {
    senders: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    begun: AtomicUsize,
    taken: AtomicUsize,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Callers {
    fn start(edge: SocketAddr) -> Callers {
        let (mut senders, shared) = (JoinSet::new(), Arc::<Shared>::default());
        for _ in 0..8 {
            senders.spawn(call(edge, shared.clone()));
        }
        Callers { senders, shared }
    }

    async fn taken(&self, more: usize) {
        let goal = self.shared.taken.load(Ordering::Relaxed) + more;
        until("callers are answered 200", async || self.shared.taken.load(Ordering::Relaxed) >= goal).await;
    }

    /// The ids of all events sent; none may have failed.
    async fn finish(mut self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.senders.join_next().await {
            ended.unwrap();
        }
        let failures = self.shared.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:#?}");
        (0..self.shared.begun.load(Ordering::Relaxed)).map(id).collect()
    }
}

async fn call(edge: SocketAddr, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let id = id(shared.begun.fetch_add(1, Ordering::Relaxed));
        let answer = async { Client::connect(edge).await?.deliver(&basiq(&id)).await }.await;
        match answer {
            Ok(answer) if answer.status == 200 => {
                shared.taken.fetch_add(1, Ordering::Relaxed);
            }
            other => shared.failures.lock().unwrap().push(format!("{id}: {other:?}")),
        }
    }
}

fn id(number: usize) -> String {
    format!("call-{number:06}")
}

fn shared_port(home: Home) -> Home {
    home.with("edge.reuse_port", true)
}

#[tokio::test]
async fn a_gateway_that_waits_for_the_data_folder_takes_over_with_no_refused_connection() {
    let home = shared_port(Home::embedded()).with("edge.listen", format!("127.0.0.1:{}", free_port()));
    let mut gateway = home.serve().await;
    let edge = gateway.edge;
    let callers = Callers::start(edge);
    // More than once: the moment of the change is a short one.
    for _ in 0..5 {
        callers.taken(50).await;
        let next = home.start();
        next.says("waiting for it to drain").await;
        callers.taken(20).await;
        gateway.sigterm();
        let next = next.listens().await;
        assert_eq!(gateway.exit().await.code(), Some(0));
        gateway = next;
        assert_eq!(gateway.edge, edge);
    }
    callers.taken(50).await;
    let sent = callers.finish().await;
    assert_each_once(&home.events(), &sent);
}

/// Basiq with its secrets in a file, and an address of its own that it shares.
fn with_a_secret_file() -> Home {
    let home = shared_port(Home::embedded()).with("edge.listen", format!("127.0.0.1:{}", free_port()));
    let source = "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{ file = \"basiq.secret\" }]\n";
    fs::write(home.path("basiq.secret"), STANDARD_SECRET).unwrap();
    home.with_sources(source)
}

const NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

#[tokio::test]
async fn a_gateway_that_waited_serves_by_what_its_config_and_secrets_say_by_then() {
    let home = with_a_secret_file().with("edge.max_body", "1MiB");
    let mut first = home.serve().await;
    let second = home.start();
    second.says("waiting for it to drain").await;
    fs::write(home.path("basiq.secret"), NEXT_SECRET).unwrap();
    let home = home.with("edge.max_body", "1KiB");
    home.write_config();
    first.sigterm();
    let second = second.listens().await;
    assert_eq!(first.exit().await.code(), Some(0));
    assert_eq!(second.deliver(&basiq("a")).await.status, 401);
    second.deliver(&basiq_by_another_secret("a")).await.assert_accepted("a");
    let long = basiq_about("b", &"u".repeat(2048));
    assert_eq!(second.deliver(&long).await.status, 413);
    // And that not by a reload.
    assert!(!second.log().contains("config reloaded"), "{}", second.log());
}

#[tokio::test]
async fn a_gateway_that_waited_for_a_folder_that_is_no_longer_its_own_begins_again() {
    let home = with_a_secret_file();
    let mut first = home.serve().await;
    let second = home.start();
    second.says("waiting for it to drain").await;
    let home = home.with("data_dir", "elsewhere");
    home.write_config();
    first.sigterm();
    let second = second.listens().await;
    assert_eq!(first.exit().await.code(), Some(0));
    assert!(second.log().contains("starting over"), "{}", second.log());
    second.deliver(&basiq("a")).await.assert_accepted("a");
    assert!(home.path("elsewhere/hookgate.db").exists());
    assert_eq!(home.events().len(), 1);
}

#[tokio::test]
async fn a_gateway_that_waited_does_not_serve_by_a_config_that_is_wrong_by_then() {
    let home = with_a_secret_file();
    let mut first = home.serve().await;
    let second = home.start();
    second.says("waiting for it to drain").await;
    fs::remove_file(home.path("basiq.secret")).unwrap();
    first.sigterm();
    let said = second.listens_or_ends().await.err().unwrap();
    assert!(said.contains("exit status: 1") || said.contains("unix_wait_status(256)"), "{said}");
    assert!(said.contains("cannot read the secret file"), "{said}");
    assert_eq!(first.exit().await.code(), Some(0));
    assert!(!first.log().contains("drain_timeout is over"), "it waits for nobody: {}", first.log());
}

#[tokio::test]
async fn two_gateways_on_one_port_serve_together_and_either_may_go() {
    let redis = Redis::start(Persistence::Off).await;
    let port = format!("127.0.0.1:{}", free_port());
    let [one, other] = [(), ()].map(|()| {
        let home = shared_port(Home::redis(&redis)).with("edge.listen", port.clone());
        home.with("edge.drain_timeout", "1s")
    });
    let mut first = one.serve().await;
    let callers = Callers::start(first.edge);
    for _ in 0..2 {
        let mut second = other.serve().await;
        callers.taken(100).await;
        first.sigterm();
        assert_eq!(first.exit().await.code(), Some(0));
        callers.taken(50).await;
        first = one.serve().await;
        callers.taken(50).await;
        second.sigterm();
        assert_eq!(second.exit().await.code(), Some(0));
        callers.taken(50).await;
    }
    let sent = callers.finish().await;
    assert_each_once(&one.events(), &sent);
}

#[tokio::test]
async fn nobody_waits_so_a_drain_ends_by_itself() {
    let home = shared_port(Home::embedded());
    let mut gateway = home.serve().await;
    gateway.deliver(&basiq("only")).await.assert_accepted("only");
    gateway.sigterm();
    assert_eq!(gateway.exit().await.code(), Some(0));
    let gateway = home.serve().await;
    gateway.deliver(&basiq("only")).await.assert_duplicate("only");
}

// -- sockets from systemd

/// A socket as systemd makes it, and another handle of it.
fn passed() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn copy(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().unwrap().into()
}

#[tokio::test]
async fn a_restart_with_a_socket_of_systemd_refuses_no_connection() {
    let ((edge, edge_at), (admin, admin_at)) = (passed(), passed());
    let home = Home::embedded().with("edge.listen", edge_at.to_string());
    let home = home.with("admin.listen", admin_at.to_string());
    let sockets = || [copy(&edge), copy(&admin)];
    let mut gateway = home.start_with_sockets(sockets()).listens().await;
    assert_eq!((gateway.edge, gateway.admin), (edge_at, admin_at));
    let callers = Callers::start(edge_at);
    for _ in 0..10 {
        callers.taken(30).await;
        gateway.sigterm();
        assert_eq!(gateway.exit().await.code(), Some(0));
        // No gateway accepts now; connections wait.
        gateway = home.start_with_sockets(sockets()).listens().await;
    }
    callers.taken(50).await;
    let sent = callers.finish().await;
    assert_each_once(&home.events(), &sent);
    assert!(gateway.ready().await);
}

#[tokio::test]
async fn a_socket_that_no_address_names_is_told() {
    let (edge, edge_at) = passed();
    let (_, free) = passed();
    let home = Home::embedded().with("edge.listen", free.to_string());
    let said = home.start_with_sockets([copy(&edge)]).listens_or_ends().await.err().unwrap();
    let told =
        format!("the sockets that systemd passed: there is one for {edge_at}, and neither edge.listen");
    assert!(said.contains(&told), "{said}");
    // A reload by which a socket would lose its address is refused.
    let home = home.with("edge.listen", edge_at.to_string());
    let gateway = home.start_with_sockets([copy(&edge)]).listens().await;
    let home = home.with("edge.listen", free.to_string());
    home.write_config();
    until("it is refused", async || gateway.log().contains("config refused")).await;
    assert!(gateway.log().contains(&format!("there is one for {edge_at}")), "{}", gateway.log());
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
}

#[tokio::test]
async fn what_is_no_listening_socket_is_told() {
    let home = Home::embedded();
    let file = fs::File::open("/dev/null").unwrap();
    let said = home.start_with_sockets([file.into()]).listens_or_ends().await.err().unwrap();
    assert!(said.contains("file descriptor 3 is no listening TCP socket"), "{said}");
    let (listener, at) = passed();
    let connection = std::net::TcpStream::connect(at).unwrap();
    let said = home.start_with_sockets([copy(&listener), connection.into()]);
    let said = said.listens_or_ends().await.err().unwrap();
    assert!(said.contains("file descriptor 4 is no listening TCP socket: it does not listen"), "{said}");
}
