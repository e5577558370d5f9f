//! W3C Trace Context, level 1: the header `traceparent`, read and written.
//!
//! Keeps true: only a header that the specification allows is read. Neither id is ever zero.

use std::fmt;

/// The place of a request in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace's id.
    pub trace_id: [u8; 16],
    /// The id of the span that sends it on: `parent-id` in the header.
    pub span_id: [u8; 8],
    /// Whether the sender records its spans.
    pub sampled: bool,
}

impl TraceContext {
    /// The length of a written header, in bytes.
    pub const LENGTH: usize = 55;

    /// Reads the values of a request's `traceparent` headers. None: there is no header, there are several, or the
    /// specification does not allow it. Of a later version, the part that level 1 knows is read.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<TraceContext> {
        let mut values = values.into_iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (known, rest) = value.split_at_checked(TraceContext::LENGTH)?;
        let mut fields = known.split(|byte| *byte == b'-');
        let (version, trace_id, span_id, flags) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let [version] = bytes(version)?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let (trace_id, span_id) = (bytes(trace_id)?, bytes(span_id)?);
        let [flags] = bytes(flags)?;
        let is_valid = fits && fields.next().is_none() && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(TraceContext { trace_id, span_id, sampled: flags & SAMPLED != 0 })
    }

    /// A new span in the same trace.
    pub fn child(&self, span_id: [u8; 8]) -> TraceContext {
        TraceContext { span_id: non_zero(span_id), ..*self }
    }

    /// The first span of a new trace, which is not sampled.
    pub fn root(trace_id: [u8; 16], span_id: [u8; 8]) -> TraceContext {
        TraceContext { trace_id: non_zero(trace_id), span_id: non_zero(span_id), sampled: false }
    }
}

/// As the header's value, in version 00. Flags other than `sampled` are not carried on.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        write_hex(f, &self.trace_id)?;
        f.write_str("-")?;
        write_hex(f, &self.span_id)?;
        f.write_str(if self.sampled { "-01" } else { "-00" })
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads exactly `N` bytes as hex digits in lower case.
fn bytes<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = !hex.iter().any(u8::is_ascii_uppercase);
    (is_lower && hex::decode_to_slice(hex, &mut bytes).is_ok()).then_some(bytes)
}

/// Random ids are zero once in 2^64 draws; the specification forbids it.
fn non_zero<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &str) -> Option<TraceContext> {
        TraceContext::parse([value.as_bytes()])
    }

    /// The examples and rules of the specification, sections 3.2 and 4.
    #[test]
    fn what_the_specification_allows_is_read() {
        let known = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let of = |sampled| {
            let trace_id = *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36";
            let span_id = *b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7";
            Some(TraceContext { trace_id, span_id, sampled })
        };
        for (value, sampled) in [
            (format!("00-{known}-01"), true),
            (format!("00-{known}-00"), false),
            (format!("00-{known}-ff"), true),
            (format!("00-{known}-fe"), false),
            (format!("00-{known}-03"), true),
            (format!("01-{known}-01"), true),
            (format!("cc-{known}-00-what-a-later-version-adds"), false),
            (format!("cc-{known}-01-"), true),
            (format!("fe-{known}-01"), true),
        ] {
            assert_eq!(parse(&value), of(sampled), "{value}");
        }
    }

    #[test]
    fn anything_else_is_no_trace() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(parse(good).is_some());
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-010",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-012",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
            "0A-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "00-4bf92f3577b34da6-a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "-004bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(TraceContext::parse([]), None);
        assert_eq!(TraceContext::parse([good.as_bytes(), good.as_bytes()]), None, "twice");
        assert_eq!(TraceContext::parse([good.as_bytes(), b""]), None, "twice");
    }

    #[test]
    fn no_id_is_zero() {
        let root = TraceContext::root([0; 16], [0; 8]);
        assert_eq!(parse(&root.to_string()), Some(root));
        let child = root.child([0; 8]);
        assert_eq!(parse(&child.to_string()), Some(child));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ids in any::<([u8; 16], [u8; 8])>(), sampled: bool) {
            let written = TraceContext { sampled, ..TraceContext::root(ids.0, ids.1) };
            let text = written.to_string();
            prop_assert_eq!(text.len(), TraceContext::LENGTH);
            prop_assert_eq!(parse(&text), Some(written));
        }

        /// One byte of a good header replaced: what is still read differs from it in nothing else.
        #[test]
        fn a_changed_header_is_refused_or_read_as_it_stands(
            ids in any::<([u8; 16], [u8; 8])>(), at in 0..TraceContext::LENGTH, byte: u8
        ) {
            let mut text = TraceContext::root(ids.0, ids.1).to_string().into_bytes();
            text[at] = byte;
            if let Some(read) = TraceContext::parse([&text[..]]) {
                let read = read.to_string();
                prop_assert_eq!(&read.as_bytes()[2..53], &text[2..53]);
            }
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceContext::parse([&bytes[..]]);
        }
    }
}
