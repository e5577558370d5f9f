//! The reject log as an auditor needs it: it verifies after every crash, with a key every change is found and named, and rsyslog
//! takes every record elsewhere, over restarts of both sides.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hookgate::observe::audit::files;
use hookgate::observe::audit::record::{NO_HASH, Record};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;
use support::{
    Client, Gateway, Home, Rsyslog, basiq_by_another_secret, eventually, free_port, until, within,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const KEY: &str = "the key that signs the anchors";
const OTHER_KEY: &str = "a key that came before it";

// -- crashes

#[tokio::test]
async fn a_gateway_killed_in_a_flood_leaves_a_log_that_verifies_and_goes_on() {
    let home = Home::embedded().with("audit.key", KEY);
    for _ in 0..2 {
        let before = verify(&home, &[]).1["last_seq"].as_u64().unwrap_or(0);
        let gateway = home.serve().await;
        let mut flood = JoinSet::new();
        for _ in 0..4 {
            let address = gateway.edge;
            flood.spawn(async move {
                // Until it is gone.
                let Ok(mut client) = Client::connect(address).await else { return };
                let forged = basiq_by_another_secret("forged");
                while client.get("/nothing").await.is_ok() && client.deliver(&forged).await.is_ok() {}
            });
        }
        until("the flood is being written", async || {
            gateway.metric("hookgate_audit_suppressed_total").await > 0.0
        })
        .await;
        gateway.kill9();
        while flood.join_next().await.is_some() {}
        let found = verified(&home, &[]);
        assert!(number(&found["last_seq"]) > before, "{found}");
    }
    let mut gateway = home.serve().await;
    refused(&gateway, 1).await;
    until("its record", async || gateway.metric("hookgate_audit_records_total").await == 1.0).await;
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    let found = verified(&home, &["--anchored-since", "1"]);
    assert_eq!((&found["anchored_seq"], &found["unfinished"]), (&found["last_seq"], &Value::Bool(false)));
    assert_eq!(found["first_seq"], 1);
    assert_eq!(number(&found["records"]), number(&found["last_seq"]));
    assert!(!log_text(&home).contains(KEY));
}

#[tokio::test]
async fn half_a_record_that_a_crash_left_is_cut_off_at_the_next_start() {
    const HALF: &str = "{\"seq\":5,\"ts\":\"20";
    let home = Home::embedded().with("audit.key", KEY);
    run(&home, 3).await;
    let last = files::list(&folder(&home)).unwrap().pop().unwrap().path;
    let whole = fs::read_to_string(&last).unwrap();
    fs::write(&last, whole.clone() + HALF).unwrap();
    assert_eq!(verified(&home, &[])["unfinished"], true);
    let said = run(&home, 2).await;
    assert!(said.contains("cut an unfinished record off the reject log"), "{said}");
    assert!(said.contains(&format!("\"bytes\":{}", HALF.len())), "{said}");
    let found = verified(&home, &[]);
    assert_eq!(
        (&found["records"], &found["unfinished"], &found["set_aside"]),
        (&7.into(), &false.into(), &0.into())
    );
    assert!(log_text(&home).starts_with(&whole));
    let said = run(&home, 1).await;
    assert!(!said.contains("unfinished") && !said.contains("set aside"), "{said}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_told_once_and_so_is_its_end() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    refused(&gateway, 1).await;
    let aside = folder(&home).with_file_name("aside");
    fs::rename(folder(&home), &aside).unwrap();
    fs::write(folder(&home), "no directory").unwrap();
    until("it has failed more than once", async || {
        refused(&gateway, 1).await;
        gateway.metric("hookgate_audit_failures_total").await > 3.0
    })
    .await;
    // In one step: as soon as the name is free, the gateway makes a folder there.
    renameat_with(CWD, &aside, CWD, folder(&home), RenameFlags::EXCHANGE).unwrap();
    until("its end is told", async || gateway.log().contains("the reject log can be written again")).await;
    for _ in 0..3 {
        let written = async || gateway.metric("hookgate_audit_records_total").await;
        let before = written().await;
        refused(&gateway, 1).await;
        until("it goes on", async || written().await > before).await;
    }
    verified(&home, &[]);
    let said = gateway.log();
    assert_eq!(said.matches("the reject log cannot be written").count(), 1, "{said}");
    assert_eq!(said.matches("can be written again").count(), 1, "{said}");
}

#[tokio::test]
async fn a_flood_stays_within_max_bytes_and_what_is_left_verifies() {
    const MAX_BYTES: u64 = 64 * 1024;
    let home = Home::embedded().with("audit.key", KEY).with("audit.max_bytes", "64KiB");
    let gateway = home.serve().await;
    let mut client = Client::connect(gateway.edge).await.unwrap();
    let oldest = || files::list(&folder(&home)).unwrap().first().map_or(0, |file| file.first_seq);
    until("records are deleted for newer ones", async || {
        for n in 0..50 {
            assert_eq!(client.get(&format!("/nothing/{n}")).await.unwrap().status, 404);
            refused(&gateway, 1).await;
        }
        let size = |file: &files::LogFile| file.path.metadata().map_or(0, |file| file.len());
        let bytes: u64 = files::list(&folder(&home)).unwrap().iter().map(size).sum();
        assert!(bytes <= MAX_BYTES, "{bytes} bytes");
        oldest() > 1
    })
    .await;
    let found = verified(&home, &[]);
    assert!(number(&found["first_seq"]) > 1 && number(&found["anchors"]) > 0, "{found}");
    assert_eq!(gateway.metric("hookgate_audit_failures_total").await, 0.0);
}

// -- tampering

#[tokio::test]
async fn every_kind_of_tampering_is_named_by_its_record() {
    let home = Home::embedded().with("audit.key", KEY);
    for _ in 0..3 {
        run(&home, 4).await;
    }
    let kept = verified(&home, &[]);
    assert_eq!(
        (&kept["records"], &kept["anchors"], &kept["anchored_seq"]),
        (&15.into(), &3.into(), &15.into())
    );
    let whole = log_text(&home);
    let lines: Vec<&str> = whole.lines().collect();
    // Here nothing is known of the log but the log.
    fs::remove_file(home.database()).unwrap();
    let kept = Value::from_iter(kept.as_object().unwrap().clone().into_iter().map(|(key, value)| {
        let value = if key == "compared" { false.into() } else { value };
        (key, value)
    }));
    let without = |gone: usize| {
        let mut lines = lines.clone();
        lines.remove(gone - 1);
        lines.join("\n") + "\n"
    };
    let plain: [(u64, String, &str); 5] = [
        (7, whole.replacen(lines[6], &lines[6].replace("401", "200"), 1), "altered"),
        (7, without(7), "missing"),
        (
            7,
            [&lines[..6], &[lines[7], lines[6]], &lines[8..], &[""]].concat().join("\n"),
            "stands in its place",
        ),
        (8, [&lines[..7], &[lines[7], lines[7]], &lines[8..], &[""]].concat().join("\n"), "repeated"),
        (7, whole.replacen(lines[6], &rehashed(lines[6]), 1), "hashed anew"),
    ];
    for (seq, text, why) in plain {
        named(&home, &text, &[], seq, why);
    }

    // With new hashes to the end only an anchor can tell.
    let forged = anew(&whole, |record| {
        record.client = record.client.take().map(|_| "198.51.100.1".to_owned());
        record.seq == 7
    });
    named(&home, &forged, &[], 10, "this anchor does not hold: records after record 5");
    let keyless = Home::embedded();
    replace(&keyless, &forged);
    let found = verified(&keyless, &[]);
    assert_eq!(found["records"], 15, "the chain alone holds");
    assert_eq!((&found["anchors"], &found["anchors_unchecked"]), (&0.into(), &3.into()));
    let told = keyless.command(&["audit", "verify"]).stdout(Stdio::piped()).output().unwrap().stdout;
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("note: 3 anchors not checked: no [audit] key"), "{told}");
    let (code, found) = verify(&keyless, &["--anchored-to", "15"]);
    assert!(code == 1 && found.is_null(), "a demand that cannot be checked is not met");

    // Anchors dropped from there on: so few records may be without one, but not for who knows that there were anchors.
    let dropped =
        chained(records(&forged).into_iter().filter(|record| record.seq < 7 || !record.is_anchor()));
    replace(&home, &dropped);
    assert_eq!(verified(&home, &[])["anchored_seq"], 5);
    named(&home, &dropped, &["--anchored-to", "15"], 6, "last anchor is record 5");

    // The end cut off.
    named(&home, &(lines[..10].join("\n") + "\n"), &["--anchored-to", "15"], 11, "last anchor is record 10");

    replace(&home, &whole);
    assert_eq!(verified(&home, &["--anchored-since", "1", "--anchored-to", "15"]), kept);
}

#[tokio::test]
async fn a_log_from_before_the_key_and_one_of_two_keys_are_told_apart_from_a_forged_one() {
    let mut home = Home::embedded();
    run(&home, 3).await;
    assert_eq!(verified(&home, &[])["anchored_seq"], Value::Null);
    home = home.with("audit.key", OTHER_KEY);
    run(&home, 3).await;
    let found = verified(&home, &[]);
    // The start's, behind what was there; and the end's.
    assert_eq!(
        (&found["records"], &found["anchored_from"], &found["anchored_seq"]),
        (&8.into(), &4.into(), &8.into())
    );
    home = home.with("audit.key", KEY);
    run(&home, 1).await;
    let (code, found) = verify(&home, &[]);
    assert_eq!((code, &found["status"], &found["seq"]), (1, &"broken".into(), &4.into()), "{found}");
    let older = folder(&home).parent().unwrap().join("older.key");
    fs::write(&older, format!("{OTHER_KEY}\n")).unwrap();
    assert_eq!(verified(&home, &["--key-file", older.to_str().unwrap()])["anchored_seq"], 10);
    let (code, _) = verify(&home, &["--key-file", "/no/such.key"]);
    assert_eq!(code, 1);
}

#[tokio::test]
async fn anchors_are_printed_only_for_who_asks() {
    let home = Home::embedded().with("audit.key", KEY);
    run(&home, 2).await;
    for command in [&["audit", "query", "--json"][..], &["audit", "tail", "--no-follow", "--json"]] {
        let seqs = |more: &[&str]| -> Vec<u64> {
            home.lines(&[command, more].concat()).iter().map(|record| number(&record["seq"])).collect()
        };
        assert_eq!((seqs(&[]), seqs(&["--reason", "anchor"])), (vec![1, 2], vec![3]));
        assert_eq!(
            (seqs(&["--reason", "signature_mismatch"]), seqs(&["--reason", "overloaded"])),
            (vec![1, 2], vec![])
        );
    }
    let anchor = home.records("anchor").remove(0);
    let told = [&anchor["source"], &anchor["provider"], &anchor["reason"], &anchor["status"]];
    assert_eq!(told, [&Value::from("unknown"), &"unknown".into(), &"anchor".into(), &0.into()]);
    let mac = anchor["detail"].as_str().unwrap().strip_prefix("hmac-sha256:").unwrap();
    assert!(mac.len() == 64 && mac.bytes().all(|digit| digit.is_ascii_hexdigit()), "{mac}");
}

#[tokio::test]
async fn a_key_too_short_is_a_problem_at_its_place() {
    let what = "audit.key: the key has 15 bytes; expected at least 16";
    let home = Home::embedded().with("audit.key", "fifteen bytes..");
    for command in ["check", "serve"] {
        let mut command = home.command(&[command]);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("hookgate.toml:") && told.contains(what), "{told}");
        assert!(!told.contains("fifteen"), "{told}");
    }
}

#[tokio::test]
async fn a_log_that_was_cut_or_deleted_is_told_though_it_has_grown_again() {
    for (at, cut) in [("the end", true), ("all of it", false)] {
        let home = Home::embedded();
        run(&home, 5).await;
        let whole = verified(&home, &[]);
        let head = whole["head"].as_str().unwrap().to_owned();
        assert_eq!(head, format!("5:{}", whole["last_hash"].as_str().unwrap()));
        verified(&home, &["--anchored-to", &head]);
        let file = files::list(&folder(&home)).unwrap().remove(0).path;
        if cut {
            let text = fs::read_to_string(&file).unwrap();
            let two: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
            fs::write(&file, two).unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        is_broken(&home, &[], 5, if cut { "ends with record 2" } else { "the log is empty" });
        is_broken(&home, &["--anchored-to", &head], 5, if cut { "ends with record 2" } else { "is empty" });

        let mut gateway = home.serve().await;
        assert_eq!(gateway.metric("hookgate_audit_failures_total").await, 1.0, "{at}");
        assert!(gateway.log().contains("the reject log is not as its gateway left it"), "{}", gateway.log());
        refused(&gateway, 9).await;
        until("its records", async || gateway.metric("hookgate_audit_records_total").await == 9.0).await;
        is_broken(&home, &[], 5, "a gateway that started at");
        is_broken(&home, &["--anchored-to", &head], 5, "is another one");
        gateway.sigterm();
        assert!(gateway.exit().await.success());
        is_broken(&home, &[], 5, "a gateway that started at");

        let accepted = verified(&home, &["--accept"]);
        assert_eq!(accepted["compared"], true);
        verified(&home, &[]);
        let act = home.records("operator").remove(0);
        assert!(act["detail"].as_str().unwrap().contains("accepted as it is, by"), "{act}");
        let gateway = home.serve().await;
        assert_eq!(gateway.metric("hookgate_audit_failures_total").await, 0.0, "{at}");
    }
}

#[tokio::test]
async fn a_log_whose_gateway_was_killed_has_its_head() {
    let home = Home::embedded();
    for _ in 0..3 {
        let gateway = home.serve().await;
        assert_eq!(gateway.metric("hookgate_audit_failures_total").await, 0.0);
        refused(&gateway, 20).await;
        until("some are written", async || gateway.metric("hookgate_audit_records_total").await > 0.0).await;
        gateway.kill9();
        verified(&home, &[]);
    }
}

#[tokio::test]
async fn an_empty_log_meets_no_demand_and_a_deleted_record_is_not_there() {
    let home = Home::embedded().with("audit.key", KEY);
    run(&home, 2).await;
    let head = verified(&home, &[])["head"].as_str().unwrap().to_owned();
    verified(&home, &["--anchored-to", &head]);
    verified(&home, &["--anchored-to", "3", "--anchored-since", "1"]);
    let other = format!("3:{}", "0b".repeat(32));
    is_broken(&home, &["--anchored-to", &other], 3, "is another one");
    for wrong in ["3:", "3:zz", "x", ""] {
        assert_eq!(verify(&home, &["--anchored-to", wrong]).0, 2, "{wrong}");
    }
    fs::remove_file(home.database()).unwrap();
    let text = log_text(&home);
    replace(&home, "");
    for demand in [["--anchored-to", &head], ["--anchored-to", "3"], ["--anchored-since", "1"]] {
        let (code, found) = verify(&home, &demand);
        assert_eq!((code, &found["status"]), (1, &"broken".into()), "{demand:?} {found}");
    }
    // Without its first record, as retention leaves a log.
    let file = folder(&home).join("00000000000000000002-20261121T100000Z.jsonl");
    replace(&home, "");
    fs::write(file, text.split_once('\n').unwrap().1).unwrap();
    fs::remove_file(folder(&home).join("00000000000000000001-20261121T100000Z.jsonl")).unwrap();
    verified(&home, &["--anchored-to", "3"]);
    is_broken(&home, &["--anchored-to", "1"], 1, "the log begins with record 2");
}

#[tokio::test]
async fn what_has_a_file_s_name_and_is_none_is_named_and_holds_nothing_up() {
    let home = Home::embedded();
    run(&home, 3).await;
    let planted = folder(&home).join("00000000000000000900-20991231T000000Z.jsonl");
    let fifo = || assert!(Command::new("mkfifo").arg(&planted).status().unwrap().success());
    let kinds: [(&str, &dyn Fn()); 2] = [("fifo", &fifo), ("folder", &|| fs::create_dir(&planted).unwrap())];
    for (kind, plant) in kinds {
        plant();
        let mut verifying = home.command(&["audit", "verify", "--json"]);
        let mut bounded = Command::new("timeout");
        bounded.arg("30").arg(verifying.get_program()).args(verifying.get_args());
        let output = bounded.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{kind}: {said}");
        assert!(
            said.contains("00000000000000000900") && said.contains("not a regular file"),
            "{kind}: {said}"
        );
        verifying = home.command(&["audit", "query", "--json"]);
        let mut bounded = Command::new("timeout");
        bounded.arg("30").arg(verifying.get_program()).args(verifying.get_args());
        let output = bounded.stdin(Stdio::null()).output().unwrap();
        assert_eq!(
            output.stdout.iter().filter(|byte| **byte == b'\n').count(),
            log_text(&home).lines().count(),
            "{kind}"
        );
        assert!(run(&home, 1).await.contains("not a regular file"), "{kind}");
        let _ = fs::remove_file(&planted);
        let _ = fs::remove_dir(&planted);
        verified(&home, &[]);
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_looked_at_is_not_called_absent() {
    let home = Home::embedded();
    fs::create_dir_all(home.path("data")).unwrap();
    // Root may open every file, but a link to itself fails for each user.
    for name in ["audit", "quarantine.db", "hookgate.db"] {
        std::os::unix::fs::symlink(name, home.path("data").join(name)).unwrap();
    }
    let to = home.path("backup").to_str().unwrap().to_owned();
    for command in [&["audit", "verify"][..], &["quarantine", "list"], &["backup", &to]] {
        let output = home.command(command).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("symbolic links") && !said.contains("no gateway"), "{command:?}: {said}");
        assert_eq!(output.status.code(), Some(1));
    }
}

// -- finding

#[tokio::test]
async fn the_record_that_an_answer_names_is_found_and_times_are_given_as_one_likes() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let answers = [gateway.deliver(&basiq_by_another_secret("a")).await, gateway.admin("/nothing").await];
    let reject = answers[0].json()["reject"].as_str().unwrap().to_owned();
    until("its record", async || gateway.metric("hookgate_audit_records_total").await == 1.0).await;
    let query = |more: &[&str]| home.lines(&[&["audit", "query", "--json"], more].concat());
    assert_eq!(query(&["--id", &reject])[0]["id"], reject);
    assert_eq!(query(&["--id", &reject, "--source", "iof"]).len(), 0);
    assert_eq!(query(&["--id", "rej_00000000000000000000"]).len(), 0);
    let record = &query(&[])[0];
    let day = record["ts"].as_str().unwrap().split_once('T').unwrap().0;
    for (more, found) in [
        (["--since", "1h"], 1),
        (["--since", day], 1),
        (["--since", "9999-12-31"], 0),
        (["--until", "1h"], 0),
        (["--until", day], 0),
        (["--until", "2999-01-01T00:00:00+10:00"], 1),
    ] {
        assert_eq!(query(&more).len(), found, "{more:?}");
    }
    for wrong in ["yesterday", "2026-13-01", "1"] {
        let mut command = home.command(&["audit", "query", "--since", wrong]);
        assert_eq!(command.stderr(Stdio::null()).status().unwrap().code(), Some(2), "{wrong}");
    }
}

// -- elsewhere

/// By the configs of `deploy/reject-log`. A record may come twice, and its `seq` tells which one it is.
#[tokio::test]
async fn rsyslog_takes_every_record_elsewhere_over_restarts_of_either_side() {
    let elsewhere = tempfile::tempdir().unwrap();
    let home = Home::embedded().with("audit.key", KEY).with("audit.max_bytes", "256KiB");
    let port = free_port();
    let mut receiver = Rsyslog::start(&edited(
        "rsyslog-receiver.conf",
        &[
            ("port=\"2514\"", &format!("address=\"127.0.0.1\" port=\"{port}\"")),
            ("/var/log/hookgate", elsewhere.path().to_str().unwrap()),
        ],
    ));
    let mut sender = Rsyslog::start(&edited(
        "rsyslog-sender.conf",
        &[
            ("logs.example.com", "127.0.0.1"),
            ("2514", &port.to_string()),
            ("/var/lib/hookgate", home.path("data").to_str().unwrap()),
        ],
    ));
    let arrives = async || {
        until("every record of the log", async || {
            let there = taken(elsewhere.path());
            log_text(&home).lines().all(|line| there.contains(line))
        })
        .await;
    };
    let mut gateway = home.serve().await;
    refused(&gateway, 20).await;
    arrives().await;

    // The sender has records for the receiver, which is away.
    let waits = async |gateway: &Gateway| {
        refused(gateway, 10).await;
        let listener =
            eventually("the port", async || TcpListener::bind(("127.0.0.1", port)).await.ok()).await;
        within(PATIENCE, "the sender tries to connect", listener.accept()).await.unwrap();
    };

    // The receiver crashes, and is restarted.
    refused(&gateway, 10).await;
    receiver.kill9();
    waits(&gateway).await;
    receiver.restart();
    refused(&gateway, 10).await;
    arrives().await;
    receiver.stop().await;
    waits(&gateway).await;
    receiver.restart();
    arrives().await;

    // The sender is restarted. Meanwhile the gateway begins a file and is restarted too.
    let begun = files::list(&folder(&home)).unwrap().len();
    refused(&gateway, 10).await;
    sender.stop().await;
    until("a new file of the log", async || {
        refused(&gateway, 10).await;
        files::list(&folder(&home)).unwrap().len() > begun
    })
    .await;
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    gateway = home.serve().await;
    sender.restart();
    refused(&gateway, 10).await;
    arrives().await;

    // A sender that is stopped while it waits for the receiver does not send what it had read.
    receiver.kill9();
    waits(&gateway).await;
    sender.stop().await;
    refused(&gateway, 10).await;
    sender.forget();
    sender.restart();
    receiver.restart();
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    arrives().await;

    let log = log_text(&home);
    let records: BTreeSet<&str> = log.lines().collect();
    assert_eq!(verified(&home, &[])["first_seq"], 1, "the gateway has deleted no file");
    assert!(taken(elsewhere.path()).iter().all(|line| records.contains(&**line)), "each is as in the log");
}

/// A config of `deploy/reject-log` with these texts replaced.
fn edited(name: &str, replaced: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/reject-log").join(name);
    let text = fs::read_to_string(path).unwrap();
    replaced.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name}: {from}");
        text.replace(from, to)
    })
}

/// The whole lines that the receiver has written.
fn taken(folder: &Path) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        lines.extend(whole.lines().map(str::to_owned));
    }
    lines
}

// -- the log

/// One run of a gateway with so many refusals, and what it said.
async fn run(home: &Home, count: usize) -> String {
    let mut gateway = home.serve().await;
    refused(&gateway, count).await;
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    gateway.log()
}

/// So many refusals.
async fn refused(gateway: &Gateway, count: usize) {
    for n in 0..count {
        let answer = gateway.deliver(&basiq_by_another_secret(&format!("forged-{n}"))).await;
        assert_eq!(answer.status, 401);
    }
}

fn folder(home: &Home) -> PathBuf {
    home.database().with_file_name("audit")
}

fn log_text(home: &Home) -> String {
    let files = files::list(&folder(home)).unwrap();
    files.iter().map(|file| fs::read_to_string(&file.path).unwrap()).collect()
}

fn records(text: &str) -> Vec<Record> {
    text.lines().map(|line| Record::parse(line.as_bytes()).unwrap()).collect()
}

/// What somebody puts there instead.
fn replace(home: &Home, text: &str) {
    let folder = folder(home);
    fs::create_dir_all(&folder).unwrap();
    for file in files::list(&folder).unwrap() {
        fs::remove_file(file.path).unwrap();
    }
    fs::write(folder.join("00000000000000000001-20261121T100000Z.jsonl"), text).unwrap();
}

/// A record with another status and the hash to it.
fn rehashed(line: &str) -> String {
    let mut record = Record::parse(line.as_bytes()).unwrap();
    (record.status, record.hash) = (200, String::new());
    record.hash = record.digest().unwrap();
    record.line().unwrap()
}

/// The log with a change to the record that `change` says true of, and all hashes made anew.
fn anew(text: &str, change: impl Fn(&mut Record) -> bool) -> String {
    chained(records(text).into_iter().map(|record| {
        let mut changed = record.clone();
        if change(&mut changed) { changed } else { record }
    }))
}

fn chained(records: impl Iterator<Item = Record>) -> String {
    let (mut text, mut prev) = (String::new(), NO_HASH.to_owned());
    for (at, mut record) in records.enumerate() {
        (record.seq, record.prev, record.hash) = (at as u64 + 1, prev, String::new());
        record.hash = record.digest().unwrap();
        text += &(record.line().unwrap() + "\n");
        prev = record.hash;
    }
    text
}

/// `audit verify`: its exit code, and what it says.
fn verify(home: &Home, more: &[&str]) -> (i32, Value) {
    let mut command: Command = home.command(&[&["audit", "verify", "--json"], more].concat());
    let output = command.stdout(Stdio::piped()).stderr(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

#[track_caller]
fn verified(home: &Home, more: &[&str]) -> Value {
    let (code, found) = verify(home, more);
    assert_eq!((code, &found["status"]), (0, &Value::from("ok")), "{found}");
    found
}

/// That a log of these lines is broken at this record.
#[track_caller]
fn named(home: &Home, text: &str, more: &[&str], seq: u64, why: &str) {
    replace(home, text);
    let (code, found) = verify(home, more);
    assert_eq!((code, &found["status"], &found["seq"]), (1, &"broken".into(), &seq.into()), "{why}: {found}");
    assert!(found["why"].as_str().unwrap().contains(why), "{found}");
}

/// That the log as it is is broken at this record.
#[track_caller]
fn is_broken(home: &Home, more: &[&str], seq: u64, why: &str) {
    let (code, found) = verify(home, more);
    assert_eq!((code, &found["status"], &found["seq"]), (1, &"broken".into(), &seq.into()), "{why}: {found}");
    assert!(found["why"].as_str().unwrap().contains(why), "{found}");
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

const PATIENCE: Duration = Duration::from_secs(30);
