//! A chunked body in HTTP/1.1, followed to its end.
//!
//! Keeps true: sizes are hexadecimal digits and nothing else, lines end in CR LF, and what stands beside the data (extensions
//! and trailers) is bounded. Source: RFC 9112, section 7.1.

use super::head::is_token_byte;

/// Where in a chunked body one is.
#[derive(Default)]
pub(super) struct Chunks {
    at: At,
    /// Of the chunk's data: still to come.
    left: u64,
    digits: usize,
    /// Bytes of extensions and trailers so far.
    beside: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Default)]
enum At {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
}

/// What came of reading on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// All bytes belong to the body, and it goes on.
    OnAndOn,
    /// The body ends after so many bytes.
    CloseReason(usize),
    /// After so many bytes comes what cannot be there.
    Broken(usize),
}

impl Chunks {
    /// Reads on.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Came {
        let mut position = 0;
        while let Some(&byte) = bytes.get(position) {
            if let At::Data = self.at {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - position);
                self.left -= data as u64;
                position += data;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            if let (At::LastLf, b'\n') = (self.at, byte) {
                return Came::CloseReason(position + 1);
            }
            match self.next(byte) {
                Some(at) => self.at = at,
                None => return Came::Broken(position),
            }
            position += 1;
        }
        Came::OnAndOn
    }

    fn next(&mut self, byte: u8) -> Option<At> {
        let digit = (byte as char).to_digit(16);
        match (self.at, byte) {
            (At::Size, _) if digit.is_some() => self.digit(digit?),
            (At::Size, b'\r') if self.digits > 0 => Some(At::SizeLf),
            (At::Size, b';') if self.digits > 0 => self.beside(At::Extension),
            (At::Extension, b'\r') => Some(At::SizeLf),
            (At::Extension, _) if is_text(byte) => self.beside(At::Extension),
            (At::SizeLf, b'\n') => {
                self.digits = 0;
                Some(if self.left == 0 { At::TrailerStart } else { At::Data })
            }
            (At::DataCr, b'\r') => Some(At::DataLf),
            (At::DataLf, b'\n') => Some(At::Size),
            (At::TrailerStart, b'\r') => Some(At::LastLf),
            (At::TrailerStart, _) if is_token_byte(byte) => {
                self.trailers += 1;
                if self.trailers > MAX_TRAILERS { None } else { self.beside(At::TrailerName) }
            }
            (At::TrailerName, b':') => self.beside(At::TrailerValue),
            (At::TrailerName, _) if is_token_byte(byte) => self.beside(At::TrailerName),
            (At::TrailerValue, b'\r') => Some(At::TrailerLf),
            (At::TrailerValue, _) if is_text(byte) => self.beside(At::TrailerValue),
            (At::TrailerLf, b'\n') => Some(At::TrailerStart),
            _ => None,
        }
    }

    fn digit(&mut self, digit: u32) -> Option<At> {
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        (self.digits <= MAX_DIGITS).then_some(At::Size)
    }

    fn beside(&mut self, at: At) -> Option<At> {
        self.beside += 1;
        (self.beside <= MAX_BESIDE).then_some(at)
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// No body is near that large, and it fits 64 bits.
const MAX_DIGITS: usize = 15;
/// Of a whole body; hyper's own limit is above.
const MAX_BESIDE: usize = 8 << 10;
const MAX_TRAILERS: usize = 64;
