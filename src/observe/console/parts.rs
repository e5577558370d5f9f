//! The parts of the page. Each is rendered by itself, and sent again by itself when it changes.

mod config;
mod flow;
mod queue;
mod rejects;
mod sources;
mod spool;
mod status;
mod subscriptions;

use maud::{Markup, Render, html};

use super::text::{counted, number};
use super::view::{Health, Part, View};

pub(super) use status::said;

/// A part: its id in the page, its heading, and what renders it.
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) heading: &'static str,
    pub(super) render: fn(&View) -> Markup,
}

/// In the order of the page.
pub(super) const SECTIONS: [Section; 8] = [
    Section { id: "status", heading: "Status", render: status::render },
    Section { id: "sources", heading: "Sources", render: sources::render },
    Section { id: "flow", heading: "Live flow", render: flow::render },
    Section { id: "rejects", heading: "Rejects", render: rejects::render },
    Section { id: "queue", heading: "Queue", render: queue::render },
    Section { id: "spool", heading: "Spool", render: spool::render },
    Section { id: "subscriptions", heading: "Subscriptions", render: subscriptions::render },
    Section { id: "config", heading: "Config", render: config::render },
];

/// A table whose rows become cards on a narrow screen. The roles keep it a table for screen readers then.
fn table(caption: &str, columns: &[Column], rows: Markup) -> Markup {
    html! {
        table role="table" {
            caption.hidden { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    @for column in columns {
                        th.number[column.is_number] scope="col" role="columnheader" { (column.name) }
                    }
                }
            }
            tbody role="rowgroup" { (rows) }
        }
    }
}

/// A column of a table.
struct Column {
    name: &'static str,
    is_number: bool,
}

/// A column of texts.
const fn column(name: &'static str) -> Column {
    Column { name, is_number: false }
}

/// A column of numbers.
const fn numbers(name: &'static str) -> Column {
    Column { name, is_number: true }
}

fn cell(column: &Column, value: impl Render) -> Markup {
    html! { td.number[column.is_number] role="cell" data-label=(column.name) { (value) } }
}

/// A cell without a value.
fn no_cell(column: &Column) -> Markup {
    html! { td.none.number[column.is_number] role="cell" data-label=(column.name) { "–" } }
}

/// A cell that takes a line of its own on a narrow screen.
fn wide_cell(column: &Column, value: impl Render) -> Markup {
    html! { td.wide role="cell" data-label=(column.name) { (value) } }
}

/// The first cell of a row, which names it.
fn head_cell(value: impl Render) -> Markup {
    html! { th scope="row" role="rowheader" { (value) } }
}

/// The line under a list that was cut.
fn and_more(more: usize, how: &str) -> Markup {
    html! { @if more > 0 { p.more { "and " (number(more as u64)) " more" @if !how.is_empty() { ": " (how) } } } }
}

/// An empty part says what to do.
fn empty(text: impl Render) -> Markup {
    html! { p.empty { (text) } }
}

/// A state in a word and a sign; the colour only repeats it.
fn state(health: Health, word: &str) -> Markup {
    let (class, sign) = match health {
        Health::Good => ("good", "●"),
        Health::Warning => ("warning", "▲"),
        Health::Bad => ("bad", "■"),
        Health::Off => ("off", "○"),
    };
    html! { span.state.(class) { span aria-hidden="true" { (sign) } " " (word) } }
}

/// A part's state, since when and why. `word`: the state in words.
fn part_line(part: &Part, word: &str, view: &View) -> Markup {
    use super::text::{Shown, moment, span_to};
    html! {
        (state(part.health, word))
        " since " (moment(part.since, view.at)) " UTC"
        @if view.at.as_second() - part.since.as_second() >= 60 { " (" (span_to(part.since, view.at)) ")" }
        @if let Some(detail) = &part.detail { ": " (Shown(detail, 600)) }
    }
}

/// Pairs of a name and a figure.
fn figures(pairs: &[(&str, Markup)]) -> Markup {
    html! {
        dl.figures {
            @for (name, value) in pairs { div { dt { (name) } dd { (value) } } }
        }
    }
}

/// Names with their counts, such as `signature_mismatch 12`.
fn counts(of: &[(String, u64)]) -> Markup {
    html! {
        @for (at, (name, count)) in of.iter().enumerate() {
            @if at > 0 { ", " }
            code { (super::text::name(name)) } " " (number(*count))
        }
    }
}

/// `3 more types`.
fn more_of(more: usize, noun: &str) -> Markup {
    html! { @if more > 0 { ", and " (counted(more as u64, noun)) " more" } }
}
