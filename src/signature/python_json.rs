//! JSON as Python's `json.dumps(json.loads(body))` writes it, which is what Bond's old v1 signature covers.
//!
//! Keeps true: whatever the bytes, it answers text or nothing; it is used only where a source opts in to v1.
//! Source of the rules: CPython's `json` module (separators `", "` and `": "`, `ensure_ascii`) and `float.__repr__`.

use serde_json::value::RawValue;

/// The body written again, or nothing where Python would fail or the text is no JSON.
pub(super) fn dumps(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let value: &RawValue = serde_json::from_str(text).ok()?;
    let mut writer = Writer { rest: value.get(), depth: 0 };
    writer.value()
}

/// Walks a text that is known to be valid JSON.
struct Writer<'a> {
    rest: &'a str,
    depth: usize,
}

impl Writer<'_> {
    fn value(&mut self) -> Option<String> {
        match self.peek()? {
            '{' => self.nested(Writer::object),
            '[' => self.nested(Writer::array),
            '"' => Some(quoted(&self.string()?)),
            't' | 'f' | 'n' => self.scalar().map(str::to_owned),
            _ => number(self.scalar()?),
        }
    }

    fn nested(&mut self, write: fn(&mut Self) -> Option<String>) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.take();
        let written = write(self);
        self.depth -= 1;
        written
    }

    fn object(&mut self) -> Option<String> {
        // A Python dict keeps a repeated key where it first stood, with its last value.
        let mut members: Vec<(String, String)> = Vec::new();
        while self.peek()? != '}' {
            if self.peek()? == ',' {
                self.take();
                self.peek()?;
            }
            let key = self.string()?;
            self.peek()?;
            self.take();
            let value = self.value()?;
            match members.iter_mut().find(|(known, _)| *known == key) {
                Some(member) => member.1 = value,
                None => members.push((key, value)),
            }
        }
        self.take();
        let written: Vec<String> = members.iter().map(|(k, v)| format!("{}: {v}", quoted(k))).collect();
        Some(format!("{{{}}}", written.join(", ")))
    }

    fn array(&mut self) -> Option<String> {
        let mut items = Vec::new();
        while self.peek()? != ']' {
            if self.peek()? == ',' {
                self.take();
            }
            items.push(self.value()?);
        }
        self.take();
        Some(format!("[{}]", items.join(", ")))
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.rest.chars().next()
    }

    fn take(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    fn scalar(&mut self) -> Option<&str> {
        let end = self.rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(self.rest.len());
        let (scalar, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(scalar)
    }

    fn string(&mut self) -> Option<String> {
        let mut escaped = false;
        let end = self.rest.bytes().enumerate().skip(1).find_map(|(at, byte)| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes.then_some(at + 1)
        })?;
        let (string, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        serde_json::from_str(string).ok()
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    out
}

fn number(text: &str) -> Option<String> {
    if text.contains(['.', 'e', 'E']) {
        return text.parse().ok().map(float);
    }
    // Python's int has no minus zero, and any number of digits.
    Some(if text == "-0" { "0".to_owned() } else { text.to_owned() })
}

/// `float.__repr__`: the shortest digits that read back the same, in exponent form below 1e-4 and from 1e16 on.
fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value < 0.0 { "-Infinity" } else { "Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

const MAX_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    // Each right side is what CPython 3.11 printed for json.dumps(json.loads(left)).
    #[test]
    fn writes_what_python_writes() {
        for (body, python) in [
            (
                r#"{"event":"card.created","name":"Zoë","n":1.50}"#,
                r#"{"event": "card.created", "name": "Zo\u00eb", "n": 1.5}"#,
            ),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
            (
                "[ 1e16 ,1e15, 1e-5, 0.0001, -0.0, -0, 123456789012345678901234567890, 2.50E+3 ]",
                "[1e+16, 1000000000000000.0, 1e-05, 0.0001, -0.0, 0, 123456789012345678901234567890, 2500.0]",
            ),
            (
                r#"{"e":"\ud83d\ude00\u007f\/","x":[],"y":{} , "z":null}"#,
                r#"{"e": "\ud83d\ude00\u007f/", "x": [], "y": {}, "z": null}"#,
            ),
            (r#""a\\""#, r#""a\\""#),
        ] {
            assert_eq!(dumps(body.as_bytes()).as_deref(), Some(python), "{body}");
        }
    }

    #[test]
    fn answers_nothing_for_what_is_no_json() {
        for body in [&b"{"[..], b"\xff", b"", b"{\"a\":}", "[".repeat(200).as_bytes()] {
            assert_eq!(dumps(body), None);
        }
    }
}
