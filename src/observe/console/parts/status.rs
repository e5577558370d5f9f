//! Whether the gateway takes events, and what stands against it.

use maud::{Markup, html};

use super::{figures, part_line, state};
use crate::observe::console::text::{Shown, number, span_to};
use crate::observe::console::view::{Health, Part, Status, View};

pub(super) fn render(view: &View) -> Markup {
    let status = &view.status;
    let overall = match (status.draining, status.ready) {
        (true, _) => state(Health::Warning, "draining"),
        (false, true) => state(Health::Good, "ready"),
        (false, false) => state(Health::Bad, "not ready"),
    };
    let part = |name: &'static str| {
        let part = status.parts.iter().find(|part| part.name == name);
        html! { @if let Some(part) = part { (state(part.health, part.state)) } }
    };
    let troubled: Vec<&Part> =
        status.parts.iter().filter(|part| matches!(part.health, Health::Bad | Health::Warning)).collect();
    let quiet = troubled.is_empty() && status.warnings.is_empty();
    html! {
        (figures(&[
            ("Gateway", overall),
            ("Queue", part("queue")),
            ("Dedupe", part("dedupe")),
            ("Spool", part("spool")),
            ("Reject log", part("reject log")),
            ("Accepted, last minute", html! { (number(status.accepted_a_minute)) }),
            ("Refused, last minute", html! { (number(status.rejected_a_minute)) }),
            ("In flight", html! { (number(status.in_flight)) }),
            ("Connections", html! { (number(status.connections)) }),
            ("Up for", html! { (span_to(view.started, view.at)) }),
        ]))
        @if !quiet {
            ul.troubles aria-label="What needs a look" {
                @for part in troubled {
                    li class=(if part.health == Health::Bad { "bad-line" } else { "warning-line" }) {
                        (part_line(part, &format!("{} {}", part.name, part.state), view))
                    }
                }
                @for warning in &status.warnings {
                    li.warning-line { (state(Health::Warning, "look")) ": " (Shown(warning, 300)) }
                }
            }
        }
    }
}

/// The same in a sentence, for a screen reader and the title.
pub(in crate::observe::console) fn said(status: &Status) -> String {
    let down: Vec<String> = status
        .parts
        .iter()
        .filter(|part| part.health == Health::Bad)
        .map(|part| format!("{} {}", part.name, part.state))
        .collect();
    let state = match (status.draining, status.ready) {
        (true, _) => "Draining",
        (false, true) => "Ready",
        (false, false) => "Not ready",
    };
    [state.to_owned()].into_iter().chain(down).collect::<Vec<_>>().join(", ")
}
