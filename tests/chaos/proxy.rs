//! A proxy between a gateway and one of its servers: it passes everything on, until it is told to be slow, or to cut the
//! connection before a request or after it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The proxy. Gone when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    _tasks: JoinSet<()>,
}

/// What it does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Everything comes later, both ways.
    Delay(Duration),
    /// The server never gets an event: the connection is cut instead.
    CutBefore,
    /// The server gets the event, and its answer is lost with the connection.
    CutAfter,
    /// Nobody gets through.
    Refuse,
}

impl Proxy {
    pub async fn before(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Mode::Pass)));
        let (mut tasks, shared) = (JoinSet::new(), mode.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                if *shared.lock().unwrap() != Mode::Refuse {
                    connections.spawn(carry(client, server, shared.clone()));
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Proxy { address, mode, _tasks: tasks }
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mode: Arc<Mutex<Mode>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cut = Arc::new(Mutex::new(false));
    // Either way's end is the connection's end.
    tokio::select! {
        () = requests(from_client, to_server, &mode, &cut) => {}
        () = answers(from_server, to_client, &mode, &cut) => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: &Mutex<Mode>, cut: &Mutex<bool>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let now = *mode.lock().unwrap();
        match now {
            Mode::Refuse => return,
            Mode::Delay(time) => tokio::time::sleep(time).await,
            // Pings and hellos are short; what is cut is to be an event.
            Mode::CutBefore if length > SHORT => return,
            Mode::CutAfter if length > SHORT => *cut.lock().unwrap() = true,
            _ => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: &Mutex<Mode>, cut: &Mutex<bool>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if *cut.lock().unwrap() {
            return;
        }
        let now = *mode.lock().unwrap();
        if let Mode::Delay(time) = now {
            tokio::time::sleep(time).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

const SHORT: usize = 300;
