//! An HTTP/1.1 client in the raw: it shows every header, and it can misbehave.

use std::io::{self, Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Delivery;

/// One connection, kept alive.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        Client::over(stream)
    }

    /// Over a connection that is made.
    pub fn over(stream: TcpStream) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: hookgate.test\r\n\r\n").as_bytes()).await?;
        self.answer().await
    }

    pub async fn deliver(&mut self, delivery: &Delivery) -> io::Result<Answer> {
        self.send(&delivery.request()).await?;
        self.answer().await
    }

    /// Sends bytes and waits for nothing.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits for an answer, not for ever.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.read()).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(ErrorKind::TimedOut, "no answer")),
        }
    }

    /// Whether the server has closed the connection, once it says anything.
    pub async fn closed(&mut self) -> bool {
        let closed = async { self.stream.read(&mut [0]).await.is_ok_and(|bytes| bytes == 0) };
        tokio::time::timeout(ANSWER_TIMEOUT, closed).await.unwrap_or(false)
    }

    async fn read(&mut self) -> io::Result<Answer> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no status line"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        answer.body = String::from_utf8(body).unwrap();
        Ok(answer)
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "closed"));
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Status and id of a 200; fails on anything else.
    pub fn taken(&self) -> (String, String) {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("id"))
    }

    pub fn assert_accepted(&self, id: &str) {
        assert_eq!(self.taken(), ("accepted".to_owned(), id.to_owned()));
    }

    pub fn assert_duplicate(&self, id: &str) {
        assert_eq!(self.taken(), ("duplicate".to_owned(), id.to_owned()));
    }

    /// A 503 that says when to come again.
    pub fn assert_come_again(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let seconds: u32 = self.header("retry-after").unwrap_or("absent").parse().unwrap_or(0);
        assert!((1..=30).contains(&seconds), "{self:?}");
    }
}

/// Longer than the gateway's own request timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
