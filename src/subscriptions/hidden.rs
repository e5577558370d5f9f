//! Texts that must not be shown: path tokens, keys and secrets.

use crate::config::secret::Secret;

/// Replaces secrets in texts by `***`.
#[derive(Clone, Default)]
pub struct Hidden(Vec<Secret>);

impl Hidden {
    /// Adds a secret.
    pub fn add(&mut self, secret: &Secret) {
        if secret.expose().len() >= SHORTEST && !self.0.contains(secret) {
            self.0.push(secret.clone());
            // A long secret first: a shorter one may be a part of it.
            self.0.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        }
    }

    /// The text without its secrets.
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), HIDDEN))
    }
}

/// Shorter texts are no secrets, and stand in ordinary words.
const SHORTEST: usize = 4;
const HIDDEN: &str = "***";

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
}
