//! Looks for secrets in everything that commands print and gateways log, in every test.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::delivery::{NEXT_SECRET, STANDARD_SECRET, TEXT_SECRET, TOKEN};

/// The secrets that simulators gave out.
static GIVEN_OUT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Adds secrets to those that nothing may print.
pub fn give_out(secrets: impl IntoIterator<Item = String>) {
    GIVEN_OUT.lock().unwrap().extend(secrets.into_iter().filter(|secret| secret.len() >= SHORTEST));
}

/// Fails if a text holds a secret. `what` says where the text is from.
pub fn assert_none_in(what: &str, text: &str) {
    // The lock is released before a test may fail.
    let given_out = GIVEN_OUT.lock().unwrap().clone();
    let known = [STANDARD_SECRET, NEXT_SECRET, TEXT_SECRET, TOKEN];
    let secrets = known.into_iter().chain(given_out.iter().map(String::as_str));
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{what} holds a secret: {line:?}");
    }
}

/// Shorter texts stand in ordinary words.
const SHORTEST: usize = 12;
