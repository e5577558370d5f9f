//! The sockets that the gateway listens on, and the tasks that serve them.
//!
//! Keeps true: an address that stays in the config keeps its socket through a reload, including connections not yet
//! accepted. A removed address accepts no more; its connections end when their request is answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{StartError, passed};
use crate::config::Config;
use crate::edge::{self, ConnectionLimit, EdgeThreads, Stop};
use crate::observe::admin::Admin;
use crate::request::pipeline::Pipeline;

/// A bound socket; it accepts no connections yet.
pub(super) struct Socket {
    listener: TcpListener,
    address: Address,
}

/// An address as configured, and as bound (with its port resolved).
#[derive(Clone, Copy)]
struct Address {
    configured: SocketAddr,
    bound: SocketAddr,
}

/// A socket whose connections are accepted until its token is cancelled.
struct Served {
    address: Address,
    accepting: CancellationToken,
}

/// The sockets of a config. For a reload only the new ones, so `admin` may be `None`.
pub(super) struct Sockets<A = Socket> {
    pub(super) edge: Vec<Socket>,
    pub(super) admin: A,
}

/// The public listeners.
pub(super) struct EdgeListeners {
    served: Vec<Served>,
    accepting: TaskTracker,
    stop: Stop,
    connection_limit: Arc<ConnectionLimit>,
    threads: Arc<EdgeThreads>,
}

/// The admin listener.
pub(super) struct AdminListener {
    served: Served,
    admin: Admin,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Socket {
    fn bind(key: &'static str, configured: SocketAddr, shared: bool) -> Result<Socket, StartError> {
        let bind = || {
            let listener = match passed::take(configured) {
                Some(listener) => TcpListener::from_std(listener?)?,
                None => edge::bind(configured, shared)?,
            };
            let bound = listener.local_addr()?;
            io::Result::Ok(Socket { listener, address: Address { configured, bound } })
        };
        bind().map_err(|why| StartError::Listen { key, address: configured, why })
    }
}

impl Sockets {
    /// Binds every address of a config, except where systemd passed a socket for it.
    pub(super) fn bind(config: &Config) -> Result<Sockets, StartError> {
        passed::check(config)?;
        let shared = config.edge.reuse_port;
        let admin = Socket::bind("admin.listen", config.admin.listen, shared)?;
        let edge = config.edge.listen.iter().map(|address| Socket::bind("edge.listen", *address, shared));
        Ok(Sockets { edge: edge.collect::<Result<_, _>>()?, admin })
    }
}

impl Sockets<Option<Socket>> {
    /// Binds the addresses of a config that these listeners do not have yet, in its order.
    pub(super) fn bind_added(
        config: &Config,
        edge: &EdgeListeners,
        admin: &AdminListener,
    ) -> Result<Self, StartError> {
        passed::check(config)?;
        let shared = config.edge.reuse_port;
        let is_new = admin.served.address.configured != config.admin.listen;
        let admin = is_new.then(|| Socket::bind("admin.listen", config.admin.listen, shared)).transpose()?;
        let mut kept: Vec<SocketAddr> = edge.served.iter().map(|served| served.address.configured).collect();
        let mut sockets = Vec::new();
        for address in &config.edge.listen {
            // Each entry is one socket: two entries with port 0 are two sockets.
            match kept.iter().position(|kept| kept == address) {
                Some(at) => drop(kept.swap_remove(at)),
                None => sockets.push(Socket::bind("edge.listen", *address, shared)?),
            }
        }
        Ok(Sockets { edge: sockets, admin })
    }
}

impl EdgeListeners {
    pub(super) fn new(threads: EdgeThreads) -> EdgeListeners {
        EdgeListeners {
            served: Vec::new(),
            accepting: TaskTracker::new(),
            stop: Stop::default(),
            connection_limit: Arc::default(),
            threads: Arc::new(threads),
        }
    }

    /// The bound addresses, ports resolved.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.served.iter().map(|served| served.address.bound).collect()
    }

    pub(super) fn serve(&mut self, socket: Socket, pipeline: &Arc<Pipeline>) {
        let Socket { listener, address } = socket;
        // Cancelling the parent ends every listener; a reload cancels one alone.
        let accepting = self.stop.accepting.child_token();
        let stop = Stop { accepting: accepting.clone(), everything: self.stop.everything.clone() };
        let (threads, connection_limit) = (self.threads.clone(), self.connection_limit.clone());
        self.accepting.spawn(edge::serve(listener, pipeline.clone(), threads, connection_limit, stop));
        self.served.push(Served { address, accepting });
    }

    /// Serves exactly these addresses. `added` are the sockets of the new ones, in the same order.
    pub(super) fn change(&mut self, addresses: &[SocketAddr], added: Vec<Socket>, pipeline: &Arc<Pipeline>) {
        let (mut before, mut added) = (std::mem::take(&mut self.served), added.into_iter());
        for address in addresses {
            match before.iter().position(|served| served.address.configured == *address) {
                Some(at) => self.served.push(before.swap_remove(at)),
                None => {
                    if let Some(socket) = added.next() {
                        self.serve(socket, pipeline);
                    }
                }
            }
        }
        for gone in before {
            gone.accepting.cancel();
        }
    }

    /// Stops accepting connections. Returns once every accept loop has ended.
    pub(super) async fn stop_accepting(&self) {
        self.stop.accepting.cancel();
        self.accepting.close();
        self.accepting.wait().await;
    }

    pub(super) fn drop_connections(&self) {
        self.stop.everything.cancel();
    }

    /// Ends the edge threads, with every task left on them.
    pub(super) async fn close(self) {
        if let Some(threads) = Arc::into_inner(self.threads) {
            threads.stop().await;
        }
    }
}

impl AdminListener {
    pub(super) fn serve(admin: Admin, socket: Socket) -> AdminListener {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let served = serve_admin(&admin, socket, &tasks, &stop);
        AdminListener { served, admin, tasks, stop }
    }

    /// The bound address, port resolved.
    pub(super) fn address(&self) -> SocketAddr {
        self.served.address.bound
    }

    /// Serves this socket instead of the present one.
    pub(super) fn change(&mut self, socket: Socket) {
        let served = serve_admin(&self.admin, socket, &self.tasks, &self.stop);
        std::mem::replace(&mut self.served, served).accepting.cancel();
    }

    /// Runs `work` until this listener closes or the returned token is cancelled.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> CancellationToken {
        let until = self.stop.child_token();
        self.tasks.spawn(until.clone().run_until_cancelled_owned(work));
        until
    }

    /// Ends the console's streams: their browsers ask again.
    pub(super) fn end_console_sessions(&self) {
        self.admin.console.end_sessions();
    }

    /// Closes the socket and every connection.
    pub(super) async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn serve_admin(admin: &Admin, socket: Socket, tasks: &TaskTracker, stop: &CancellationToken) -> Served {
    let Socket { listener, address } = socket;
    let accepting = stop.child_token();
    let serving = admin.clone().serve(listener, tasks.clone(), stop.clone());
    tasks.spawn(accepting.clone().run_until_cancelled_owned(serving));
    Served { address, accepting }
}
