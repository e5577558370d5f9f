//! Patterns of event types: `*` stands for any characters or none, dots too.

/// Whether a type fits a pattern.
pub fn fits(pattern: &str, kind: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| kind.strip_prefix(first)) else { return false };
    // The last part must end the type; the others stand where they come first.
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_dots_too() {
        for (pattern, fitting, not) in [
            ("kyc.verified", vec!["kyc.verified"], vec!["kyc.verified2", "kyc.verified.twice", "kyc", ""]),
            ("kyc.*", vec!["kyc.verified", "kyc.", "kyc.a.b"], vec!["kyc", "akyc.b", "kycs.a"]),
            ("*", vec!["", "a.b"], vec![]),
            ("*.created", vec!["user.created", "a.b.created"], vec!["created", "a.createdb"]),
            ("a*b*c", vec!["abc", "a.b.b.c", "aXbYbZc"], vec!["acb", "ab", "abc."]),
            ("a*a", vec!["aa", "aba"], vec!["a"]),
            ("*a*a*", vec!["aa", "bacad"], vec!["ba"]),
            ("invoice.*.b", vec!["invoice.a.b"], vec!["invoice.b"]),
            ("a?c", vec!["a?c"], vec!["abc"]),
            ("[a]", vec!["[a]"], vec!["a"]),
        ] {
            fitting.iter().for_each(|text| assert!(fits(pattern, text), "{pattern} {text}"));
            not.iter().for_each(|text| assert!(!fits(pattern, text), "{pattern} {text}"));
        }
    }
}
