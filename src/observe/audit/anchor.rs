//! Anchors: records that prove, with a key, that the chain before them is unchanged.
//!
//! Keeps true: a valid anchor was made with the key, for its position and the hash before it. So no record before it
//! can be changed without the key.

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::secret::{Secret, SecretRef};
use crate::config::{Audit, Located, Problem};

/// The key that makes and checks anchors.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// Makes a key from a secret.
    ///
    /// # Errors
    /// When it is shorter than 16 bytes.
    pub fn new(secret: &Secret) -> Result<Key, String> {
        let bytes = secret.expose().as_bytes();
        if bytes.len() < MIN_KEY {
            let found = bytes.len();
            return Err(format!(
                "the key has {found} bytes; expected at least {MIN_KEY} (`openssl rand -hex 32` makes one)"
            ));
        }
        match Hmac::new_from_slice(bytes) {
            Ok(mac) => Ok(Key(mac)),
            Err(why) => Err(why.to_string()),
        }
    }

    /// The configured key, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is too short.
    pub fn of(config: &Audit) -> Result<Option<Key>, Problem> {
        let Some(Located { value, at }) = &config.key else { return Ok(None) };
        let key = value.resolve().map_err(|why| why.to_string()).and_then(|secret| Key::new(&secret));
        let problem = |what| Problem { at: *at, key: "audit.key".to_owned(), what, warning: false };
        key.map(Some).map_err(problem)
    }

    /// Reads the key from a file.
    ///
    /// # Errors
    /// When it cannot be read, or is too short.
    pub fn in_file(path: &Path) -> Result<Key, String> {
        let secret = SecretRef::File(path.to_owned()).resolve().map_err(|why| why.to_string())?;
        Key::new(&secret).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The text of an anchor with this number, time and `prev`.
    pub(super) fn anchor_text(&self, seq: u64, ts: &str, prev: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(CONTEXT);
        mac.update(&seq.to_be_bytes());
        // With lengths, so that different anchors never give the same bytes.
        for text in [ts, prev] {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        format!("hmac-sha256:{}", hex::encode(mac.finalize().into_bytes()))
    }
}

/// Shorter keys could be guessed.
pub(super) const MIN_KEY: usize = 16;
/// The largest number of records between two anchors.
pub(super) const ANCHOR_EVERY: u64 = 1000;
const CONTEXT: &[u8] = b"hookgate audit anchor 1\0";
