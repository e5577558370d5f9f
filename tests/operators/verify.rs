//! `hookgate verify`: each mistake that a sender or a capture can make, made by other code than hookgate's, and recognised; and
//! nothing secret in what it prints.

use std::io::Write;
use std::process::Stdio;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use standardwebhooks::Webhook;
use support::{Home, Ran, now, securitize, standard};

// -- what passes

#[test]
fn a_genuine_delivery_passes_and_tells_its_event() {
    let home = home();
    for capture in
        [Capture::basiq(), Capture::atelio(), Capture::iof(), Capture::iof_apart(), Capture::anduin()]
    {
        let told = capture.told(&home);
        assert_eq!((&told["verdict"], &told["reason"]), (&"pass".into(), &Value::Null), "{told}");
        assert_eq!(
            (&told["age"], &told["secret"], &told["findings"]),
            (&7.into(), &0.into(), &Value::Array(vec![]))
        );
        let kind = told["event"]["type"].as_str().unwrap();
        assert!(kind.contains('.') && !kind.starts_with("unmapped"), "{told}");
        assert!(!told["event"]["id"].as_str().unwrap().is_empty());
        let ran = capture.verify(&home, &[]);
        assert!(ran.code == 0 && ran.out.contains("passes") && ran.out.contains(kind), "{ran:?}");
    }
    let told = Capture::basiq().told(&home);
    assert_eq!(told["event"]["subject"], "user/1e25");
    assert_eq!(told["event"]["id"], "44a85f64");
}

#[test]
fn a_source_without_a_signature_is_told_as_such() {
    let home = home();
    let capture =
        Capture { source: "securitize", headers: vec![], body: SECURITIZE_BODY.into(), key: vec![] };
    let ran = capture.verify(&home, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("no signature to verify") && ran.out.contains("path-token"), "{ran:?}");
    let told = capture.told(&home);
    assert_eq!((&told["verdict"], &told["verifiedby"]), (&"pass".into(), &"path-token".into()));
    let other = SECURITIZE_BODY.replace("sub-1", "sub-2");
    let told = Capture { body: other.into(), ..capture }.told(&home);
    assert_eq!((&told["verdict"], &told["reason"]), (&"fail".into(), &"subscription_not_allowed".into()));
}

#[test]
fn headers_are_taken_as_people_capture_them() {
    let home = home();
    let capture = Capture::basiq();
    let lines = |prefix: &str, end: &str| {
        let lines = capture.headers.iter().map(|(name, value)| format!("{prefix}{name}: {value}{end}"));
        lines.collect::<String>()
    };
    for text in [
        lines("", "\r\n"),
        format!("\nPOST /hooks/basiq HTTP/1.1\r\n{}\r\n", lines("", "\r\n")),
        format!("\u{feff}{}", lines("", "\n")),
        format!(
            "* Connected\n> POST /hooks/basiq HTTP/1.1\n{}> \n< HTTP/1.1 401 Unauthorized\n",
            lines("> ", "\n")
        ),
    ] {
        home.write("headers", &text);
        home.write("body", &capture.body);
        let ran = home.run(&arguments("basiq"));
        assert_eq!(ran.code, 0, "{text}: {ran:?}");
    }
    home.write("headers", "webhook-id: a\n{\"this\":\"is the body\"");
    let ran = home.run(&arguments("basiq"));
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("line 2 is not a header") && !ran.err.contains("this"), "{ran:?}");
}

#[test]
fn the_body_may_come_from_standard_input() {
    let home = home();
    let capture = Capture::iof();
    capture.write(&home);
    let mut command =
        home.command(&["verify", "--source", "iof", "--headers", "headers", "--body", "-", "--at", NOW]);
    let mut process =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(&capture.body).unwrap();
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn wrong_usage_exits_2_and_what_is_not_there_1() {
    let home = home();
    Capture::basiq().write(&home);
    let wrong: [&[&str]; 6] = [
        &["verify"],
        &["verify", "--source", "basiq"],
        &["verify", "--source", "basiq", "--headers", "headers"],
        &["verify", "--source", "basiq", "--headers", "-", "--body", "-"],
        &["verify", "--source", "basiq", "--headers", "headers", "--body", "body", "--at", "yesterday"],
        &["verify", "--source", "basiq", "--headers", "headers", "--body", "body", "--at", "-1"],
    ];
    for arguments in wrong {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {ran:?}");
    }
    let absent: [(&[&str], &str); 3] = [
        (&arguments("nobody"), "it has: anduin, atelio"),
        (&["verify", "--source", "basiq", "--headers", "absent", "--body", "body"], "cannot read absent"),
        (&["verify", "--source", "basiq", "--headers", "headers", "--body", "absent"], "cannot read absent"),
    ];
    for (arguments, said) in absent {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(said), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn only_the_sources_own_secrets_must_be_at_hand() {
    let home = Home::new(&format!(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{BASIQ}\"]\n\
         [sources.iof]\nprovider = \"iof\"\nsecrets = [{{ env = \"HOOKGATE_TEST_UNSET\" }}]\n"
    ));
    let ran = Capture::basiq().verify(&home, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = Capture::iof().verify(&home, &[]);
    assert!(ran.code == 1 && ran.err.contains("HOOKGATE_TEST_UNSET is not set"), "{ran:?}");
}

// -- what fails

#[test]
fn an_age_outside_the_tolerance_is_told_with_a_hint_to_at() {
    let home = home();
    for (at, mistake) in [(AT + 4000, "timestamp_stale"), (AT - 4000, "timestamp_ahead")] {
        let capture = Capture::basiq();
        capture.write(&home);
        let at = at.to_string();
        let arguments =
            ["verify", "--source", "basiq", "--headers", "headers", "--body", "body", "--at", &at];
        let ran = home.run(&arguments);
        assert!(ran.code == 1 && ran.out.contains("timestamp_outside_tolerance"), "{ran:?}");
        assert!(
            ran.out.contains(mistake) && ran.out.contains("4000 s") && ran.out.contains("--at UNIX"),
            "{ran:?}"
        );
        let way = if mistake.ends_with("ahead") { "ahead" } else { "old" };
        assert!(ran.out.contains(&format!("the signed timestamp is 4000 s {way}, the tolerance")), "{ran:?}");
        let told = home.run(&[&arguments[..], &["--json"]].concat()).json().remove(0);
        assert_eq!(labels(&told), [mistake]);
        assert_eq!(told["age"].as_i64().unwrap().abs(), 4000);
    }
    // Without --at it is held against now, which is long after it.
    let mut capture = Capture::basiq();
    capture.sign_standard("1700000000", "msg_1.1700000000.", "");
    capture.write(&home);
    let ran = home.run(&arguments("basiq")[..7]);
    assert!(ran.code == 1 && ran.out.contains("not its age now") && ran.out.contains("--at UNIX"), "{ran:?}");
}

#[test]
fn a_timestamp_in_milliseconds_is_recognised() {
    let home = home();
    let mut capture = Capture::basiq();
    capture.sign_standard("1795000000000", "msg_1.1795000000000.", "");
    let told = capture.fails(&home, &["timestamp_in_milliseconds"]);
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains(" s ahead (in milliseconds?") && !detail.contains('-'), "{detail}");
    let mut capture = Capture::basiq();
    capture.sign_standard("1795000000", "msg_1.1795000000000.", "");
    capture.fails(&home, &["other_string_signed"]);
    let mut capture = Capture::iof();
    capture.sign_pairs("1795000000000", "v1", "1795000000.", "");
    capture.fails(&home, &["other_string_signed"]);
    let mut capture = Capture::iof();
    capture.sign_pairs("2026-11-18T10:00:00Z", "v1", "2026-11-18T10:00:00Z.", "");
    capture.fails(&home, &["timestamp_not_unix"]);
}

#[test]
fn a_secret_of_another_source_is_named_by_its_source() {
    let home = home();
    let mut capture = Capture::iof();
    capture.key = ATELIO.into();
    capture.sign_pairs(STAMP, "v1", &format!("{STAMP}."), "");
    let told = capture.fails(&home, &["secret_of_another_source"]);
    assert!(told["findings"][0]["fix"].as_str().unwrap().contains("atelio"), "{told}");
    let mut capture = Capture::basiq();
    capture.key = STANDARD.decode(&ANDUIN[6..]).unwrap();
    capture.sign_standard(STAMP, &format!("msg_1.{STAMP}."), "");
    let told = capture.fails(&home, &["secret_of_another_source"]);
    assert!(told["findings"][0]["fix"].as_str().unwrap().contains("anduin"), "{told}");
}

#[test]
fn a_secret_that_was_read_in_another_way_is_recognised() {
    let home = home();
    for key in [BASIQ.as_bytes().to_vec(), BASIQ[6..].into(), format!("{BASIQ}\n").into()] {
        let mut capture = Capture { key, ..Capture::basiq() };
        capture.sign_standard(STAMP, &format!("msg_1.{STAMP}."), "");
        capture.fails(&home, &["secret_read_otherwise"]);
    }
    for key in [ATELIO[6..].into(), STANDARD.decode(&ATELIO[6..]).unwrap(), format!("{ATELIO}\n").into()] {
        let mut capture = Capture { key, ..Capture::atelio() };
        capture.sign_pairs(STAMP, "v2", &format!("{STAMP}."), "");
        capture.fails(&home, &["secret_read_otherwise"]);
    }
}

#[test]
fn a_body_that_was_written_anew_is_recognised() {
    let home = home();
    // What is sent, and the forms in which it may have been signed, as each language's own library prints them.
    let sent = r#"{"type":"kyc.verified","id":"evt_1","data":{"name":"Zoë & Söhne","n":[1.50,{}],"url":"https://x/y"}}"#;
    let signed = [
        "{\"type\": \"kyc.verified\", \"id\": \"evt_1\", \"data\": {\"name\": \"Zo\\u00eb & S\\u00f6hne\", \"n\": [1.5, {}], \"url\": \"https://x/y\"}}",
        "{\"type\": \"kyc.verified\", \"id\": \"evt_1\", \"data\": {\"name\": \"Zoë & Söhne\", \"n\": [1.5, {}], \"url\": \"https://x/y\"}}",
        "{\"data\": {\"n\": [1.5, {}], \"name\": \"Zo\\u00eb & S\\u00f6hne\", \"url\": \"https://x/y\"}, \"id\": \"evt_1\", \"type\": \"kyc.verified\"}",
        "{\"type\":\"kyc.verified\",\"id\":\"evt_1\",\"data\":{\"name\":\"Zoë & Söhne\",\"n\":[1.5,{}],\"url\":\"https://x/y\"}}",
        "{\"type\":\"kyc.verified\",\"id\":\"evt_1\",\"data\":{\"name\":\"Zo\\u00eb & S\\u00f6hne\",\"n\":[1.5,{}],\"url\":\"https:\\/\\/x\\/y\"}}",
        "{\"type\":\"kyc.verified\",\"id\":\"evt_1\",\"data\":{\"name\":\"Zoë \\u0026 Söhne\",\"n\":[1.5,{}],\"url\":\"https://x/y\"}}",
        "{\n  \"type\": \"kyc.verified\",\n  \"id\": \"evt_1\",\n  \"data\": {\n    \"name\": \"Zoë & Söhne\",\n    \"n\": [\n      1.5,\n      {}\n    ],\n    \"url\": \"https://x/y\"\n  }\n}",
        "{\n    \"type\": \"kyc.verified\",\n    \"id\": \"evt_1\",\n    \"data\": {\n        \"name\": \"Zo\\u00eb & S\\u00f6hne\",\n        \"n\": [\n            1.5,\n            {}\n        ],\n        \"url\": \"https://x/y\"\n    }\n}",
    ];
    for signed in signed {
        for mut capture in [Capture::basiq(), Capture::iof(), Capture::atelio()] {
            capture.body = signed.into();
            capture.sign();
            capture.body = sent.into();
            capture.fails(&home, &["body_reserialised"]);
        }
    }
    let compact = sent.replace("1.50", "1.5");
    for pretty in &signed[6..] {
        let mut capture = Capture::basiq();
        capture.body = compact.clone().into();
        capture.sign();
        capture.body = (*pretty).into();
        let told = capture.fails(&home, &["body_reserialised"]);
        assert!(told["findings"][0]["fix"].as_str().unwrap().contains("compact"), "{told}");
    }
}

#[test]
fn a_body_with_other_ends_or_line_breaks_is_recognised() {
    let home = home();
    let body = "{\n\"type\":\"kyc.verified\",\n\"id\":\"evt_1\"}";
    let crlf = body.replace('\n', "\r\n");
    let (html, percent) = (body.replace('"', "&quot;"), body.replace('"', "%22").replace('{', "%7B"));
    for (signed, sent, mistake) in [
        (body, format!("{body}\n").as_str(), "body_trailing_newline"),
        (body, &format!("{body}\r\n"), "body_trailing_newline"),
        (&format!("{body}\n"), body, "body_trailing_newline"),
        (&format!("{body}\r\n"), body, "body_trailing_newline"),
        (body, &format!(" {body}\t "), "body_white_space"),
        (body, &format!("\u{feff}{body}"), "body_byte_order_mark"),
        (&format!("\u{feff}{body}"), body, "body_byte_order_mark"),
        (body, &crlf, "body_line_breaks"),
        (&crlf, body, "body_line_breaks"),
        (body, &html, "body_html_escaped"),
        (body, &percent, "body_percent_encoded"),
        ("", body, "signed_without_body"),
    ] {
        for mut capture in [Capture::basiq(), Capture::iof(), Capture::atelio()] {
            capture.body = signed.into();
            capture.sign();
            capture.body = sent.into();
            capture.fails(&home, &[mistake]);
        }
    }
    let mut capture = Capture::basiq();
    capture.body = vec![];
    capture.fails(&home, &["body_empty"]);
}

#[test]
fn a_body_of_another_length_than_its_header_says_is_recognised() {
    let home = home();
    for capture in [Capture::basiq(), Capture::atelio(), Capture::iof()] {
        let whole = capture.body.len();
        for (told, spoil) in [
            (whole, &(|body: &mut Vec<u8>| body.truncate(whole - 20)) as &dyn Fn(&mut Vec<u8>)),
            (whole, &|body| body.insert(3, b' ')),
        ] {
            let mut capture = capture.clone();
            capture.headers.push(("Content-Length", told.to_string()));
            spoil(&mut capture.body);
            let told = capture.fails(&home, &["body_length"]);
            let fix = told["findings"][0]["fix"].as_str().unwrap();
            let there = capture.body.len();
            assert!(
                fix.contains(&format!("says {whole} bytes")) && fix.contains(&format!("has {there}")),
                "{fix}"
            );
        }
        // What is as long as it says may still be explained, and is otherwise not known.
        let mut other = capture.clone();
        other.headers.push(("content-length", whole.to_string()));
        assert_eq!(other.told(&home)["verdict"], "pass");
        other.body[2] ^= 1;
        let told = other.fails(&home, &["unexplained"]);
        let fix = told["findings"][0]["fix"].as_str().unwrap();
        assert!(
            fix.contains("secret that is not in this config") && fix.contains("not byte for byte"),
            "{fix}"
        );
        // A usual alteration is named as such, whatever the length.
        let mut longer = capture.clone();
        longer.headers.push(("content-length", whole.to_string()));
        longer.body.push(b'\n');
        longer.fails(&home, &["body_trailing_newline"]);
    }
    // Without a signature too, where the body cannot be read.
    let headers = vec![("content-length", SECURITIZE_BODY.len().to_string())];
    let body = SECURITIZE_BODY.as_bytes()[..40].to_vec();
    let cut = Capture { source: "securitize", headers, body, key: vec![] };
    let told = cut.told(&home);
    assert_eq!((&told["verdict"], labels(&told)), (&"pass".into(), vec!["body_length".to_owned()]), "{told}");
    assert!(told["unreadable"].as_str().unwrap().contains("not JSON"), "{told}");
}

#[test]
fn numbers_that_were_written_anew_are_recognised() {
    let home = home();
    let body = |amount: &str, fee: &str| {
        format!(
            "{{\"type\":\"kyc.verified\",\"id\":\"evt_1\",\"n\":3,\"at\":1700000000,\"amount\":{amount},\"fee\":{fee},\"s\":\"7.0\"}}"
        )
    };
    for (signed, sent) in [
        (["10.0", "2"], ["10", "2"]),
        (["10", "2"], ["10.0", "2"]),
        (["10.0", "2.0"], ["10", "2"]),
        (["10.00", "2"], ["10", "2"]),
        (["1.50", "2"], ["1.5", "2"]),
        (["1.5", "2"], ["1.50", "2"]),
        (["1e3", "2"], ["1000", "2"]),
        (["1E3", "2"], ["1e3", "2"]),
        (["1000", "2"], ["1e3", "2"]),
        (["1.2345678E7", "2"], ["12345678", "2"]),
        (["\"10\"", "2"], ["10", "2"]),
    ] {
        for mut capture in [Capture::basiq(), Capture::iof(), Capture::atelio()] {
            capture.body = body(signed[0], signed[1]).into();
            capture.sign();
            capture.body = body(sent[0], sent[1]).into();
            let told = capture.told(&home);
            let found = labels(&told);
            // Some are how JavaScript or Python write every number, and then are told as that.
            assert!(
                found == ["body_numbers"] || found == ["body_reserialised"],
                "{signed:?} {sent:?}: {told}"
            );
            assert!(told["findings"][0]["fix"].as_str().unwrap().contains("umbers"), "{told}");
        }
    }
    // Signed by Python, parsed and serialised again by JavaScript.
    let mut capture = Capture::iof();
    capture.body = br#"{"type": "kyc.verified", "id": "evt_1", "amount": 10.0, "n": 3}"#.to_vec();
    capture.sign();
    capture.body = br#"{"type":"kyc.verified","id":"evt_1","amount":10,"n":3}"#.to_vec();
    capture.fails(&home, &["body_numbers"]);
}

#[test]
fn a_body_in_another_character_set_is_recognised() {
    let home = home();
    let text = r#"{"type":"kyc.verified","id":"evt_1","name":"Zoë","price":"5 €"}"#;
    // By the standard library: each byte of UTF-8 taken for a character of Windows-1252.
    let twice = text.replace('ë', "Ã«").replace('€', "â‚¬");
    let latin: Vec<u8> = text.replace('€', "").chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (signed, sent, mistake) in [
        (text.as_bytes().to_vec(), twice.as_bytes().to_vec(), "body_utf8_twice"),
        (twice.as_bytes().to_vec(), text.as_bytes().to_vec(), "body_utf8_twice"),
        (latin.clone(), text.replace('€', "").into_bytes(), "body_charset"),
        (text.replace('€', "").into_bytes(), latin, "body_charset"),
        (text.as_bytes().to_vec(), utf_16, "body_charset"),
    ] {
        for mut capture in [Capture::basiq(), Capture::iof(), Capture::atelio()] {
            capture.body = signed.clone();
            capture.sign();
            capture.body = sent.clone();
            capture.fails(&home, &[mistake]);
        }
    }
}

#[test]
fn a_body_that_the_capture_wrapped_is_recognised() {
    let home = home();
    for capture in [Capture::basiq(), Capture::iof(), Capture::atelio()] {
        let body = String::from_utf8(capture.body.clone()).unwrap();
        let (encoded, string) = (STANDARD.encode(&body), serde_json::to_string(&body).unwrap());
        for (sent, mistake) in [
            (encoded.clone(), "body_base64"),
            (format!("{encoded}\n"), "body_base64"),
            (URL_SAFE.encode(&body), "body_base64"),
            (format!("{}\n{}", &encoded[..40], &encoded[40..]), "body_base64"),
            (hex::encode(&body), "body_hex"),
            (string.clone(), "body_json_string"),
            (string.trim_matches('"').to_owned(), "body_json_string"),
            (format!("'{body}'"), "body_quoted"),
            (json!({ "headers": {}, "body": body }).to_string(), "body_in_envelope"),
            (json!({ "isBase64Encoded": true, "body": encoded }).to_string(), "body_in_envelope"),
            (format!("payload={}", body.replace('"', "%22")), "body_percent_encoded"),
        ] {
            let mut wrapped = capture.clone();
            wrapped.body = sent.into();
            wrapped.fails(&home, &[mistake]);
            // Whatever the secret is, where the capture alone shows it.
            if !["body_in_envelope", "body_percent_encoded"].contains(&mistake) {
                wrapped.key = b"another".to_vec();
                wrapped.sign();
                wrapped.fails(&home, &[mistake]);
            }
        }
        for (signed, mistake) in [(encoded, "body_base64"), (string, "body_json_string")] {
            let mut other = capture.clone();
            other.body = signed.into();
            other.sign();
            other.body = body.clone().into();
            other.fails(&home, &[mistake]);
        }
    }
}

#[test]
fn a_secret_that_was_encoded_once_more_is_recognised() {
    for (mut capture, secret) in
        [(Capture::basiq(), BASIQ), (Capture::atelio(), ATELIO), (Capture::iof(), IOF)]
    {
        let source = capture.source;
        let home = Home::new(&format!(
            "[sources.{source}]\nprovider = \"{source}\"\nsecrets = [{{ file = \"key\" }}]\n"
        ));
        for text in [secret.to_owned(), format!("{secret}\n"), secret[6..].to_owned()] {
            if !matches!(source, "basiq") && text.len() == secret.len() - 6 {
                capture.key = secret.as_bytes()[6..].to_vec();
                capture.sign();
            }
            home.write("key", STANDARD.encode(&text));
            let told = capture.fails(&home, &["secret_read_otherwise"]);
            let fix = told["findings"][0]["fix"].as_str().unwrap();
            assert!(fix.contains("encoded twice") && fix.contains("Configure the decoded text"), "{fix}");
        }
    }
    // The sender's side of it.
    let home = home();
    for mut capture in [Capture::basiq(), Capture::atelio(), Capture::iof()] {
        let secret = match capture.source {
            "basiq" => BASIQ,
            "atelio" => ATELIO,
            _ => IOF,
        };
        // As Node's Buffer does, which takes both alphabets and drops what is left over.
        let by_node = GeneralPurpose::new(
            &alphabet::STANDARD,
            GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent)
                .with_decode_allow_trailing_bits(true),
        );
        for key in [
            format!("\"{secret}\"").into_bytes(),
            format!("'{secret}'").into_bytes(),
            format!("{secret}\r\n").into_bytes(),
            STANDARD.encode(secret).into_bytes(),
            by_node.decode(secret.replace('_', "/")).unwrap(),
        ] {
            capture.key = key;
            capture.sign();
            capture.fails(&home, &["secret_read_otherwise"]);
        }
    }
}

#[test]
fn a_body_that_was_cut_is_told_from_a_wrong_secret() {
    let home = home();
    for mut capture in [Capture::basiq(), Capture::atelio(), Capture::iof()] {
        capture.body.truncate(capture.body.len() - 9);
        capture.fails(&home, &["body_not_json"]);
    }
}

#[test]
fn a_body_that_is_compressed_or_still_in_chunks_is_recognised() {
    let home = home();
    let mut capture = Capture::iof();
    capture.body = [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &[7; 40]].concat();
    capture.fails(&home, &["body_compressed"]);
    for capture in [Capture::basiq(), Capture::atelio(), Capture::iof()] {
        let (first, second) = capture.body.split_at(30);
        let (sizes, end) = ((format!("{:x}", first.len()), format!("{:X};a=b", second.len())), b"0\r\n\r\n");
        let framed =
            [sizes.0.as_bytes(), b"\r\n", first, b"\r\n", sizes.1.as_bytes(), b"\r\n", second, b"\r\n", end]
                .concat();
        let mut chunked = capture.clone();
        chunked.body = framed.clone();
        chunked.fails(&home, &["body_chunked"]);
        // Whatever the secret is.
        chunked.key = b"another".to_vec();
        chunked.sign();
        let told = chunked.fails(&home, &["body_chunked"]);
        assert!(told["findings"][0]["fix"].as_str().unwrap().contains("chunked"), "{told}");
    }
}

#[test]
fn a_digest_in_another_spelling_is_recognised() {
    let home = home();
    let capture = Capture::basiq();
    let digest = capture.digest(&format!("msg_1.{STAMP}."), "");
    let hex_text = hex::encode(digest);
    let spelt = [
        hex_text.clone(),
        hex_text.to_uppercase(),
        STANDARD_NO_PAD.encode(digest),
        STANDARD.encode(&hex_text),
    ];
    for text in spelt {
        let mut capture = Capture::basiq();
        capture.set("webhook-signature", format!("v1,{text}"));
        let findings = ["digest_encoding"];
        capture.fails(&home, &findings);
    }
    // A body whose digest differs in the two alphabets.
    let mut capture = Capture::basiq();
    let digest = loop {
        capture.body.push(b' ');
        let digest = capture.digest(&format!("msg_1.{STAMP}."), "");
        if URL_SAFE.encode(digest) != STANDARD.encode(digest) {
            break digest;
        }
    };
    capture.set("webhook-signature", format!("v1,{}", URL_SAFE.encode(digest)));
    capture.fails(&home, &["digest_encoding"]);
    for (base, label) in [(Capture::iof(), "v1"), (Capture::atelio(), "v2")] {
        let digest = base.digest(&format!("{STAMP}."), "");
        let mut capture = base.clone();
        let header = capture.headers[0].0;
        capture.set(header, format!("t={STAMP},{label}={}", STANDARD.encode(digest)));
        capture.fails(&home, &["digest_encoding"]);
        capture.set(header, format!("t = {STAMP} , {label} = {}", hex::encode_upper(digest)));
        assert_eq!(capture.told(&home)["verdict"], "pass");
    }
    let mut capture = Capture::iof();
    capture.set("x-iof-signature", format!("t={STAMP},v1={}", "ab".repeat(20)));
    let told = capture.fails(&home, &["no_digest"]);
    assert!(told["findings"][0]["fix"].as_str().unwrap().contains("SHA-1"), "{told}");
}

#[test]
fn a_digest_under_another_version_is_recognised() {
    let home = home();
    let digest = Capture::basiq().digest(&format!("msg_1.{STAMP}."), "");
    for text in [format!("v0,{}", STANDARD.encode(digest)), format!("v1={}", STANDARD.encode(digest))] {
        let mut capture = Capture::basiq();
        let known = text.starts_with("v1");
        capture.set("webhook-signature", text);
        capture.fails(
            &home,
            if known { &["signature_version"] } else { &["unknown_version", "signature_version"] },
        );
    }
    let mut capture = Capture::basiq();
    capture.set("webhook-signature", format!("sha256={}", hex::encode(digest)));
    capture.fails(&home, &["unknown_version", "signature_version", "digest_encoding"]);
    let mut capture = Capture::basiq();
    capture.set(
        "webhook-signature",
        format!("v1a,{} v2,{}", STANDARD.encode([1; 64]), STANDARD.encode([2; 32])),
    );
    capture.fails(&home, &["unknown_version", "unexplained"]);
    // The separator of the other providers.
    let mut capture = Capture::basiq();
    capture.set("webhook-signature", format!("v1={}", hex::encode(digest)));
    let told = capture.fails(&home, &["signature_version", "digest_encoding"]);
    assert!(told["findings"][0]["fix"].as_str().unwrap().contains("write it as v1,"), "{told}");
    let digest = Capture::iof().digest(&format!("{STAMP}."), "");
    let mut capture = Capture::iof();
    capture.set("x-iof-signature", format!("t={STAMP},v1,{}", hex::encode(digest)));
    capture.fails(&home, &["signature_version"]);
    let mut capture = Capture::iof();
    capture.set("x-iof-signature", format!("t={STAMP},v0={}", hex::encode(digest)));
    capture.fails(&home, &["unknown_version", "signature_version"]);
}

#[test]
fn atelios_old_version_alone_is_told_from_a_wrong_one() {
    let home = home();
    let capture = Capture::atelio();
    let python = ATELIO_BODY.replace("\":\"", "\": \"").replace(",\"", ", \"");
    let old = hex::encode(mac(ATELIO.as_bytes(), format!("{STAMP}.{python}").as_bytes()));
    let mut alone = capture.clone();
    alone.set("bond-signature", format!("t={STAMP},v1={old}"));
    let told = alone.fails(&home, &["old_version_only"]);
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("only an old v1") && detail.contains("accept_v1 = true"), "{detail}");
    assert!(told["findings"][0]["fix"].as_str().unwrap().contains("accept_v1"), "{told}");
    let raw = hex::encode(capture.digest(&format!("{STAMP}."), ""));
    let mut mislabelled = capture;
    mislabelled.set("bond-signature", format!("t={STAMP},v1={raw}"));
    mislabelled.fails(&home, &["signature_version"]);
}

#[test]
fn another_signed_string_is_recognised() {
    let home = home();
    for (before, after) in [
        (String::new(), String::new()),
        ("msg_1.".to_owned(), String::new()),
        (format!("{STAMP}."), String::new()),
        (format!("msg_1:{STAMP}:"), String::new()),
        (format!("msg_1{STAMP}"), String::new()),
        (format!("{STAMP}.msg_1."), String::new()),
        (String::new(), format!(".msg_1.{STAMP}")),
    ] {
        let mut capture = Capture::basiq();
        capture.sign_standard(STAMP, &before, &after);
        capture.fails(&home, &["other_string_signed"]);
    }
    for (before, after) in [
        (String::new(), String::new()),
        (format!("{STAMP}:"), String::new()),
        (STAMP.to_owned(), String::new()),
        (format!("{STAMP}\n"), String::new()),
        (format!("{STAMP}000."), String::new()),
        (format!("v0:{STAMP}:"), String::new()),
        (String::new(), format!(".{STAMP}")),
    ] {
        for (mut capture, label) in [(Capture::iof(), "v1"), (Capture::atelio(), "v2")] {
            capture.sign_pairs(STAMP, label, &before, &after);
            capture.fails(&home, &["other_string_signed"]);
        }
    }
}

#[test]
fn iofs_body_alone_is_recognised_in_each_form() {
    let home = home();
    let digest = hex::encode(Capture::iof().digest("", ""));
    for (value, stamp) in [
        (format!("sha256={digest}"), None),
        (format!("sha256={digest}"), Some(STAMP)),
        (format!("t={STAMP},v1={digest}"), None),
        (format!("v1={digest}"), None),
        (digest.clone(), None),
    ] {
        let mut capture = Capture::iof();
        capture.set("x-iof-signature", value.clone());
        capture.headers.extend(stamp.map(|stamp| ("x-iof-timestamp", stamp.to_owned())));
        let told = capture.told(&home);
        let found = labels(&told);
        assert!(found.contains(&"other_string_signed".to_owned()), "{value}: {told}");
        assert!(!found.contains(&"unexplained".to_owned()), "{value}: {told}");
        assert!(told["findings"].to_string().contains("the body alone"), "{told}");
    }
}

#[test]
fn two_mistakes_at_once_are_both_told() {
    let home = home();
    let mut capture = Capture::iof();
    let body = capture.body.clone();
    capture.body.push(b'\n');
    capture.sign_pairs(STAMP, "v1", "", "");
    capture.body = body;
    capture.fails(&home, &["other_string_signed", "body_trailing_newline"]);
    let mut capture = Capture { key: BASIQ.into(), ..Capture::basiq() };
    let digest = capture.digest(&format!("msg_1.{STAMP}."), "");
    capture.set("webhook-signature", format!("v1,{}", hex::encode(digest)));
    capture.fails(&home, &["secret_read_otherwise", "digest_encoding"]);
}

#[test]
fn what_is_wrong_with_the_headers_is_told() {
    let home = home();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut capture = Capture::basiq();
        capture.headers.retain(|(known, _)| *known != name);
        let told = capture.told(&home);
        assert_eq!(labels(&told), ["header_missing"], "nothing else can be said: {told}");
        assert_eq!(told["reason"], "signature_missing");
        let mut capture = Capture::basiq();
        capture.headers.push((name, "again".to_owned()));
        let told = capture.told(&home);
        if name == "webhook-signature" {
            assert_eq!(told["verdict"], "pass", "several lines are one list");
        } else {
            assert!(labels(&told).contains(&"header_repeated".to_owned()), "{told}");
        }
        let mut capture = Capture::basiq();
        capture.set(name, String::new());
        let told = capture.told(&home);
        assert!(labels(&told).contains(&"header_empty".to_owned()), "{told}");
    }
    let mut capture = Capture::basiq();
    let renamed = ["svix-id", "Svix-Timestamp", "webhook_signature"];
    for (header, name) in capture.headers.iter_mut().zip(renamed) {
        header.0 = name;
    }
    let told = capture.fails(&home, &["header_misnamed"; 3]);
    let fix = told["findings"][0]["fix"].as_str().unwrap();
    assert!(fix.contains("svix-id") && fix.contains("webhook-id"), "{told}");
    for (mut capture, mistake) in [(Capture::iof(), "header_missing"), (Capture::atelio(), "header_missing")]
    {
        capture.headers.clear();
        capture.fails(&home, &[mistake]);
    }
    let mut capture = Capture::iof_apart();
    capture.headers.pop();
    let told = capture.told(&home);
    assert_eq!(labels(&told)[0], "header_missing", "{told}");
    let mut capture = Capture::iof();
    let digest = hex::encode(capture.digest(&format!("{STAMP}."), ""));
    capture.set("x-iof-signature", format!("v1={digest}"));
    let told = capture.told(&home);
    assert_eq!(labels(&told)[0], "timestamp_missing", "{told}");
    // The name's case is HTTP's matter and no mistake.
    let mut capture = Capture::basiq();
    capture.headers[0].0 = "Webhook-ID";
    assert_eq!(capture.told(&home)["verdict"], "pass");
}

#[test]
fn a_delivery_that_nothing_explains_is_told_as_such() {
    let home = home();
    let mut capture = Capture::basiq();
    capture.body = b"{\"entirely\":\"different\"}".to_vec();
    capture.fails(&home, &["unexplained"]);
    let good = Capture::basiq();
    let mut several = good.clone();
    let decoy = format!("v1,{} v2,x {}", STANDARD.encode([7; 32]), good.value("webhook-signature"));
    several.set("webhook-signature", decoy);
    assert_eq!(several.told(&home)["verdict"], "pass", "any of several may match");
}

#[test]
fn what_comes_after_the_signature_is_checked_too() {
    let home = home();
    for (body, why) in [
        ("{", "not JSON: the fault is at line 1, column 1"),
        ("[]", "not an object"),
        ("\u{feff}{}", "byte order mark"),
        ("", "empty"),
    ] {
        let mut capture = Capture::basiq();
        capture.body = body.into();
        capture.sign();
        let told = capture.told(&home);
        assert_eq!((&told["verdict"], labels(&told).len()), (&"pass".into(), 0), "{told}");
        assert!(told["unreadable"].as_str().unwrap().contains(why), "{told}");
        assert_eq!(told["event"]["type"], "unmapped.unreadable");
        let ran = capture.verify(&home, &[]);
        assert!(ran.code == 0 && ran.out.contains(why) && ran.out.contains("payload_base64"), "{ran:?}");
    }
    assert_eq!(Capture::basiq().told(&home)["unreadable"], Value::Null);
    let mut capture = Capture::basiq();
    capture.headers.push(("content-encoding", "gzip".to_owned()));
    assert_eq!(capture.told(&home)["reason"], "unsupported_encoding");
    let mut capture = Capture::basiq();
    capture.body = vec![b' '; (1 << 20) + 1];
    assert_eq!(capture.told(&home)["reason"], "body_too_large");
}

#[test]
fn a_body_as_large_as_it_may_be_is_told_about_in_bounded_time() {
    let home = home();
    let mut capture = Capture::basiq();
    let items: Vec<String> = (0..60_000).map(|n| format!("\"k{n}é\":1.50")).collect();
    capture.body = format!("{{{}}}", items.join(",")).into();
    assert!(capture.body.len() > 800_000 && capture.body.len() < 1 << 20);
    let told = capture.told(&home);
    assert_eq!(labels(&told), ["unexplained"]);
}

// -- dates

#[test]
fn what_is_only_observed_passes_and_is_told_with_its_date() {
    let home = observing("2099-01-31");
    let date = "2099-02-01T00:00:00Z";
    for (capture, reason, mistakes, age) in [
        (signed_at(AT - 4000), "timestamp_outside_tolerance", &["timestamp_stale"][..], Some(4007)),
        (signed_at(AT + 4007), "timestamp_outside_tolerance", &["timestamp_ahead"], Some(-4000)),
        (unlisted(), "subscription_not_allowed", &[], None),
    ] {
        let told = capture.told(&home);
        assert_eq!((&told["verdict"], &told["reason"]), (&"pass".into(), &Value::Null), "{told}");
        assert_eq!(told["observed"], json!([{ "reason": reason, "enforced_from": date }]), "{told}");
        assert_eq!(
            (told["age"].as_i64(), labels(&told)),
            (age, mistakes.iter().map(|&m| m.into()).collect())
        );
        assert!(told["event"]["id"].is_string(), "{told}");
        let ran = capture.verify(&home, &[]);
        let line = format!("\n  would be refused from {date} on: {reason}: ");
        assert!(ran.code == 0 && ran.out.contains("passes\n") && ran.out.contains(&line), "{ran:?}");
    }
    // What is in order tells of no date.
    let fine = Capture::basiq();
    assert_eq!(fine.told(&home)["observed"], json!([]));
    assert!(!fine.verify(&home, &[]).out.contains("would be refused"));
}

#[test]
fn what_is_observed_is_refused_from_its_date_on() {
    for (until, passes) in
        [("2026-11-18T11:06:46Z", false), ("2026-11-18T11:06:47Z", false), ("2026-11-18T11:06:48Z", true)]
    {
        let home = observing(until);
        for (capture, reason) in
            [(signed_at(AT - 4000), "timestamp_outside_tolerance"), (unlisted(), "subscription_not_allowed")]
        {
            let told = capture.told(&home);
            let expected = if passes {
                (json!("pass"), Value::Null, json!([{ "reason": reason, "enforced_from": until }]))
            } else {
                (json!("fail"), json!(reason), json!([]))
            };
            assert_eq!(
                ["verdict", "reason", "observed"].map(|key| told[key].clone()),
                <[_; 3]>::from(expected)
            );
        }
    }
}

#[test]
fn what_is_refused_all_the_same_is_not_told_as_observed() {
    let home = observing("2099-01-31");
    let mut encoded = signed_at(AT - 4000);
    encoded.headers.push(("content-encoding", "gzip".to_owned()));
    let mut forged = signed_at(AT - 4000);
    forged.body.push(b' ');
    for (capture, reason) in [(encoded, "unsupported_encoding"), (forged, "signature_mismatch")] {
        let told = capture.told(&home);
        assert_eq!((&told["verdict"], &told["reason"]), (&"fail".into(), &reason.into()), "{told}");
        assert_eq!(told["observed"], json!([]));
        assert!(!labels(&told).contains(&"timestamp_stale".to_owned()), "{told}");
        let ran = capture.verify(&home, &[]);
        assert!(ran.code == 1 && !ran.out.contains("would be refused"), "{ran:?}");
    }
    // Only what is listed is observed.
    let other = Home::new(&format!(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{BASIQ}\"]\nobserve = [\"rate_limited\"]\n\
         observe_until = \"2099-01-31\"\nrate_limit = {{ per_second = 1, burst = 1 }}\n"
    ));
    let told = signed_at(AT - 4000).told(&other);
    assert_eq!((&told["reason"], &told["observed"]), (&"timestamp_outside_tolerance".into(), &json!([])));
}

#[test]
fn it_says_of_what_is_observed_what_a_gateway_does() {
    for (until, status, code) in [("2099-01-31", [200, 200], 0), ("2026-01-31", [401, 403], 1)] {
        let home = observing(until);
        let gateway = home.gateway();
        let requests = [
            ("basiq", standard("/hooks/basiq", BASIQ_BODY, now() - 1000)),
            ("securitize", securitize("/hooks/securitize", "sub-2", 1)),
        ];
        for ((source, request), status) in requests.iter().zip(status) {
            assert_eq!(gateway.ask(request).status, status, "{source} until {until}");
            let lines = request
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}\n", std::str::from_utf8(value).unwrap()));
            home.write("headers", lines.collect::<String>());
            home.write("body", &request.body);
            let ran = home.run(&arguments(source)[..7]);
            assert_eq!(ran.code, code, "{source} until {until}: {ran:?}");
        }
        gateway.stop();
    }
}

#[test]
fn a_secret_that_does_not_count_at_that_time_is_recognised() {
    let dates = [
        ("not_before = \"2026-11-18T11:06:48Z\"", false, "from 2026-11-18T11:06:48Z"),
        ("not_before = \"2026-11-19\"", false, "from 2026-11-19T00:00:00Z"),
        ("not_after = \"2026-11-18T11:06:47Z\"", false, "until 2026-11-18T11:06:47Z"),
        ("not_after = \"2026-11-17\"", false, "until 2026-11-18T00:00:00Z"),
        // A key counts by whole seconds.
        ("not_before = \"2026-11-18T11:06:47.5Z\"", false, "from 2026-11-18T11:06:47.5Z"),
        ("not_after = \"2026-11-18T11:06:47.5Z\"", false, "until 2026-11-18T11:06:47.5Z"),
        ("not_before = \"2026-11-18T11:06:47Z\"", true, ""),
        ("not_after = \"2026-11-18T11:06:48Z\"", true, ""),
        ("not_before = \"2026-11-18\", not_after = \"2026-11-18\"", true, ""),
    ];
    for (dates, counts, said) in dates {
        for (capture, secret) in
            [(Capture::basiq(), BASIQ), (Capture::atelio(), ATELIO), (Capture::iof(), IOF)]
        {
            let source = capture.source;
            let home = Home::new(&format!(
                "[sources.{source}]\nprovider = \"{source}\"\n\
                 secrets = [\"{ANDUIN}\", {{ file = \"dated\", {dates} }}]\n"
            ));
            home.write("dated", secret);
            if counts {
                let told = capture.told(&home);
                assert_eq!(
                    (&told["verdict"], &told["secret"]),
                    (&"pass".into(), &1.into()),
                    "{dates}: {told}"
                );
                continue;
            }
            let told = capture.fails(&home, &["secret_not_current"]);
            assert_eq!(told["reason"], "signature_mismatch");
            let fix = told["findings"][0]["fix"].as_str().unwrap();
            assert!(
                fix.starts_with("Secret 1 ") && fix.contains(&format!("counts only {said}:")),
                "{dates}: {fix}"
            );
        }
    }
}

/// Two sources that only observe until then.
fn observing(until: &str) -> Home {
    let source = |name: &str, more: &str, reason: &str| {
        format!(
            "[sources.{name}]\nprovider = \"{name}\"\n{more}observe = [\"{reason}\"]\nobserve_until = \"{until}\"\n"
        )
    };
    let listed = format!("path_token = \"{TOKEN}\"\nsubscriptions = [\"sub-1\"]\n");
    let signed = format!("secrets = [\"{BASIQ}\"]\n");
    Home::new(
        &(source("basiq", &signed, "timestamp_outside_tolerance")
            + &source("securitize", &listed, "subscription_not_allowed")),
    )
}

fn signed_at(at: i64) -> Capture {
    let mut capture = Capture::basiq();
    capture.sign_standard(&at.to_string(), &format!("msg_1.{at}."), "");
    capture
}

/// For a subscription that is not the source's.
fn unlisted() -> Capture {
    let body = SECURITIZE_BODY.replace("sub-1", "sub-2").into();
    Capture { source: "securitize", headers: vec![], body, key: vec![] }
}

// -- deliveries

/// A captured delivery, signed as it should be until it is spoilt.
#[derive(Clone)]
struct Capture {
    source: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    key: Vec<u8>,
}

impl Capture {
    /// By the standard's own crate.
    fn basiq() -> Capture {
        Capture::standard("basiq", BASIQ, BASIQ_BODY)
    }

    fn anduin() -> Capture {
        Capture::standard(
            "anduin",
            ANDUIN,
            "{\"event\":\"fundsub.order.created\",\"fundId\":\"f\",\"orderId\":\"o\"}",
        )
    }

    fn standard(source: &'static str, secret: &str, body: &str) -> Capture {
        let signature = Webhook::new(secret).unwrap().sign("msg_1", AT, body.as_bytes()).unwrap();
        let headers = vec![
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", STAMP.to_owned()),
            ("webhook-signature", signature),
        ];
        Capture { source, headers, body: body.into(), key: STANDARD.decode(&secret[6..]).unwrap() }
    }

    fn atelio() -> Capture {
        let headers = vec![("bond-signature", String::new())];
        let mut capture = Capture { source: "atelio", headers, body: ATELIO_BODY.into(), key: ATELIO.into() };
        capture.sign();
        capture
    }

    fn iof() -> Capture {
        let headers = vec![("x-iof-signature", String::new())];
        let mut capture = Capture { source: "iof", headers, body: IOF_BODY.into(), key: IOF.into() };
        capture.sign();
        capture
    }

    fn iof_apart() -> Capture {
        let mut capture = Capture::iof();
        let digest = hex::encode(capture.digest(&format!("{STAMP}."), ""));
        capture.set("x-iof-signature", format!("sha256={digest}"));
        capture.headers.push(("x-iof-timestamp", STAMP.to_owned()));
        capture
    }

    /// Signs the body that it has now, as it should be.
    fn sign(&mut self) {
        match self.source {
            "atelio" => self.sign_pairs(STAMP, "v2", &format!("{STAMP}."), ""),
            "iof" => self.sign_pairs(STAMP, "v1", &format!("{STAMP}."), ""),
            _ => self.sign_standard(STAMP, &format!("msg_1.{STAMP}."), ""),
        }
    }

    fn sign_standard(&mut self, stamp: &str, before: &str, after: &str) {
        let digest = STANDARD.encode(self.digest(before, after));
        self.set("webhook-timestamp", stamp.to_owned());
        self.set("webhook-signature", format!("v1,{digest}"));
    }

    fn sign_pairs(&mut self, stamp: &str, label: &str, before: &str, after: &str) {
        let digest = hex::encode(self.digest(before, after));
        let header = self.headers[0].0;
        self.set(header, format!("t={stamp},{label}={digest}"));
    }

    fn digest(&self, before: &str, after: &str) -> [u8; 32] {
        mac(&self.key, &[before.as_bytes(), &self.body, after.as_bytes()].concat())
    }

    fn set(&mut self, name: &str, value: String) {
        self.headers.iter_mut().find(|(known, _)| *known == name).unwrap().1 = value;
    }

    fn value(&self, name: &str) -> &str {
        &self.headers.iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn write(&self, home: &Home) {
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        home.write("headers", lines.collect::<String>());
        home.write("body", &self.body);
    }

    /// Runs the command, and fails if anything secret is printed.
    fn verify(&self, home: &Home, more: &[&str]) -> Ran {
        self.write(home);
        let ran = home.run(&[&arguments(self.source)[..], more].concat());
        let digests = [
            self.digest(&format!("msg_1.{STAMP}."), ""),
            self.digest(&format!("{STAMP}."), ""),
            Sha256::digest(&self.body).into(),
        ];
        let mut hidden: Vec<String> = [BASIQ, ANDUIN, ATELIO, IOF, TOKEN].map(str::to_owned).to_vec();
        hidden.extend([BASIQ, ANDUIN, ATELIO, IOF].map(|secret| secret[6..].to_owned()));
        hidden
            .extend(digests.iter().flat_map(|digest| [hex::encode(digest), STANDARD_NO_PAD.encode(digest)]));
        let signatures = self.headers.iter().filter(|(name, _)| name.ends_with("signature"));
        hidden.extend(signatures.map(|(_, value)| value.clone()).filter(|value| value.len() > 8));
        for hidden in hidden {
            assert!(!ran.out.contains(&hidden) && !ran.err.contains(&hidden), "{hidden} is in {ran:?}");
        }
        ran
    }

    fn told(&self, home: &Home) -> Value {
        let ran = self.verify(home, &["--json"]);
        let [told] = &ran.json()[..] else { panic!("{ran:?}") };
        assert_eq!(ran.code, i32::from(told["verdict"] == "fail"), "{ran:?}");
        assert_eq!(told["source"], self.source);
        told.clone()
    }

    /// Fails by these mistakes, in this order, and says them in words too.
    fn fails(&self, home: &Home, mistakes: &[&str]) -> Value {
        let told = self.told(home);
        assert_eq!(told["verdict"], "fail", "{told}");
        assert_eq!(labels(&told), mistakes, "{told}\n{}", String::from_utf8_lossy(&self.body));
        let ran = self.verify(home, &[]);
        assert!(ran.code == 1 && mistakes.iter().all(|mistake| ran.out.contains(mistake)), "{ran:?}");
        told
    }
}

fn labels(told: &Value) -> Vec<String> {
    let findings = told["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["mistake"].as_str().unwrap().to_owned()).collect()
}

fn arguments(source: &str) -> [&str; 9] {
    ["verify", "--source", source, "--headers", "headers", "--body", "body", "--at", NOW]
}

fn home() -> Home {
    Home::new(&format!(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{BASIQ}\"]\n\
         [sources.anduin]\nprovider = \"anduin\"\nsecrets = [\"{ANDUIN}\"]\n\
         [sources.atelio]\nprovider = \"atelio\"\nsecrets = [\"{ATELIO}\"]\n\
         [sources.iof]\nprovider = \"iof\"\nsecrets = [\"{IOF}\"]\n\
         [sources.securitize]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\nsubscriptions = [\"sub-1\"]\n"
    ))
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().into()
}

const AT: i64 = 1_795_000_000;
const STAMP: &str = "1795000000";
/// Seven seconds later.
const NOW: &str = "1795000007";
const BASIQ: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ANDUIN: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ATELIO: &str = "whsec_ira5jceuzhxxBxoWckAU0hLFQe79bSMZ";
const IOF: &str = "whsec_XqTEJtniwuEhp0A1c1cTJNsmpR/qgOfB";
const TOKEN: &str = "9c2e3b7d5f5e4c0fa0f6";
const BASIQ_BODY: &str =
    r#"{"eventTypeId":"user.created","eventId":"44a85f64","links":{"eventEntity":"https://x/users/1e25"}}"#;
const ATELIO_BODY: &str =
    r#"{"event":"kyc.verification.success","customer_id":"931e","occurred_at":"2021-10-20T10:27:20+00:00"}"#;
const IOF_BODY: &str =
    r#"{"id":"evt_1","type":"kyc.verified","created":"2024-01-15T10:30:00Z","data":{"object":{"id":"k1"}}}"#;
const SECURITIZE_BODY: &str =
    r#"{"eventType":"domain-investor-kyc-update","externalId":"17","subscriptionId":"sub-1","nonce":1}"#;
