//! Checks a client's HTTP/2 frames before h2 reads them.
//!
//! Keeps true: h2 gets a request head only when it is complete, so that its time can be limited and its `:path`
//! checked. A flood of frames ends the connection. h2 itself bounds CONTINUATION frames, DATA frames with few bytes,
//! and streams that are reset before hyper accepts them. Other frames have no bound in h2, so they are counted here.
//! Sources: RFC 9113, sections 4 and 6.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::hpack::Paths;
use crate::base::clock;

/// The frame state of one connection.
pub(super) struct Frames {
    /// Bytes still to come of the preface or of the frames that are being passed on.
    left: usize,
    paths: Paths,
    /// The last frames are an incomplete head.
    pub(super) in_head: bool,
    /// The first frame, SETTINGS, was seen.
    has_settings: bool,
    last_stream: u32,
    /// Request heads passed on so far.
    pub(super) requests: usize,
    /// Frames in this window.
    spent: usize,
    /// Frames that answers had earned before this window.
    earned: usize,
    since: Instant,
}

struct Header {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Header> {
        let [high, middle, low, kind, flags, a, b, c, d] = *bytes.first_chunk::<HEADER>()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(Header { length, kind, flags, stream: u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1) })
    }

    /// The range of the payload that holds header fields, without padding and priority (RFC 9113, section 6.2).
    fn fields(&self, payload: &[u8]) -> Option<Range<usize>> {
        let has = |flag| self.kind == HEADERS && self.flags & flag != 0;
        let (mut start, mut end) = (0, payload.len());
        if has(PADDED) {
            start += 1;
            end = end.checked_sub(usize::from(*payload.first()?))?;
        }
        if has(PRIORITY) {
            start += PRIORITY_FIELDS;
        }
        (start <= end).then_some(start..end)
    }
}

impl Frames {
    pub(super) fn new() -> Frames {
        Frames {
            left: PREFACE,
            paths: Paths::default(),
            in_head: false,
            has_settings: false,
            last_stream: 0,
            requests: 0,
            spent: 0,
            earned: 0,
            since: clock::instant(),
        }
    }

    /// Returns how many of the bytes may be passed on. The caller passes the rest again, followed by more. `answers` is
    /// the number of answers sent so far.
    ///
    /// # Errors
    /// The reason to end the connection with.
    pub(super) fn read(&mut self, bytes: &mut [u8], answers: usize) -> Result<usize, h2::Reason> {
        let mut at = 0;
        self.in_head = false;
        loop {
            let pass = self.left.min(bytes.len() - at);
            self.left -= pass;
            at += pass;
            let Some(header) = Header::read(&bytes[at..]) else { break };
            if !self.has_settings && header.kind != SETTINGS {
                // RFC 9113, section 3.4. h2 accepts any first frame.
                return Err(h2::Reason::PROTOCOL_ERROR);
            }
            self.has_settings = true;
            self.left = HEADER + header.length;
            if header.kind == HEADERS {
                let Some(length) = self.head(&mut bytes[at..]) else {
                    (self.left, self.in_head) = (0, true);
                    break;
                };
                self.left = length;
                // HEADERS on an open stream are trailers, not a new request.
                self.requests += usize::from(header.stream > self.last_stream);
                self.last_stream = self.last_stream.max(header.stream);
            }
            self.spent += usize::from(header.kind != DATA);
        }
        if self.floods(answers) { Err(h2::Reason::ENHANCE_YOUR_CALM) } else { Ok(at) }
    }

    /// Reads the head at the start of the bytes and returns the length of its frames; None while they are incomplete. A
    /// head for which h2 ends the connection counts as `usize::MAX` bytes, so that everything is passed on.
    fn head(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let (mut parts, mut count, mut end) = ([const { 0..0 }; MAX_FRAMES], 0, 0);
        loop {
            let header = Header::read(&bytes[end..])?;
            if count == MAX_FRAMES || header.length > MAX_FRAME || count > 0 && header.kind != CONTINUATION {
                return Some(usize::MAX);
            }
            let start = end + HEADER;
            end = start + header.length;
            let Some(Range { start: from, end: to }) = header.fields(bytes.get(start..end)?) else {
                return Some(usize::MAX);
            };
            parts[count] = start + from..start + to;
            count += 1;
            if header.flags & END_HEADERS != 0 {
                break;
            }
        }
        let read = match &parts[..count] {
            [whole] => self.paths.read(&mut bytes[whole.clone()]),
            parts => {
                let mut whole = Vec::new();
                parts.iter().for_each(|part| whole.extend_from_slice(&bytes[part.clone()]));
                let (read, mut at) = (self.paths.read(&mut whole), 0);
                for part in parts {
                    bytes[part.clone()].copy_from_slice(&whole[at..at + part.len()]);
                    at += part.len();
                }
                read
            }
        };
        Some(if read.is_some() { end } else { usize::MAX })
    }

    /// Whether the client sends too many frames beyond those that answered requests have earned.
    fn floods(&mut self, answers: usize) -> bool {
        let earned = answers * EARNED;
        if self.spent <= earned - self.earned + ALLOWED {
            return false;
        }
        let now = clock::instant();
        let flood = now.saturating_duration_since(self.since) < WINDOW;
        (self.spent, self.earned, self.since) = (0, earned, now);
        flood
    }
}

const PREFACE: usize = 24;
const HEADER: usize = 9;
/// Bytes of a payload. It is the protocol's default, set here so that no version of h2 changes it.
pub(super) const MAX_FRAME: usize = 16 << 10;
/// Frames of a head. h2 accepts no more.
const MAX_FRAMES: usize = 8;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of the stream dependency and the weight.
const PRIORITY_FIELDS: usize = 5;
/// Frames that one answer earns: its request's head and a few others, such as window updates, a priority, a ping or
/// trailers. Every frame costs one, except DATA, and CONTINUATION in a head. A request that h2 refuses or its client
/// resets earns nothing.
const EARNED: usize = 6;
/// Frames in one window beyond those that answers earn.
const ALLOWED: usize = 2000;
const WINDOW: Duration = Duration::from_secs(10);
