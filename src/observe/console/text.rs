//! Texts, numbers and times as the console writes them.
//!
//! Keeps true: no text of a client can hide or reorder other text, or be longer than its place.

use std::fmt::Write;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use maud::{Escaper, Markup, Render, html};

/// A text of at most so many characters, from anywhere.
pub(super) struct Shown<'a>(pub(super) &'a str, pub(super) usize);

impl Render for Shown<'_> {
    fn render_to(&self, buffer: &mut String) {
        let mut escaped = Escaper::new(buffer);
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(self.1) {
            // Writing to a String cannot fail.
            let _ = if c.is_control() && c != '\n' || STEERING.iter().any(|range| range.contains(&c)) {
                write!(escaped, "{}", c.escape_unicode())
            } else {
                escaped.write_char(c)
            };
        }
        if chars.next().is_some() {
            let _ = escaped.write_char('…');
        }
    }
}

/// A name or an id.
pub(super) fn name(text: &str) -> Shown<'_> {
    Shown(text, 80)
}

/// `1,234,567`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `3.4 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A time span in its largest unit: coarse, so that a page that nothing happens on does not change.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => "under 1 min".to_owned(),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long a moment lies before another.
pub(super) fn span_to(from: Timestamp, to: Timestamp) -> String {
    span((to.as_millisecond() - from.as_millisecond()) as f64 / 1000.0)
}

/// A moment, in UTC, without its date if that is today's.
pub(super) fn moment(at: Timestamp, now: Timestamp) -> Markup {
    let day = |at: Timestamp| at.as_second().div_euclid(86_400);
    let shown = if day(at) == day(now) { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    html! { time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) { (at.strftime(shown)) } }
}

/// A count with its noun, such as `2 events`.
pub(super) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// Zero-width, line-breaking and direction-changing characters.
const STEERING: [RangeInclusive<char>; 4] =
    ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{feff}'..='\u{feff}'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_client_is_escaped_made_visible_and_cut() {
        let shown = |text: &str, limit| Shown(text, limit).render().into_string();
        assert_eq!(shown("<b a='x' c=\"&\">", 99), "&lt;b a='x' c=&quot;&amp;&quot;&gt;");
        assert_eq!(shown("a\u{202e}b\0\u{1b}", 99), "a\\u{202e}b\\u{0}\\u{1b}");
        assert_eq!(shown("éééé", 3), "ééé…");
        assert_eq!(shown("ééé", 3), "ééé");
    }

    #[test]
    fn numbers_sizes_and_spans_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 5 << 30].map(size), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        let spans = [-5.0, 59.9, 60.0, 7200.0, 172_800.0];
        assert_eq!(spans.map(span), ["under 1 min", "under 1 min", "1 min", "2 h", "2 d"]);
    }

    #[test]
    fn a_moment_of_another_day_has_its_date() {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        let at = |text: &str| moment(text.parse().unwrap(), now).into_string();
        assert!(at("2026-11-21T00:00:00Z").ends_with(">00:00:00</time>"));
        assert!(at("2026-11-20T23:59:59Z").ends_with(">2026-11-20 23:59</time>"));
    }
}
