//! Reads an HTTP/1.x request head line by line as it arrives, and refuses every deviation from the syntax.
//!
//! Keeps true: every reader of a head that passes finds the same end, the same body length and the same host. Each byte
//! is examined once, even if the head arrives in pieces.
//! Source: RFC 9112, sections 2 to 6; RFC 9110, section 5.

use hyper::Uri;
use memchr::memchr;

use crate::base::reason::Reason;
use crate::request::admission::{MAX_HEADERS, MAX_TARGET};

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason in metrics and in the reject log.
    pub reason: Reason,
    /// The detail in the reject log.
    pub detail: &'static str,
}

/// How the body after a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes.
    Length(u64),
    Chunked,
}

/// A head that is still arriving.
#[derive(Default)]
pub(super) struct Head {
    /// The start of the current, incomplete line.
    line: usize,
    /// No line end occurs between `line` and here.
    searched: usize,
    empty_lines: usize,
    header_lines: usize,
    version: Option<Version>,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl Head {
    /// Reads further. `bytes` hold all of the head that has arrived. A complete head gives its length in bytes and the
    /// framing of its body.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<(usize, Framing)>, Refusal> {
        while let Some(found) = memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + found;
            if end >= MAX_HEAD {
                return too_large("the request's head is over 64 KiB");
            }
            let Some(line) = bytes[self.line..end].strip_suffix(b"\r") else {
                return malformed("a line of the head ends in LF without CR");
            };
            (self.line, self.searched) = (end + 1, end + 1);
            match (self.version, line.is_empty()) {
                (None, true) => {
                    self.empty_lines += 1;
                    if self.empty_lines > MAX_EMPTY_LINES {
                        return malformed("too many empty lines before the request");
                    }
                }
                (None, false) => self.version = Some(request_line(line)?),
                (Some(_), false) => self.header(line)?,
                (Some(version), true) => {
                    return self.framing(version).map(|framing| Some((end + 1, framing)));
                }
            }
        }
        self.check_partial_line(bytes).map(|()| None)
    }

    /// Whether anything but empty lines has arrived.
    pub(super) fn has_begun(&self, bytes: &[u8]) -> bool {
        self.version.is_some() || bytes[self.line..].iter().any(|byte| !b"\r\n".contains(byte))
    }

    /// Refuses an incomplete line as soon as it can no longer become a valid one.
    fn check_partial_line(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.len() > MAX_HEAD {
            return too_large("the request's head is over 64 KiB");
        }
        if self.version.is_none() && bytes.len() - self.line > MAX_TARGET {
            return too_large("the request line is over 16 KiB");
        }
        let last = usize::from(bytes[self.searched..].ends_with(b"\r"));
        let end = bytes.len() - last;
        if has_controls(&bytes[self.searched..end]) {
            return malformed("a control character in the head");
        }
        self.searched = end;
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.header_lines += 1;
        if self.header_lines > MAX_HEADERS {
            return too_large("over 100 header lines");
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return malformed("a folded header line");
        }
        let Some(colon) = memchr(b':', line) else { return malformed("a header line without a colon") };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            return malformed("a header name that is not a token");
        }
        if has_controls(value) {
            return malformed("a control character in a header's value");
        }
        // Compare lengths first: few headers have one of these lengths.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value.trim_ascii()),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value.trim_ascii()),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding(value.trim_ascii())
            }
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.hosts += 1;
        if self.hosts > 1 {
            return malformed("more than one Host");
        }
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte);
        if !value.iter().all(fits) {
            return malformed("an invalid character in Host");
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return malformed("more than one Content-Length");
        }
        let digits = (1..=MAX_LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        let Some(number) = number else { return malformed("a Content-Length that is not a number") };
        self.length = Some(number);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return malformed("more than one Transfer-Encoding");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return malformed("a Transfer-Encoding other than chunked");
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        if version == Version::Http11 && self.hosts == 0 {
            return malformed("HTTP/1.1 without Host");
        }
        match (self.length, self.chunked) {
            (Some(_), true) => malformed("both Content-Length and Transfer-Encoding"),
            (None, true) if version == Version::Http10 => malformed("Transfer-Encoding in HTTP/1.0"),
            (None, true) => Ok(Framing::Chunked),
            (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Accepts exactly `METHOD SP target SP HTTP/1.x`.
fn request_line(line: &[u8]) -> Result<Version, Refusal> {
    if line.len() > MAX_TARGET {
        return too_large("the request line is over 16 KiB");
    }
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return malformed("a request line other than method, target and version");
    };
    if !is_token(method) {
        return malformed("a method that is not a token");
    }
    check_target(target)?;
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ => malformed("a version other than HTTP/1.1 and HTTP/1.0"),
    }
}

/// Accepts only targets that hyper accepts too and passes on unshortened.
fn check_target(target: &[u8]) -> Result<(), Refusal> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~%?=&:@!$'()*+,;".contains(byte);
    if target.starts_with(b"/") && target.iter().all(plain) {
        return Ok(());
    }
    if memchr(b'#', target).is_some() {
        return malformed("a fragment in the request target");
    }
    match Uri::try_from(target) {
        Ok(uri) if uri.authority().is_some_and(|host| host.as_str().contains('@')) => {
            malformed("userinfo in the request target")
        }
        Ok(_) if target.iter().all(u8::is_ascii_graphic) => Ok(()),
        _ => malformed("a request target that is not a URI"),
    }
}

/// A token of RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the text holds a control character other than a tab. It has no branch, so that the compiler can vectorize
/// it.
fn has_controls(text: &[u8]) -> bool {
    text.iter().fold(false, |found, byte| found | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f))
}

fn malformed<T>(detail: &'static str) -> Result<T, Refusal> {
    Err(Refusal { reason: Reason::HttpMalformed, detail })
}

fn too_large<T>(detail: &'static str) -> Result<T, Refusal> {
    Err(Refusal { reason: Reason::HeadersTooLarge, detail })
}

/// Bytes of a head, including its last line. The limit also applies to HTTP/2 header lists.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// RFC 9112, section 2.2, asks for at least one: some clients send an extra line end after a body.
const MAX_EMPTY_LINES: usize = 4;
/// A longer number would be 10^18 bytes or more.
const MAX_LENGTH_DIGITS: usize = 18;
