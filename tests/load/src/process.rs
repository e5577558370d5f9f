//! Servers as processes: started, waited for, looked at through `/proc`, ended by their id.
//!
//! A [`Server`] that is dropped is killed, so an error or an interrupt leaves none behind.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Result;

/// A running server.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

/// How to see that a server is ready: what it answers to what.
pub(crate) struct Probe {
    at: SocketAddr,
    ask: String,
    expect: &'static [u8],
}

impl Probe {
    /// `GET path` answers 200.
    pub(crate) fn http(at: SocketAddr, path: &str) -> Self {
        let ask = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
        Self { at, ask, expect: b"HTTP/1.1 200" }
    }

    /// Redis' `PING`.
    pub(crate) fn redis(at: SocketAddr) -> Self {
        Self { at, ask: "PING\r\n".to_owned(), expect: b"+PONG" }
    }

    async fn passes(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.at).await?;
        stream.write_all(self.ask.as_bytes()).await?;
        let mut answer = vec![0; self.expect.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer == self.expect)
    }
}

/// The body that a GET is answered with.
pub(crate) async fn get(at: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").ok_or("an answer without an end to its head")?.1.to_owned())
}

impl Server {
    /// Starts `command`, its output in `folder`, and waits until `probe` passes.
    pub(crate) async fn start(
        name: &'static str,
        command: &mut Command,
        folder: &Path,
        probe: &Probe,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("cannot start {name} ({command:?}): {error}"))?;
        let pid =
            child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).ok_or("a process without id")?;
        let mut server = Self { name, child, pid, log };
        server.wait_ready(probe).await?;
        Ok(server)
    }

    async fn wait_ready(&mut self, probe: &Probe) -> Result<()> {
        let give_up = Instant::now() + START;
        loop {
            if let Ok(Ok(true)) = timeout(Duration::from_secs(1), probe.passes()).await {
                return Ok(());
            }
            let problem = match self.child.try_wait()? {
                Some(status) => format!("ended at its start ({status})"),
                None if Instant::now() > give_up => format!("not ready after {START:?}"),
                None => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            return Err(format!("{} {problem}\n{}", self.name, self.output()).into());
        }
    }

    /// Processor time so far and memory now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let usage = Usage::of(&self.pid.as_raw_nonzero().to_string());
        usage.map_err(|error| format!("{} has no usage, so it has ended: {error}", self.name).into())
    }

    /// The last lines it printed, under its name.
    pub(crate) fn output(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        format!("{} printed last:\n{}", self.name, lines[lines.len().saturating_sub(20)..].join("\n"))
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill_process(self.pid, Signal::TERM)?;
        let ended = timeout(STOP, self.child.wait()).await;
        ended.map_err(|_| format!("{} runs on {STOP:?} after SIGTERM", self.name))??;
        Ok(())
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time of all its threads, since its start.
    pub(crate) cpu: Duration,
    /// Resident now, in bytes.
    pub(crate) rss: u64,
    /// How often its threads gave up a core, or had to.
    pub(crate) switches: u64,
}

impl Usage {
    /// Of this process.
    pub(crate) fn own() -> Result<Self> {
        Self::of("self")
    }

    fn of(process: &str) -> Result<Self> {
        let folder = PathBuf::from("/proc").join(process);
        let stat = fs::read_to_string(folder.join("stat"))?;
        let status = fs::read_to_string(folder.join("status"))?;
        let ticks = cpu_ticks(&stat).ok_or("/proc: no processor time")?;
        Ok(Self {
            cpu: Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
            rss: status_bytes(&status, "VmRSS").ok_or("/proc: no VmRSS")?,
            switches: switches(&folder)?,
        })
    }
}

/// Of all threads that there are now.
fn switches(process: &Path) -> Result<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let counts = status
            .lines()
            .filter_map(|line| line.split_once("_ctxt_switches:")?.1.trim().parse::<u64>().ok());
        switches += counts.sum::<u64>();
    }
    Ok(switches)
}

/// utime and stime: fields 14 and 15, counted from behind the name, which may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

fn status_bytes(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A store with millions of events may take its time to open.
const START: Duration = Duration::from_secs(30);
/// Longer than the gateway's `drain_timeout`.
const STOP: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_memory_are_read_from_proc() {
        let stat = "4711 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 4 0 99";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(status_bytes("VmHWM:\t    9 kB\nVmRSS:\t     5 kB\n", "VmRSS"), Some(5 * 1024));
        assert!(Usage::own().unwrap().rss > 0);
    }
}
