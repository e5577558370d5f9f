//! The sockets that the gateway listens on, and what serves each.
//!
//! Keeps true: an address that stays in the config keeps its socket through a reload, with all who wait on it; one that goes
//! accepts no more, and its connections end when their request is answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::config::Config;
use crate::edge::{self, ConnectionLimit, EdgeThreads, Stop};
use crate::observe::admin::Admin;
use crate::request::pipeline::Pipeline;

/// A socket that listens; nobody is accepted yet.
pub(super) struct Socket {
    listener: TcpListener,
    address: Address,
}

/// An address as the config has it, and as it was bound.
#[derive(Clone, Copy)]
struct Address {
    asked: SocketAddr,
    bound: SocketAddr,
}

/// A socket whose connections are accepted until its token is cancelled.
struct Served {
    address: Address,
    accepting: CancellationToken,
}

/// The sockets that a config asks for, or those that it adds: then there may be none for admin.
pub(super) struct Sockets<A = Socket> {
    pub(super) edge: Vec<Socket>,
    pub(super) admin: A,
}

/// The public listeners.
pub(super) struct EdgeListeners {
    served: Vec<Served>,
    accepting: TaskTracker,
    stop: Stop,
    places: Arc<ConnectionLimit>,
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
    fn bind(key: &'static str, asked: SocketAddr, shared: bool) -> Result<Socket, StartError> {
        let bind = || {
            let listener = edge::bind(asked, shared)?;
            let bound = listener.local_addr()?;
            io::Result::Ok(Socket { listener, address: Address { asked, bound } })
        };
        bind().map_err(|why| StartError::Listen { key, address: asked, why })
    }
}

impl Sockets {
    /// Binds every address of a config.
    pub(super) fn of(config: &Config) -> Result<Sockets, StartError> {
        let shared = config.edge.reuse_port;
        let admin = Socket::bind("admin.listen", config.admin.listen, shared)?;
        let edge = config.edge.listen.iter().map(|address| Socket::bind("edge.listen", *address, shared));
        Ok(Sockets { edge: edge.collect::<Result<_, _>>()?, admin })
    }
}

impl Sockets<Option<Socket>> {
    /// Binds what a config adds to these listeners, in its order.
    pub(super) fn added(
        config: &Config,
        edge: &EdgeListeners,
        admin: &AdminListener,
    ) -> Result<Self, StartError> {
        let shared = config.edge.reuse_port;
        let is_new = admin.served.address.asked != config.admin.listen;
        let admin = is_new.then(|| Socket::bind("admin.listen", config.admin.listen, shared)).transpose()?;
        let mut kept: Vec<SocketAddr> = edge.served.iter().map(|served| served.address.asked).collect();
        let mut sockets = Vec::new();
        for address in &config.edge.listen {
            // Each entry stands for one socket: two of port 0 are two.
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
            places: Arc::default(),
            threads: Arc::new(threads),
        }
    }

    /// Where they listen, ports resolved.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.served.iter().map(|served| served.address.bound).collect()
    }

    /// Serves one more.
    pub(super) fn serve(&mut self, socket: Socket, pipeline: &Arc<Pipeline>) {
        let Socket { listener, address } = socket;
        // The end of all ends each; one may end alone.
        let accepting = self.stop.accepting.child_token();
        let stop = Stop { accepting: accepting.clone(), everything: self.stop.everything.clone() };
        let (threads, places) = (self.threads.clone(), self.places.clone());
        self.accepting.spawn(edge::serve(listener, pipeline.clone(), threads, places, stop));
        self.served.push(Served { address, accepting });
    }

    /// Serves these addresses and no other. `added` are the sockets of those that are new, in the same order.
    pub(super) fn change(&mut self, asked: &[SocketAddr], added: Vec<Socket>, pipeline: &Arc<Pipeline>) {
        let (mut before, mut added) = (std::mem::take(&mut self.served), added.into_iter());
        for address in asked {
            match before.iter().position(|served| served.address.asked == *address) {
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

    /// Accepts no more. Returns once nobody is accepted.
    pub(super) async fn stop_accepting(&self) {
        self.stop.accepting.cancel();
        self.accepting.close();
        self.accepting.wait().await;
    }

    /// Drops every connection that is still open.
    pub(super) fn drop_everything(&self) {
        self.stop.everything.cancel();
    }

    /// Ends the threads, and what is left on them.
    pub(super) async fn close(self) {
        if let Some(threads) = Arc::into_inner(self.threads) {
            threads.stop().await;
        }
    }
}

impl AdminListener {
    /// Serves.
    pub(super) fn serve(admin: Admin, socket: Socket) -> AdminListener {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let served = serve_admin(&admin, socket, &tasks, &stop);
        AdminListener { served, admin, tasks, stop }
    }

    /// Where it listens, port resolved.
    pub(super) fn address(&self) -> SocketAddr {
        self.served.address.bound
    }

    /// Serves another address instead.
    pub(super) fn change(&mut self, socket: Socket) {
        let served = serve_admin(&self.admin, socket, &self.tasks, &self.stop);
        std::mem::replace(&mut self.served, served).accepting.cancel();
    }

    /// Runs something beside it until it stops, or until the token is cancelled.
    pub(super) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) -> CancellationToken {
        let until = self.stop.child_token();
        self.tasks.spawn(until.clone().run_until_cancelled_owned(work));
        until
    }

    /// Ends it, connections and all.
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
