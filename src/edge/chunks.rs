//! Finds the end of a chunked HTTP/1.1 body.
//!
//! Keeps true: sizes are hexadecimal digits and nothing else; lines end in CR LF; extensions and trailers are bounded.
//! Source: RFC 9112, section 7.1.

use super::head::is_token_byte;

/// The position in a chunked body.
#[derive(Default)]
pub(super) struct Chunks {
    state: State,
    /// Bytes of the chunk's data still to come.
    left: u64,
    digits: usize,
    /// Bytes of extensions and trailers so far.
    beside: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Default)]
enum State {
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

/// The result of [`Chunks::read`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChunkProgress {
    /// All bytes belong to the body, and more follow.
    Continues,
    /// The body ends after this many bytes.
    Ended(usize),
    /// The byte at this index breaks the syntax.
    Broken(usize),
}

impl Chunks {
    pub(super) fn read(&mut self, bytes: &[u8]) -> ChunkProgress {
        let mut position = 0;
        while let Some(&byte) = bytes.get(position) {
            if let State::Data = self.state {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - position);
                self.left -= data as u64;
                position += data;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            if let (State::LastLf, b'\n') = (self.state, byte) {
                return ChunkProgress::Ended(position + 1);
            }
            match self.next(byte) {
                Some(state) => self.state = state,
                None => return ChunkProgress::Broken(position),
            }
            position += 1;
        }
        ChunkProgress::Continues
    }

    fn next(&mut self, byte: u8) -> Option<State> {
        let digit = (byte as char).to_digit(16);
        match (self.state, byte) {
            (State::Size, _) if digit.is_some() => self.digit(digit?),
            (State::Size, b'\r') if self.digits > 0 => Some(State::SizeLf),
            (State::Size, b';') if self.digits > 0 => self.count_beside(State::Extension),
            (State::Extension, b'\r') => Some(State::SizeLf),
            (State::Extension, _) if is_text(byte) => self.count_beside(State::Extension),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                Some(if self.left == 0 { State::TrailerStart } else { State::Data })
            }
            (State::DataCr, b'\r') => Some(State::DataLf),
            (State::DataLf, b'\n') => Some(State::Size),
            (State::TrailerStart, b'\r') => Some(State::LastLf),
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.trailers += 1;
                if self.trailers > MAX_TRAILERS { None } else { self.count_beside(State::TrailerName) }
            }
            (State::TrailerName, b':') => self.count_beside(State::TrailerValue),
            (State::TrailerName, _) if is_token_byte(byte) => self.count_beside(State::TrailerName),
            (State::TrailerValue, b'\r') => Some(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => self.count_beside(State::TrailerValue),
            (State::TrailerLf, b'\n') => Some(State::TrailerStart),
            _ => None,
        }
    }

    fn digit(&mut self, digit: u32) -> Option<State> {
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        (self.digits <= MAX_DIGITS).then_some(State::Size)
    }

    fn count_beside(&mut self, next: State) -> Option<State> {
        self.beside += 1;
        (self.beside <= MAX_BESIDE).then_some(next)
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// 15 hexadecimal digits fit into 64 bits, and no body comes near that size.
const MAX_DIGITS: usize = 15;
/// Bytes of extensions and trailers in one body. hyper's own limit is higher.
const MAX_BESIDE: usize = 8 << 10;
const MAX_TRAILERS: usize = 64;
