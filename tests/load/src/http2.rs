//! HTTP/2 from the client's side, as little as a load generator needs: requests out of a [`Template`], statuses and ends of
//! streams out of the frames that come back.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::drive::{Answer, Shared};
use crate::request::Template;

/// A frame's header with stream 0; the payload follows.
pub(crate) fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
    let length = (payload as u32).to_be_bytes();
    vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 0]
}

/// Keeps `streams` requests under way on one connection until there are no more to send.
pub(crate) async fn converse(
    shared: &Shared,
    request: &mut Template,
    server: SocketAddr,
    streams: usize,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut client = Client::new(request.body_bytes());
    let (mut input, mut filled) = (vec![0; 64 << 10], 0);
    loop {
        while client.asked.len() < streams
            && client.may_send()
            && let Some(ticket) = shared.next_ticket()
        {
            let number = client.open();
            client.out.extend_from_slice(request.stamp_on(number, ticket));
        }
        if client.asked.is_empty() {
            return Ok(());
        }
        stream.write_all(&client.out).await?;
        client.out.clear();
        let read = stream.read(&mut input[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let used = client.take(&input[..filled], shared)?;
        input.copy_within(used..filled, 0);
        filled -= used;
    }
}

struct Client {
    out: Vec<u8>,
    next: u32,
    /// Streams under way: when they were asked, and their status once it is there.
    asked: HashMap<u32, (Instant, u16)>,
    /// Bytes that the server takes on the connection.
    window: i64,
    body: i64,
}

impl Client {
    fn new(body: usize) -> Self {
        let mut out = PREFACE.to_vec();
        out.extend(frame(SETTINGS, 0, 0));
        // Answers are small: so much is never used up.
        out.extend(frame(WINDOW_UPDATE, 0, 4));
        out.extend_from_slice(&(1_u32 << 30).to_be_bytes());
        Self { out, next: 1, asked: HashMap::new(), window: 65_535, body: body as i64 }
    }

    fn may_send(&self) -> bool {
        self.window >= self.body
    }

    fn open(&mut self) -> u32 {
        let number = self.next;
        self.next += 2;
        self.window -= self.body;
        self.asked.insert(number, (Instant::now(), 0));
        number
    }

    /// Takes the whole frames: how many bytes those are.
    fn take(&mut self, bytes: &[u8], shared: &Shared) -> io::Result<usize> {
        let mut used = 0;
        while let Some((head, rest)) = bytes[used..].split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some(payload) = rest.get(..length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.frame(head[3], head[4], stream, payload, shared)?;
            used += 9 + length;
        }
        Ok(used)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], shared: &Shared) -> io::Result<()> {
        match kind {
            HEADERS => {
                if let Some((_, status)) = self.asked.get_mut(&stream) {
                    *status = read_status(payload);
                }
                if flags & END_STREAM != 0 {
                    self.answered(stream, &[], shared);
                }
            }
            // The gateway's and the bare server's answers are one frame each.
            DATA if flags & END_STREAM != 0 => self.answered(stream, payload, shared),
            DATA if !payload.is_empty() => {
                self.answered(stream, payload, shared);
            }
            SETTINGS if flags & ACK == 0 => self.out.extend(frame(SETTINGS, ACK, 0)),
            PING if flags & ACK == 0 => {
                self.out.extend(frame(PING, ACK, payload.len()));
                self.out.extend_from_slice(payload);
            }
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                self.window += i64::from(more);
            }
            RST_STREAM | GOAWAY => {
                return Err(io::Error::other(format!("frame {kind} on stream {stream}: {payload:?}")));
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, stream: u32, body: &[u8], shared: &Shared) {
        if let Some((asked, status)) = self.asked.remove(&stream) {
            shared.count(Answer { status, body }, asked.elapsed());
        }
    }
}

/// Of a field block that begins, behind changes of the table's size, with an indexed `:status` (RFC 7541, appendix A).
fn read_status(block: &[u8]) -> u16 {
    let first = block.iter().find(|byte| **byte & 0xe0 != 0x20);
    match first {
        Some(0x88) => 200,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        _ => 0,
    }
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// Where in a frame's header its stream is.
pub(crate) const STREAM_AT: usize = 5;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
