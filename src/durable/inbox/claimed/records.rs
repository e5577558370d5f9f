//! The records of an identity: for each body its hash and a letter, 33 bytes a body.
//!
//! Keeps true: a body has one record. `claim.lua` and `commit.lua` use the same format.

use crate::config::OnConflict;
use crate::event::BodyHash;

/// How a body was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// It is in the queue under the event's own id.
    First,
    /// It is in the queue as a conflict.
    Conflict,
    /// It was dropped as a conflict.
    Dropped,
    /// It may be in the queue under the event's own id: its claim ended without commit or release.
    Perhaps,
}

/// The records of one identity.
#[derive(Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// Parses stored records.
    pub(super) fn of(bytes: Vec<u8>) -> Records {
        Records(bytes)
    }

    /// The bytes to store.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How a body was taken.
    pub(super) fn flag(&self, body: &BodyHash) -> Option<Flag> {
        self.iter().find(|(hash, _)| *hash == body.0).and_then(|(_, letter)| Flag::of(letter))
    }

    /// How a body was taken, or may have been. [`BodyHash::UNKNOWN`] may be every body: it was taken if any was, and once
    /// it was, every body was.
    pub(super) fn taken(&self, body: &BodyHash) -> Option<Flag> {
        match self.flag(body) {
            None | Some(Flag::Perhaps) => {}
            entered => return entered,
        }
        let any =
            self.iter().any(|(_, letter)| [Flag::First, Flag::Conflict].map(Flag::letter).contains(&letter));
        let covered = self.flag(&BodyHash::UNKNOWN) == Some(Flag::First);
        if covered || any && *body == BodyHash::UNKNOWN { Some(Flag::First) } else { self.flag(body) }
    }

    /// Whether an event of this identity is in the queue.
    pub(super) fn is_known(&self) -> bool {
        self.taken(&BodyHash::UNKNOWN) == Some(Flag::First)
    }

    /// The body with the event's own id. If conflicts are forwarded, a body that perhaps has it counts too, because a
    /// broker may drop another body under the same id. If they are dropped, it does not count, because one body must
    /// enter.
    pub(super) fn first(&self, on_conflict: OnConflict) -> Option<BodyHash> {
        let with = |flag: Flag| {
            let found = self.iter().find(|(_, letter)| *letter == flag.letter());
            found.and_then(|(hash, _)| hash.try_into().ok()).map(BodyHash)
        };
        with(Flag::First).or_else(|| match on_conflict {
            OnConflict::Forward => with(Flag::Perhaps),
            OnConflict::Drop => None,
        })
    }

    /// Sets how a body was taken.
    pub(super) fn set(&mut self, body: &BodyHash, flag: Flag) {
        match self.0.chunks_exact_mut(RECORD).find(|record| record.starts_with(&body.0)) {
            Some(record) => record[HASH] = flag.letter(),
            None => {
                self.0.extend_from_slice(&body.0);
                self.0.push(flag.letter());
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], u8)> {
        self.0.chunks_exact(RECORD).map(|record| (&record[..HASH], record[HASH]))
    }
}

impl Flag {
    /// The letter in the record.
    pub(super) fn letter(self) -> u8 {
        match self {
            Flag::First => b'F',
            Flag::Conflict => b'C',
            Flag::Dropped => b'D',
            Flag::Perhaps => b'P',
        }
    }

    fn of(letter: u8) -> Option<Flag> {
        [Flag::First, Flag::Conflict, Flag::Dropped, Flag::Perhaps].into_iter().find(|f| f.letter() == letter)
    }
}

const HASH: usize = 32;
const RECORD: usize = HASH + 1;
