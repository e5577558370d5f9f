//! A process of a test's own. It is signalled by its id alone, and killed when the test ends.

use std::fs::{self, DirEntry};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Killed when dropped.
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        match command.spawn() {
            Ok(child) => Process(child),
            Err(error) => panic!("{}: {error}", command.get_program().display()),
        }
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its standard output, if that is piped and not taken yet.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().unwrap()
    }

    /// Its standard error, if that is piped and not taken yet.
    pub fn stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().unwrap()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// The system gives the id to no other process until this one has been waited for, even if it has ended.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -s {name} {}", self.id());
    }

    /// Freezes it, and returns once every thread has stopped: a running one stops a moment after the signal.
    pub fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.id());
        // Behind the name, which may hold anything, comes the state.
        let stopped = |task: DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        let start = Instant::now();
        while !fs::read_dir(&tasks).unwrap().all(|task| stopped(task.unwrap())) {
            assert!(start.elapsed() < Duration::from_secs(60), "{} is not stopped", self.id());
            std::thread::yield_now();
        }
    }

    pub fn kill9(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port below the range from which the system assigns ports. No other test gets it until this process ends, even while its
/// server is down: the UDP port of the same number is held as a reservation, and no server here uses UDP.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    loop {
        let port = 20_000 + fastrand::u16(..12_000);
        let Ok(sign) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap().push(sign);
            return port;
        }
    }
}
