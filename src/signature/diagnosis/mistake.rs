//! The mistakes that are known.
//!
//! Keeps true: a mistake names headers, sources and kinds; never a secret, a key or a digest.

use jiff::Timestamp;

use super::{Alteration, Form};
use crate::signature::{Encoding, SecretForm, Version};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A signing header is absent.
    HeaderMissing(&'static str),
    /// It is there under another name.
    HeaderMisnamed {
        /// The name it has, as it was sent.
        found: String,
        /// The name it should have.
        due: &'static str,
    },
    /// It is there more than once.
    HeaderRepeated(&'static str),
    /// It holds bytes outside ASCII.
    HeaderNotAscii(&'static str),
    /// It is empty.
    HeaderEmpty(&'static str),
    /// It holds nothing of the length of a digest.
    NoDigest {
        /// The header.
        header: &'static str,
        /// How many bytes it holds instead; 0: nothing readable.
        bytes: usize,
    },
    /// It holds none of the known versions.
    UnknownVersion {
        /// The header.
        header: &'static str,
        /// The known ones.
        known: &'static [Version],
    },
    /// There is no timestamp.
    TimestampMissing {
        /// The header.
        header: &'static str,
        /// The key that should stand before it.
        key: &'static str,
    },
    /// The timestamp is no number of unix seconds.
    TimestampNotUnix,
    /// The timestamp is in milliseconds or finer.
    TimestampTooFine,
    /// Signed too long ago.
    Stale {
        /// Seconds.
        age: i64,
        /// Seconds.
        tolerance: i64,
    },
    /// Signed in the future.
    Ahead {
        /// Seconds.
        by: i64,
        /// Seconds.
        tolerance: i64,
    },
    /// The secret of another source matches.
    SecretOf(String),
    /// The secret matches, but does not count at that time.
    SecretNotCurrent {
        /// Its place in the source's list, from 0.
        slot: usize,
        /// From when it counts.
        not_before: Option<Timestamp>,
        /// Until when.
        not_after: Option<Timestamp>,
    },
    /// The right secret was made a key in the wrong way.
    Keyed(Reading),
    /// Another string was signed.
    SignedOver(Form),
    /// Another body was signed.
    Altered(Alteration),
    /// There is no body.
    BodyEmpty,
    /// It has another length than its header says.
    BodyLength {
        /// What Content-Length says.
        told: u64,
        /// How many bytes there are.
        there: u64,
    },
    /// It is compressed.
    BodyCompressed,
    /// It is no JSON, as every provider's is.
    BodyNotJson,
    /// The digest is right and spelt wrong.
    Spelt {
        /// As it is.
        found: Spelling,
        /// As it should be.
        due: Spelling,
    },
    /// The digest is right and stands under the wrong version.
    Versioned {
        /// The header.
        header: &'static str,
        /// What should stand before it.
        due: String,
    },
    /// Right, but in Atelio's old version alone, which the source does not accept.
    OldVersion,
    /// None of the usual mistakes: another secret, or another body.
    Unexplained,
}

impl Mistake {
    /// Whether there is nothing that a secret could be held against, as long as this is not mended.
    pub(super) fn hides_the_signature(&self) -> bool {
        matches!(
            self,
            Mistake::HeaderMissing(_)
                | Mistake::HeaderRepeated(_)
                | Mistake::HeaderNotAscii(_)
                | Mistake::HeaderEmpty(_)
                | Mistake::NoDigest { .. }
                | Mistake::TimestampMissing { .. }
                | Mistake::BodyEmpty
                | Mistake::BodyLength { .. }
                | Mistake::BodyCompressed
                | Mistake::BodyNotJson
                | Mistake::Altered(_)
        )
    }
}

/// How a digest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Hex, in either case.
    Hex,
    /// Base64 with padding.
    Base64,
    /// The alphabet for URLs.
    Base64Url,
    /// Base64 without padding, or with stray bits.
    LooseBase64,
    /// The hex text once more in base64.
    Base64OfHex,
}

impl From<Encoding> for Spelling {
    fn from(encoding: Encoding) -> Spelling {
        match encoding {
            Encoding::Hex => Spelling::Hex,
            Encoding::Base64 => Spelling::Base64,
        }
    }
}

/// How a secret's text is made the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The text, prefix and all.
    Text,
    /// The text after `whsec_`.
    WithoutPrefix,
    /// Decoded from base64, after `whsec_`.
    Base64,
    /// Decoded from hex, after `whsec_`.
    Hex,
    /// Decoded from base64 once more than due.
    DecodedTwice,
    /// Decoded from base64 together with `whsec_`.
    Base64WithPrefix,
    /// The text with a line break at its end.
    WithLineBreak,
    /// The text in quotes.
    Quoted,
    /// The base64 of the text.
    EncodedAgain,
    /// The text without the white space around it.
    Trimmed,
}

impl From<SecretForm> for Reading {
    fn from(form: SecretForm) -> Reading {
        match form {
            SecretForm::Text => Reading::Text,
            SecretForm::Whsec => Reading::Base64,
        }
    }
}
