//! Indents a JSON text for people.
//!
//! Keeps true: numbers, texts and the order of keys stay as they were written, unlike after a parse. Control characters
//! are escaped.

use super::super::terminal::safe;

/// The text with a line for each member, and two spaces for each level. The text must be valid JSON.
pub(super) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    let mut chars = json.chars().filter_map(|c| {
        if in_text {
            in_text = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            return Some((c, true));
        }
        in_text = c == '"';
        (!matches!(c, ' ' | '\t' | '\n' | '\r')).then_some((c, in_text))
    });
    let mut next = chars.next();
    while let Some((c, is_text)) = next {
        next = chars.next();
        let closes = matches!(next, Some(('}' | ']', false)));
        match c {
            _ if is_text => out.push_str(&safe(c.encode_utf8(&mut [0; 4]))),
            '{' | '[' => {
                depth += 1;
                out.push(c);
                if !closes {
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !out.ends_with(['{', '[']) {
                    new_line(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_text_is_indented_and_otherwise_as_it_was_written() {
        let json = "{\"a\":[1.0,{\"b\" :\r\n null}],\"b\":\"x:\\\"{[,\\\\\",\"c\":{},\"d\":[ ],\"a\":1e400}";
        let due = "{\n  \"a\": [\n    1.0,\n    {\n      \"b\": null\n    }\n  ],\n  \"b\": \"x:\\\"{[,\\\\\",\n  \
            \"c\": {},\n  \"d\": [],\n  \"a\": 1e400\n}";
        assert_eq!(pretty(json), due);
        assert_eq!(pretty(&pretty(json)), due);
        assert_eq!(pretty("{\"a\":\"{\"}"), "{\n  \"a\": \"{\"\n}");
        assert_eq!(pretty("[\"[\"]"), "[\n  \"[\"\n]");
        assert_eq!(pretty("\"\u{9b}31m\""), "\"\\u{9b}31m\"");
    }
}
