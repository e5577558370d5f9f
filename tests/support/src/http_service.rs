//! An HTTP service of a test's own: it takes events as a consumer does, and fails as the test tells it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{eventually, free_port};

/// Gone when dropped.
pub struct HttpService {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// None while it is down.
    tasks: Option<JoinSet<()>>,
}

/// A request that it has read whole.
#[derive(Clone, Debug)]
pub struct Posted {
    pub method: String,
    pub path: String,
    /// By lower-case names.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub at: Instant,
    /// The number of the connection that it came over.
    pub connection: usize,
    /// How many requests to this service were under way, this one included.
    pub under_way: usize,
}

/// What it does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Answers with this status.
    Status(u16),
    /// The same, with a header.
    With(u16, &'static str, String),
    /// Takes the event, and answers 200 that much later.
    Slow(Duration),
    /// Answers nothing until the test replaces the replies.
    Hang,
    /// Takes the event, and cuts the connection without an answer.
    Cut,
    /// Takes the event, and cuts the connection in the middle of the answer.
    CutWithin,
}

type Replies = Arc<dyn Fn(&Posted) -> Reply + Send + Sync>;

struct State {
    replies: Replies,
    posted: Vec<Posted>,
    taken: Vec<Posted>,
    under_way: usize,
    connections: usize,
}

impl HttpService {
    /// Takes every event.
    pub async fn start() -> HttpService {
        let replies: Replies = Arc::new(|_| Reply::Status(204));
        let state = State { replies, posted: Vec::new(), taken: Vec::new(), under_way: 0, connections: 0 };
        let state = Arc::new(Mutex::new(state));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut service = HttpService { address, state, tasks: None };
        service.restart().await;
        service
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Replaces what it does from now on, also with those that hang.
    pub fn replies(&self, replies: impl Fn(&Posted) -> Reply + Send + Sync + 'static) {
        self.state.lock().unwrap().replies = Arc::new(replies);
    }

    /// Every request that it has read whole, in order.
    pub fn posted(&self) -> Vec<Posted> {
        self.state.lock().unwrap().posted.clone()
    }

    /// Those whose events it took, in order.
    pub fn taken(&self) -> Vec<Posted> {
        self.state.lock().unwrap().taken.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Cuts every connection, and listens no more.
    pub async fn kill(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
        self.state.lock().unwrap().under_way = 0;
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        let address = self.address;
        let listener = eventually("the service's port", async || TcpListener::bind(address).await.ok()).await;
        let (mut tasks, state) = (JoinSet::new(), self.state.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let number = {
                    let mut state = state.lock().unwrap();
                    state.connections += 1;
                    state.connections
                };
                connections.spawn(serve(stream, number, state.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        self.tasks = Some(tasks);
    }
}

impl Posted {
    /// A header, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn event(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The event's id.
    pub fn id(&self) -> String {
        self.event()["id"].as_str().unwrap().to_owned()
    }
}

/// Counts a request for as long as it is under way.
struct UnderWay(Arc<Mutex<State>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        state.under_way = state.under_way.saturating_sub(1);
    }
}

async fn serve(mut stream: TcpStream, connection: usize, state: Arc<Mutex<State>>) {
    let mut read = Vec::new();
    loop {
        let Some(posted) = request(&mut stream, connection, &mut read, &state).await else { return };
        let _under_way = UnderWay(state.clone());
        let reply = loop {
            let replies = state.lock().unwrap().replies.clone();
            match replies(&posted) {
                Reply::Hang => tokio::time::sleep(Duration::from_millis(5)).await,
                reply => break reply,
            }
        };
        let is_taken = matches!(
            reply,
            Reply::Status(200..300)
                | Reply::With(200..300, ..)
                | Reply::Slow(_)
                | Reply::Cut
                | Reply::CutWithin
        );
        if is_taken {
            state.lock().unwrap().taken.push(posted);
        }
        let answer = match reply {
            Reply::Status(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"),
            Reply::With(status, name, value) => {
                format!("HTTP/1.1 {status} X\r\n{name}: {value}\r\ncontent-length: 2\r\n\r\nno")
            }
            Reply::Slow(time) => {
                tokio::time::sleep(time).await;
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
            }
            Reply::CutWithin => "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok".to_owned(),
            Reply::Cut | Reply::Hang => return,
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || reply_ends(&answer) {
            return;
        }
    }
}

fn reply_ends(answer: &str) -> bool {
    answer.contains("content-length: 20\r\n")
}

/// Reads a request, and counts it as under way.
async fn request(
    stream: &mut TcpStream,
    connection: usize,
    read: &mut Vec<u8>,
    state: &Mutex<State>,
) -> Option<Posted> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<String, String> =
        headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while read.len() < end + length {
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
    let rest = read.split_off(end + length);
    let body = String::from_utf8(read.split_off(end)).unwrap();
    *read = rest;
    let mut state = state.lock().unwrap();
    state.under_way += 1;
    let under_way = state.under_way;
    let posted = Posted { method, path, headers, body, at: Instant::now(), connection, under_way };
    state.posted.push(posted.clone());
    Some(posted)
}
