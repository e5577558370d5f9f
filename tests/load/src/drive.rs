//! The load generator: a fixed number of kept connections.
//!
//! A closed loop keeps one request in flight on each (over HTTP/2: so many): a slow answer delays the next request, so latencies
//! are those that a client with this many connections sees. An open loop sends at a fixed rate: a request that is due while
//! every connection waits counts its time from when it was due. The generator runs on one thread and does per request little
//! more than a write and a read: it shares two cores with the servers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::request::{Batch, Template, Ticket};
use crate::{Result, http2};

/// What is sent at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One request after the other on each of so many connections.
    Closed(usize),
    /// So many requests at a time on each of so many HTTP/2 connections.
    Streams {
        /// Connections.
        connections: usize,
        /// Requests under way on each.
        streams: usize,
    },
    /// So many requests a second over 64 connections.
    Open(u32),
}

/// How to drive a server.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// What is sent at a time.
    pub(crate) load: Load,
    /// Driven, not measured.
    pub(crate) warm_up: Duration,
    /// Measured.
    pub(crate) window: Duration,
}

/// What was seen from outside between two looks `U` at the servers.
pub(crate) struct Window<U> {
    /// Its length.
    pub(crate) elapsed: Duration,
    /// One entry for every request accepted in it, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// The look at its start.
    pub(crate) before: U,
    /// The look at its end, connections still open.
    pub(crate) after: U,
}

/// Drives `server` and measures one window. Call it within a [`tokio::task::LocalSet`].
pub(crate) async fn measure<U>(
    batch: Batch,
    server: SocketAddr,
    plan: Plan,
    look: impl Fn() -> Result<U>,
) -> Result<Window<U>> {
    let shared = Rc::new(Shared::new(batch, plan.load)?);
    let connections = connect(&shared, server);
    sleep(plan.warm_up).await;

    let before = look()?;
    let start = Instant::now();
    shared.recording.set(true);
    sleep(plan.window).await;
    shared.recording.set(false);
    let elapsed = start.elapsed();
    let after = look()?;

    let ran_dry = shared.ran_dry();
    shared.stop.set(true);
    join(connections, LAST_ANSWERS).await?;
    let tally = shared.tally.take();
    tally.check()?;
    if ran_dry {
        return Err(
            "the signed requests ran out before the window ended: raise bench::SIGNED_PER_SECOND".into()
        );
    }
    Ok(Window { elapsed, latency: shared.latency.take().ok_or("no latencies")?, before, after })
}

/// Sends the whole batch; how many were accepted.
pub(crate) async fn pour(batch: Batch, server: SocketAddr, connections: usize) -> Result<u64> {
    let shared = Rc::new(Shared::new(batch, Load::Closed(connections))?);
    join(connect(&shared, server), WHOLE_BATCH).await?;
    let tally = shared.tally.take();
    tally.check()?;
    Ok(tally.accepted)
}

/// Connections on each of which one request was answered and no other is asked. They stay open while the result is held.
pub(crate) async fn idle(batch: Batch, server: SocketAddr, connections: usize) -> Result<Vec<TcpStream>> {
    let shared = Shared::new(batch, Load::Closed(connections))?;
    let mut request = shared.batch.template.clone();
    let mut idle = Vec::new();
    let mut buffer = [0; ANSWER_BYTES];
    for _ in 0..connections {
        let mut stream = TcpStream::connect(server).await?;
        let ticket = shared.next_ticket().ok_or("fewer requests than connections")?;
        stream.write_all(request.stamp(ticket)).await?;
        read_answer(&mut stream, &mut buffer).await?;
        idle.push(stream);
    }
    Ok(idle)
}

fn connect(shared: &Rc<Shared>, server: SocketAddr) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..shared.connections() {
        tasks.spawn_local(keep_asking(Rc::clone(shared), server));
    }
    tasks
}

async fn join(mut tasks: JoinSet<()>, limit: Duration) -> Result<()> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    };
    timeout(limit, all).await.map_err(|_| format!("requests without an answer after {limit:?}"))?
}

/// One connection, opened again where it breaks, given up where it keeps breaking.
async fn keep_asking(shared: Rc<Shared>, server: SocketAddr) {
    let mut request = shared.batch.template.clone();
    for _ in 0..ATTEMPTS {
        let ended = match shared.load {
            Load::Streams { streams, .. } => http2::converse(&shared, &mut request, server, streams).await,
            Load::Closed(_) | Load::Open(_) => converse(&shared, &mut request, server).await,
        };
        match ended {
            Ok(()) => return,
            Err(error) => shared.tally.borrow_mut().broke(&error),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn converse(shared: &Shared, request: &mut Template, server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; ANSWER_BYTES];
    let mut asked = Instant::now();
    while let Some(ticket) = shared.next_ticket() {
        if let Load::Open(rate) = shared.load {
            let due = shared.due(rate);
            sleep_until(due.into()).await;
            // A timer of the generator that is late is no fault of the server's.
            asked = if due > asked { Instant::now() } else { due };
        }
        stream.write_all(request.stamp(ticket)).await?;
        let answer = read_answer(&mut stream, &mut buffer).await?;
        let answered = Instant::now();
        shared.count(answer, answered - asked);
        asked = answered;
    }
    Ok(())
}

/// An answer, borrowed from the connection's buffer.
pub(crate) struct Answer<'a> {
    /// Its status code.
    pub(crate) status: u16,
    /// Its body, whole.
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// Wherever in the object it says so: the order of JSON members means nothing.
    fn is_accepted(&self) -> bool {
        self.body.windows(ACCEPTED.len()).any(|part| part == ACCEPTED)
    }
}

async fn read_answer<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> io::Result<Answer<'a>> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed, or too long an answer"));
        }
        filled += read;
        if let Some((status, body_at, end)) = parse_head(&buffer[..filled])?
            && filled >= end
        {
            return Ok(Answer { status, body: &buffer[body_at..end] });
        }
    }
}

/// Status, start and end of the body; none while the head is incomplete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    match (head.code, length) {
        (Some(status), Some(length)) => Ok(Some((status, body_at, body_at + length))),
        _ => Err(io::Error::other("an answer without content-length")),
    }
}

/// What the connections of one drive have in common. They run on one thread.
pub(crate) struct Shared {
    batch: Batch,
    load: Load,
    started: Instant,
    taken: Cell<usize>,
    stop: Cell<bool>,
    recording: Cell<bool>,
    tally: RefCell<Tally>,
    latency: RefCell<Option<Histogram<u64>>>,
}

impl Shared {
    fn new(batch: Batch, load: Load) -> Result<Self> {
        Ok(Self {
            batch,
            load,
            started: Instant::now(),
            taken: Cell::default(),
            stop: Cell::default(),
            recording: Cell::default(),
            tally: RefCell::default(),
            latency: RefCell::new(Some(Histogram::new_with_bounds(1, LONGEST_MICROS, 3)?)),
        })
    }

    fn connections(&self) -> usize {
        match self.load {
            Load::Closed(connections) | Load::Streams { connections, .. } => connections,
            Load::Open(_) => OPEN_CONNECTIONS,
        }
    }

    /// When the request that was taken last is due.
    fn due(&self, rate: u32) -> Instant {
        self.started + Duration::from_secs_f64(self.taken.get() as f64 / f64::from(rate))
    }

    /// The next request to send; none once the run is over.
    pub(crate) fn next_ticket(&self) -> Option<&Ticket> {
        if self.stop.get() {
            return None;
        }
        let at = self.taken.get();
        self.taken.set(at + 1);
        self.batch.tickets.get(at)
    }

    fn ran_dry(&self) -> bool {
        self.taken.get() > self.batch.tickets.len()
    }

    /// Counts an answer.
    pub(crate) fn count(&self, answer: Answer<'_>, took: Duration) {
        let accepted = self.tally.borrow_mut().answered(&answer);
        if accepted
            && self.recording.get()
            && let Some(latency) = self.latency.borrow_mut().as_mut()
        {
            latency.saturating_record(took.as_micros() as u64);
        }
    }
}

/// Every answer of a drive, warm-up included.
#[derive(Default)]
struct Tally {
    accepted: u64,
    /// 200, but duplicate or ignored.
    not_accepted: u64,
    not_200: u64,
    broken: u64,
    first_wrong: Option<String>,
}

impl Tally {
    fn answered(&mut self, answer: &Answer<'_>) -> bool {
        let counter = match answer.status {
            200 if answer.is_accepted() => {
                self.accepted += 1;
                return true;
            }
            200 => &mut self.not_accepted,
            _ => &mut self.not_200,
        };
        *counter += 1;
        self.first_wrong
            .get_or_insert_with(|| format!("{} {}", answer.status, String::from_utf8_lossy(answer.body)));
        false
    }

    fn broke(&mut self, error: &io::Error) {
        self.broken += 1;
        self.first_wrong.get_or_insert_with(|| error.to_string());
    }

    fn check(&self) -> Result<()> {
        let wrong = self.not_accepted + self.not_200 + self.broken;
        let all = wrong + self.accepted;
        if self.accepted > 0 && wrong <= all / TOLERATED_ONE_IN {
            return Ok(());
        }
        let first = self.first_wrong.as_deref().unwrap_or("no answer at all");
        Err(format!(
            "of {all} requests {} were accepted, {} were 200 otherwise, {} not 200, {} broke off; \
             the first: {first}",
            self.accepted, self.not_accepted, self.not_200, self.broken
        )
        .into())
    }
}

/// Enough that at the rates measured one is free when a request is due.
const OPEN_CONNECTIONS: usize = 64;
const ACCEPTED: &[u8] = br#""status":"accepted""#;
const TOLERATED_ONE_IN: u64 = 1000;
/// Enough that a server that died shows in the tally of any batch.
const ATTEMPTS: usize = 50;
const ANSWER_BYTES: usize = 4096;
const LONGEST_MICROS: u64 = 60_000_000;
/// Longer than the gateway's `request_timeout`.
const LAST_ANSWERS: Duration = Duration::from_secs(20);
const WHOLE_BATCH: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_in_pieces_is_incomplete_and_a_whole_one_says_where_its_body_ends() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse_head(&whole[..20]).unwrap(), None);
        assert_eq!(parse_head(whole).unwrap(), Some((200, 38, 40)));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "without content-length the end is unknown");
    }

    #[test]
    fn one_wrong_answer_in_a_thousand_passes_and_two_do_not() {
        let mut tally = Tally { accepted: 998, ..Tally::default() };
        assert!(!tally.answered(&Answer { status: 200, body: br#"{"status":"duplicate","id":"x"}"# }));
        assert!(tally.answered(&Answer { status: 200, body: br#"{"id":"x","status":"accepted"}"# }));
        tally.check().unwrap();

        assert!(!tally.answered(&Answer { status: 503, body: b"busy" }));
        let error = tally.check().unwrap_err().to_string();
        assert!(error.contains("duplicate"), "the first wrong answer is named: {error}");
        assert!(Tally::default().check().is_err(), "a server that answered nothing was not measured");
    }
}
