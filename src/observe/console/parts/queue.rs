//! The queue, its streams and consumer groups.

use maud::{Markup, html};

use super::{
    and_more, cell, column, counts, empty, figures, head_cell, numbers, part_line, table, wide_cell,
};
use crate::observe::console::text::{name, number, size, span};
use crate::observe::console::view::{Queue, View};

pub(super) fn render(view: &View) -> Markup {
    let queue = &view.queue;
    let mean = queue.mean_ms.map_or("–".to_owned(), |ms| format!("{ms:.1} ms"));
    let batch = match queue.writes {
        (0, _) => "–".to_owned(),
        (writes, events) => format!("{:.1}", events as f64 / writes as f64),
    };
    html! {
        p.part { (part_line(&queue.part, queue.part.state, view)) }
        (figures(&[
            ("Kind", html! { (queue.kind) }),
            ("Name", html! { code { (name(&queue.name)) } }),
            ("Dedupe", html! { (queue.dedupe) }),
            ("Durable writes", html! { (number(queue.writes.0)) }),
            ("Events a write", html! { (batch) }),
            ("Mean time of a write", html! { (mean) }),
        ]))
        @if !queue.failures.is_empty() { p { "Failed: " (counts(&queue.failures)) "." } }
        (streams(queue))
        (groups(queue))
        (routes(queue))
    }
}

fn streams(queue: &Queue) -> Markup {
    let columns = [column("Stream"), numbers("Events"), numbers("Limit")];
    html! {
        @if !queue.streams.shown.is_empty() {
            h3 { "Streams" }
            div.small { (table("Streams", &columns, html! {
                @for (stream, events, max) in &queue.streams.shown {
                    tr role="row" {
                        (head_cell(html! { code { (name(stream)) } }))
                        (cell(&columns[1], number(*events)))
                        (cell(&columns[2], number(*max)))
                    }
                }
            })) }
            (and_more(queue.streams.more, ""))
        }
    }
}

fn groups(queue: &Queue) -> Markup {
    let columns = [column("Group"), column("Stream"), numbers("Not acknowledged"), numbers("Oldest")];
    html! {
        h3 { "Consumer groups" }
        @if queue.groups.shown.is_empty() {
            (empty(without_groups(queue)))
        } @else {
            div.small { (table("Consumer groups, the furthest behind first", &columns, html! {
                @for group in &queue.groups.shown {
                    tr role="row" {
                        (head_cell(name(&group.name)))
                        (wide_cell(&columns[1], html! { code { (name(&group.stream)) } }))
                        (cell(&columns[2], number(group.lag)))
                        (cell(&columns[3], if group.lag > 0 { span(group.oldest) } else { "–".to_owned() }))
                    }
                }
            })) }
            (and_more(queue.groups.more, ""))
        }
    }
}

/// Where to look for consumers instead.
fn without_groups(queue: &Queue) -> Markup {
    html! {
        @match queue.kind {
            "embedded" => {
                "The embedded queue has no consumer groups: consumers read it with "
                code { "hookgate events tail --after CURSOR" } "."
                @if let Some(bytes) = queue.file_bytes { " Its file has " (size(bytes)) "." }
            }
            "redis" => {
                "No stream has a consumer group. Make one: "
                code { "redis-cli XGROUP CREATE " (name(&queue.name)) " GROUP 0" }
            }
            "http" => "Services take the events; there are no consumer groups.",
            kind => { "The tools of " (kind) " show its consumers." }
        }
    }
}

fn routes(queue: &Queue) -> Markup {
    let columns = [column("Types"), column("Requests")];
    html! {
        @if !queue.routes.shown.is_empty() {
            h3 { "Routes to services" }
            div.small { (table("Routes to services with their requests", &columns, html! {
                @for (route, outcomes) in &queue.routes.shown {
                    tr role="row" {
                        (head_cell(html! { code { (name(route)) } }))
                        (cell(&columns[1], html! { @if outcomes.is_empty() { "none yet" } @else { (counts(outcomes)) } }))
                    }
                }
            })) }
            (and_more(queue.routes.more, ""))
        }
    }
}
