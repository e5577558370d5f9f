//! The sources: last event, rate, outcomes, rejects by reason, secret slots, silence.

use maud::{Markup, html};

use super::{Column, and_more, cell, column, counts, head_cell, more_of, no_cell, numbers, table};
use crate::observe::console::sparkline::sparkline;
use crate::observe::console::text::{counted, moment, name, number, span_to};
use crate::observe::console::view::{Source, View};

const LAST: Column = column("Last event");
const HOUR: Column = column("Last hour");
const MINUTE: Column = numbers("Last minute");
const ACCEPTED: Column = numbers("Accepted");
const DUPLICATE: Column = numbers("Duplicate");
const REJECTED: Column = numbers("Refused");
const REFUSALS: Column = column("Refused, last hour");

pub(super) fn render(view: &View) -> Markup {
    let sources = &view.sources;
    let columns = [column("Source"), LAST, MINUTE, HOUR, ACCEPTED, DUPLICATE, REJECTED, REFUSALS];
    html! {
        (table("Sources with their counts since the start", &columns, html! {
            @for source in &sources.shown { (row(source, view)) }
        }))
        (and_more(sources.more, "/metrics has all of them"))
        p.note { "Counts are of this gateway since its start. The age beside a last event is how long its source has been silent." }
    }
}

fn row(source: &Source, view: &View) -> Markup {
    let configured = source.provider.is_some();
    let newest = source.minutes.accepted.last().copied().unwrap_or(0);
    html! {
        tr role="row" {
            (head_cell(html! {
                span.name { (name(&source.name)) }
                @match &source.provider {
                    Some(provider) => small { (name(provider)) " at " code { (name(&source.path)) } }
                    None => small { "requests to no source" }
                }
            }))
            @if configured {
                (cell(&LAST, last(source, view)))
                (cell(&MINUTE, number(newest)))
                (cell(&HOUR, sparkline("Accepted", &source.minutes.accepted)))
                (cell(&ACCEPTED, number(source.outcome("accepted"))))
                (cell(&DUPLICATE, number(source.outcome("duplicate"))))
            } @else {
                @for column in [&LAST, &MINUTE, &HOUR, &ACCEPTED, &DUPLICATE] { (no_cell(column)) }
            }
            (cell(&REJECTED, number(source.outcome("rejected"))))
            (cell(&REFUSALS, sparkline("Refused", &source.minutes.rejected)))
        }
        @if has_details(source) {
            tr.details role="row" {
                td colspan="8" role="cell" {
                    dl {
                        @if !source.types.shown.is_empty() {
                            div { dt { "Types" } dd { (counts(&source.types.shown)) (more_of(source.types.more, "type")) } }
                        }
                        @if !source.reasons.is_empty() {
                            div { dt { "Refused for" } dd { (counts(&source.reasons)) } }
                        }
                        @if !source.slots.is_empty() {
                            div { dt { "Secrets" } dd { (slots(&source.slots)) } }
                        }
                        @if !source.notes.is_empty() {
                            div { dt { "Also" } dd {
                                @for (at, (what, count)) in source.notes.iter().enumerate() {
                                    @if at > 0 { ", " }
                                    (counted(*count, what))
                                }
                            } }
                        }
                    }
                }
            }
        }
    }
}

fn has_details(source: &Source) -> bool {
    let Source { types, reasons, slots, notes, .. } = source;
    !(types.shown.is_empty() && reasons.is_empty() && slots.is_empty() && notes.is_empty())
}

/// The last event, and how long the source has been silent.
fn last(source: &Source, view: &View) -> Markup {
    html! {
        @match source.last {
            // Before the first event of a run the gauge has an earlier run's time, or when the source was first served.
            Some(at) if source.outcome("accepted") == 0 => {
                "none since the start" small { "silent for " (span_to(at, view.at)) }
            }
            Some(at) => { (moment(at, view.at)) small { (span_to(at, view.at)) " ago" } }
            None => "none yet",
        }
    }
}

fn slots(slots: &[u64]) -> Markup {
    html! {
        @for (slot, count) in slots.iter().enumerate() {
            @if slot > 0 { ", " }
            "slot " (slot) " "
            @if *count == 0 { "unused" } @else { "verified " (number(*count)) }
        }
    }
}
