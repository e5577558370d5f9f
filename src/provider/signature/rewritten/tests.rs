use super::*;

// Each right side is what CPython 3.11 printed for json.dumps(json.loads(left)).
#[test]
fn writes_what_python_writes() {
    for (body, expected) in [
        (
            r#"{"event":"card.created","name":"Zoë","n":1.50}"#,
            r#"{"event": "card.created", "name": "Zo\u00eb", "n": 1.5}"#,
        ),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
        (
            "[ 1e16 ,1e15, 1e-5, 0.0001, -0.0, -0, 123456789012345678901234567890, 2.50E+3 ]",
            "[1e+16, 1000000000000000.0, 1e-05, 0.0001, -0.0, 0, 123456789012345678901234567890, 2500.0]",
        ),
        (
            r#"{"e":"\ud83d\ude00\u007f\/","x":[],"y":{} , "z":null}"#,
            r#"{"e": "\ud83d\ude00\u007f/", "x": [], "y": {}, "z": null}"#,
        ),
        (r#""a\\""#, r#""a\\""#),
        (r#"["a\"b,]","\\\"c"]"#, r#"["a\"b,]", "\\\"c"]"#),
        ("\"\\u0000\\u001f\\n\\r\\t\\b\\f~\u{7f}\"", "\"\\u0000\\u001f\\n\\r\\t\\b\\f~\\u007f\""),
        ("[1e400, -1e400, 1.0e0, -5e-324]", "[Infinity, -Infinity, 1.0, -5e-324]"),
        ("[true,false,null]", "[true, false, null]"),
    ] {
        assert_eq!(python(body.as_bytes()).as_deref(), Some(expected), "{body}");
    }
}

#[test]
fn answers_nothing_for_what_is_no_json() {
    for body in [&b"{"[..], b"\xff", b"", b"{\"a\":}", "[".repeat(200).as_bytes()] {
        assert_eq!(python(body), None);
    }
}

#[test]
fn as_deep_as_it_may_be_and_no_deeper() {
    let nested = |levels: usize| python(format!("{}{}", "[".repeat(levels), "]".repeat(levels)).as_bytes());
    assert!(nested(MAX_DEPTH).is_some());
    assert_eq!(nested(MAX_DEPTH + 1), None);
    let beside = format!("[{}]", vec!["[]"; MAX_DEPTH * 2].join(", "));
    assert_eq!(python(beside.as_bytes()), Some(beside), "one beside the other is not deep");
}

// Each right side is what Node 20 (JSON.stringify), PHP 8 (json_encode) or Go (json.Marshal) document for it.
#[test]
fn writes_what_other_libraries_write() {
    let style = |spacing, escapes, numbers| Style { spacing, sorted: false, escapes, numbers };
    let body = br#"{"b":[1.50,1e21,-0,{}],"a":"/<\u00eb>"}"#;
    let tree = Tree::parse(body).unwrap();
    let write = |style| tree.write(style, 1000).unwrap();
    assert_eq!(
        write(style(Spacing::Compact, Escapes::Plain, Numbers::Javascript)),
        r#"{"b":[1.5,1e+21,0,{}],"a":"/<ë>"}"#
    );
    assert_eq!(
        write(style(Spacing::Pretty(2), Escapes::SlashAscii, Numbers::AsWritten)),
        "{\n  \"b\": [\n    1.50,\n    1e21,\n    -0,\n    {}\n  ],\n  \"a\": \"\\/<\\u00eb>\"\n}"
    );
    let html = Style { sorted: true, ..style(Spacing::Compact, Escapes::Html, Numbers::AsWritten) };
    assert_eq!(write(html), r#"{"a":"/\u003cë\u003e","b":[1.50,1e21,-0,{}]}"#);
    assert_eq!(tree.write(html, 10), None, "no longer than it may be");
    let tree = Tree::parse(br#""\u0001\u001f\u007f""#).unwrap();
    let plain = style(Spacing::Compact, Escapes::Plain, Numbers::AsWritten);
    assert_eq!(tree.write(plain, 1000).unwrap(), "\"\\u0001\\u001f\u{7f}\"");
}

#[test]
fn many_keys_are_read_in_a_time_that_grows_with_them() {
    let many: Vec<String> = (0..60_000).map(|n| format!("\"k{n}\":1")).collect();
    let written = python(format!("{{{}}}", many.join(",")).as_bytes()).unwrap();
    assert!(written.ends_with("\"k59999\": 1}"));
}
