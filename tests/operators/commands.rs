//! Every command as its user runs it: the binary, its output and its exit code.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::blocking::{eventually, until};
use support::*;

// -- usage

#[test]
fn wrong_usage_exits_2() {
    let home = Home::new(&sources());
    let needs_config: [&[&str]; 10] = [
        &["serve"],
        &["health"],
        &["check"],
        &["check", "--print"],
        &["send", "--source", "basiq"],
        &["verify", "--source", "basiq", "--headers", "headers", "--body", "body"],
        &["events", "tail"],
        &["audit", "tail", "--no-follow"],
        &["audit", "query"],
        &["audit", "verify"],
    ];
    for arguments in needs_config {
        let ran = Ran::of(&mut home.bare(arguments));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {ran:?}");
        assert!(
            ran.err.contains("--config") && ran.err.contains("HOOKGATE_CONFIG"),
            "{arguments:?}: {ran:?}"
        );
    }
    let wrong: [&[&str]; 17] = [
        &[],
        &["nonsense"],
        &["--nonsense"],
        &["serve", "--nonsense"],
        &["serve", "extra"],
        &["events"],
        &["audit"],
        &["events", "tail", "--limit", "-1"],
        &["events", "tail", "--limit", "some"],
        &["send"],
        &["send", "--source", "basiq", "--tamper", "everything"],
        &["send", "--source", "basiq", "--count", "many"],
        &["send", "--source", "basiq", "--count", "0"],
        &["send", "--source", "basiq", "--body", "file", "--event", "user.created"],
        &["audit", "query", "--since", "yesterday"],
        &["audit", "query", "--client", "somebody"],
        &["demo", "--nonsense"],
    ];
    for arguments in wrong {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {ran:?}");
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_command_has_help_and_takes_its_config_from_the_environment() {
    let home = Home::new(&sources());
    for command in [
        "",
        "serve",
        "demo",
        "check",
        "send",
        "verify",
        "events",
        "events tail",
        "events query",
        "events show",
        "events replay",
        "audit",
        "audit tail",
        "audit query",
        "audit verify",
        "schema",
        "health",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let ran = Ran::of(&mut home.bare(&arguments));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}: {ran:?}");
        assert!(ran.out.contains("--json") && ran.out.contains("HOOKGATE_CONFIG"), "{command}: {ran:?}");
    }
    let ran = Ran::of(home.bare(&["check"]).env("HOOKGATE_CONFIG", "hookgate.toml"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = Ran::of(&mut home.bare(&["--version"]));
    let revision = env!("HOOKGATE_REVISION");
    let due = format!("hookgate {} (revision {revision})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((ran.code, ran.out), (0, due));
    let is_checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
    assert!(!is_checkout || revision != "unknown", "{revision}");
}

#[test]
fn a_config_that_cannot_be_read_is_a_failure_that_names_it() {
    let home = Home::new("");
    for (command, on_stdout) in
        [("serve", true), ("check", true), ("events tail", false), ("audit query", false)]
    {
        let arguments: Vec<&str> = command.split(' ').chain(["--config", "absent.toml"]).collect();
        let ran = Ran::of(&mut home.bare(&arguments));
        let (said, silent) = if on_stdout { (&ran.out, &ran.err) } else { (&ran.err, &ran.out) };
        assert_eq!((ran.code, silent.as_str()), (1, ""), "{command}: {ran:?}");
        assert!(
            said.contains("absent.toml:1:1: file: there is no config file absent.toml"),
            "{command}: {ran:?}"
        );
    }
}

// -- check

#[test]
fn check_prints_what_the_fixtures_expect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let home = Home::new("");
    for folder in ["valid", "invalid"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.ends_with(".toml") {
                continue;
            }
            let mut command = home.bare(&["check", "--config", name]);
            let ran = Ran::of(command.current_dir(root.join(folder)));
            let printed: BTreeSet<&str> = ran.lines().into_iter().collect();
            let expected = fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
            for line in expected.lines() {
                assert!(printed.contains(line), "{name}: {line}\n{ran:?}");
            }
            let errors = ran.lines().iter().any(|line| !line.contains(": warning: "));
            assert_eq!(ran.code, i32::from(errors), "{name}: {ran:?}");
            assert!(folder == "valid" || errors, "{name}: {ran:?}");
        }
    }
}

#[test]
fn the_example_of_subscriptions_passes_once_its_keys_are_set_and_its_secrets_written() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/subscriptions.toml");
    let home = Home::exactly(&fs::read_to_string(&example).unwrap());
    let text = fs::read_to_string(&example).unwrap();
    let named = |before: &str| -> BTreeSet<String> {
        text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    let check = || {
        let mut check = home.command(&["check", "--print"]);
        for name in named("{ env = \"") {
            check.env(name, "hush-hush-hush-hush");
        }
        Ran::of(&mut check)
    };
    let before = check();
    assert_eq!(before.code, 1, "{before:?}");
    let problems: Vec<_> = before.lines().into_iter().take_while(|line| !line.contains(" = ")).collect();
    assert_eq!(problems.len(), 3, "{before:?}");
    for problem in problems {
        assert!(problem.contains(".secrets: cannot read the secret file "), "{problem}");
        assert!(problem.ends_with("; `hookgate subscriptions apply` writes it"), "{problem}");
    }
    let files = named("secret_file = \"");
    assert_eq!(files.len(), 3);
    for file in files {
        home.write(&file, format!("{STANDARD_SECRET}\n"));
    }
    let ran = check();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("data_dir = "), "a problem: {ran:?}");
    assert!(!ran.out.contains("hush") && ran.out.contains("[sources.basiq.reconcile]\n"), "{ran:?}");
    let (config, problems) = hookgate::config::parse(&ran.out, Path::new(""));
    assert_eq!(problems, []);
    assert_eq!(format!("{}\n", config.redacted().trim_end()), ran.out);
}

#[test]
fn check_and_serve_print_every_problem_in_the_order_of_the_file() {
    let home = Home::exactly(PROBLEMS);
    home.write("empty", "\n");
    let run = |arguments: &[&str]| {
        let mut command = home.bare(arguments);
        command
            .args(["--config", "hookgate.toml"])
            .env_remove("HOOKGATE_TEST_UNSET")
            .env("HOOKGATE_TEST_EMPTY", " ");
        Ran::of(command.env("HOOKGATE_TEST_SHORT", "whsec_AAAA").env("HOOKGATE_TEST_TEXT", "whsec_!!"))
    };
    let ran = run(&["check"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "{ran:?}");
    let starts = [
        "3:12: edge.max_body: ",
        "5:1: edge.colour: ",
        "7:10: sources.unsigned.secrets: basiq signs",
        "9:10: sources.open.secrets: nothing authenticates",
        "11:10: sources.legacy.secrets: anduin needs",
        "15:12: sources.unset.secrets: the environment variable HOOKGATE_TEST_UNSET is not set",
        "18:26: sources.empty.secrets: the secret from the file",
        "18:46: sources.empty.secrets: the secret from the environment variable HOOKGATE_TEST_EMPTY is empty",
        "21:12: sources.short.secrets: the secret decodes to 3 bytes",
        "24:12: sources.text.secrets: the secret is not base64",
        "26:12: sources.nobody.provider: no such provider; allowed: securitize, anduin, basiq, atelio, iof",
        "29:8: sources.twice.path: \"/hooks/unsigned\" is already the path of the source unsigned",
        "30:12: sources.twice.secrets: cannot read the secret file",
        "33:12: sources.signless.secrets: securitize publishes no signature",
        "34:14: sources.signless.path_token: holds a character",
        "37:13: sources.basiq.accept_v1: only atelio",
        "38:17: sources.basiq.subscriptions: only securitize",
    ];
    let errors: Vec<&str> = ran.lines().into_iter().filter(|line| !line.contains(": warning: ")).collect();
    for (line, start) in errors.iter().zip(starts) {
        assert!(line.starts_with(&format!("hookgate.toml:{start}")), "{start}\n{line}\n{}", ran.out);
    }
    assert_eq!(errors.len(), starts.len(), "{}", ran.out);
    for secret in ["hush", "whsec_AAAA", "whsec_!!"] {
        assert!(!ran.out.contains(secret), "{}", ran.out);
    }
    let serve = run(&["serve"]);
    assert_eq!((serve.code, &serve.out), (1, &ran.out));
    assert!(!home.path("data").exists(), "nothing is touched");
    let send = run(&["send", "--source", "basiq"]);
    assert_eq!((send.code, send.lines()), (1, errors));

    let machine = run(&["check", "--json"]);
    assert_eq!(machine.code, 1);
    let objects = machine.json();
    assert_eq!(objects.len(), ran.lines().len());
    let first = objects.iter().find(|object| object["key"] == "sources.unsigned.secrets").unwrap();
    let told = ["file", "line", "column", "severity"].map(|key| first[key].clone());
    assert_eq!(told, [json!("hookgate.toml"), json!(7), json!(10), json!("error")]);
    assert!(first["what"].as_str().unwrap().starts_with("basiq signs"));
    assert_eq!(run(&["serve", "--json"]).out, machine.out);
}

const PROBLEMS: &str = r#"# line 1
[edge]
max_body = "1 megabyte"
listen = "127.0.0.1:0"
colour = "blue"

[sources.unsigned]
provider = "basiq"
[sources.open]
provider = "securitize"
[sources.legacy]
provider = "anduin"
[sources.unset]
provider = "basiq"
secrets = [{ env = "HOOKGATE_TEST_UNSET" }]
[sources.empty]
provider = "iof"
secrets = ["hush-12345", { file = "empty" }, { env = "HOOKGATE_TEST_EMPTY" }]
[sources.short]
provider = "basiq"
secrets = [{ env = "HOOKGATE_TEST_SHORT" }]
[sources.text]
provider = "basiq"
secrets = [{ env = "HOOKGATE_TEST_TEXT" }]
[sources.nobody]
provider = "nobody"
[sources.twice]
provider = "iof"
path = "/hooks/unsigned"
secrets = [{ file = "absent" }]
[sources.signless]
provider = "securitize"
secrets = ["hush-secret"]
path_token = "hush/token"
[sources.basiq]
provider = "basiq"
accept_v1 = true
subscriptions = ["one"]
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
"#;

#[test]
fn warnings_are_printed_and_do_not_fail() {
    let config = "dedupe.window = \"1h\"\n".to_owned()
        + &sources()
        + "[sources.short]\nprovider = \"iof\"\nsecrets = [\"hush\"]\n[sources.guess]\nprovider = \"securitize\"\npath_token = \"hush\"\n";
    let home = Home::new(&config);
    let ran = home.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let file = home.path("hookgate.toml").display().to_string();
    for line in ran.lines() {
        let rest = line.strip_prefix(&format!("{file}:")).unwrap();
        let (position, what) = rest.split_once(": ").unwrap();
        assert!(position.split(':').all(|number| number.parse::<u32>().is_ok()), "{line}");
        assert!(what.starts_with("warning: "), "{line}");
    }
    for part in [
        "dedupe.window: ",
        "basiq retries",
        "sources.short.secrets: the secret has 4 bytes",
        "sources.guess.path_token: the token has 4 bytes",
        "sources.basiq.secrets[0]: a secret in the config file",
    ] {
        assert!(ran.out.contains(part), "{part}\n{}", ran.out);
    }
    assert!(!ran.out.contains("hush"), "{}", ran.out);
    let machine = home.run(&["check", "--json"]);
    assert_eq!(machine.code, 0);
    let mut objects = machine.json();
    let looked = objects.pop().unwrap();
    let told = ["ok", "sources", "live", "warnings"].map(|key| looked[key].clone());
    assert_eq!(told, [json!(true), json!(7), json!(false), json!(objects.len())], "{looked}");
    assert_eq!(looked["files"], json!([home.path("hookgate.toml")]), "{looked}");
    assert!(objects.iter().all(|object| object["severity"] == "warning"));
    // It serves, and the log tells of them.
    let gateway = home.gateway();
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
    let (code, log) = gateway.stop();
    assert_eq!(code, 0);
    assert!(log.contains("basiq retries") && !log.contains("hush"), "{log}");
}

#[test]
fn an_authority_for_a_url_without_tls_is_warned_of() {
    let warns = |urls: &str| {
        let home =
            Home::new(&format!("[redis]\nurl = {urls}\ncluster = true\nca = \"ca.pem\"\n{}", sources()));
        home.run(&["check"]).out.contains("warning: redis.ca: no effect without TLS")
    };
    assert!(warns(r#"["redis://a", "redis://b"]"#));
    assert!(!warns(r#"["rediss://a", "rediss://b"]"#));
    assert!(!warns(r#"{ env = "HOOKGATE_TEST_URLS" }"#), "what it is is not read here");
}

#[test]
fn a_path_that_is_anothers_with_its_token_is_a_problem() {
    let home = Home::new(
        "[sources.a]\nprovider = \"securitize\"\npath = \"/a\"\npath_token = { file = \"token\" }\n\
         [sources.b]\nprovider = \"basiq\"\npath = \"/a/a-token-of-some-length\"\nsecrets = [{ file = \"secret\" }]\n",
    );
    home.write("token", "a-token-of-some-length");
    home.write("secret", STANDARD_SECRET);
    let ran = home.run(&["check"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("sources.b.path: is the path of the source a with its token"), "{ran:?}");
}

#[test]
fn allow_ips_of_everybody_authenticates_nobody() {
    let open = |networks: &str, more: &str| {
        format!("[sources.open]\nprovider = \"securitize\"\nallow_ips = [{networks}]\n{more}")
    };
    for networks in ["\"0.0.0.0/0\"", "\"127.0.0.1\", \"::/1\", \"8000::/1\""] {
        let ran = Home::new(&open(networks, "")).run(&["check"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.out.contains(": sources.open.secrets: nothing authenticates this source, since allow_ips"),
            "{ran:?}"
        );
        assert!(ran.out.contains(": warning: sources.open.allow_ips: allows every client"), "{ran:?}");
    }
    let home = Home::new(&open("\"0.0.0.0/0\"", "unauthenticated = true\n"));
    let ran = home.run(&["check"]);
    assert!(ran.code == 0 && ran.out.contains("unauthenticated: nothing authenticates"), "{ran:?}");
    let gateway = home.gateway();
    assert_eq!(gateway.ask(&securitize("", "sub-1", 1).to("/hooks/open")).status, 200);
    assert_eq!(home.events()[0]["verifiedby"], "none");
}

#[test]
fn a_source_that_is_open_is_warned_of_and_so_is_a_flag_without_effect() {
    let open = "provider = \"securitize\"\nunauthenticated = true\n";
    let beside = "provider = \"anduin\"\nunauthenticated = true\n";
    let home = Home::new(&format!(
        "[sources.open]\n{open}\
         [sources.fenced]\n{open}allow_ips = [\"127.0.0.0/8\"]\n\
         [sources.tokened]\n{open}path_token = \"{TOKEN}\"\n\
         [sources.signed]\n{beside}secrets = [\"{STANDARD_SECRET}\"]\n\
         [sources.legacy]\n{beside}allow_ips = [\"127.0.0.0/8\"]\n\
         [sources.closed]\nprovider = \"securitize\"\nunauthenticated = false\npath_token = \"{TOKEN}\"\n"
    ));
    let ran = home.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let expected = [
        ("5:19", "open", "nothing authenticates this source: any client that reaches it"),
        ("8:19", "fenced", "no effect beside allow_ips"),
        ("12:19", "tokened", "no effect beside path_token"),
        ("16:19", "signed", "no effect beside secrets"),
        ("20:19", "legacy", "nothing but allow_ips authenticates this source"),
    ];
    let warned: Vec<&str> =
        ran.lines().into_iter().filter(|line| line.contains(".unauthenticated: ")).collect();
    assert_eq!(warned.len(), expected.len(), "{ran:?}");
    for (line, (at, source, what)) in warned.iter().zip(expected) {
        let due = format!("toml:{at}: warning: sources.{source}.unauthenticated: {what}");
        assert!(line.contains(&due), "{due} in {line}");
    }
    let (_, log) = home.gateway().stop();
    assert!(log.contains("sources.open.unauthenticated") && log.contains("nothing authenticates"), "{log}");
}

#[test]
fn a_secret_that_was_not_copied_as_it_was_issued_is_a_problem() {
    let home = Home::new(
        "[sources.endless]\nprovider = \"iof\"\nsecrets = [{ file = \"/dev/zero\" }]\n\
         [sources.marked]\nprovider = \"iof\"\nsecrets = [{ file = \"marked\" }]\n\
         [sources.broken]\nprovider = \"iof\"\nsecrets = [{ file = \"broken\" }]\n\
         [sources.from-env]\nprovider = \"iof\"\nsecrets = [{ env = \"HOOKGATE_TEST_BROKEN\" }]\n\
         [sources.fine]\nprovider = \"iof\"\nsecrets = [{ file = \"fine\" }]\n",
    );
    home.write("marked", format!("\u{feff}{TEXT_SECRET}"));
    home.write("broken", format!("{TEXT_SECRET}\n{TEXT_SECRET}\n"));
    home.write("fine", format!("{TEXT_SECRET}\r\n"));
    let ran = Ran::of(home.command(&["check"]).env("HOOKGATE_TEST_BROKEN", format!("{TEXT_SECRET}\n")));
    assert_eq!((ran.code, ran.lines().len()), (1, 4), "{ran:?}");
    for (line, (source, what)) in ran.lines().iter().zip([
        ("endless", "the secret file /dev/zero is larger than 64 KiB"),
        ("marked", "begins with a byte order mark"),
        ("broken", "holds a line break"),
        ("from-env", "holds a line break"),
    ]) {
        assert!(line.contains(&format!("sources.{source}.secrets")) && line.contains(what), "{line}");
    }
    assert!(!ran.out.contains(TEXT_SECRET), "{ran:?}");
    // What is no secret, but a file that is named beside them, is not read without end either.
    let home = Home::new(&format!(
        "edge.tls.certificate = \"/dev/zero\"\nedge.tls.private_key = \"/dev/zero\"\n{}",
        sources()
    ));
    let ran = home.run(&["check"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let larger =
        ran.lines().iter().filter(|line| line.contains("/dev/zero: it is larger than 4 MiB")).count();
    assert_eq!(larger, 2, "{ran:?}");
}

#[test]
fn each_mistake_in_a_secret_is_named_for_every_provider() {
    let bare = &STANDARD_SECRET["whsec_".len()..];
    for (text, what) in [
        (format!("\"{STANDARD_SECRET}\""), "quotes"),
        (format!("'{STANDARD_SECRET}'\n"), "quotes"),
        (format!(" {STANDARD_SECRET}"), "blanks (white space) around"),
        (format!("{STANDARD_SECRET} \n"), "blanks (white space) around"),
        (format!("whsec_{} {}", &bare[..9], &bare[9..]), "holds blanks"),
        (format!("v1,{STANDARD_SECRET}"), "begins with a version such as `v1,`"),
        (format!("whpk_{bare}"), "public key (whpk_), another kind of key"),
        (format!("whsk_{bare}"), "private key (whsk_), another kind of key"),
        (format!("-----BEGIN PUBLIC KEY-----\n{bare}\n-----END PUBLIC KEY-----\n"), "PEM"),
        (format!("BASIQ_SECRET={STANDARD_SECRET}"), "NAME=value"),
        (format!("{{\"secret\":\"{STANDARD_SECRET}\"}}"), "JSON object"),
        ("${BASIQ_SECRET_FROM_THE_VAULT}".to_owned(), "placeholder"),
    ] {
        let home = Home::new(
            &["basiq", "anduin", "atelio", "iof"]
                .map(|name| {
                    format!("[sources.{name}]\nprovider = \"{name}\"\nsecrets = [{{ file = \"key\" }}]\n")
                })
                .concat(),
        );
        home.write("key", &text);
        let ran = home.run(&["check"]);
        assert_eq!((ran.code, ran.lines().len()), (1, 4), "{text}: {ran:?}");
        for (line, name) in ran.lines().iter().zip(["basiq", "anduin", "atelio", "iof"]) {
            assert!(
                line.contains(&format!(": sources.{name}.secrets: the secret ")) && line.contains(what),
                "{line}"
            );
        }
        assert!(!ran.out.contains(bare) && !ran.out.contains("VAULT"), "{ran:?}");
    }
}

#[test]
fn a_secret_that_is_base64_twice_is_warned_of() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let sources = ["basiq", "atelio", "iof"]
        .map(|name| format!("[sources.{name}]\nprovider = \"{name}\"\nsecrets = [{{ file = \"key\" }}]\n"))
        .concat();
    let home = Home::new(&sources);
    for (text, twice) in [
        (STANDARD_SECRET.to_owned(), false),
        (STANDARD_SECRET["whsec_".len()..].to_owned(), false),
        (STANDARD.encode(STANDARD_SECRET), true),
        (STANDARD.encode(format!("{STANDARD_SECRET}\n")), true),
        (STANDARD.encode(&STANDARD_SECRET["whsec_".len()..]), true),
    ] {
        home.write("key", &text);
        let ran = home.run(&["check"]);
        let warned = ran
            .lines()
            .iter()
            .filter(|line| line.contains("secrets: the secret decodes from base64"))
            .count();
        assert_eq!((ran.code, warned), (0, if twice { 3 } else { 0 }), "{text}: {ran:?}");
        assert!(!twice || ran.out.contains(": warning: ") && ran.out.contains("twice"), "{ran:?}");
    }
}

#[test]
fn what_is_no_file_is_told_and_never_waited_for() {
    let home = Home::new(
        "edge.tls.certificate = \"fifo\"\nedge.tls.private_key = \"fifo\"\n\
         [sources.fifo]\nprovider = \"iof\"\nsecrets = [{ file = \"fifo\" }]\n\
         [sources.folder]\nprovider = \"iof\"\nsecrets = [{ file = \".\" }]\n\
         [sources.socket]\nprovider = \"iof\"\nsecrets = [{ file = \"socket\" }]\n",
    );
    assert!(std::process::Command::new("mkfifo").arg(home.path("fifo")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(home.path("socket")).unwrap();
    let ran = home.run(&["check"]);
    assert_eq!((ran.code, ran.lines().len()), (1, 5), "{ran:?}");
    for (line, what) in ran.lines().iter().zip(["FIFO", "FIFO", "FIFO", "directory", "socket"]) {
        assert!(line.contains("cannot read ") && line.contains(what), "{line}");
    }
    let at = |name: &str| home.path(name).display().to_string();
    for (name, what) in [("fifo", "FIFO"), ("socket", "socket"), (".", "directory")] {
        for command in ["check", "serve"] {
            let ran = Ran::of(&mut home.bare(&[command, "--config", &at(name)]));
            assert_eq!(ran.code, 1, "{ran:?}");
            let start = format!("{}:1:1: file: cannot read the config file ", at(name));
            assert!(ran.out.starts_with(&start) && ran.out.contains(what), "{ran:?}");
        }
        for files in [["headers", name], [name, "body"]] {
            home.write("headers", "");
            home.write("body", "");
            let config = Home::new(&sources());
            let (headers, body) = (at(files[0]), at(files[1]));
            let ran = config.run(&["verify", "--source", "basiq", "--headers", &headers, "--body", &body]);
            assert!(ran.code == 1 && ran.err.contains(what), "{ran:?}");
        }
    }
    let ran = Ran::of(&mut home.bare(&["check", "--config", "/dev/zero"]));
    assert!(
        ran.code == 1 && ran.out.contains("/dev/zero:1:1: file: ") && ran.out.contains("larger than 16 MiB"),
        "{ran:?}"
    );
}

#[test]
fn a_config_that_is_no_utf_8_is_told_with_its_place() {
    let home = Home::exactly("");
    for (text, said) in [
        (
            &b"# fine\n[sources.a]\nprovider = \"\xe9\"\n"[..],
            "hookgate.toml:3:13: toml: the byte 0xe9 here is not UTF-8",
        ),
        (b"# \xc3\xa9\xff", "hookgate.toml:1:4: toml: the byte 0xff here is not UTF-8"),
        (b"\xff\xfe[\0", "hookgate.toml:1:1: toml: this is UTF-16"),
    ] {
        home.write("hookgate.toml", text);
        for command in ["check", "serve"] {
            let ran = home.run(&[command]);
            assert!(ran.code == 1 && ran.out.contains(said), "{ran:?}");
        }
        let machine = home.run(&["check", "--json"]).json().remove(0);
        assert_eq!((&machine["severity"], &machine["key"]), (&"error".into(), &"toml".into()), "{machine}");
    }
}

#[test]
fn a_start_that_fails_is_told_in_json_where_the_log_is_json() {
    let lines = |text: &str| {
        let line = |line| serde_json::from_str::<Value>(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        text.lines().map(line).collect::<Vec<_>>()
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("edge.listen = \"{}\"\nadmin.listen = \"127.0.0.1:0\"\n", taken.local_addr().unwrap());
    let invalid = Home::exactly("edge.colour = 1\n");
    let absent = Home::exactly("");
    fs::remove_file(absent.path("hookgate.toml")).unwrap();
    let port_taken = Home::exactly(&(busy + &sources()));
    for (home, part) in
        [(&invalid, "colour"), (&absent, "there is no config file"), (&port_taken, "cannot listen on")]
    {
        for arguments in [&["serve", "--log-format", "json"][..], &["serve", "--json"]] {
            let ran = home.run(arguments);
            assert_eq!(ran.code, 1, "{ran:?}");
            lines(&ran.out);
            let told = lines(&ran.err);
            let told = told.iter().any(|line| {
                line["level"] == "ERROR" && line["message"].as_str().is_some_and(|what| what.contains(part))
            });
            assert!(told, "{part}: {ran:?}");
        }
        let text = home.run(&["serve"]);
        assert!(text.code == 1 && !text.out.starts_with('{') && !text.err.starts_with('{'), "{text:?}");
    }
    for (arguments, json) in [(&["serve"][..], false), (&["serve", "--log-format", "json"], true)] {
        let ran = Ran::of(invalid.command(arguments).env("HOOKGATE_LOG", "verbose"));
        assert!(ran.err.contains("HOOKGATE_LOG is not used") && ran.err.contains("WARN"), "{ran:?}");
        assert!(!json || lines(&ran.err).len() > 1, "{ran:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let home = Home::new(&sources());
    for arguments in [&["check"][..], &["check", "--json"], &["check", "--print"], &["schema"], &["demo"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut child = home.command(arguments).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let ended = eventually("it ends", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn the_printed_config_shows_no_secret() {
    let config = "redis.url = \"redis://user:hush-0@127.0.0.1:1/0\"\n".to_owned()
        + "[sources.a]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\", { env = \"HUSH_1\" }, { file = \"hush\" }]\n"
        + "[sources.b]\nprovider = \"securitize\"\npath_token = \"hush-4-is-the-token\"\n";
    let home = Home::new(&config);
    home.write("hush", "whsec_aHVzaC0yaHVzaC0yaHVzaC0yaHVzaC0y\n");
    let secrets = [
        "hush-0",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "aHVzaC0xaHVzaC0xaHVzaC0xaHVzaC0x",
        "aHVzaC0y",
        "hush-4-is-the-token",
    ];
    for arguments in [&["check", "--print"][..], &["check", "--print", "--json"]] {
        let mut command = home.command(arguments);
        let ran = Ran::of(command.env("HUSH_1", "whsec_aHVzaC0xaHVzaC0xaHVzaC0xaHVzaC0x"));
        assert_eq!(ran.code, 0, "{ran:?}");
        for secret in secrets {
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{secret}: {ran:?}");
        }
        assert!(
            ran.out.contains("HUSH_1") && ran.out.contains("max_body") && ran.out.contains("<redacted>"),
            "{ran:?}"
        );
        if arguments.contains(&"--json") {
            ran.json();
        } else {
            let printed: String = ran
                .lines()
                .into_iter()
                .filter(|line| !line.contains(": warning: "))
                .collect::<Vec<_>>()
                .join("\n");
            let (config, problems) = hookgate::config::parse(&printed, Path::new(""));
            assert!(problems.iter().all(|problem| problem.warning), "{problems:?}");
            assert_eq!(config.sources.len(), 2);
        }
    }
}

// -- serve

#[test]
fn serve_ends_well_on_both_signals_and_logs_json() {
    for signal in [Gateway::sigterm, Gateway::sigint] {
        let home = Home::new(&sources());
        let gateway = home.gateway();
        assert_eq!(gateway.ask(&basiq("evt")).status, 200);
        signal(&gateway);
        let (code, log) = gateway.stop();
        assert_eq!(code, 0, "{log}");
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
            assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
        }
        let mode = |name: &str| home.path(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("data"), 0o700);
        assert!(home.path("data/hookgate.db").exists());
        assert_eq!(mode("data/audit") & 0o077 & mode("data"), 0);
        assert_eq!(home.events().len(), 1);
    }
}

#[test]
fn serve_says_what_keeps_it_from_starting() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    // The same data folder.
    let ran = home.run(&["serve"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("data"), "{ran:?}");
    // The same address.
    for key in ["edge.listen", "admin.listen"] {
        let (taken, free) = if key == "edge.listen" {
            (gateway.edge, "admin.listen")
        } else {
            (gateway.admin, "edge.listen")
        };
        let other = Home::exactly(&format!("{key} = \"{taken}\"\n{free} = \"127.0.0.1:0\"\n{}", sources()));
        let ran = other.run(&["serve"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(key) && ran.err.contains(&taken.to_string()), "{ran:?}");
    }
    // A folder that cannot be made.
    let other = Home::new(&("data_dir = \"file/data\"\n".to_owned() + &sources()));
    other.write("file", "");
    let ran = other.run(&["serve"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("data_dir"), "{ran:?}");
    assert_eq!(gateway.ask(&basiq("evt")).status, 200, "it was not disturbed");
}

// -- send

#[test]
fn send_warns_of_a_type_that_nothing_knows_and_lists_those_that_are_known() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let url = format!("http://{}", gateway.edge);
    let send = |event: &str| home.run(&["send", "--source", "basiq", "--url", &url, "--event", event]);
    let ran = send("Foo.bar!");
    assert!(ran.code == 0 && ran.out.contains("accepted"), "{ran:?}");
    for part in [
        "basiq has no known event type \"Foo.bar!\"",
        "becomes unmapped.foo.bar_",
        "user.created",
        "consent.revoked",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(home.events()[0]["type"], "unmapped.foo.bar_");
    let near = send("user.craeted");
    assert!(near.err.contains("Did you mean user.created?"), "{near:?}");
    for known in ["user.created", "consent.revoked"] {
        assert_eq!(send(known).err, "", "{known}");
    }
    // Canonical ones are known too; a list of types sends nothing.
    let sent = home.events().len();
    let ran = home.run(&["send", "--source", "iof", "--url", &url, "--event", "invoice.paid"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let ran = home.run(&["send", "--source", "iof", "--event", "help"]);
    assert!(ran.code == 0 && ran.lines().contains(&"billing.invoice.paid -> invoice.paid"), "{ran:?}");
    let machine = home.run(&["send", "--source", "iof", "--event", "help", "--json"]).json();
    assert!(
        machine.contains(&json!({ "event": "billing.invoice.paid", "type": "invoice.paid" })),
        "{machine:?}"
    );
    assert_eq!(home.events().len(), sent + 1);
}

#[test]
fn send_plays_every_provider() {
    let home = Home::new(
        &(sources() + "[sources.legacy]\nprovider = \"anduin\"\npath_token = \"legacy-token-legacy\"\n"),
    );
    let gateway = home.gateway();
    let url = format!("http://{}", gateway.edge);
    let send = |source: &str, more: &[&str]| {
        home.run(&[&["send", "--source", source, "--url", &url], more].concat())
    };
    let names = ["securitize", "anduin", "legacy", "basiq", "atelio", "iof"];
    for name in names {
        let ran = send(name, &[]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}: {ran:?}");
        assert!(ran.out.starts_with("200 {") && ran.lines().len() == 1, "{name}: {ran:?}");
        let answers = send(name, &["--json", "--count", "3"]).json();
        let ids: BTreeSet<&str> =
            answers.iter().map(|answer| answer["body"]["id"].as_str().unwrap()).collect();
        assert_eq!((answers.len(), ids.len()), (3, 3), "{name}: {answers:?}");
        let well = |answer: &Value| answer["status"] == 200 && answer["body"]["status"] == "accepted";
        assert!(answers.iter().all(well), "{name}: {answers:?}");
    }
    assert_eq!(home.events().len(), names.len() * 4);

    // A type by either of its names, and one that nobody knows.
    for (kind, canonical) in [("consent.revoked", "consent.revoked"), ("never.heard", "unmapped.never.heard")]
    {
        assert_eq!(send("basiq", &["--event", kind]).code, 0);
        assert_eq!(home.events().pop().unwrap()["type"], canonical);
    }
    for kind in ["kyc.verification.failure", "kyc.rejected"] {
        assert_eq!(send("atelio", &["--event", kind]).code, 0);
        assert_eq!(home.events().pop().unwrap()["type"], "kyc.rejected", "{kind}");
    }

    // A file as it is.
    let body = "{\n  \"eventTypeId\" : \"user.created\",\r\n\t\"eventId\": \"from-a-file\" }";
    let file = home.write("body.json", body);
    let ran = send("basiq", &["--body", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("\"accepted\"") && ran.out.contains("from-a-file"), "{ran:?}");
    assert_eq!(
        send("basiq", &["--body", file.to_str().unwrap()]).code,
        0,
        "a duplicate is an answer like another"
    );
    let ran = send("basiq", &["--body", "absent.json"]);
    assert!(ran.code == 1 && ran.err.contains("cannot read absent.json: "), "{ran:?}");
    home.write("array.json", "[]");
    // Authentic, and no object: forwarded all the same.
    let ran = send("basiq", &["--body", "array.json", "--json"]);
    assert_eq!((ran.code, ran.json()[0]["status"].clone()), (0, json!(200)), "{ran:?}");
    let ran = send("basiq", &["--body", "array.json", "--tamper", "signature", "--json"]);
    assert_eq!((ran.code, ran.json()[0]["status"].clone()), (1, json!(401)), "{ran:?}");

    // A whole URL, which is taken as it is.
    let whole = |path: &str| home.run(&["send", "--source", "basiq", "--url", &format!("{url}{path}")]);
    assert_eq!(whole("/hooks/basiq").code, 0);
    let ran = whole("/hooks/nothing");
    assert!(ran.code == 1 && ran.out.starts_with("404 "), "{ran:?}");
}

#[test]
fn what_send_spoils_is_refused_for_that_reason() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let url = format!("http://{}", gateway.edge);
    let mut expected = Vec::new();
    for name in ["anduin", "basiq", "atelio", "iof"] {
        for (tamper, reason) in [
            ("body", "signature_mismatch"),
            ("signature", "signature_mismatch"),
            ("timestamp", "timestamp_outside_tolerance"),
        ] {
            // Signatures differ from run to run: whichever it is, it must be well-formed when it is spoilt.
            for _ in 0..3 {
                let ran = home.run(&["send", "--source", name, "--tamper", tamper, "--url", &url]);
                assert!(ran.code == 1 && ran.out.starts_with("401 "), "{name} {tamper}: {ran:?}");
                expected.push((name.to_owned(), reason.to_owned()));
            }
        }
    }
    until("every refusal is recorded", || gateway.records().len() == expected.len());
    let text = |record: &Value, key: &str| record[key].as_str().unwrap().to_owned();
    let records: Vec<_> =
        gateway.records().iter().map(|record| (text(record, "source"), text(record, "reason"))).collect();
    assert_eq!(records, expected);
    // There is nothing to spoil where nothing is signed.
    let ran = home.run(&["send", "--source", "securitize", "--tamper", "body", "--url", &url]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("securitize"), "{ran:?}");
    assert!(home.events().is_empty());
}

#[test]
fn send_says_why_it_cannot() {
    let home = Home::new(&sources());
    let ran = home.run(&["send", "--source", "nobody"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("nobody") && ran.err.contains("basiq") && ran.err.contains("iof"), "{ran:?}");
    // Port 0 is no address, and nobody listens on port 1.
    let ran = home.run(&["send", "--source", "basiq"]);
    assert!(ran.code == 1 && ran.err.contains("--url"), "{ran:?}");
    let ran = home.run(&["send", "--source", "securitize", "--url", "http://127.0.0.1:1"]);
    assert!(ran.code == 1 && ran.err.contains("127.0.0.1:1") && !ran.err.contains(TOKEN), "{ran:?}");
    let ran = home.run(&["send", "--source", "basiq", "--url", "ftp://127.0.0.1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
}

// -- events tail

#[test]
fn events_are_told_in_their_order_while_the_gateway_serves_and_after() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let pretty = "{\n  \"eventTypeId\": \"user.created\",\r\n  \"eventId\": \"evt-0\"\r}";
    assert_eq!(gateway.ask(&standard("/hooks/basiq", pretty, now())).status, 200);
    for number in 1..5 {
        assert_eq!(gateway.ask(&basiq(&format!("evt-{number}"))).status, 200);
    }
    let tail = |more: &[&str]| home.run(&[&["events", "tail", "--json"], more].concat());
    let look = || {
        let ran = tail(&[]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        let lines = ran.json();
        let ids: Vec<&Value> = lines.iter().map(|line| &line["event"]["id"]).collect();
        assert_eq!(ids, ["evt-0", "evt-1", "evt-2", "evt-3", "evt-4"]);
        for line in &lines {
            let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["cursor", "event"]);
            assert!(line["cursor"].is_string());
        }
        // In the contract's order, the payload on one line and otherwise as it was sent.
        let first = ran.lines()[0];
        assert!(
            first.starts_with("{\"cursor\":\"")
                && first.contains("\"event\":{\"specversion\":\"1.0\",\"id\":\"evt-0\"")
        );
        assert!(
            first.ends_with(&format!("\"payload\":{}}}}}}}", pretty.replace(['\n', '\r'], " "))),
            "{first}"
        );
        lines
    };
    let lines = look();
    let cursor = |at: usize| lines[at]["cursor"].as_str().unwrap();
    let ids = |ran: &Ran| {
        ran.json().iter().map(|line| line["event"]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&tail(&["--limit", "2"])), ["evt-0", "evt-1"]);
    assert_eq!(ids(&tail(&["--limit", "0"])), [""; 0]);
    assert_eq!(ids(&tail(&["--after", cursor(2)])), ["evt-3", "evt-4"]);
    assert_eq!(ids(&tail(&["--after", cursor(1), "--limit", "1"])), ["evt-2"]);
    assert_eq!(ids(&tail(&["--after", cursor(4)])), [""; 0]);
    assert_eq!(ids(&tail(&["--last", "2"])), ["evt-3", "evt-4"]);
    assert_eq!(ids(&tail(&["--last", "3", "--limit", "2"])), ["evt-2", "evt-3"]);
    assert_eq!(ids(&tail(&["--last", "99"])).len(), 5);
    assert_eq!(ids(&tail(&["--last", "0"])), [""; 0]);
    assert_eq!(tail(&["--last", "1", "--after", cursor(1)]).code, 2);
    let ran = tail(&["--after", "nonsense"]);
    assert!(ran.code == 1 && ran.err.contains("nonsense"), "{ran:?}");
    let people = home.run(&["events", "tail", "--limit", "3"]);
    assert_eq!((people.code, people.lines().len()), (0, 3), "{people:?}");
    assert!(people.lines()[1].contains("evt-1") && people.lines()[1].contains("user.created"), "{people:?}");

    assert_eq!(gateway.stop().0, 0);
    assert_eq!(look(), lines, "a stopped gateway's events read the same");
}

#[test]
fn a_followed_queue_tells_what_comes() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    assert_eq!(gateway.ask(&basiq("evt-0")).status, 200);
    let mut command = home.command(&["events", "tail", "--json", "--follow", "--limit", "3"]);
    let mut following = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    for number in 0..3 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["event"]["id"], format!("evt-{number}"));
        // The next one comes only when this one was told.
        assert_eq!(gateway.ask(&basiq(&format!("evt-{}", number + 1))).status, 200);
    }
    assert!(lines.next().is_none());
    let ended = eventually("it ends at its limit", || following.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

/// A pipe gets all of it, which other tests see.
#[test]
fn a_terminal_gets_the_last_ten_events_unless_it_asks_for_more() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    for number in 10..35 {
        assert_eq!(gateway.ask(&basiq(&format!("evt-{number}"))).status, 200);
    }
    let terminal = |more: &str| {
        let command = format!("{} --config hookgate.toml events tail {more}", env!("CARGO_BIN_EXE_hookgate"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).current_dir(home.path(""));
        script.env_remove("HOOKGATE_CONFIG").stdin(Stdio::null());
        let ran = Ran::of(&mut script);
        assert_eq!(ran.code, 0, "{ran:?}");
        let said = ran.out.contains("the last 10 of 25 events");
        (ran.out.lines().filter(|line| line.contains("  evt-")).count(), said)
    };
    assert_eq!(terminal(""), (10, true));
    assert_eq!(terminal("--follow --limit 25"), (25, false));
    assert_eq!(terminal("--last 3"), (3, false));
    assert_eq!(terminal("--limit 12"), (12, false));
    let mut command = home.command(&["events", "tail", "--last", "2", "--follow", "--json", "--limit", "3"]);
    let mut following = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    for number in 33..36 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["event"]["id"], format!("evt-{number}"));
        if number == 34 {
            assert_eq!(gateway.ask(&basiq("evt-35")).status, 200);
        }
    }
    eventually("it ends at its limit", || following.try_wait().unwrap());
}

#[test]
fn a_queue_that_is_not_there_is_no_panic() {
    let home = Home::new(&sources());
    let ran = home.run(&["events", "tail"]);
    assert!(ran.code <= 1 && ran.out.is_empty() && !ran.err.contains("panicked"), "{ran:?}");
    assert!(ran.code == 0 || ran.err.contains("data"), "{ran:?}");
    assert!(!home.path("data").exists(), "looking makes nothing");
    for arguments in [&["audit", "query"][..], &["audit", "verify"], &["audit", "tail", "--no-follow"]] {
        let ran = home.run(arguments);
        assert!(ran.code <= 1 && !ran.err.contains("panicked"), "{ran:?}");
        assert!(!home.path("data").exists(), "looking makes nothing");
    }
}

// -- audit

#[test]
fn the_reject_log_is_filtered_and_followed() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let refused = |request: &Request| gateway.record_of(&gateway.ask(request));
    let first = refused(&basiq("evt").without("webhook-id"));
    let second = refused(&basiq("evt").to("/nothing"));
    let third = refused(&iof("/hooks/iof", "{}", 1));
    let query = |more: &[&str]| {
        let ran = home.run(&[&["audit", "query", "--json"], more].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        ran.json()
    };
    let all = [first.clone(), second.clone(), third.clone()];
    assert_eq!(query(&[]), all);
    assert_eq!(query(&["--source", "basiq"]), std::slice::from_ref(&first));
    assert_eq!(query(&["--source", "unknown"]), std::slice::from_ref(&second));
    assert_eq!(query(&["--reason", "timestamp_outside_tolerance"]), std::slice::from_ref(&third));
    assert_eq!(query(&["--source", "basiq", "--reason", "unknown_path"]), [Value::Null; 0]);
    let at = |record: &Value| record["ts"].as_str().unwrap().to_owned();
    assert_eq!(query(&["--since", &at(&second)]), all[1..]);
    assert_eq!(query(&["--until", &at(&second)]), all[..1]);
    assert_eq!(query(&["--since", &at(&second), "--until", &at(&third)]), all[1..2]);
    assert_eq!(query(&["--since", "2020-01-01T00:00:00+02:00"]), all);
    assert_eq!(query(&["--until", "2020-01-01T00:00:00Z"]), [Value::Null; 0]);
    for client in ["127.0.0.1", "127.0.0.0/8"] {
        assert_eq!(query(&["--client", client]), all);
    }
    for client in ["127.0.0.2", "10.0.0.0/8", "::1"] {
        assert_eq!(query(&["--client", client]), [Value::Null; 0]);
    }
    // What no record can have is no answer; a source may have been there once.
    for command in ["query", "tail"] {
        let ran = home.run(&["audit", command, "--reason", "signature_missmatch"]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran:?}");
        assert!(ran.err.contains("no such reason") && ran.err.contains("signature_mismatch"), "{ran:?}");
    }
    for reason in ["conflict", "anchor"] {
        assert_eq!(query(&["--reason", reason]), [Value::Null; 0]);
    }
    let ran = home.run(&["audit", "query", "--source", "basik"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    assert!(ran.err.contains("no source \"basik\"") && ran.err.contains("basiq"), "{ran:?}");
    let people = home.run(&["audit", "query"]);
    assert_eq!((people.code, people.lines().len()), (0, 3), "{people:?}");
    for (line, record) in people.lines().iter().zip(&all) {
        for key in ["ts", "reason", "source", "client", "path", "id"] {
            assert!(line.contains(record[key].as_str().unwrap()), "{key}: {line}");
        }
    }
    let last = home.run(&["audit", "tail", "--no-follow", "--lines", "2", "--json"]);
    assert_eq!((last.code, last.json()), (0, all[1..].to_vec()));

    let mut command = home.command(&["audit", "tail", "--lines", "1", "--json"]);
    let mut following = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next(), third);
    let fourth = refused(&basiq("evt").to("/nothing/else"));
    assert_eq!(next(), fourth);
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn a_chain_that_was_tampered_with_is_named() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    for number in 0..5 {
        gateway.record_of(&gateway.ask(&basiq("evt").to(&format!("/nothing/{number}"))));
    }
    let verify = || home.run(&["audit", "verify"]);
    let ran = verify();
    assert!(ran.code == 0 && ran.out.starts_with("ok: 5 records"), "{ran:?}");
    gateway.stop();
    assert_eq!(verify().code, 0);
    let folder = fs::read_dir(home.path("data/audit")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let (name, good) = (file.file_name().unwrap().to_str().unwrap(), fs::read_to_string(file).unwrap());
    let lines: Vec<&str> = good.lines().collect();
    let without = |gone: usize| {
        lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| format!("{line}\n")).collect()
    };
    let swapped = [lines[0], lines[2], lines[1], lines[3], lines[4], ""].join("\n");
    let tampered: [(u32, String); 7] = [
        (3, good.replace("/nothing/2", "/nothing/7")),
        (1, good.replacen("404", "403", 1)),
        (4, good.replacen(lines[3], &lines[3].replace("\"client\"", "\"clienT\""), 1)),
        (2, good.replacen(lines[1], &lines[1].replace("{\"seq\"", "{ \"seq\""), 1)),
        (3, without(2)),
        (2, swapped),
        (5, good.replacen(lines[4], "", 1)),
    ];
    for (line, text) in tampered {
        fs::write(file, text).unwrap();
        let ran = verify();
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.out.starts_with("broken: ") && ran.out.contains(&format!("{name}:{line}:")),
            "{line}: {ran:?}"
        );
        let ran = home.run(&["audit", "verify", "--json"]);
        let told = &ran.json()[0];
        assert_eq!(
            (ran.code, &told["status"], &told["file"], &told["line"]),
            (1, &json!("broken"), &json!(name), &json!(line))
        );
    }
    fs::write(file, &good).unwrap();
    let ran = home.run(&["audit", "verify", "--json"]);
    assert_eq!((ran.code, &ran.json()[0]["records"], &ran.json()[0]["status"]), (0, &json!(5), &json!("ok")));
}

// -- schema and demo

#[test]
fn the_schema_is_one_and_every_event_is_valid_against_it() {
    let home = Home::new(&sources());
    let ran = Ran::of(&mut home.bare(&["schema"]));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let schema: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    let machine = Ran::of(&mut home.bare(&["schema", "--json"]));
    assert_eq!(machine.json(), std::slice::from_ref(&schema), "one line under --json");
    let validator = jsonschema::validator_for(&schema).unwrap();

    let gateway = home.gateway();
    let url = format!("http://{}", gateway.edge);
    for name in ["securitize", "anduin", "basiq", "atelio", "iof"] {
        assert_eq!(home.run(&["send", "--source", name, "--url", &url]).code, 0);
    }
    // Nothing in it; an unknown type; the same identity once more.
    let securitized = |nonce: u32, more: &str| {
        let request = securitize("/hooks/securitize", "sub-1", nonce);
        Request {
            body: String::from_utf8(request.body.clone())
                .unwrap()
                .replace("\"17\"", &format!("\"17\"{more}"))
                .into(),
            ..request
        }
    };
    let odd = [
        standard("/hooks/basiq", "{}", now()),
        standard("/hooks/anduin", "{\"event\":\"Ünheard of\",\"createdAt\":\"sometime\"}", now()),
        iof("/hooks/iof", "{\"id\":7,\"type\":[],\"data\":null,\"metadata\":5}", now()),
        bond("/hooks/atelio", "{\"event\":\"\",\"customer_id\":\"\"}", now()),
        securitized(1, ""),
        securitized(1, ",\"more\":1"),
    ];
    for request in &odd {
        let answer = gateway.ask(request);
        assert_eq!(answer.json()["status"], "accepted", "{request:?}: {answer:?}");
    }
    let events = home.events();
    assert_eq!(events.len(), 5 + odd.len());
    for event in &events {
        let wrong: Vec<String> = validator.iter_errors(event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}: {event}");
    }
    assert_eq!(events.last().unwrap()["conflict"], true);
    for key in ["id", "specversion", "data", "verifiedby"] {
        let mut event = events[0].clone();
        event.as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&event), "valid without {key}");
    }
}

#[test]
fn the_demo_plays_everybody_and_leaves_nothing() {
    let home = Home::new("");
    let temporary = home.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let demo = |more: &[&str]| {
        let mut command = home.bare(&[&["demo"], more].concat());
        let ran = Ran::of(command.env("TMPDIR", &temporary));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "it leaves something behind");
        ran
    };
    let people = demo(&[]);
    for part in [
        "securitize",
        "anduin",
        "basiq",
        "atelio",
        "iof",
        "accepted",
        "duplicate",
        "signature_mismatch",
        "timestamp_outside_tolerance",
        "path_token_mismatch",
        "handshake",
        "5 events",
        "ok: 9 records",
    ] {
        assert!(people.out.contains(part), "{part}\n{}", people.out);
    }
    assert!(!people.out.contains("<-- unexpected"), "{}", people.out);
    let lines = demo(&["--json"]).json();
    assert_eq!(lines.iter().filter(|line| line["event"]["specversion"] == "1.0").count(), 5);
    assert_eq!(lines.iter().filter(|line| line["hash"].is_string()).count(), 9);
    assert_eq!(lines.iter().filter(|line| line["delivery"].is_string()).count(), 20);
}

#[test]
fn a_demo_that_is_kept_serves_until_it_is_told() {
    let home = Home::new("");
    let mut command = home.bare(&["demo", "--keep"]);
    let mut kept =
        command.env("TMPDIR", home.path("")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(kept.stderr.take().unwrap()).lines();
    // What it says to type in another terminal works.
    let say = eventually("it says how to send", || {
        let line = lines.next().unwrap().unwrap();
        line.trim().strip_prefix("hookgate ").filter(|line| line.contains(" send ")).map(str::to_owned)
    });
    let ran = Ran::of(&mut home.bare(&say.split_whitespace().collect::<Vec<_>>()));
    assert_eq!(ran.code, 0, "{say}: {ran:?}");
    let stop = Command::new("sh").args(["-c", &format!("kill -s INT {}", kept.id())]).status().unwrap();
    assert!(stop.success());
    assert!(lines.all(|line| line.is_ok()));
    assert_eq!(eventually("it ends", || kept.try_wait().unwrap()).code(), Some(0));
}

// -- readers that hang up

#[test]
fn a_reader_that_hangs_up_is_no_failure() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
    gateway.record_of(&gateway.ask(&basiq("evt").to("/nothing")));
    let url = format!("http://{}", gateway.edge);
    let commands: [&[&str]; 16] = [
        &["--help"],
        &["--version"],
        &["schema"],
        &["check"],
        &["check", "--print"],
        &["check", "--json"],
        &["events", "tail"],
        &["events", "tail", "--json"],
        &["audit", "query"],
        &["audit", "query", "--json"],
        &["audit", "tail", "--no-follow"],
        &["audit", "tail"],
        &["audit", "verify"],
        &["send", "--source", "basiq", "--url", &url],
        &["demo"],
        &["demo", "--json"],
    ];
    for arguments in commands {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut child = home.command(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let ended = eventually("it ends", || child.try_wait().unwrap());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        assert_eq!(ended.code(), Some(0), "{arguments:?}: {said}");
        assert!(said.is_empty() || said.contains(": ok, 5 sources"), "{arguments:?}: {said}");
    }
    // With nobody to hear of problems either, the exit code says it.
    let invalid = Home::exactly("[sources.basiq]\nprovider = \"basiq\"\n");
    for (home, arguments, code) in
        [(&home, "check", 0), (&invalid, "check", 1), (&invalid, "serve", 1), (&home, "nonsense", 2)]
    {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = home.command(&[arguments]);
        let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        let ended = eventually("it ends", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(code), "{arguments}");
    }
}

#[test]
fn a_gateway_whose_log_nobody_reads_goes_on() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    gateway.stop_reading_the_log();
    for number in 0..20 {
        assert_eq!(gateway.ask(&basiq(&format!("evt-{number}"))).status, 200);
        assert_eq!(gateway.ask(&basiq("evt").to("/nothing")).status, 404);
    }
    assert_eq!(gateway.stop().0, 0);
    assert_eq!(home.events().len(), 20);
    assert!(home.audit().lines().count() > 20);
}
