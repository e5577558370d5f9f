//! HTTP/2's frames, followed from outside: what a client spends, and what the library answers by itself.
//!
//! Keeps true: a client that sends little but control frames is stopped; a stream that the library resets or refuses for the
//! client's fault is told of, once. Sources: RFC 9113, sections 4, 6 and 7; RFC 7541, section 6.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::http2::MAX_FRAME;
use super::targets::Targets;
use crate::clock;
use crate::reason::Reason;

/// One direction of a connection, cut into frames.
pub(super) struct Frames {
    /// Bytes before the first frame, still to come.
    skip: usize,
    header: [u8; HEADER],
    have: usize,
    /// Of the payload: still to come.
    left: usize,
    /// The payload's first bytes.
    start: [u8; START],
    kept: usize,
    /// Whether the payloads of heads are kept whole, and the one under way.
    keeps_heads: bool,
    block: Vec<u8>,
}

/// A frame that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
    /// The payload's first bytes.
    start: &'a [u8],
    /// All of the payload, where it is a part of a head and heads are kept.
    block: &'a [u8],
}

impl Frame<'_> {
    /// The part of a head that it carries: without padding and priority (RFC 9113, section 6.2).
    fn fragment(&self) -> Option<&[u8]> {
        let mut block = self.block;
        if self.kind == HEADERS && self.flags & PADDED != 0 {
            let (padding, rest) = block.split_first()?;
            block = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            block = block.get(PRIORITY_FIELDS..)?;
        }
        Some(block)
    }
}

impl Frames {
    /// `skip`: bytes before the first frame.
    pub(super) fn after(skip: usize) -> Frames {
        let (keeps_heads, block) = (false, Vec::new());
        Frames { skip, header: [0; HEADER], have: 0, left: 0, start: [0; START], kept: 0, keeps_heads, block }
    }

    fn keeping_heads(self) -> Frames {
        Frames { keeps_heads: true, ..self }
    }

    /// Reads on, and calls for every frame that is over.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut over: impl FnMut(&Frame<'_>)) {
        let skip = self.skip.min(bytes.len());
        self.skip -= skip;
        bytes = &bytes[skip..];
        loop {
            let take = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have < HEADER {
                return;
            }
            if take > 0 {
                (self.left, self.kept) = (self.length(), 0);
            }
            let take = self.left.min(bytes.len());
            let keep = take.min(START - self.kept);
            self.start[self.kept..self.kept + keep].copy_from_slice(&bytes[..keep]);
            self.kept += keep;
            self.left -= take;
            let of_head = [HEADERS, CONTINUATION].contains(&self.header[3]);
            // h2 refuses a longer frame.
            if self.keeps_heads && of_head && self.length() <= MAX_FRAME {
                self.block.extend_from_slice(&bytes[..take]);
            }
            bytes = &bytes[take..];
            if self.left > 0 {
                return;
            }
            let [_, _, _, kind, flags, stream @ ..] = self.header;
            let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
            let (length, start) = (self.length(), &self.start[..self.kept]);
            over(&Frame { kind, flags, stream, length, start, block: &self.block });
            self.block.clear();
            self.have = 0;
        }
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.header;
        u32::from_be_bytes([0, high, middle, low]) as usize
    }

    /// In the middle of a frame that carries a part of a head.
    fn in_head(&self) -> bool {
        self.have == HEADER && self.left > 0 && [HEADERS, CONTINUATION].contains(&self.header[3])
    }
}

/// What a client sends.
pub(super) struct Asked {
    frames: Frames,
    /// Encoded bytes of the head under way or, if none is, of the last one.
    head: usize,
    open: bool,
    /// Heads that are whole.
    heads: usize,
    /// Whether the first frame was SETTINGS, once it has come.
    begins_well: Option<bool>,
    /// For requests, and for control frames.
    earned: usize,
    spent: usize,
    since: Instant,
    targets: Arc<Mutex<Targets>>,
}

impl Asked {
    /// `targets` are told of every head.
    pub(super) fn new(targets: Arc<Mutex<Targets>>) -> Asked {
        Asked {
            targets,
            frames: Frames::after(PREFACE).keeping_heads(),
            head: 0,
            open: false,
            heads: 0,
            begins_well: None,
            earned: 0,
            spent: 0,
            since: clock::instant(),
        }
    }

    /// Reads on; false once it is a flood.
    pub(super) fn read(&mut self, bytes: &[u8]) -> bool {
        let Asked { frames, head, open, heads, begins_well, earned, spent, targets, .. } = self;
        frames.read(bytes, |frame| {
            begins_well.get_or_insert(frame.kind == SETTINGS);
            match frame.kind {
                HEADERS | CONTINUATION => {
                    *head = if frame.kind == HEADERS { frame.length } else { *head + frame.length };
                    *open = frame.flags & END_HEADERS == 0;
                    *heads += usize::from(!*open);
                    let mut targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
                    targets.more(frame.fragment().unwrap_or_default());
                    if !*open {
                        targets.end();
                    }
                    *earned += if frame.kind == HEADERS { EARNED } else { 0 };
                }
                DATA => {}
                RST_STREAM => *spent += RESET_COST,
                _ => *spent += 1,
            }
        });
        self.affords()
    }

    /// The library has reset so many of the client's streams, for its mistakes. False once it is a flood.
    pub(super) fn mistook(&mut self, streams: usize) -> bool {
        self.spent += streams * MISTAKE_COST;
        self.affords()
    }

    fn affords(&mut self) -> bool {
        if self.spent <= self.earned + ALLOWED {
            return true;
        }
        let now = clock::instant();
        let flood = now.saturating_duration_since(self.since) < WINDOW;
        (self.earned, self.spent, self.since) = (0, 0, now);
        !flood
    }

    /// The first frame was another one than SETTINGS, which the library does not mind.
    pub(super) fn begins_wrong(&self) -> bool {
        self.begins_well == Some(false)
    }

    /// A head has begun whose end has not come.
    pub(super) fn in_head(&self) -> bool {
        self.open || self.frames.in_head()
    }

    /// How many heads were whole so far.
    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    /// Encoded bytes of the latest head, as far as it came.
    pub(super) fn head_bytes(&self) -> usize {
        self.head
    }
}

/// What the library sends.
pub(super) struct Answered {
    frames: Frames,
    /// Streams whose refusal was told, and whose reset follows.
    told: Vec<u32>,
    /// Streams reset since this was last asked for.
    resets: usize,
    far_too_large: bool,
}

impl Answered {
    pub(super) fn new() -> Answered {
        Answered { frames: Frames::after(0), told: Vec::new(), resets: 0, far_too_large: false }
    }

    /// Reads on, and tells of what the library refused by itself.
    pub(super) fn read(&mut self, bytes: &[u8], mut tell: impl FnMut(Reason, u16, &'static str)) {
        let Answered { frames, told, resets, far_too_large } = self;
        frames.read(bytes, |frame| match frame.kind {
            HEADERS if frame.flags & END_STREAM != 0 && is_one_field(frame) => {
                told.truncate(MAX_TOLD);
                told.push(frame.stream);
                tell(Reason::HeadersTooLarge, 431, "the request's header list is over 64 KiB");
            }
            RST_STREAM => {
                *resets += usize::from(*frame.start != [0; 4]);
                if let Some(known) = told.iter().position(|stream| *stream == frame.stream) {
                    told.swap_remove(known);
                    return;
                }
                match *frame.start {
                    [0, 0, 0, PROTOCOL_ERROR] => tell(Reason::HttpMalformed, 0, "a malformed HTTP/2 request"),
                    [0, 0, 0, FLOW_CONTROL_ERROR] => {
                        tell(Reason::HttpMalformed, 0, "more of a body than its stream's window allows");
                    }
                    [0, 0, 0, REFUSED_STREAM] => {
                        tell(Reason::Overloaded, 0, "over 256 HTTP/2 streams at once")
                    }
                    _ => {}
                }
            }
            GOAWAY => {
                *far_too_large |= frame.start[GOAWAY_HEAD.min(frame.start.len())..] == FAR_TOO_LARGE[..8]
            }
            _ => {}
        });
    }

    /// How many streams were reset for an error since this was last asked.
    pub(super) fn take_resets(&mut self) -> usize {
        std::mem::take(&mut self.resets)
    }

    /// The library has ended the connection for a header list of several times the limit. Its error does not say so.
    pub(super) fn far_too_large(&self) -> bool {
        self.far_too_large
    }
}

/// A head of nothing but its status is the library's own 431: every answer of ours has a date besides.
fn is_one_field(frame: &Frame<'_>) -> bool {
    let mut block = frame.start;
    // Changes of the table's size: five bits, and more where these are all set.
    while let [first @ 0x20..=0x3f, rest @ ..] = block {
        let more = rest.iter().position(|byte| byte & 0x80 == 0).map_or(rest.len(), |last| last + 1);
        block = if *first == 0x3f { &rest[more..] } else { rest };
    }
    let updates = frame.start.len() - block.len();
    match *block {
        [0x80..=0xff, ..] => frame.length - updates == 1,
        [_, length, ..] => frame.length - updates == 2 + usize::from(length & 0x7f),
        _ => false,
    }
}

const HEADER: usize = 9;
/// A reset's code, or a status after changes of the table's size.
const START: usize = 16;
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes: the stream that it depends on, and its weight.
const PRIORITY_FIELDS: usize = 5;
/// Before its data: the last stream and the code.
const GOAWAY_HEAD: usize = 8;
const FAR_TOO_LARGE: &[u8] = b"header_list_way_too_large";
const PROTOCOL_ERROR: u8 = 1;
const FLOW_CONTROL_ERROR: u8 = 3;
const REFUSED_STREAM: u8 = 7;

/// A request earns a few frames beside it: window updates, a priority, a ping.
const EARNED: usize = 4;
/// A reset costs what a request earns and more, or opening and resetting could go on for ever.
const RESET_COST: usize = 10;
/// A stream that is reset for its client's mistake. A connection on which two in three requests are good goes on, so that one client
/// of a proxy does not cost the others theirs; one with little but mistakes ends (CVE-2025-8671).
const MISTAKE_COST: usize = 12;
/// Above what requests earn, in one window. A client that gives up on two hundred slow requests at once is none.
const ALLOWED: usize = 2000;
const WINDOW: Duration = Duration::from_secs(10);
/// As many resets may be outstanding.
const MAX_TOLD: usize = 255;
