//! A raw connection: it sends any bytes, and shows every byte that comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::{Answer, PATIENCE, Request};

pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub fn open(to: SocketAddr) -> Connection {
        Connection::over(TcpStream::connect(to).unwrap())
    }

    /// From another address of this machine, as another client.
    pub fn open_from(from: [u8; 4], to: SocketAddr) -> Connection {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            socket.connect(to).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Connection::over(stream)
    }

    /// Takes over an open connection.
    pub fn over(stream: TcpStream) -> Connection {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends until the gateway stops reading. Returns true if all bytes were sent.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends as many bytes as it can without blocking, and returns their number; none once the connection is closed.
    pub fn send_some(&mut self, bytes: &[u8]) -> Option<usize> {
        self.stream.set_nonblocking(true).unwrap();
        let sent = match self.stream.write(bytes) {
            Ok(sent) => Some(sent),
            Err(error) => (error.kind() == ErrorKind::WouldBlock).then_some(0),
        };
        self.stream.set_nonblocking(false).unwrap();
        sent
    }

    /// Whether the connection is open with nothing left to read.
    pub fn is_silent(&mut self) -> bool {
        self.is_open() && self.read.is_empty()
    }

    /// Whether the gateway has left it open.
    pub fn is_open(&mut self) -> bool {
        is_open(&mut self.stream, &mut self.read)
    }

    /// Closes the sending half.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    pub fn ask(&mut self, request: &Request) -> Answer {
        self.send(request.bytes());
        if request.method == "HEAD" { self.head() } else { self.answer() }
    }

    /// In another version of HTTP.
    pub fn ask_as(&mut self, request: &Request, version: &str) -> Answer {
        self.send(request.bytes_as(version));
        self.answer()
    }

    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.content_length();
        self.fill(|read| (read.len() >= length).then_some(()), "a whole body");
        answer.body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        answer
    }

    /// The next answer, to a HEAD request: it has no body, whatever its content-length.
    pub fn head(&mut self) -> Answer {
        let end = self.fill(|read| read.windows(4).position(|window| window == b"\r\n\r\n"), "an answer");
        Answer::read_head(std::str::from_utf8(&self.read.drain(..end + 4).collect::<Vec<_>>()).unwrap())
    }

    /// Waits for the gateway to close the connection. Returns the bytes that came before.
    pub fn rest(mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.read);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the connection goes on: {error}"),
        }
    }

    /// Waits for the gateway to close the connection. Fails if any byte comes before.
    pub fn ends(self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }

    fn fill<T>(&mut self, enough: impl Fn(&[u8]) -> Option<T>, what: &str) -> T {
        loop {
            if let Some(found) = enough(&self.read) {
                return found;
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes).unwrap_or_else(|why| panic!("no {what}: {why}"));
            assert!(read > 0, "no {what}, but the end after {:?}", String::from_utf8_lossy(&self.read));
            self.read.extend(&bytes[..read]);
        }
    }
}

/// Whether the other end has left the connection open. Waiting bytes are read.
pub fn is_open(stream: &mut TcpStream, read: &mut Vec<u8>) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    let open = loop {
        match stream.read(&mut bytes) {
            Ok(0) => break false,
            Ok(length) => read.extend(&bytes[..length]),
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    open
}
