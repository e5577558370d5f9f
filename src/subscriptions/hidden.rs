//! Texts that must not be shown: path tokens, keys and secrets.

use crate::config::secret::Secret;

/// Replaces secrets in texts by `***`.
#[derive(Clone, Default)]
pub struct Hidden {
    secrets: Vec<Secret>,
    /// URLs that a path token follows, each with the slash before it.
    before_tokens: Vec<String>,
}

impl Hidden {
    /// Adds a secret.
    pub fn add(&mut self, secret: &Secret) {
        if secret.expose().len() >= SHORTEST && !self.secrets.contains(secret) {
            self.secrets.push(secret.clone());
            // A long secret first: a shorter one may be a part of it.
            self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        }
    }

    /// Hides what follows this URL, which ends in a slash: a path token, also one that was replaced since.
    pub fn add_before_token(&mut self, url: String) {
        self.before_tokens.push(url);
    }

    /// The text without its secrets.
    pub fn hide(&self, text: &str) -> String {
        let hidden = |text: String, secret: &Secret| text.replace(secret.expose(), HIDDEN);
        let text = self.secrets.iter().fold(text.to_owned(), hidden);
        let text = self.before_tokens.iter().fold(text, |text, url| hide_after(&text, url, ""));
        hide_after(&text, WHSEC, "/")
    }
}

/// The text with `***` for the word that follows each `start`. A word may also have the characters of `more`.
fn hide_after(text: &str, start: &str, more: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(start) {
        let (before, after) = rest.split_at(at + start.len());
        let is_of_word = |c: char| c.is_ascii_alphanumeric() || "-._~%+=".contains(c) || more.contains(c);
        let word = after.find(|c| !is_of_word(c)).unwrap_or(after.len());
        hidden.push_str(before);
        if word > 0 {
            hidden.push_str(HIDDEN);
        }
        rest = after.get(word..).unwrap_or_default();
    }
    hidden + rest
}

/// Shorter texts are no secrets, and stand in ordinary words.
const SHORTEST: usize = 4;
/// What stands for a secret.
pub const HIDDEN: &str = "***";
/// How a secret of Standard Webhooks begins, by which one is known that was never seen before.
const WHSEC: &str = "whsec_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_is_hidden_wherever_it_stands_and_a_longer_one_whole() {
        let mut hidden = Hidden::default();
        for secret in ["t0ken", "t0ken-long", "a"] {
            hidden.add(&Secret::new(secret));
        }
        assert_eq!(hidden.hide("https://h/a/t0ken/b t0ken-long"), "https://h/a/***/b ***");
    }

    #[test]
    fn a_token_of_before_and_a_secret_that_was_never_seen_are_hidden() {
        let mut hidden = Hidden::default();
        hidden.add_before_token("https://h/hooks/a/".to_owned());
        assert_eq!(
            hidden.hide("https://h/hooks/a/0ld-t0ken → https://h/hooks/b/x"),
            "https://h/hooks/a/*** → https://h/hooks/b/x"
        );
        assert_eq!(
            hidden.hide("https://h/hooks/a/ and https://h/hooks/a/x?y"),
            "https://h/hooks/a/ and https://h/hooks/a/***?y"
        );
        assert_eq!(hidden.hide("the secret \"whsec_aB/+c=\", whsec_"), "the secret \"whsec_***\", whsec_");
    }
}
