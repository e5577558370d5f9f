//! Listening sockets that systemd opened and passed to this process (socket activation, `LISTEN_FDS`).
//!
//! Keeps true: a passed socket serves the listen address that it is bound to, and a passed socket that no address names
//! is an error. It stays open as long as the process, as it does in systemd: an address that leaves the config and
//! returns gets the same socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::LazyLock;

use crate::config::Config;

/// Why the sockets that systemd passed cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PassedError {
    /// `LISTEN_FDS` or `LISTEN_PID` is no number.
    #[error("LISTEN_FDS or LISTEN_PID is not as systemd sets it")]
    Environment,
    /// A descriptor is no listening TCP socket.
    #[error("file descriptor {descriptor} is no listening TCP socket: {why}")]
    NoListener {
        /// The number of the descriptor.
        descriptor: usize,
        /// What the system said.
        why: String,
    },
    /// No listen address of the config names a socket.
    #[error(
        "there is one for {passed}, and neither edge.listen nor admin.listen has that address: make ListenStream= of the \
         socket unit the same as the config's addresses, with IP and port{}", any_advice(*passed)
    )]
    Unnamed {
        /// Where the socket listens.
        passed: SocketAddr,
    },
}

/// `ListenStream=8080` means `[::]:8080`, which a config rarely says.
fn any_advice(passed: SocketAddr) -> String {
    match passed {
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            let port = address.port();
            format!(" (ListenStream={port} means [::]:{port}, IPv4 included)")
        }
        _ => String::new(),
    }
}

/// Fails unless the config names every passed socket.
pub(super) fn check(config: &Config) -> Result<(), PassedError> {
    let passed = PASSED.as_ref().map_err(Clone::clone)?;
    let is_named = |passed: SocketAddr| config.edge.listen.contains(&passed) || config.admin.listen == passed;
    match passed.iter().find(|(address, _)| !is_named(*address)) {
        Some((passed, _)) => Err(PassedError::Unnamed { passed: *passed }),
        None => Ok(()),
    }
}

/// The socket that was passed for this address, if there is one.
pub(super) fn take(address: SocketAddr) -> Option<io::Result<TcpListener>> {
    let passed = PASSED.as_ref().ok()?;
    let (_, listener) = passed.iter().find(|(passed, _)| *passed == address)?;
    Some(listener.try_clone())
}

type Passed = Vec<(SocketAddr, TcpListener)>;

/// Read once: reading gives the descriptors an owner.
static PASSED: LazyLock<Result<Passed, PassedError>> = LazyLock::new(|| {
    let descriptors = sd_listen_fds::get().map_err(|_| PassedError::Environment)?;
    let listeners = descriptors.into_iter().enumerate().map(|(at, (_, descriptor))| {
        let listener = TcpListener::from(descriptor);
        let no_listener = |why: String| PassedError::NoListener { descriptor: at + FIRST_DESCRIPTOR, why };
        let address = listener.local_addr().map_err(|why| no_listener(why.to_string()))?;
        match rustix::net::sockopt::socket_acceptconn(&listener) {
            Ok(true) => {}
            Ok(false) => return Err(no_listener("it does not listen; Accept= must be no".to_owned())),
            Err(why) => return Err(no_listener(why.to_string())),
        }
        let prepared = listener.set_nonblocking(true);
        prepared.map_err(|why| no_listener(why.to_string()))?;
        Ok((address, listener))
    });
    listeners.collect()
});

const FIRST_DESCRIPTOR: usize = 3;
