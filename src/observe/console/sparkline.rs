//! A bar for each minute of the last hour, as SVG.

use std::fmt::Write;

use maud::{Markup, html};

use super::text::number;

/// The bars of one hour, `minutes` newest last. `what` names the counted things for a screen reader.
pub(super) fn sparkline(what: &str, minutes: &[u64]) -> Markup {
    let (sum, most) = (minutes.iter().sum::<u64>(), minutes.iter().copied().max().unwrap_or(0));
    let label = if sum == 0 {
        format!("{what} in the last hour: none")
    } else {
        format!("{what} in the last hour: {}, at most {} in a minute", number(sum), number(most))
    };
    html! {
        svg.spark viewBox="0 0 120 20" width="120" height="20" role="img" aria-label=(label) {
            path.base d="M0 19.5h120" {}
            @if sum > 0 { path.bars d=(bars(minutes, most)) {} }
        }
    }
}

/// The newest minute stands at the right end.
fn bars(minutes: &[u64], most: u64) -> String {
    let mut path = String::new();
    let shift = 60_usize.saturating_sub(minutes.len());
    for (at, count) in minutes.iter().enumerate().filter(|(_, count)| **count > 0) {
        // A single event in a busy hour must still show.
        let height = (*count as f64 / most.max(1) as f64 * 19.0).max(1.5);
        // Writing to a String cannot fail.
        let _ = write!(path, "M{} 20v-{height:.1}h1.5v{height:.1}z", (shift + at) * 2);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_for_minutes_and_the_label_says_the_same() {
        let drawn = sparkline("Accepted", &[0, 5, 1, 10]).into_string();
        assert!(
            drawn.contains("aria-label=\"Accepted in the last hour: 16, at most 10 in a minute\""),
            "{drawn}"
        );
        assert!(
            drawn.contains("d=\"M114 20v-9.5h1.5v9.5zM116 20v-1.9h1.5v1.9zM118 20v-19.0h1.5v19.0z\""),
            "{drawn}"
        );
        let none = sparkline("Accepted", &[]).into_string();
        assert!(none.contains("none\"") && !none.contains("bars"), "{none}");
    }
}
