//! Secrets: where they come from, and a type that never prints them.
//!
//! Keeps true: the text of a secret is reachable only through [`Secret::expose`], and no `Debug` or `Display` shows it.

mod flaw;

use std::fmt;
use std::path::PathBuf;

use crate::base::file::{self, ReadError};
pub use flaw::Flaw;
pub(crate) use flaw::lenient_base64;

/// Where the gateway reads a secret, as the config says.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable's value.
    Env(String),
    /// A file's content, without one trailing line break.
    File(PathBuf),
    /// Text in the config file itself. `check` warns of it.
    Plain(Secret),
}

/// A secret's text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a secret could not be read. Never holds the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is unset.
    #[error("the environment variable {0} is not set; set it or name another source")]
    Unset(String),
    /// The environment variable is not UTF-8.
    #[error("the environment variable {0} is not UTF-8 text")]
    EnvNotText(String),
    /// The file could not be read.
    #[error("cannot read the secret file {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        why: ReadError,
    },
    /// The file is too large for a secret.
    #[error("the secret file {0} is larger than {MAX_KIB} KiB; a secret is one line: is it another file?")]
    FileTooLarge(String),
    /// The file is not UTF-8.
    #[error("the secret file {0} is not UTF-8 text")]
    FileNotText(String),
    /// The secret is empty.
    #[error("the secret from {0} is empty; an empty secret would authenticate every client")]
    Empty(String),
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    /// If it is unset, unreadable, too large, not UTF-8, or empty.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        let (text, origin) = match self {
            SecretRef::Env(name) => match std::env::var(name) {
                Ok(text) => (text, format!("the environment variable {name}")),
                Err(std::env::VarError::NotPresent) => return Err(SecretError::Unset(name.clone())),
                Err(std::env::VarError::NotUnicode(_)) => return Err(SecretError::EnvNotText(name.clone())),
            },
            SecretRef::File(path) => {
                let shown = path.display().to_string();
                let bytes = file::read(path, MAX_KIB << 10).map_err(|why| match why {
                    ReadError::TooLarge(_) => SecretError::FileTooLarge(shown.clone()),
                    why => SecretError::File { path: shown.clone(), why },
                })?;
                let text = String::from_utf8(bytes).map_err(|_| SecretError::FileNotText(shown.clone()))?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                (text.strip_suffix('\r').unwrap_or(text).to_owned(), format!("the file {shown}"))
            }
            SecretRef::Plain(secret) => (secret.0.clone(), "the config file".to_owned()),
        };
        if text.trim().is_empty() {
            return Err(SecretError::Empty(origin));
        }
        Ok(Secret(text))
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "env {name}"),
            SecretRef::File(path) => write!(f, "file {}", path.display()),
            SecretRef::Plain(_) => f.write_str("plain <redacted>"),
        }
    }
}

impl Secret {
    /// Wraps a text that must not be printed.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself. An audit must look at every caller.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Cuts secrets out of texts that clients sent, before they are stored. It compares in lower case: a secret in another
/// letter case is wrong, but still gives the right one away.
#[derive(Clone, Default)]
pub struct Redactor(Vec<Secret>);

impl Redactor {
    /// Adds a secret. A Standard Webhooks secret is also added without its prefix, which senders may leave out.
    pub fn add(&mut self, secret: &Secret) {
        let bare = secret.0.strip_prefix(STANDARD_WEBHOOKS_PREFIX).map(|bare| bare.trim_end_matches('='));
        // A few characters are no secret, and would cut up ordinary texts.
        let bare = bare.filter(|bare| bare.len() >= SHORTEST_BARE).map(Secret::new);
        for secret in std::iter::once(secret.clone()).chain(bare) {
            let secret = Secret(secret.0.to_ascii_lowercase());
            if !self.0.contains(&secret) {
                self.0.push(secret);
            }
        }
    }

    /// Adds the secrets of an older redactor, up to a limit: clients may still send an old secret.
    pub fn add_from(&mut self, before: &Redactor) {
        for secret in before.0.iter().take(MAX_INHERITED) {
            self.add(secret);
        }
    }

    /// The text without its secrets, in any letter case. A text with a percent-encoded secret is redacted whole, even
    /// if it is encoded several times over.
    pub fn redact(&self, text: &str) -> String {
        let (mut clean, mut lower) = (text.to_owned(), text.to_ascii_lowercase());
        for secret in &self.0 {
            if lower.contains(&secret.0) {
                clean = without(&clean, &lower, &secret.0);
                lower = clean.to_ascii_lowercase();
            }
        }
        let mut coded = lower.into_bytes();
        for _ in 0..MAX_LAYERS {
            let decoded = percent_decoded(&coded).to_ascii_lowercase();
            if decoded == coded {
                break;
            }
            if self.0.iter().any(|secret| holds(&decoded, secret.0.as_bytes())) {
                return REDACTED.to_owned();
            }
            coded = decoded;
        }
        clean
    }
}

/// Cuts `part`, in lower case, out of `text`. `lower` is the text in lower case.
fn without(text: &str, lower: &str, part: &str) -> String {
    let (mut clean, mut rest) = (String::new(), 0);
    for (at, _) in lower.match_indices(part) {
        clean.push_str(&text[rest..at]);
        clean.push_str(REDACTED);
        rest = at + part.len();
    }
    clean + &text[rest..]
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Decodes the percent-encoding of URLs.
pub(crate) fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

/// Far more than any secret. Without a limit, a device such as `/dev/zero` would be read forever.
const MAX_KIB: u64 = 64;
const REDACTED: &str = "<redacted>";
/// The optional prefix of a Standard Webhooks secret. It is no part of the key.
pub const STANDARD_WEBHOOKS_PREFIX: &str = "whsec_";
/// The prefix of Standard Webhooks public keys.
pub const PUBLIC_KEY_PREFIX: &str = "whpk_";
/// The prefix of Standard Webhooks private keys.
pub const PRIVATE_KEY_PREFIX: &str = "whsk_";
/// The length of the shortest key in base64.
const SHORTEST_BARE: usize = 22;
/// More layers of encoding do not happen by mistake.
const MAX_LAYERS: usize = 4;
/// Each costs a search in every text that is redacted.
const MAX_INHERITED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_missing_secret_is_an_error_that_names_where_to_look() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let said = SecretRef::File(empty).resolve().unwrap_err().to_string();
        assert!(said.contains("empty"), "{said}");
        let said = SecretRef::File(dir.path().join("absent")).resolve().unwrap_err().to_string();
        assert!(said.contains("absent"), "{said}");
        let said = SecretRef::Env("HOOKGATE_TEST_UNSET".into()).resolve().unwrap_err().to_string();
        assert!(said.contains("HOOKGATE_TEST_UNSET is not set"), "{said}");
    }

    #[test]
    fn a_file_loses_one_line_break_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, " kept \r\n").unwrap();
        assert_eq!(SecretRef::File(path).resolve().unwrap().expose(), " kept ");
    }

    #[test]
    fn a_file_without_an_end_is_an_error_and_not_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "x".repeat(64 << 10)).unwrap();
        assert_eq!(SecretRef::File(path.clone()).resolve().unwrap().expose().len(), 64 << 10);
        std::fs::write(&path, "x".repeat((64 << 10) + 1)).unwrap();
        for path in [path, "/dev/zero".into()] {
            let said = SecretRef::File(path).resolve().unwrap_err().to_string();
            assert!(said.contains("larger than 64 KiB"), "{said}");
        }
    }

    #[test]
    fn a_redactor_finds_what_it_knows_wherever_it_stands() {
        let mut redactor = Redactor::default();
        redactor.add(&Secret::new("t0ken"));
        assert_eq!(redactor.redact("/hooks/a/t0ken/b"), "/hooks/a/<redacted>/b");
        assert_eq!(redactor.redact("/hooks/a/t%30ken"), "<redacted>");
        assert_eq!(redactor.redact("/hooks/a/%2574%2530ken"), "<redacted>");
        assert_eq!(redactor.redact("/hooks/100%"), "/hooks/100%");
        assert_eq!(redactor.redact("%2525"), "%2525");
        assert_eq!(
            redactor.redact("/T0KEN/t0ken/T0ken"),
            "/<redacted>/<redacted>/<redacted>",
            "letter case tells it"
        );
        assert_eq!(redactor.redact("/%54%30KEN"), "<redacted>");
        assert_eq!(redactor.redact("/\u{e9}T0ken\u{e9}"), "/\u{e9}<redacted>\u{e9}");
        redactor.add(&Secret::new("whsec_AQIDBAUGBwgJCgsMDQ4PEA=="));
        assert_eq!(redactor.redact("a whsec_AQIDBAUGBwgJCgsMDQ4PEA== b"), "a <redacted> b");
        assert_eq!(redactor.redact("k=AQIDBAUGBwgJCgsMDQ4PEA"), "k=<redacted>");
        redactor.add(&Secret::new("whsec_t"));
        assert_eq!(redactor.redact("t"), "t");
    }

    #[test]
    fn debug_shows_nothing() {
        let shown = format!("{:?} {:?}", Secret::new("hush"), SecretRef::Plain(Secret::new("hush")));
        assert!(!shown.contains("hush"));
    }
}
