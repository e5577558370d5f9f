//! Writes the numbers of a JSON text in other ways: `10.0` as `10`, `1.50` as `1.5`, `1e3` as `1000`.
//!
//! Keeps true: only numbers outside strings change, and all other bytes stay. Each variant is made only when it is
//! needed.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::provider::signature::rewritten::Numbers;

/// Another way to write a number. None: the rule does not apply to it.
type Rule = fn(&str) -> Option<String>;

/// The text with its numbers written in other ways, the likeliest first.
pub(super) fn variants(body: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let literals = literals(body);
    // The numbers under one key are written by the same code, so they change together.
    let mut keys: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    for (number, literal) in literals.iter().enumerate() {
        keys.entry(literal.key).or_default().push(number);
    }
    let (groups, all): (Vec<Vec<usize>>, Vec<usize>) =
        (keys.into_values().collect(), (0..literals.len()).collect());
    let plans = RULES.into_iter().map(move |rule| (all.clone(), rule)).chain(chosen(groups));
    plans.filter_map(move |(numbers, rule)| written(body, &literals, &numbers, rule))
}

/// Each group of numbers alone under each rule, then several groups together.
fn chosen(groups: Vec<Vec<usize>>) -> impl Iterator<Item = (Vec<usize>, Rule)> {
    let single = groups.clone().into_iter().flat_map(|group| RULES.map(|rule| (group.clone(), rule)));
    // Each group doubles the number of variants, so only the first ones are combined.
    let count = groups.len().min(MAX_GROUPS);
    let several = (1_u32..1 << count).filter(|chosen| chosen.count_ones() > 1).flat_map(move |chosen| {
        let taken = groups.iter().take(count).enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
        let numbers: Vec<usize> = taken.flat_map(|(_, group)| group.iter().copied()).collect();
        LIKELY.map(|rule| (numbers.clone(), rule))
    });
    single.chain(several)
}

/// The body with these numbers written by the rule. None: that changes nothing.
fn written(body: &[u8], literals: &[Literal<'_>], numbers: &[usize], rule: Rule) -> Option<Vec<u8>> {
    let (mut out, mut from, mut changed) = (Vec::with_capacity(body.len() + 64), 0, false);
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    for literal in numbers.into_iter().filter_map(|number| literals.get(number)) {
        let text = std::str::from_utf8(body.get(literal.range.clone())?).ok()?;
        let Some(other) = rule(text).filter(|other| other != text) else { continue };
        out.extend_from_slice(body.get(from..literal.range.start)?);
        out.extend_from_slice(other.as_bytes());
        (from, changed) = (literal.range.end, true);
    }
    out.extend_from_slice(body.get(from..)?);
    changed.then_some(out)
}

/// A number and the key before it; in a list, the list's key.
struct Literal<'a> {
    range: Range<usize>,
    key: &'a [u8],
}

/// Every number outside strings.
fn literals(body: &[u8]) -> Vec<Literal<'_>> {
    let (mut literals, mut at, mut key) = (Vec::new(), 0, &b""[..]);
    let run = |from: usize, belongs: fn(&u8) -> bool| {
        body.get(from..).unwrap_or_default().iter().take_while(|byte| belongs(byte)).count()
    };
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => {
                let end = end_of_string(body, at);
                let after = end + run(end, u8::is_ascii_whitespace);
                if body.get(after) == Some(&b':') {
                    key = body.get(at..end).unwrap_or_default();
                }
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let end = at + run(at, |byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
                literals.push(Literal { range: at..end, key });
                at = end;
            }
            _ => at += 1,
        }
    }
    literals
}

fn end_of_string(body: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    body.len()
}

const LIKELY: [Rule; 3] = [with_point, with_cents, without_zeros];
const RULES: [Rule; 11] = [
    with_point,
    with_cents,
    without_zeros,
    as_javascript,
    as_python,
    as_java,
    plain,
    small_e,
    large_e,
    bare_exponent,
    quoted,
];

fn is_whole(text: &str) -> bool {
    !text.contains(['.', 'e', 'E'])
}

/// `10` as `10.0`, as a float is written.
fn with_point(text: &str) -> Option<String> {
    is_whole(text).then(|| format!("{text}.0"))
}

/// `10` and `10.5` with two decimals, as a decimal is written.
fn with_cents(text: &str) -> Option<String> {
    if text.contains(['e', 'E']) {
        return None;
    }
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    (places.len() < 2).then(|| format!("{whole}.{places:0<2}"))
}

/// `10.50` as `10.5`, and `10.0` as `10`.
fn without_zeros(text: &str) -> Option<String> {
    let plain = text.contains('.') && !text.contains(['e', 'E']);
    plain.then(|| text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

fn as_javascript(text: &str) -> Option<String> {
    Some(Numbers::Javascript.write(text))
}

fn as_python(text: &str) -> Option<String> {
    Some(Numbers::Python.write(text))
}

/// `Double.toString`: always a point; an exponent below 1e-3 and from 1e7 on.
fn as_java(text: &str) -> Option<String> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return Some(format!("{value:?}"));
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e')?;
    Some(if digits.contains('.') { format!("{digits}E{exponent}") } else { format!("{digits}.0E{exponent}") })
}

/// `1e3` as `1000`.
fn plain(text: &str) -> Option<String> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.abs() < 1e25)?;
    text.contains(['e', 'E']).then(|| format!("{value}"))
}

/// `1000` as `1e3`.
fn small_e(text: &str) -> Option<String> {
    let digits = text.trim_end_matches('0');
    let zeros = text.len() - digits.len();
    (is_whole(text) && zeros > 1 && digits.len() == 1).then(|| format!("{digits}e{zeros}"))
}

/// `1e3` and `1000` as `1E3`.
fn large_e(text: &str) -> Option<String> {
    small_e(text).or_else(|| text.contains('e').then(|| text.to_owned())).map(|text| text.replace('e', "E"))
}

/// `1E+03` as `1e3`.
fn bare_exponent(text: &str) -> Option<String> {
    let (digits, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.trim_start_matches('+').parse().ok()?;
    Some(format!("{digits}e{exponent}"))
}

/// `10` as `"10"`.
fn quoted(text: &str) -> Option<String> {
    Some(format!("\"{text}\""))
}

/// At most 2^10 combinations.
const MAX_GROUPS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_written_anew_is_among_the_variants() {
        for (sent, signed) in [
            (r#"{"a":10}"#, r#"{"a":10.0}"#),
            (r#"{"a":10}"#, r#"{"a":10.00}"#),
            (r#"{"a":10.0}"#, r#"{"a":10}"#),
            (r#"{"a":1.5}"#, r#"{"a":1.50}"#),
            (r#"{"a":1.50}"#, r#"{"a":1.5}"#),
            (r#"{"a":1000}"#, r#"{"a":1e3}"#),
            (r#"{"a":1000}"#, r#"{"a":1E3}"#),
            (r#"{"a":1e3}"#, r#"{"a":1000}"#),
            (r#"{"a":1E+3}"#, r#"{"a":1e3}"#),
            (r#"{"a":12345678}"#, r#"{"a":1.2345678E7}"#),
            (r#"{"a":0.00001}"#, r#"{"a":1e-05}"#),
            (r#"{"a":-0}"#, r#"{"a":-0.0}"#),
            (r#"{"a":10}"#, r#"{"a":"10"}"#),
            // Some of the numbers, whatever the others are.
            (
                r#"{"a":10, "n" : 3,"s":"5 \"7\" 9","t":1700000000}"#,
                r#"{"a":10.0, "n" : 3,"s":"5 \"7\" 9","t":1700000000}"#,
            ),
            (r#"{"a":10,"n":3,"fee":2,"t":17}"#, r#"{"a":10.0,"n":3,"fee":2.0,"t":17}"#),
            (r#"[{"a":10,"n":1},{"a":20,"n":2}]"#, r#"[{"a":10.0,"n":1},{"a":20.0,"n":2}]"#),
        ] {
            assert!(variants(sent.as_bytes()).any(|variant| variant == signed.as_bytes()), "{sent} {signed}");
        }
    }

    #[test]
    fn what_has_no_numbers_has_no_variants_and_many_are_not_made_at_once() {
        for body in ["", "{}", r#"{"a":"10"}"#, r#"{"a":"\"10"#, "\"\\"] {
            assert_eq!(variants(body.as_bytes()).count(), 0, "{body}");
        }
        let many: Vec<String> = (0..20_000).map(|n| format!("\"k{n}\":{n}")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert_eq!(variants(many.as_bytes()).take(3).count(), 3);
    }
}
