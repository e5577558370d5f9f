//! Events that wait on disk, and those that the queue never took.

use maud::{Markup, html};

use super::{and_more, cell, column, empty, figures, head_cell, part_line, state, table, wide_cell};
use crate::observe::console::text::{Shown, moment, name, number, size, span};
use crate::observe::console::view::{Health, View};

pub(super) fn render(view: &View) -> Markup {
    let spool = &view.spool;
    let columns =
        [column("Number"), column("Received"), column("Source"), column("Type"), column("Id"), column("Why")];
    html! {
        p.part { (part_line(&spool.part, spool.part.state, view)) }
        @if view.queue.kind == "embedded" {
            p.note { "The embedded queue is on the same disk, so nothing is spooled." }
        }
        (figures(&[
            ("Waiting events", html! { (number(spool.events)) }),
            ("Bytes", html! { (size(spool.bytes)) @if spool.max_bytes > 0 { " of " (size(spool.max_bytes)) } }),
            ("Oldest", html! { @if spool.events > 0 { (span(spool.oldest)) } @else { "–" } }),
            ("Dead letters", html! {
                @if spool.dead > 0 { (state(Health::Warning, &number(spool.dead))) } @else { "0" }
            }),
        ]))
        h3 { "Dead letters" }
        @if let Some(why) = &spool.unread {
            p.part { (state(Health::Warning, "unread")) ": dead letters cannot be read: " (Shown(why, 300)) }
        }
        @if spool.letters.is_empty() {
            @if spool.dead == 0 { (empty("None. An event that the queue never takes would stand here.")) }
        } @else {
            div.shares.letters { (table("Dead letters, newest first", &columns, html! {
                @for letter in &spool.letters {
                    tr role="row" {
                        (head_cell(letter.seq))
                        (cell(&columns[1], moment(letter.received, view.at)))
                        (cell(&columns[2], name(&letter.source)))
                        (cell(&columns[3], html! { code { (name(&letter.kind)) } }))
                        (wide_cell(&columns[4], html! { code { (Shown(&letter.id, 64)) } }))
                        (wide_cell(&columns[5], Shown(&letter.why, 200)))
                    }
                }
            })) }
            (and_more((spool.dead as usize).saturating_sub(spool.letters.len()), ""))
            p.note {
                code { "hookgate events dead list" } " lists all, "
                code { "hookgate events dead retry" } " sends them to the queue again."
            }
        }
    }
}
