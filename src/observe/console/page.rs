//! The page: a template in one file, with its style and its script.
//!
//! Keeps true: the browser runs no script and applies no style but those of the template, and loads nothing from
//! elsewhere.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped, Render, html};
use sha2::{Digest, Sha256};

use super::Rendered;
use super::parts::SECTIONS;

/// The value of `Content-Security-Policy`.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let inside = between(TEMPLATE, &format!("<{tag}>"), &format!("</{tag}>"));
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inside)))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    )
});

/// The whole page. `after` is where its stream of events goes on.
pub(super) fn page(rendered: &Rendered, after: &str) -> String {
    let sections = html! {
        @for (section, part) in SECTIONS.iter().zip(&rendered.parts) {
            @let heading = format!("{}-heading", section.id);
            section id=(section.id) aria-labelledby=(heading) {
                h2 id=(heading) { (section.heading) }
                div data-part=(section.id) tabindex="-1" { (PreEscaped(&part.html)) }
            }
        }
    };
    let links = html! {
        @for section in &SECTIONS { li { a href={ "#" (section.id) } { (section.heading) } } }
    };
    fill(&[
        ("after", escaped(after)),
        ("said", escaped(&rendered.said)),
        ("now", escaped(&rendered.now)),
        ("links", links),
        ("sections", sections),
    ])
}

fn escaped(text: &str) -> Markup {
    text.render()
}

/// The template with its slots filled. What fills a slot is not searched for slots.
fn fill(slots: &[(&str, Markup)]) -> String {
    let mut filled = String::with_capacity(TEMPLATE.len());
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let (slot, after) = after.split_once("}}").unwrap_or((after, ""));
        if let Some((_, value)) = slots.iter().find(|(name, _)| *name == slot) {
            filled.push_str(&value.0);
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let after = text.split_once(start).map_or("", |(_, after)| after);
    after.split_once(end).map_or("", |(inside, _)| inside)
}

const TEMPLATE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_one_style_and_one_script_and_nothing_that_the_policy_forbids() {
        for tag in ["<style>", "<script>"] {
            assert_eq!(TEMPLATE.matches(tag).count(), 1, "{tag}");
        }
        assert_eq!(TEMPLATE.matches("<script").count() + TEMPLATE.matches("<style").count(), 2);
        for forbidden in [" style=", " onclick=", "javascript:", "src=", "@import", "url("] {
            assert!(!TEMPLATE.contains(forbidden), "{forbidden}");
        }
        assert_eq!(POLICY.matches("'sha256-").count(), 2);
        assert!(!POLICY.contains("unsafe") && !POLICY.contains("47DEQpj8HBSa"), "{}", *POLICY);
    }

    #[test]
    fn a_value_that_looks_like_a_slot_stays_as_it_is() {
        let filled = fill(&[("said", escaped("{{now}} <b>")), ("now", escaped("12:00:00"))]);
        assert!(filled.contains("{{now}} &lt;b&gt;") && filled.contains("As of 12:00:00 UTC"));
        assert!(!filled.contains("{{links}}"));
    }
}
