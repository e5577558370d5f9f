//! Text that came from outside, made safe for a terminal.

/// The text with every control character escaped, so that nothing sent to the gateway can drive the terminal it is shown on.
pub(super) fn safe(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}
