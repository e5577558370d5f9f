//! A record as a syslog message: RFC 5424, framed for TCP as RFC 6587 counts octets, bare in a datagram as in RFC 5426.
//!
//! Keeps true: whatever a record holds, it cannot end its message early or begin another; header fields are printable ASCII.

use super::lines::Line;

/// What is the same in every message of this process.
pub(super) struct Origin {
    host: String,
    process: u32,
}

impl Origin {
    /// This process.
    pub(super) fn new() -> Origin {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Origin { host: header(host.trim(), 255), process: std::process::id() }
    }

    /// The message of a record.
    pub(super) fn message(&self, line: &Line) -> String {
        let priority = FACILITY * 8 + severity(line.status);
        let Origin { host, process } = self;
        format!(
            "<{priority}>1 {time} {host} hookgate {process} {id} [{SD_ID} seq=\"{seq}\" source=\"{source}\" reason=\"{reason}\"] {text}",
            time = header(&line.ts, 32),
            id = header(&line.reason, 32),
            seq = line.seq,
            source = value(&line.source),
            reason = value(&line.reason),
            text = line.text,
        )
    }

    /// The same for a stream.
    pub(super) fn frame(&self, line: &Line) -> String {
        let message = self.message(line);
        format!("{} {message}", message.len())
    }
}

/// Our own faults are errors; what is refused for another's is a warning; an anchor or a dropped conflict is a notice.
fn severity(status: u16) -> u8 {
    match status {
        500.. => 3,
        400..500 => 4,
        _ => 5,
    }
}

/// A header field, which has no spaces and an end.
fn header(text: &str, max: usize) -> String {
    let field: String = text.chars().filter(char::is_ascii_graphic).take(max).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

/// A parameter's value.
fn value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | ']') {
            value.push('\\');
        }
        value.push(c);
    }
    value
}

/// Log audit.
const FACILITY: u8 = 13;
/// RFC 5424 wants a number behind the name; this one is for those who have none of their own (RFC 5612).
const SD_ID: &str = "hookgate@32473";
