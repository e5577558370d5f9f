//! Refused requests: how many for each reason, and the newest records.

use maud::{Markup, html};

use super::{counts, empty, figures, state};
use crate::observe::console::text::{Shown, name, number, size};
use crate::observe::console::view::{Health, Record, View};

pub(super) fn render(view: &View) -> Markup {
    let rejects = &view.rejects;
    html! {
        (figures(&[
            ("Records written", html! { (number(rejects.written)) }),
            ("Summed up in them", html! { (number(rejects.suppressed)) }),
            ("Could not be written", html! {
                @if rejects.failed > 0 { (state(Health::Bad, &number(rejects.failed))) } @else { "0" }
            }),
            ("In quarantine", html! {
                @match rejects.quarantined {
                    Some((requests, bytes)) => { (number(requests)) " (" (size(bytes)) ")" }
                    None => (state(Health::Off, "off")),
                }
            }),
        ]))
        @if !rejects.reasons.is_empty() { p { "Since the start: " (counts(&rejects.reasons)) "." } }
        @if let Some(why) = &rejects.unread {
            p.part { (state(Health::Warning, "unread")) ": the reject log cannot be read: " (Shown(why, 300)) }
        }
        @if rejects.records.is_empty() && rejects.unread.is_none() {
            (empty(html! {
                "No record yet. A refused request leaves one: "
                code { "hookgate send --source NAME --tamper body" }
            }))
        } @else if !rejects.records.is_empty() {
            ul.records aria-label="The newest records, newest first" {
                @for record in &rejects.records { li { (one(record)) } }
            }
            p.note { code { "hookgate audit query" } " searches the whole log." }
        }
    }
}

fn one(record: &Record) -> Markup {
    html! {
        details id=(name(&record.id)) {
            summary {
                span.when { (name(&record.at)) }
                span.reason { (name(&record.reason)) }
                span.source { (name(&record.source)) }
                span.number { @if record.status > 0 { (record.status) } @else { "no answer" } }
                span.client { (name(record.client.as_deref().unwrap_or("–"))) }
                span.path { code { (Shown(&record.path, 160)) } }
            }
            dl {
                div { dt { "id" } dd { code { (name(&record.id)) } } }
                @if !record.path.is_empty() { div { dt { "path" } dd { (Shown(&record.path, 400)) } } }
                @for (field, value) in &record.fields {
                    div { dt { (name(field)) } dd { (Shown(value, 400)) } }
                }
            }
        }
    }
}
