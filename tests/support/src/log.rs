//! A gateway's log: its standard error, read line by line in a thread.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::ChildStderr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    text: Mutex<String>,
    /// Tells the reader to close its end of the pipe.
    stop: AtomicBool,
    closed: AtomicBool,
}

impl Log {
    pub fn read(stderr: ChildStderr) -> Log {
        let log = Log::default();
        let shared = log.0.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                if shared.stop.load(Ordering::SeqCst) {
                    break;
                }
                *shared.text.lock().unwrap() += &(line.unwrap() + "\n");
            }
            shared.closed.store(true, Ordering::SeqCst);
        });
        log
    }

    pub fn text(&self) -> String {
        self.0.text.lock().unwrap().clone()
    }

    pub fn contains(&self, what: &str) -> bool {
        self.0.text.lock().unwrap().contains(what)
    }

    /// The last lines, to be printed when a test fails.
    pub fn end(&self) -> String {
        let text = self.text();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(END_LINES)..].join("\n")
    }

    /// The reader closes its end of the pipe at the next line.
    pub fn stop_reading(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// The address in the line with this message.
    pub fn address(&self, message: &str) -> Option<SocketAddr> {
        let text = self.0.text.lock().unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.into_iter().find(|line| line["message"] == message)?;
        line["address"].as_str()?.split_once("://")?.1.parse().ok()
    }
}

const END_LINES: usize = 200;
