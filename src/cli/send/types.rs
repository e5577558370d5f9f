//! The event types that `--event` may name.
//!
//! Keeps true: the types are those of the provider's table, which the gateway uses too.

use std::io::{self, Write};

use serde_json::json;

use crate::cli::{Failure, print_line};
use crate::config::edit_distance;
use crate::provider::Provider;

/// The word that lists the types, given in place of a type.
pub(super) const HELP: &str = "help";

/// Prints every type of a provider, with its canonical type.
pub(super) fn list(provider: &Provider, json: bool) -> Result<(), Failure> {
    for (own, canonical) in provider.types.unwrap_or_default() {
        let text = if json {
            json!({ "event": own, "type": canonical }).to_string()
        } else {
            format!("{own} -> {canonical}")
        };
        if !print_line(&mut io::stdout(), &text)? {
            break;
        }
    }
    Ok(())
}

/// Warns of a type that the table lacks. The gateway accepts it, as `unmapped.…`.
pub(super) fn warn_of_unknown(provider: &Provider, given: &str) {
    let Some(types) = provider.types else { return };
    if types.iter().any(|(own, canonical)| given == *own || given == *canonical) {
        return;
    }
    let becomes = provider.canonical_type(Some(given));
    let near = nearest(types, given);
    let near = if near.is_empty() { String::new() } else { format!(" Did you mean {}?", near.join(" or ")) };
    let known: Vec<&str> = types.iter().map(|(own, _)| *own).collect();
    // Standard error may be closed; the event's type shows the same.
    let _ = writeln!(
        io::stderr(),
        "hookgate: warning: {} has no known event type {given:?}; it is sent as it is, and becomes {becomes}.{near} Known: {}",
        provider.name,
        known.join(", "),
    );
}

/// The known types closest to the requested one, if they are close.
fn nearest(types: &'static [(&'static str, &'static str)], given: &str) -> Vec<&'static str> {
    let allowed = (given.len() / 4).clamp(1, MAX_DISTANCE);
    let given = given.to_ascii_lowercase();
    let mut near: Vec<(usize, &str)> = types
        .iter()
        .flat_map(|(own, canonical)| [*own, *canonical])
        .filter(|known| known.len().abs_diff(given.len()) <= allowed)
        .map(|known| (edit_distance(&given, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    near.sort_unstable();
    near.dedup();
    let fewest = near.first().map_or(0, |(distance, _)| *distance);
    near.into_iter().filter(|(distance, _)| *distance == fewest).map(|(_, known)| known).take(SHOWN).collect()
}

const MAX_DISTANCE: usize = 4;
const SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider;

    #[test]
    fn the_nearest_types_are_suggested() {
        let types = provider::catalog::built_in("basiq").unwrap().types.unwrap();
        assert_eq!(nearest(types, "user.craeted").first(), Some(&"user.created"));
        assert_eq!(nearest(types, "User.Created").first(), Some(&"user.created"));
        assert!(nearest(types, "foo.bar").is_empty());
        assert!(nearest(types, "").is_empty());
        assert!(nearest(types, &"x".repeat(100_000)).is_empty());
    }
}
