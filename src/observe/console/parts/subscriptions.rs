//! The declared subscriptions, and whether the providers have them.

use maud::{Markup, html};

use super::{Column, and_more, cell, column, empty, head_cell, state, table, wide_cell};
use crate::observe::console::text::{Shown, moment, name};
use crate::observe::console::view::{Subscription, View};

const EVENTS: Column = column("Events");
const STATE: Column = column("At the provider");
const LOOKED: Column = column("Looked at");
const RECONCILED: Column = column("Reconciled");

pub(super) fn render(view: &View) -> Markup {
    let rows = &view.subscriptions;
    if rows.shown.is_empty() {
        return empty(html! {
            "No source declares a subscription. A table " code { "[sources.NAME.subscription]" }
            " does, and " code { "hookgate subscriptions plan" } " shows what it would change."
        });
    }
    let columns = [column("Source"), EVENTS, STATE, LOOKED, RECONCILED];
    html! {
        div.shares.subscribed {
            (table("Declared subscriptions", &columns, html! { @for row in &rows.shown { (one(row, view)) } }))
        }
        (and_more(rows.more, ""))
        p.note {
            @match &view.subscriptions_checked {
                Some(every) => { "The gateway looks every " (every) " (" code { "subscriptions.check" } ")." }
                None => { "The gateway does not look: " code { "subscriptions.check" } " is off." }
            }
        }
    }
}

fn one(row: &Subscription, view: &View) -> Markup {
    html! {
        tr role="row" {
            (head_cell(html! { span.name { (name(&row.source)) } small { (name(&row.provider)) } }))
            (wide_cell(&EVENTS, html! {
                @for (at, event) in row.events.iter().take(MAX_EVENTS).enumerate() {
                    @if at > 0 { ", " }
                    code { (name(event)) }
                }
                @if row.events.len() > MAX_EVENTS { ", and " (row.events.len() - MAX_EVENTS) " more" }
                @if row.events.is_empty() { "none" }
            }))
            (wide_cell(&STATE, html! { (state(row.health, "")) (Shown(&row.state, 400)) }))
            (cell(&LOOKED, html! {
                @match row.looked { Some(at) => (moment(at, view.at)), None => "not yet" }
            }))
            (cell(&RECONCILED, html! {
                @match &row.reconciled {
                    Some((every, until)) => {
                        "every " (every)
                        small { @match until { Some(at) => { "up to " (moment(*at, view.at)) } None => "not yet" } }
                    }
                    None => "–",
                }
            }))
        }
    }
}

const MAX_EVENTS: usize = 12;
