//! The config in force, as `check --print` has it.

use maud::{Markup, html};

use super::{figures, state};
use crate::observe::console::text::{Shown, moment, name, number, span_to};
use crate::observe::console::view::{Health, View};

pub(super) fn render(view: &View) -> Markup {
    let config = &view.config;
    let (applied, refused) = config.reloads;
    html! {
        (figures(&[
            ("Loaded", html! { @match config.loaded { Some(at) => (moment(at, view.at)), None => "not yet" } }),
            ("Reloads applied", html! { (number(applied)) }),
            ("Reloads refused", html! {
                @if refused > 0 { (state(Health::Warning, &number(refused))) } @else { "0" }
            }),
            ("Certificates expire", html! {
                @match config.certificates_expire {
                    Some(at) if at <= view.at => (state(Health::Bad, "expired")),
                    Some(at) => { "in " (span_to(view.at, at)) }
                    None => "no TLS",
                }
            }),
            ("Version", html! { (name(&view.status.version)) }),
        ]))
        // Focusable, so that a keyboard can scroll it.
        pre id="config-text" tabindex="0" role="region" aria-label="The config in force, secrets redacted" {
            code { (Shown(&config.text, MAX_TEXT)) }
        }
    }
}

const MAX_TEXT: usize = 100_000;
