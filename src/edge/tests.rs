//! Compares the framer with hyper's own parser, and tests the guards with streams cut at any byte.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::chunks::{ChunkProgress, Chunks};
use super::connection_limit::ConnectionLimit;
use super::frame_guard::FrameGuard;
use super::frames::Frames;
use super::head::{Framing, Head, MAX_HEAD};
use super::request_guard::{CloseReason, Framer, RequestGuard, Times};
use super::stream_activity::StreamActivity;
use crate::base::clock;
use crate::base::reason::Reason;

/// The refusal of a head, if any.
fn refusal(head: &[u8]) -> Option<(Reason, &'static str)> {
    let whole = Head::default().read(head);
    // Reading byte by byte must give the same result.
    let mut drops = Head::default();
    let drops = (1..=head.len()).map(|end| drops.read(&head[..end])).find(|read| !matches!(read, Ok(None)));
    assert_eq!(whole.is_err(), drops.is_some_and(|read| read.is_err()), "{:?}", head.escape_ascii());
    if let (Ok(whole), Some(Ok(drops))) = (whole, drops) {
        assert_eq!(whole, drops);
    }
    whole.err().map(|refusal| (refusal.reason, refusal.detail))
}

fn framing(more: &str) -> Framing {
    let head = format!("POST /hooks/x HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let (length, framing) = Head::default().read(head.as_bytes()).unwrap().unwrap();
    assert_eq!(length, head.len());
    framing
}

#[test]
fn a_valid_head_says_how_its_body_is_framed() {
    assert_eq!(framing(""), Framing::Length(0));
    assert_eq!(framing("Content-Length: 12\r\n"), Framing::Length(12));
    assert_eq!(framing("content-length:\t 007 \t\r\n"), Framing::Length(7));
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Framing::Chunked);
    assert_eq!(framing("x: caf\u{e9}\r\nx-empty:\r\n"), Framing::Length(0));
    for valid in [
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost:\r\n\r\n",
        "GET http://x.test:80/a?b HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        "GET /a|b?c=|d HTTP/1.1\r\nhost: x_y.test\r\n\r\n",
        "CONNECT x.test:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        assert_eq!(refusal(valid.as_bytes()), None, "{valid}");
    }
}

#[test]
fn an_ambiguous_or_invalid_head_is_refused() {
    let post = |more: &str| format!("POST /hooks/x HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let cases = [
        (post("a: b\nc: d\r\n"), "a line of the head ends in LF without CR"),
        ("POST / HTTP/1.1\nhost: x\n\n".into(), "a line of the head ends in LF without CR"),
        ("\nPOST / HTTP/1.1\r\nhost: x\r\n\r\n".into(), "a line of the head ends in LF without CR"),
        ("\r\n".repeat(5), "too many empty lines before the request"),
        (post("a: b\rc: d\r\n"), "a control character in a header's value"),
        (post("a: b\0\r\n"), "a control character in a header's value"),
        (post("a: \x7f\r\n"), "a control character in a header's value"),
        (post("a: b\r\n folded\r\n"), "a folded header line"),
        (post("a: b\r\n\tfolded\r\n"), "a folded header line"),
        ("POST / HTTP/1.1\r\n host: x\r\n\r\n".into(), "a folded header line"),
        (post("a : b\r\n"), "a header name that is not a token"),
        (post(": b\r\n"), "a header name that is not a token"),
        (post("a(b): c\r\n"), "a header name that is not a token"),
        (post("caf\u{e9}: c\r\n"), "a header name that is not a token"),
        (post("no colon\r\n"), "a header line without a colon"),
        (post("content-length: 2\r\ncontent-length: 2\r\n"), "more than one Content-Length"),
        (post("content-length: 5, 5\r\n"), "a Content-Length that is not a number"),
        (post("content-length: +5\r\n"), "a Content-Length that is not a number"),
        (post("content-length: -1\r\n"), "a Content-Length that is not a number"),
        (post("content-length: 0x5\r\n"), "a Content-Length that is not a number"),
        (post("content-length:\r\n"), "a Content-Length that is not a number"),
        (post("content-length: 99999999999999999999\r\n"), "a Content-Length that is not a number"),
        (
            post("content-length: 2\r\ntransfer-encoding: chunked\r\n"),
            "both Content-Length and Transfer-Encoding",
        ),
        (
            post("transfer-encoding: chunked\r\ncontent-length: 2\r\n"),
            "both Content-Length and Transfer-Encoding",
        ),
        (post("transfer-encoding: gzip, chunked\r\n"), "a Transfer-Encoding other than chunked"),
        (post("transfer-encoding: xchunked\r\n"), "a Transfer-Encoding other than chunked"),
        (post("transfer-encoding: \"chunked\"\r\n"), "a Transfer-Encoding other than chunked"),
        (post("transfer-encoding: chunked, chunked\r\n"), "a Transfer-Encoding other than chunked"),
        (
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
            "more than one Transfer-Encoding",
        ),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".into(), "Transfer-Encoding in HTTP/1.0"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 without Host"),
        (post("host: x\r\n"), "more than one Host"),
        ("GET / HTTP/1.1\r\nhost: x/y\r\n\r\n".into(), "an invalid character in Host"),
        ("GET / HTTP/1.1\r\nhost: u@x\r\n\r\n".into(), "an invalid character in Host"),
        ("GET / HTTP/1.1\r\nhost: x, y\r\n\r\n".into(), "an invalid character in Host"),
        ("GET /\r\n\r\n".into(), "a request line other than method, target and version"),
        ("GET  / HTTP/1.1\r\n\r\n".into(), "a request line other than method, target and version"),
        ("GET / HTTP/1.1 \r\n\r\n".into(), "a request line other than method, target and version"),
        (" GET / HTTP/1.1\r\n\r\n".into(), "a request line other than method, target and version"),
        ("GET\t/\tHTTP/1.1\r\n\r\n".into(), "a request line other than method, target and version"),
        ("G(T / HTTP/1.1\r\n\r\n".into(), "a method that is not a token"),
        ("GET caf\u{e9} HTTP/1.1\r\n\r\n".into(), "a request target that is not a URI"),
        ("GET /a<b HTTP/1.1\r\n\r\n".into(), "a request target that is not a URI"),
        ("GET /a\tb HTTP/1.1\r\n\r\n".into(), "a request target that is not a URI"),
        ("GET /a#b HTTP/1.1\r\n\r\n".into(), "a fragment in the request target"),
        ("GET /a?b# HTTP/1.1\r\n\r\n".into(), "a fragment in the request target"),
        ("GET http://x.test#b HTTP/1.1\r\n\r\n".into(), "a fragment in the request target"),
        ("GET http://u:p@x.test/ HTTP/1.1\r\n\r\n".into(), "userinfo in the request target"),
        ("CONNECT u@x.test:443 HTTP/1.1\r\n\r\n".into(), "userinfo in the request target"),
        ("GET / HTTP/1.2\r\n\r\n".into(), "a version other than HTTP/1.1 and HTTP/1.0"),
        ("GET / http/1.1\r\n\r\n".into(), "a version other than HTTP/1.1 and HTTP/1.0"),
        ("GET / HTTP/2.0\r\n\r\n".into(), "a version other than HTTP/1.1 and HTTP/1.0"),
        // Refused before the line is complete.
        ("\x16\x03\x01 a TLS client".into(), "a control character in the head"),
        ("GET / HTTP/1.1\rX".into(), "a control character in the head"),
    ];
    for (head, detail) in cases {
        let refused = refusal(head.as_bytes()).unwrap_or_else(|| panic!("passed: {head:?}"));
        assert_eq!(refused.0, Reason::HttpMalformed, "{head:?}");
        // Reading byte by byte finds a control character before the end of its line, so the details may differ there.
        assert_eq!(refused.1, detail, "{head:?}");
    }
}

#[test]
fn the_limits_of_a_head_are_exact_to_the_byte() {
    let of = |line: usize, lines: usize, total: usize| {
        let mut head = format!("GET /{} HTTP/1.1\r\nhost: x\r\n", "p".repeat(line - 14));
        for _ in 0..lines - 2 {
            head += "a: b\r\n";
        }
        let left = total.saturating_sub(head.len() + "x: \r\n\r\n".len());
        head + "x: " + &"y".repeat(left) + "\r\n\r\n"
    };
    let large = |head: &str| match Head::default().read(head.as_bytes()) {
        Ok(Some(_)) => false,
        Ok(None) => panic!("not whole"),
        Err(refusal) => refusal.reason == Reason::HeadersTooLarge,
    };
    assert!(!large(&of(16 << 10, 100, MAX_HEAD)));
    assert_eq!(of(16 << 10, 100, MAX_HEAD).len(), MAX_HEAD);
    assert!(large(&of(14, 2, MAX_HEAD + 1)));
    assert!(large(&of(14, 101, 0)));
    assert!(large(&of((16 << 10) + 1, 2, 0)));
    // An endless line is refused before its end.
    let endless = |bytes: Vec<u8>| Head::default().read(&bytes).unwrap_err().reason;
    assert_eq!(endless(vec![b'a'; (16 << 10) + 1]), Reason::HeadersTooLarge);
    let line = b"GET / HTTP/1.1\r\nx: ".to_vec();
    assert_eq!(endless([line, vec![b'y'; MAX_HEAD]].concat()), Reason::HeadersTooLarge);
}

#[test]
fn the_end_of_a_chunked_body_is_found_and_broken_chunks_are_refused() {
    let ends = |body: &str| {
        let progress = Chunks::default().read(body.as_bytes());
        let mut drops = Chunks::default();
        let last = body
            .as_bytes()
            .iter()
            .map(|byte| drops.read(&[*byte]))
            .find(|progress| *progress != ChunkProgress::Continues);
        assert_eq!(
            matches!(progress, ChunkProgress::Ended(_)),
            matches!(last, Some(ChunkProgress::Ended(1))),
            "{body:?}"
        );
        assert_eq!(
            matches!(progress, ChunkProgress::Broken(_)),
            matches!(last, Some(ChunkProgress::Broken(0))),
            "{body:?}"
        );
        progress
    };
    for whole in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "A;name=value;other=\"q\"\r\n0123456789\r\n000\r\n\r\n",
        "1\r\nx\r\n0;last\r\nx-sum: 1\r\nx-empty:\r\n\r\n",
    ] {
        assert_eq!(ends(&format!("{whole}GET /")), ChunkProgress::Ended(whole.len()), "{whole:?}");
    }
    assert_eq!(ends("5\r\nhel"), ChunkProgress::Continues);
    let long = format!("1;{}\r\n", "e".repeat(9 << 10));
    let trailer = format!("0\r\nx: {}\r\n\r\n", "t".repeat(9 << 10));
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(65));
    for broken in [
        "\r\n",
        ";x\r\n",
        "g\r\n",
        "0x5\r\n",
        "+5\r\n",
        "-5\r\n",
        " 5\r\n",
        "5 \r\n",
        "5\n",
        "5\rx",
        "5\r\nhello\n",
        "5\r\nhelloX",
        "5\r\nhello\r\r",
        "1000000000000000\r\n",
        "5;a\nb\r\n",
        "5;a\0\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nx y\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nx: \0\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n\n",
        &long,
        &trailer,
        &trailers,
    ] {
        assert!(matches!(ends(broken), ChunkProgress::Broken(_)), "{broken:?}");
    }
}

/// A stream that arrives in pieces and then ends or stalls.
pub(super) struct Pieces(pub(super) VecDeque<Vec<u8>>, pub(super) bool);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.0.pop_front() else {
            return if self.1 { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        let rest = piece.split_off(piece.len().min(buf.remaining()));
        buf.put_slice(&piece);
        if !rest.is_empty() {
            self.0.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

fn guard(stream: &[u8], cuts: &[usize], first: usize) -> RequestGuard<Pieces> {
    let (first, mut rest) = stream.split_at(first.min(stream.len()));
    let mut pieces = VecDeque::new();
    for cut in cuts.iter().chain([&usize::MAX]) {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        if !piece.is_empty() {
            pieces.push_back(piece.to_vec());
        }
        rest = after;
    }
    let hour = Duration::from_secs(3600);
    let pressure = Arc::<ConnectionLimit>::default().pressure(1);
    let times = Times { opened: clock::instant(), head: hour, idle: hour, pressure };
    RequestGuard::new(Pieces(pieces, true), first.to_vec(), times, Arc::<AtomicBool>::default())
}

/// Reads everything that passes the guard, with buffers of these sizes.
async fn through(mut guard: RequestGuard<Pieces>, room: &[usize]) -> (Vec<u8>, Option<CloseReason>, bool) {
    let mut all = Vec::new();
    let mut rooms = room.iter().cycle();
    loop {
        let mut buffer = vec![0; *rooms.next().unwrap_or(&8192)];
        match guard.read(&mut buffer).await {
            Ok(0) => return (all, guard.end(), false),
            Ok(read) => all.extend(&buffer[..read]),
            Err(_) => return (all, guard.end(), true),
        }
    }
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    let chunks = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..4);
    let headers = proptest::collection::vec("[a-z]{1,8}: [ -~]{0,20}\r\n", 0..6).prop_map(|lines| {
        let named = ["host:", "content-length:", "transfer-encoding:", "connection:", "expect:", "upgrade:"];
        lines.into_iter().filter(|line| !named.iter().any(|name| line.starts_with(name))).collect::<String>()
    });
    let head = ("[A-Z]{1,6}", "/[a-z0-9/?=&]{0,20}", headers, 0..3usize).prop_map(
        |(method, target, headers, empty)| {
            format!("{}{method} {target} HTTP/1.1\r\nhost: x\r\n{headers}", "\r\n".repeat(empty))
        },
    );
    let plain = (head.clone(), body).prop_map(|(head, body)| {
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        [format!("{head}{length}\r\n").as_bytes(), &body].concat()
    });
    let chunked = (head, chunks, any::<bool>()).prop_map(|(head, chunks, trailer)| {
        let mut all = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
        for chunk in chunks {
            all.extend(format!("{:x};e=1\r\n", chunk.len()).bytes().chain(chunk).chain(*b"\r\n"));
        }
        all.extend(if trailer { &b"0\r\nx-t: v\r\n\r\n"[..] } else { b"0\r\n\r\n" });
        all
    });
    prop_oneof![plain, chunked]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_valid_stream_passes_byte_for_byte_however_it_is_cut(
        messages in proptest::collection::vec(message(), 1..5),
        cuts in proptest::collection::vec(1..60usize, 0..30),
        rooms in proptest::collection::vec(1..100usize, 1..5),
        first in 0..50usize,
    ) {
        let stream = messages.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (passed, end, failed) = runtime.block_on(through(guard(&stream, &cuts, first), &rooms));
        prop_assert_eq!(&passed, &stream);
        prop_assert_eq!((end, failed), (Some(CloseReason::ClientClosed), false));
    }

    #[test]
    fn everything_before_a_refused_head_passes_and_nothing_after_it(
        messages in proptest::collection::vec(message(), 0..4),
        cuts in proptest::collection::vec(1..60usize, 0..30),
        more in message(),
        broken in prop_oneof![
            Just("POST / HTTP/1.1\r\n\r\n"),
            Just("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"),
            Just("GET / HTTP/1.1\nhost: x\n\n"),
        ],
    ) {
        let before = messages.concat();
        let stream = [&before[..], broken.as_bytes(), &more].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (passed, end, failed) = runtime.block_on(through(guard(&stream, &cuts, 7), &[64]));
        prop_assert_eq!(&passed, &before);
        prop_assert!(matches!(end, Some(CloseReason::Refused(_))) && !failed);
    }

    /// In whatever passes of a mutated stream, hyper's parser finds the same heads at the same positions.
    #[test]
    fn what_passes_is_read_alike_by_hypers_own_parser(
        messages in proptest::collection::vec(message(), 1..4),
        spoilt in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut stream = messages.concat();
        for (at, byte) in spoilt {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let (passed, _) = Framer::default().read(&stream);
        let mut rest = &stream[..passed];
        while !rest.is_empty() {
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(rest);
            let Ok(httparse::Status::Complete(theirs)) = parsed else {
                return Err(TestCaseError::fail(format!("{parsed:?} of {}", rest.escape_ascii())));
            };
            let (ours, framing) = Head::default().read(rest).unwrap().unwrap();
            prop_assert_eq!(ours, theirs);
            let value = |name: &str| {
                let mut found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
                let value = found.next().map(|header| String::from_utf8_lossy(header.value).into_owned());
                assert!(found.next().is_none(), "{name} twice");
                value
            };
            let (length, encoding) = (value("content-length"), value("transfer-encoding"));
            prop_assert!(request.path.is_some_and(|path| hyper::Uri::try_from(path).is_ok()));
            rest = &rest[ours..];
            match framing {
                Framing::Length(bytes) => {
                    prop_assert_eq!(length.map_or(0, |length| length.parse().unwrap()), bytes);
                    prop_assert_eq!(encoding, None);
                    rest = &rest[rest.len().min(bytes as usize)..];
                }
                Framing::Chunked => {
                    prop_assert_eq!(length, None);
                    prop_assert!(encoding.unwrap().eq_ignore_ascii_case("chunked"));
                    // Parse each chunk with the other parser, up to the trailers.
                    loop {
                        let Ok(httparse::Status::Complete((head, size))) = httparse::parse_chunk_size(rest) else {
                            rest = b"";
                            break;
                        };
                        let (head, size) = (head, size as usize);
                        rest = &rest[head.min(rest.len())..];
                        if size == 0 {
                            let mut trailers = [httparse::EMPTY_HEADER; 64];
                            rest = match httparse::parse_headers(rest, &mut trailers) {
                                Ok(httparse::Status::Complete((end, _))) => &rest[end..],
                                other => {
                                    prop_assert!(matches!(other, Ok(httparse::Status::Partial)), "{other:?}");
                                    b""
                                }
                            };
                            break;
                        }
                        rest = &rest[(size + 2).min(rest.len())..];
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn hyper_gets_the_valid_part_of_a_broken_chunk_and_then_an_error() {
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let stream = [&head[..], b"5\r\nhelloX\r\n"].concat();
    let (passed, end, failed) = through(guard(&stream, &[3, 50], 1), &[8192]).await;
    assert_eq!(passed, stream[..stream.len() - 3]);
    assert_eq!((end, failed), (Some(CloseReason::BrokenBody), true));
}

fn times(head: u64, idle: u64) -> Times {
    let (head, idle) = (Duration::from_millis(head), Duration::from_millis(idle));
    Times { opened: clock::instant(), head, idle, pressure: Arc::<ConnectionLimit>::default().pressure(1) }
}

#[tokio::test]
async fn a_connection_is_idle_until_the_first_byte_of_the_next_head() {
    let hour = 3_600_000;
    let whole = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let end = async |times: Times, more: &[u8]| {
        let (mut client, server) = tokio::io::duplex(100);
        let mut guard = RequestGuard::new(server, whole.to_vec(), times, Arc::<AtomicBool>::default());
        let mut head = vec![0; whole.len()];
        guard.read_exact(&mut head).await.unwrap();
        // Send the answer.
        guard.write_all(b"x").await.unwrap();
        let mut rest = Vec::new();
        // The connection is idle before more bytes arrive.
        let idle = tokio::time::timeout(Duration::from_millis(20), guard.read_to_end(&mut rest)).await;
        if idle.is_err() {
            client.write_all(more).await.unwrap();
            let _ = tokio::time::timeout(Duration::from_secs(60), guard.read_to_end(&mut rest)).await;
        }
        guard.end()
    };
    let late =
        |end| matches!(end, Some(CloseReason::Refused(refusal)) if refusal.reason == Reason::HeaderTimeout);
    assert!(late(end(times(100, hour), b"G").await), "the shorter timeout applies to a head in progress");
    assert_eq!(end(times(hour, 100), b"").await, Some(CloseReason::Idle));
    assert_eq!(
        end(times(1, 100), b"").await,
        Some(CloseReason::Idle),
        "the shorter timeout does not apply before a head begins"
    );
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_head_differs_from_no_request_and_from_an_idle_connection() {
    let end = async |first: &[u8]| {
        let times = times(1, 1);
        let mut guard = RequestGuard::new(
            Pieces(VecDeque::new(), false),
            first.to_vec(),
            times,
            Arc::<AtomicBool>::default(),
        );
        let mut all = Vec::new();
        guard.read_to_end(&mut all).await.unwrap();
        guard.end().unwrap()
    };
    let late = |end| matches!(end, CloseReason::Refused(refusal) if refusal.reason == Reason::HeaderTimeout);
    assert!(late(end(b"P").await));
    assert!(late(end(b"\r\nPOST / HTTP/1.1\r\nhost: x\r\n").await));
    assert!(late(end(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nG").await));
    assert_eq!(end(b"\r\n\r").await, CloseReason::NoRequest);
    assert_eq!(end(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await, CloseReason::Idle);
    assert_eq!(end(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n\r\n").await, CloseReason::Idle);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[test]
fn frames_beyond_what_answers_earn_are_a_flood() {
    let ping = frame(6, 0, 0, &[0; 8]);
    let request = |stream| frame(1, 5, stream, b"\x82\x84\x86\x41\x01x");
    let flood = |frames: &[u8], answers| {
        let mut bytes = [PREFACE, &frame(4, 0, 0, &[]), frames].concat();
        Frames::new().read(&mut bytes, answers) == Err(h2::Reason::ENHANCE_YOUR_CALM)
    };
    assert!(!flood(&ping.repeat(1999), 0) && flood(&ping.repeat(2000), 0));
    assert!(!flood(&ping.repeat(2005), 1) && flood(&ping.repeat(2006), 1));
    let busy = [request(1), ping.repeat(5)].concat().repeat(5000);
    assert!(!flood(&busy, 5000), "the frames that requests need are no flood");
    assert!(flood(&request(1).repeat(2000), 0), "requests that h2 refuses");
    for kind in (2..=8).chain(10..=u8::MAX) {
        assert!(flood(&frame(kind, 0, 0, &[0; 8]).repeat(2000), 0), "{kind}");
    }
    assert!(!flood(&frame(0, 0, 1, &[0; 8]).repeat(5000), 0), "a body");
}

#[test]
fn a_connection_must_begin_with_settings() {
    for (first, begins) in [(4, true), (6, false), (0, false), (1, false), (0xff, false)] {
        let mut bytes = [PREFACE, &frame(first, 0, 0, &[])].concat();
        let expected = if begins { Ok(bytes.len()) } else { Err(h2::Reason::PROTOCOL_ERROR) };
        assert_eq!(Frames::new().read(&mut bytes, 0), expected, "{first}");
    }
}

/// The bytes of a connection, with heads in one frame and in several. True marks a complete head.
fn connection() -> Vec<(bool, Vec<u8>)> {
    let path = |path: &[u8]| [&[4, path.len() as u8], path].concat();
    let (good, bad) = (path(b"/a"), path(b"/a#b"));
    let padded = [&[3, 0, 0, 0, 3, 9][..], &good, &bad, &[4, 1, b'#']].concat();
    vec![
        (false, [PREFACE, &frame(4, 0, 0, &[])].concat()),
        (true, frame(1, 5, 1, &good)),
        (true, [frame(1, 1, 3, &bad[..3]), frame(9, 0, 3, &[]), frame(9, 4, 3, &bad[3..])].concat()),
        (true, frame(1, 0x2d, 5, &padded)),
        (true, frame(1, 4, 7, &good)),
        (false, frame(0, 0, 7, &bad)),
        (true, frame(1, 5, 7, b"\x00\x01x\x01#")),
        (false, frame(6, 0, 0, &[b'#'; 8])),
    ]
}

/// The bytes that hyper must get, with invalid paths in place of those with a fragment.
fn passed() -> Vec<u8> {
    let mut frames = connection();
    let [_, _, (_, parts), (_, padded), ..] = &mut frames[..] else { panic!("they are there") };
    for at in [11, 30, 31, 32] {
        parts[at] = b'?';
    }
    padded[9 + 6 + 4 + 2..][..4].fill(b'?');
    frames.into_iter().flat_map(|(_, frame)| frame).collect()
}

#[test]
fn a_head_is_passed_on_only_when_complete() {
    let mut read = Frames::new();
    for (is_head, frame) in connection() {
        for end in (9..frame.len()).filter(|_| is_head) {
            assert_eq!((read.read(&mut frame[..end].to_vec(), 0), read.in_head), (Ok(0), true), "{end}");
        }
        assert_eq!((read.read(&mut frame.clone(), 0), read.in_head), (Ok(frame.len()), false));
    }
    assert_eq!(read.requests, 4);
}

#[test]
fn what_h2_refuses_in_a_head_is_passed_on_as_it_is() {
    let endless = [frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[]).repeat(10)].concat();
    let large = [&[0, 0x40, 1, 1, 4, 0, 0, 0, 1][..], &[0x82; 100]].concat();
    for broken in [
        endless,
        large,
        [frame(1, 0, 1, &[0x82]), frame(6, 0, 0, &[0; 8])].concat(),
        frame(1, 0xc, 1, &[9, 0x82]),
        frame(1, 0x24, 1, &[0; 4]),
        frame(1, 4, 1, &[0xff; 9]),
    ] {
        let bytes = [PREFACE, &frame(4, 0, 0, &[]), &broken, &frame(1, 4, 3, b"\x04\x02/#")].concat();
        let mut read = bytes.clone();
        assert_eq!(Frames::new().read(&mut read, 0), Ok(bytes.len()), "{broken:?}");
        assert_eq!(bytes, read);
    }
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop_oneof![
        proptest::sample::select(vec![
            &b"\x04\x03/#a"[..],
            b"\x44\x03/a#",
            b"\x7e\x02/#",
            b"\xbe",
            b"\x00\x01x\x01#",
            b"\x20"
        ])
        .prop_map(<[u8]>::to_vec),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    let payload = proptest::collection::vec(fields, 0..4).prop_map(|fields| fields.concat());
    let kind = proptest::sample::select(vec![0, 1, 1, 1, 4, 6, 9, 9]);
    let flags = proptest::sample::select(vec![0, 4, 5, 0xc, 0x24]);
    let frame = (kind, flags, 1..9u32, payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    proptest::collection::vec(frame, 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn any_frames_pass_alike_however_they_are_cut(frames in frames(), cuts in proptest::collection::vec(1..30usize, 1..20)) {
        let whole = [PREFACE, &frame(4, 0, 0, &[]), &frames].concat();
        let (mut read, mut passed) = (Frames::new(), whole.clone());
        let end = read.read(&mut passed, 0).unwrap();
        let mut pieces = Frames::new();
        let (mut held, mut out): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        let (mut rest, mut cuts) = (&whole[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            held.extend(piece);
            let pass = pieces.read(&mut held, 0).unwrap();
            out.extend(held.drain(..pass));
            rest = after;
        }
        prop_assert_eq!(&out, &passed[..end]);
        prop_assert_eq!((pieces.requests, pieces.in_head), (read.requests, read.in_head));
    }
}

#[tokio::test]
async fn the_frames_of_a_connection_pass_wherever_they_are_cut() {
    let all = connection().into_iter().flat_map(|(_, frame)| frame).collect::<Vec<_>>();
    for (first, size, room) in [(24, 1, 100), (24, 7, 3), (30, 40, 8192), (all.len(), 1, 5)] {
        let pieces = all[first..].chunks(size).map(<[u8]>::to_vec).collect();
        let (opened, hour) = (clock::instant(), Duration::from_secs(3600));
        let activity = Arc::new(StreamActivity::new(opened));
        let overdue = CancellationToken::new();
        let stream = Pieces(pieces, true);
        let mut guard = FrameGuard::new(stream, all[..first].to_vec(), hour, overdue, activity.clone());
        let mut got: Vec<u8> = Vec::new();
        let mut buffer = vec![0; room];
        while let read @ 1.. = guard.read(&mut buffer).await.unwrap() {
            got.extend(&buffer[..read]);
        }
        assert_eq!(got, passed(), "{size}");
        assert_eq!((activity.take_refused(), activity.take_refused()), (4, 0), "none of them was served");
    }
}
