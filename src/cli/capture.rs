//! Reads a captured delivery: its headers and its body, each from a file.
//!
//! Keeps true: the body is read byte for byte. An error tells a line's number and never its text.

use std::fmt::Display;
use std::io::{self, Read};
use std::path::Path;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::Failure;
use crate::base::file::{self, ReadError};

/// Reads `Name: value` lines, as a proxy, a test sink or `curl -v` prints them.
pub(super) fn headers(path: &Path) -> Result<HeaderMap, Failure> {
    let bytes = read(path, MAX_HEADERS)?.ok_or_else(|| {
        Failure(format!(
            "{}: larger than {MAX_HEADERS} bytes; is this the file of the headers?",
            path.display()
        ))
    })?;
    parse(&bytes).map_err(|number| {
        Failure(format!("{}: line {number} is not a header; write each as `Name: value`", path.display()))
    })
}

/// Reads a body; `None` if it is larger than `max` bytes.
pub(super) fn body(path: &Path, max: usize) -> Result<Option<Vec<u8>>, Failure> {
    read(path, max)
}

fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, Failure> {
    let named = |why: &dyn Display| Failure(format!("cannot read {}: {why}", path.display()));
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().take(max as u64 + 1).read_to_end(&mut bytes).map_err(|why| named(&why))?;
        return Ok((bytes.len() <= max).then_some(bytes));
    }
    match file::read(path, max as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::TooLarge(_)) => Ok(None),
        Err(why) => Err(named(&why)),
    }
}

/// The headers, or the number of the first line that is not a header.
fn parse(text: &[u8]) -> Result<HeaderMap, usize> {
    // A byte order mark, which some editors write, is not part of the first name.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = || text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let by_curl = lines().any(|line| line.starts_with(b"> "));
    let mut headers = HeaderMap::new();
    for (at, line) in lines().enumerate() {
        // Of curl's output, only the lines that it sent (`> `) belong to the delivery.
        let line = match line.strip_prefix(b"> ") {
            Some(sent) => sent.trim_ascii(),
            None if by_curl => continue,
            None => line,
        };
        if line.is_empty() || line == b">" || line.starts_with(b":") || is_request_line(line) {
            continue;
        }
        let header = || {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at_checked(colon)?;
            let value = value.get(1..)?.trim_ascii();
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        };
        let (name, value) = header().ok_or(at + 1)?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn is_request_line(line: &[u8]) -> bool {
    let last = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    line.contains(&b' ') && last.starts_with(b"HTTP/")
}

/// The limit of the gateway's own listener.
const MAX_HEADERS: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_common_tools_print_them() {
        let crlf = "\r\nPOST /hooks/a HTTP/1.1\r\nHost: a\r\nWebhook-Id:  m1 \r\n\r\n";
        let h2 = ":method: POST\n:path: /hooks/a\nhost: a\nwebhook-id: m1";
        let curl = "* Connected to a\n> POST /hooks/a HTTP/1.1\n> Host: a\n> webhook-id: m1\n> \n< HTTP/1.1 200 OK\n< webhook-id: no\n";
        let marked = format!("\u{feff}{h2}");
        for text in [crlf, h2, curl, &marked] {
            let headers = parse(text.as_bytes()).unwrap();
            assert_eq!(headers.len(), 2, "{text}");
            assert_eq!(headers["webhook-id"], "m1", "{text}");
        }
        let twice = parse(b"a: 1\nA: 2").unwrap();
        assert_eq!(twice.get_all("a").iter().count(), 2);
        assert_eq!(parse(b"a: 1\n\n{\"b\":2}\n").err(), Some(3));
        assert_eq!(parse(b"a: 1\nno header\n").err(), Some(2));
    }
}
