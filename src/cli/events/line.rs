//! An event as one line: columns for people, or JSON with its cursor.

use super::super::terminal::safe;
use crate::event::Head;

/// Renders an event as one line.
pub(in crate::cli) fn render(cursor: &str, event: &str, json: bool) -> String {
    if json {
        return format!("{{\"cursor\":{},\"event\":{}}}", serde_json::Value::from(cursor), one_line(event));
    }
    match Head::parse(event) {
        Ok(head) => format!("{cursor:>8}  {}", columns(&head)),
        Err(error) => format!("{cursor:>8}  not an event of this schema: {error}"),
    }
}

/// An event's JSON without line breaks. A raw one can only be white space between tokens, so a space can replace it.
pub(super) fn one_line(event: &str) -> String {
    event.replace(['\n', '\r'], " ")
}

/// The attributes that people look for.
pub(super) fn columns(head: &Head<'_>) -> String {
    let Head { id, source, kind, subject, recordedtime } = head;
    let subject = subject.as_deref().unwrap_or("-");
    safe(&format!("{recordedtime}  {kind:<28}  {subject:<44}  {source}  {id}"))
}
