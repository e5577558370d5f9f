//! A raw HTTP/1.1 client: it shows every header, and it can misbehave.

use std::io::{self, Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Answer, Request};

/// One connection, which is kept alive.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        Client::over(stream)
    }

    /// Takes over an open connection.
    pub fn over(stream: TcpStream) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.deliver(&Request::get(path)).await
    }

    pub async fn deliver(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(&request.bytes()).await?;
        self.answer().await
    }

    /// Sends bytes without waiting for an answer.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits for an answer, for a limited time.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.read()).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(ErrorKind::TimedOut, "no answer")),
        }
    }

    /// Waits for the next byte. Returns true if the server closes the connection instead.
    pub async fn closed(&mut self) -> bool {
        let closed = async { self.stream.read(&mut [0]).await.is_ok_and(|bytes| bytes == 0) };
        tokio::time::timeout(ANSWER_TIMEOUT, closed).await.unwrap_or(false)
    }

    async fn read(&mut self) -> io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).await? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "closed"));
            }
        }
        let mut answer = Answer::read_head(&head);
        let mut body = vec![0; answer.content_length()];
        self.stream.read_exact(&mut body).await?;
        answer.body = String::from_utf8(body).unwrap();
        Ok(answer)
    }
}

/// Longer than the gateway's own request timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
