//! JSON serialised again, as senders' libraries do it. Some senders sign one form of a body and send another; Bond's
//! old v1 signature always covers Python's form.
//!
//! Keeps true: any bytes give text or nothing, in a time that grows with their length. Numbers and the order of members
//! stay unless the style changes them. Of duplicate keys the last value counts, at the position of the first. Source of
//! Python's rules: CPython's `json` module (separators `", "` and `": "`, `ensure_ascii`) and `float.__repr__`.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

use serde_json::value::RawValue;

/// How JSON is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// The white space between the tokens.
    pub spacing: Spacing,
    /// Whether the members are sorted by their keys.
    pub sorted: bool,
    /// The characters that are escaped in strings.
    pub escapes: Escapes,
    /// How numbers are written.
    pub numbers: Numbers,
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spacing {
            Spacing::Compact => f.write_str("the compact form")?,
            Spacing::Python => {
                f.write_str("the form with a space after commas and colons (Python's json.dumps)")?
            }
            Spacing::Pretty(indent) => write!(f, "the form indented by {indent} spaces")?,
        }
        if self.sorted {
            f.write_str(", keys sorted")?;
        }
        f.write_str(match self.escapes {
            Escapes::Plain => "",
            Escapes::Ascii => ", non-ASCII as \\uXXXX",
            Escapes::Html => ", <, > and & as \\uXXXX (Go)",
            Escapes::Slash => ", slashes escaped",
            Escapes::SlashAscii => ", slashes escaped and non-ASCII as \\uXXXX (PHP)",
        })?;
        f.write_str(match self.numbers {
            Numbers::AsWritten => "",
            Numbers::Python => ", numbers as Python writes them",
            Numbers::Javascript => ", numbers as JavaScript writes them",
        })
    }
}

/// The white space between the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Nothing.
    Compact,
    /// A space after each comma and colon.
    Python,
    /// One line a member, indented by this many spaces a level.
    Pretty(usize),
}

/// The characters that are escaped in strings, besides those that JSON demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// Nothing.
    Plain,
    /// Everything outside ASCII, as Python does.
    Ascii,
    /// `<`, `>` and `&`, as Go does.
    Html,
    /// The slash.
    Slash,
    /// The slash and everything outside ASCII, as PHP does.
    SlashAscii,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// As in the body.
    AsWritten,
    /// As Python's `repr`.
    Python,
    /// As JavaScript's `String(number)`.
    Javascript,
}

/// The body as `json.dumps(json.loads(body))` writes it. None: Python would fail, or the text is no JSON.
pub(super) fn python(body: &[u8]) -> Option<String> {
    Tree::parse(body)?.write(PYTHON, usize::MAX)
}

/// A parsed JSON text.
pub(super) struct Tree<'a>(Node<'a>);

enum Node<'a> {
    Word(&'a str),
    Number(&'a str),
    Text(String),
    Array(Vec<Node<'a>>),
    Object(Vec<(String, Node<'a>)>),
}

impl<'a> Tree<'a> {
    /// None: no JSON, or nested too deep.
    pub(super) fn parse(body: &'a [u8]) -> Option<Tree<'a>> {
        let text = std::str::from_utf8(body).ok()?;
        let value: &'a RawValue = serde_json::from_str(text).ok()?;
        Parser { rest: value.get(), depth: 0 }.value().map(Tree)
    }

    /// None: it would be longer than `limit` bytes.
    pub(super) fn write(&self, style: Style, limit: usize) -> Option<String> {
        let mut writer = Writer { out: String::new(), style, limit, depth: 0 };
        writer.node(&self.0)?;
        Some(writer.out)
    }
}

/// Parses a text that is known to be valid JSON.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Option<Node<'a>> {
        match self.peek()? {
            '{' => self.nested(Parser::object),
            '[' => self.nested(Parser::array),
            '"' => self.string().map(Node::Text),
            't' | 'f' | 'n' => self.scalar().map(Node::Word),
            _ => self.scalar().map(Node::Number),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Option<Node<'a>>) -> Option<Node<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.take();
        let node = read(self);
        self.depth -= 1;
        node
    }

    fn object(&mut self) -> Option<Node<'a>> {
        let mut members: Vec<(String, Node<'a>)> = Vec::new();
        // The sender chooses how many keys there are, so a map finds each of them.
        let mut indexes: HashMap<String, usize> = HashMap::new();
        while self.peek()? != '}' {
            if self.peek()? == ',' {
                self.take();
                self.peek()?;
            }
            let key = self.string()?;
            self.peek()?;
            self.take();
            let value = self.value()?;
            match indexes.get(&key).and_then(|at| members.get_mut(*at)) {
                Some(member) => member.1 = value,
                None => {
                    indexes.insert(key.clone(), members.len());
                    members.push((key, value));
                }
            }
        }
        self.take();
        Some(Node::Object(members))
    }

    fn array(&mut self) -> Option<Node<'a>> {
        let mut items = Vec::new();
        while self.peek()? != ']' {
            if self.peek()? == ',' {
                self.take();
            }
            items.push(self.value()?);
        }
        self.take();
        Some(Node::Array(items))
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.rest.chars().next()
    }

    fn take(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    fn scalar(&mut self) -> Option<&'a str> {
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

struct Writer {
    out: String,
    style: Style,
    limit: usize,
    depth: usize,
}

impl Writer {
    fn node(&mut self, node: &Node<'_>) -> Option<()> {
        match node {
            Node::Word(word) => self.out.push_str(word),
            Node::Number(number) => self.out.push_str(&self.style.numbers.write(number)),
            Node::Text(text) => self.style.escapes.write(text, &mut self.out),
            Node::Array(items) => {
                self.all('[', items, ']', |writer, item| writer.node(item))?;
            }
            Node::Object(members) if self.style.sorted => {
                let mut sorted: Vec<&(String, Node<'_>)> = members.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
                self.all('{', &sorted, '}', |writer, member| writer.member(member))?;
            }
            Node::Object(members) => self.all('{', members, '}', Writer::member)?,
        }
        (self.out.len() <= self.limit).then_some(())
    }

    fn member(&mut self, (key, value): &(String, Node<'_>)) -> Option<()> {
        self.style.escapes.write(key, &mut self.out);
        self.out.push_str(if self.style.spacing == Spacing::Compact { ":" } else { ": " });
        self.node(value)
    }

    fn all<T>(
        &mut self,
        open: char,
        items: &[T],
        close: char,
        write: impl Fn(&mut Writer, &T) -> Option<()>,
    ) -> Option<()> {
        self.out.push(open);
        self.depth += 1;
        for (at, item) in items.iter().enumerate() {
            match self.style.spacing {
                Spacing::Compact if at > 0 => self.out.push(','),
                Spacing::Python if at > 0 => self.out.push_str(", "),
                Spacing::Pretty(_) if at > 0 => {
                    self.out.push(',');
                    self.new_line();
                }
                Spacing::Pretty(_) => self.new_line(),
                Spacing::Compact | Spacing::Python => {}
            }
            write(self, item)?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.new_line();
        }
        self.out.push(close);
        Some(())
    }

    fn new_line(&mut self) {
        if let Spacing::Pretty(indent) = self.style.spacing {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * self.depth));
        }
    }
}

impl Escapes {
    fn write(self, text: &str, out: &mut String) {
        let ascii = matches!(self, Escapes::Ascii | Escapes::SlashAscii);
        let slash = matches!(self, Escapes::Slash | Escapes::SlashAscii);
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
                '/' if slash => out.push_str("\\/"),
                '<' | '>' | '&' if self == Escapes::Html => escape(c, out),
                ' '..='~' => out.push(c),
                '\0'..='\u{1f}' => escape(c, out),
                _ if ascii => escape(c, out),
                _ => out.push(c),
            }
        }
        out.push('"');
    }
}

fn escape(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

impl Numbers {
    pub(super) fn write(self, text: &str) -> String {
        let float = text.contains(['.', 'e', 'E']);
        match (self, text.parse::<f64>()) {
            (Numbers::Python, Ok(value)) if float => python_float(value),
            // Python's int has no minus zero, and any number of digits.
            (Numbers::Python, _) if text == "-0" => "0".to_owned(),
            (Numbers::Javascript, Ok(value)) => javascript_number(value),
            _ => text.to_owned(),
        }
    }
}

/// `float.__repr__`: the shortest digits that read back the same, in exponent form below 1e-4 and from 1e16 on.
fn python_float(value: f64) -> String {
    if value.is_infinite() {
        return if value < 0.0 { "-Infinity" } else { "Infinity" }.to_owned();
    }
    if let Some((digits, sign, exponent)) = exponent_form(value, -4..16) {
        return format!("{digits}e{sign}{exponent:02}");
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

/// ECMAScript's Number::toString: exponent form below 1e-6 and from 1e21 on, no fraction for a whole number.
fn javascript_number(value: f64) -> String {
    if value.is_infinite() {
        return "null".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    match exponent_form(value, -6..21) {
        Some((digits, sign, exponent)) => format!("{digits}e{sign}{exponent}"),
        None => format!("{value}"),
    }
}

/// The shortest digits, sign and exponent of a number whose exponent is outside `plain`.
fn exponent_form(value: f64, plain: std::ops::Range<i32>) -> Option<(String, char, u32)> {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if value == 0.0 || plain.contains(&exponent) {
        return None;
    }
    Some((digits.to_owned(), if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs()))
}

/// The default of Python's `json.dumps`.
pub(super) const PYTHON: Style =
    Style { spacing: Spacing::Python, sorted: false, escapes: Escapes::Ascii, numbers: Numbers::Python };

const MAX_DEPTH: usize = 128;
