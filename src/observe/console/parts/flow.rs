//! The latest accepted events, without what they say.

use maud::{Markup, html};

use super::{cell, column, empty, head_cell, table, wide_cell};
use crate::observe::console::text::{Shown, moment, name};
use crate::observe::console::view::View;

pub(super) fn render(view: &View) -> Markup {
    if view.flow.is_empty() {
        let source = view.sources.shown.iter().find(|source| source.provider.is_some());
        return empty(html! {
            "No event yet. Send one: "
            code { "hookgate send --source " (name(source.map_or("NAME", |source| &source.name))) }
        });
    }
    let columns = [column("Accepted"), column("Source"), column("Type"), column("Id")];
    html! {
        div.compact { (table("The latest accepted events, newest first", &columns, html! {
            @for event in &view.flow {
                tr role="row" {
                    (head_cell(moment(event.at, view.at)))
                    (cell(&columns[1], name(&event.source)))
                    (cell(&columns[2], html! { code { (name(&event.kind)) } }))
                    (wide_cell(&columns[3], html! { code { (Shown(&event.id, 64)) } }))
                }
            }
        })) }
        p.note {
            "Of each source, up to 8 events a second stand here. "
            code { "hookgate events tail" } " reads the queue itself."
        }
    }
}
