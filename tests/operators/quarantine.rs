//! The quarantine: what was refused for a secret that nobody had told enters once the secret is known, and what never verifies
//! never does, whatever is done to the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use rusqlite::Connection;
use serde_json::Value;
use support::{
    Gateway, Home, Persistence, Redis, Request, STANDARD_SECRET, TEXT_SECRET, TOKEN, atelio, basiq,
    basiq_by_another_secret, basiq_signed_at, basiq_unreadable, basiq_unreadable_by_another_secret, ids,
    investor_update, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const KEY: &str = "a key that is long enough";

fn quarantining(home: Home) -> Home {
    home.with("quarantine.enabled", true).with("quarantine.key", KEY)
}

fn file(home: &Home) -> PathBuf {
    home.database().with_file_name("quarantine.db")
}

fn hand(home: &Home) -> Connection {
    let hand = Connection::open(file(home)).unwrap();
    hand.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    hand
}

fn listed(home: &Home) -> Vec<Value> {
    home.lines(&["quarantine", "list", "--json"])
}

async fn kept(home: &Home, requests: usize) -> Vec<Value> {
    until("the quarantine is there", async || file(home).exists()).await;
    until(&format!("{requests} are kept"), async || listed(home).len() == requests).await;
    listed(home)
}

async fn refused(gateway: &Gateway, delivery: &Request) {
    let answer = gateway.deliver(delivery).await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

/// The same from another address of the loopback.
async fn refused_from(address: &str, gateway: &Gateway, delivery: &Request) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(gateway.edge).await.unwrap();
    stream.write_all(&delivery.bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

async fn ended(mut gateway: Gateway) {
    gateway.sigterm();
    assert!(gateway.exit().await.success(), "{}", gateway.log());
}

/// A command's exit code, and what it prints and says.
fn told(home: &Home, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = home.command(arguments);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The verdicts, by the requests' numbers.
fn reverify(home: &Home, arguments: &[&str]) -> Vec<(i64, Value)> {
    let arguments = [&["quarantine", "reverify", "--json"], arguments].concat();
    let (_, printed, said) = told(home, &arguments);
    assert_eq!(said, "", "{printed}");
    let verdicts = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    verdicts.map(|verdict| (verdict["seq"].as_i64().unwrap(), verdict)).collect()
}

fn only(verdicts: &[(i64, Value)]) -> &Value {
    let [(_, verdict)] = verdicts else { panic!("{verdicts:?}") };
    verdict
}

fn signature(delivery: &Request) -> String {
    let request = String::from_utf8(delivery.bytes()).unwrap();
    let line = request.lines().find_map(|line| line.strip_prefix("webhook-signature: "));
    line.unwrap().to_owned()
}

/// Refused, kept and shown; then the secret is told, and it enters, once, whether or not a gateway runs.
async fn enters_once_its_secret_is_known(home: Home) {
    let gateway = home.serve().await;
    let (first, second) = (basiq_by_another_secret("q-1"), basiq_by_another_secret("q-2"));
    refused(&gateway, &first).await;
    refused(&gateway, &second).await;
    let list = kept(&home, 2).await;
    let (one, seq) = (&list[0], list[0]["seq"].to_string());
    assert_eq!((&one["source"], &one["reason"]), (&"basiq".into(), &"signature_mismatch".into()));
    assert_eq!((&one["client"], &one["key"]), (&"127.0.0.1".into(), &"current".into()));
    assert_eq!(one["bytes"], first.body.len());
    until("its record is written", async || home.records("signature_mismatch").len() == 2).await;
    let record = &home.records("signature_mismatch")[0];
    assert_eq!((&one["reject"], &one["arrived"]), (&record["id"], &record["ts"]));
    assert_eq!(gateway.metric("hookgate_quarantine_kept_total{source=\"basiq\"}").await, 2.0);
    assert_eq!(gateway.metric("hookgate_quarantine_requests").await, 2.0);
    assert!(gateway.metric("hookgate_quarantine_bytes").await > 1000.0);

    let (code, shown, _) = told(&home, &["quarantine", "show", &seq]);
    assert_eq!(code, Some(0));
    let fingerprint = record["headers"]["webhook-signature"].as_str().unwrap();
    for part in [fingerprint, "webhook-id: msg_q-1", "path: /hooks/basiq", "content-type: application/json"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains(&signature(&first)) && !shown.contains("eventTypeId"), "{shown}");
    assert_eq!(told(&home, &["quarantine", "show", "--body", &seq]).1, first.text());
    assert_eq!(home.lines(&["quarantine", "show", &seq, "--body", "--json"])[0]["body"], first.text());

    // Nothing has changed yet.
    let verdicts = reverify(&home, &["--all"]);
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.iter().all(|(_, verdict)| verdict["reason"] == "signature_mismatch"), "{verdicts:?}");
    assert_eq!(home.events().len(), 0);
    ended(gateway).await;

    let home = home.knowing_both_secrets();
    let gateway = home.serve().await;
    assert_eq!(only(&reverify(&home, &[&seq, "--dry-run"]))["verdict"], "passes");
    assert_eq!((home.events().len(), listed(&home).len()), (0, 2));
    let verdicts = reverify(&home, &[&seq]);
    assert_eq!((&only(&verdicts)["verdict"], &only(&verdicts)["id"]), (&"admitted".into(), &"q-1".into()));
    let events = home.events();
    assert_eq!(ids(&events), ["q-1"]);
    assert_eq!(events[0]["recordedtime"], one["arrived"]);
    assert_eq!(events[0]["verifiedby"], "standard-webhooks");
    gateway.deliver(&first).await.assert_duplicate("q-1");
    assert_eq!(gateway.metric("hookgate_quarantine_admitted_total{source=\"basiq\"}").await, 1.0);
    assert_eq!(gateway.metric("hookgate_events_total{source=\"basiq\",type=\"kyc.started\"}").await, 0.0);
    assert_eq!(gateway.metric("hookgate_quarantine_requests").await, 1.0);
    assert_eq!(listed(&home).len(), 1);
    ended(gateway).await;

    let verdicts = reverify(&home, &["--source", "basiq"]);
    assert_eq!((&only(&verdicts)["verdict"], &only(&verdicts)["id"]), (&"admitted".into(), &"q-2".into()));
    assert_eq!(listed(&home).len(), 0);
    let gateway = home.serve().await;
    gateway.deliver(&second).await.assert_duplicate("q-2");
    assert_eq!(ids(&home.events()), ["q-1", "q-2"]);
}

#[tokio::test]
async fn a_refused_delivery_enters_the_embedded_queue_once_its_secret_is_known() {
    enters_once_its_secret_is_known(quarantining(Home::embedded())).await;
}

#[tokio::test]
async fn a_refused_delivery_enters_redis_once_its_secret_is_known() {
    let redis = Redis::start(Persistence::Off).await;
    enters_once_its_secret_is_known(quarantining(Home::redis(&redis))).await;
}

#[tokio::test]
async fn nothing_of_a_body_or_a_signature_is_on_disk_in_clear() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    let delivery = basiq_by_another_secret("secret-id");
    refused(&gateway, &delivery).await;
    kept(&home, 1).await;
    let all = |home: &Home| {
        let files = std::fs::read_dir(file(home).parent().unwrap()).unwrap();
        let names = files.map(|file| file.unwrap().path());
        let ours = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("quarantine"));
        ours.map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>().concat()
    };
    let signature = signature(&delivery);
    let parts =
        ["eventTypeId", "user.created", "secret-id", "au-api.basiq.io", "webhook-", &signature[3..20], KEY];
    let running = all(&home);
    ended(gateway).await;
    for bytes in [running, all(&home)] {
        assert!(bytes.windows(18).any(|window| window == b"signature_mismatch"), "the label is there");
        for part in parts {
            assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()), "{part} is on disk");
        }
    }
}

#[tokio::test]
async fn a_secret_that_a_header_held_is_not_shown() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    let url = format!("https://hooks.test/hooks/securitize/{TOKEN}");
    let delivery = basiq_by_another_secret("q-1").with("user-agent", format!("sender ({url})"));
    refused(&gateway, &delivery).await;
    let seq = kept(&home, 1).await[0]["seq"].to_string();
    for form in [&["quarantine", "show", &seq][..], &["quarantine", "show", &seq, "--json"]] {
        let (code, shown, _) = told(&home, form);
        assert_eq!(code, Some(0), "{shown}");
        assert!(!shown.contains(TOKEN), "{shown}");
        let clean = "sender (https://hooks.test/hooks/securitize/<redacted>)";
        assert!(shown.contains("user-agent") && shown.contains(clean), "{shown}");
    }
    // With a secret out of reach it cannot be known for what it is.
    let home = home.with("sources.late.provider", "securitize");
    let home = home.with("sources.late.path_token.env", "HOOKGATE_TEST_UNSET");
    let (code, shown, said) = told(&home, &["quarantine", "show", &seq]);
    assert_eq!((code, shown.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("sources.late.path_token") && said.contains("HOOKGATE_TEST_UNSET"), "{said}");
}

#[tokio::test]
async fn a_secret_that_was_just_added_counts() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    kept(&home, 1).await;
    let home = home.knowing_both_secrets();
    assert_eq!(only(&reverify(&home, &["--all"]))["id"], "q-1");
    ended(gateway).await;
}

#[tokio::test]
async fn a_tampered_body_is_never_admitted() {
    let home = quarantining(Home::embedded()).knowing_both_secrets();
    let gateway = home.serve().await;
    let mut delivery = basiq("forged");
    delivery.body = delivery.text().replace("user-1", "user-2").into();
    refused(&gateway, &delivery).await;
    let seq = kept(&home, 1).await[0]["seq"].to_string();
    assert_eq!(only(&reverify(&home, &[&seq]))["reason"], "signature_mismatch");
    assert_eq!((home.events().len(), listed(&home).len()), (0, 1));
    ended(gateway).await;
    assert_eq!(only(&reverify(&home, &[&seq]))["reason"], "signature_mismatch");
    assert_eq!((home.events().len(), listed(&home).len()), (0, 1));
}

/// The mark that asks for a verdict proves nothing, and a row proves only what was sealed.
#[tokio::test]
async fn a_row_changed_by_hand_is_never_admitted() {
    let home = quarantining(Home::embedded())
        .with("sources.twin.provider", "basiq")
        .with("sources.twin.secrets", vec![STANDARD_SECRET]);
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    refused(&gateway, &basiq_by_another_secret("q-2")).await;
    // It would pass for its twin's secret, if it were its twin's.
    let mut stale = basiq_signed_at("q-3", -3600);
    refused(&gateway, &stale).await;
    stale.body.push(b' ');
    refused(&gateway, &stale).await;
    kept(&home, 4).await;
    ended(gateway).await;
    let home = home.knowing_both_secrets();
    let _gateway = home.serve().await;
    let hand = hand(&home);
    hand.execute_batch("CREATE TABLE saved AS SELECT * FROM quarantine").unwrap();
    let restore = "UPDATE quarantine SET (arrived, source, provider, reason, reject, client, bytes, key, nonce, sealed) = \
        (SELECT arrived, source, provider, reason, reject, client, bytes, key, nonce, sealed FROM saved \
        WHERE saved.seq = quarantine.seq)";
    let other = "(SELECT min(seq) + 1 FROM saved)";
    let changes = [
        (1, "source = 'twin'".to_owned()),
        (1, "arrived = arrived + 1".to_owned()),
        (1, "reason = 'timestamp_outside_tolerance'".to_owned()),
        (1, "client = '127.0.0.2'".to_owned()),
        (1, "client = 'nobody'".to_owned()),
        (1, "bytes = bytes + 1".to_owned()),
        (1, "arrived = 'noon'".to_owned()),
        (1, "sealed = x'00'".to_owned()),
        (1, "sealed = 'text'".to_owned()),
        (1, "nonce = x'00'".to_owned()),
        (1, format!("sealed = (SELECT sealed FROM saved WHERE seq = {other})")),
        (1, format!("(sealed, nonce) = (SELECT sealed, nonce FROM saved WHERE seq = {other})")),
        // As if it had arrived when it was signed.
        (3, "arrived = arrived - 3600000000".to_owned()),
        (3, "(arrived, source) = (arrived - 3600000000, 'twin')".to_owned()),
    ];
    for (at, (seq, change)) in changes.iter().enumerate() {
        hand.execute(&format!("UPDATE quarantine SET {change} WHERE seq = {seq}"), []).unwrap();
        let mark = "INSERT INTO quarantine_asked VALUES (?1, ?2, 0, unixepoch() * 1000000, NULL)";
        hand.execute(mark, rusqlite::params![format!("run {at}"), seq]).unwrap();
        let verdict = "SELECT coalesce(verdict, '') FROM quarantine_asked WHERE run = ?1";
        let verdict = || {
            let run = format!("run {at}");
            hand.query_row(verdict, [run], |row| row.get::<_, String>(0)).unwrap()
        };
        until("there is a verdict", async || !verdict().is_empty()).await;
        assert!(
            verdict().contains("\"closed\"") && verdict().contains("not what was kept"),
            "{change}: {}",
            verdict()
        );
        hand.execute(restore, []).unwrap();
    }
    assert_eq!(home.events().len(), 0);
    let verdicts: Vec<_> =
        reverify(&home, &["--all"]).into_iter().map(|(_, mut verdict)| verdict["verdict"].take()).collect();
    assert_eq!(
        verdicts,
        ["admitted", "admitted", "refused", "refused"],
        "as they were, the genuine ones pass"
    );
    assert_eq!(ids(&home.events()), ["q-1", "q-2"]);
}

#[tokio::test]
async fn a_stale_one_is_held_against_the_time_it_arrived_and_the_tolerance_of_today() {
    let late = |tolerance: &str| {
        quarantining(Home::embedded())
            .with("sources.late.provider", "basiq")
            .with("sources.late.secrets", vec![STANDARD_SECRET])
            .with("sources.late.tolerance", tolerance)
    };
    let home = late("5m");
    let gateway = home.serve().await;
    refused(&gateway, &basiq_signed_at("late", -3600).to("/hooks/late")).await;
    refused(&gateway, &basiq_signed_at("early", 3600).to("/hooks/late")).await;
    let list = kept(&home, 2).await;
    assert!(list.iter().all(|one| one["reason"] == "timestamp_outside_tolerance"), "{list:?}");
    let verdicts = reverify(&home, &["--all"]);
    assert!(verdicts.iter().all(|(_, one)| one["reason"] == "timestamp_outside_tolerance"), "{verdicts:?}");
    assert_eq!(home.events().len(), 0);
    ended(gateway).await;
    let home = home.with("sources.late.tolerance", "2h");
    let verdicts = reverify(&home, &["--all"]);
    assert!(verdicts.iter().all(|(_, one)| one["verdict"] == "admitted"), "{verdicts:?}");
    assert_eq!(ids(&home.events()), ["late", "early"]);
}

#[tokio::test]
async fn what_its_source_only_observed_when_it_arrived_is_let_in_and_a_wrong_signature_is_not() {
    let home = quarantining(Home::embedded())
        .with("sources.late.provider", "basiq")
        .with("sources.late.secrets", vec![STANDARD_SECRET]);
    let gateway = home.serve().await;
    refused(&gateway, &basiq_signed_at("late", -3600).to("/hooks/late")).await;
    let mut forged = basiq_signed_at("forged", -3600).to("/hooks/late");
    forged.body.push(b' ');
    refused(&gateway, &forged).await;
    kept(&home, 2).await;
    ended(gateway).await;
    let home = home
        .with("sources.late.allow_ips", vec!["203.0.113.0/24"])
        .with("sources.late.observe", vec!["client_not_allowed", "timestamp_outside_tolerance"])
        .with("sources.late.observe_until", "2026-01-31");
    let reasons = |home: &Home| {
        let verdicts = reverify(home, &["--all"]).into_iter();
        verdicts.map(|(_, mut verdict)| verdict["reason"].take()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&home), ["client_not_allowed"; 2], "observing was over when they arrived");
    // Only the late time is observed, then only the address.
    let home = home.with("sources.late.observe_until", "2099-01-31");
    let home = home.with("sources.late.observe", vec!["timestamp_outside_tolerance"]);
    assert_eq!(reasons(&home), ["client_not_allowed"; 2]);
    let home = home.with("sources.late.observe", vec!["client_not_allowed"]);
    assert_eq!(reasons(&home), ["timestamp_outside_tolerance", "signature_mismatch"]);
    assert_eq!(home.events().len(), 0);
    let home = home.with("sources.late.observe", vec!["client_not_allowed", "timestamp_outside_tolerance"]);
    let verdicts = reverify(&home, &["--all"]);
    assert_eq!((&verdicts[0].1["verdict"], &verdicts[0].1["id"]), (&"admitted".into(), &"late".into()));
    assert_eq!(verdicts[1].1["reason"], "signature_mismatch");
    assert_eq!(ids(&home.events()), ["late"]);
}

#[tokio::test]
async fn only_what_is_admitted_counts_as_verified() {
    let source = |name: &str, secret: &str| {
        format!("[sources.{name}]\nprovider = \"{name}\"\nsecrets = [\"{secret}\"]\n")
    };
    let (basiq, wrong) = (source("basiq", STANDARD_SECRET), "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY");
    let home = quarantining(Home::embedded()).with_sources(basiq.clone() + &source("atelio", wrong));
    let gateway = home.serve().await;
    // Its note is no field that the provider's table knows.
    let drifting = atelio("customer-1", "note");
    refused(&gateway, &drifting).await;
    refused(&gateway, &basiq_signed_at("late", -3600)).await;
    let list = kept(&home, 2).await;
    ended(gateway).await;

    let home = home.with_sources(basiq + &source("atelio", TEXT_SECRET));
    let gateway = home.serve().await;
    let counts = async || {
        let text = gateway.admin("/metrics").await.body;
        ["secret_matches_total", "signature_age_seconds_count", "schema_drift_total"].map(|series| {
            let series = format!("hookgate_{series}{{");
            let lines = text.lines().filter(|line| line.starts_with(&series));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
        })
    };
    let drifted = || gateway.log().contains("schema drift");
    let verdicts = reverify(&home, &["--all", "--dry-run"]);
    assert_eq!(verdicts[0].1["verdict"], "passes");
    assert_eq!(verdicts[1].1["reason"], "timestamp_outside_tolerance");
    assert_eq!((counts().await, drifted()), ([0.0; 3], false), "a dry run counts nothing");
    let late = list[1]["seq"].to_string();
    assert_eq!(only(&reverify(&home, &[&late]))["reason"], "timestamp_outside_tolerance");
    assert_eq!((counts().await, drifted()), ([0.0; 3], false), "nor does what is refused again");
    let verdicts = reverify(&home, &["--all"]);
    assert_eq!(verdicts[0].1["verdict"], "admitted");
    assert_eq!((counts().await, drifted()), ([1.0; 3], true));
}

#[tokio::test]
async fn what_no_secret_vouches_for_any_more_stays_refused() {
    let home = quarantining(Home::embedded())
        .with("sources.late.provider", "anduin")
        .with("sources.late.secrets", vec!["whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"]);
    let gateway = home.serve().await;
    refused(&gateway, &basiq("q-1").to("/hooks/late")).await;
    kept(&home, 1).await;
    ended(gateway).await;
    // Its path has a token now, and needs no signature: the request knew no token.
    let home = home.without("sources.late.secrets").with("sources.late.path_token", "0123456789abcdef0123");
    let gateway = home.serve().await;
    let verdicts = reverify(&home, &["--all"]);
    assert_eq!(only(&verdicts)["why"], "the source has no secrets now");
    ended(gateway).await;
    let home = home.without("sources.late.path_token").without("sources.late.provider");
    assert_eq!(only(&reverify(&home, &["--all"]))["verdict"], "no_source");
    assert_eq!((home.events().len(), listed(&home).len()), (0, 1));
    // Another provider's source of that name has other secrets, and reads other bodies.
    let home =
        home.with("sources.late.provider", "basiq").with("sources.late.secrets", vec![STANDARD_SECRET]);
    assert_eq!(only(&reverify(&home, &["--all"]))["why"], "the source now has another provider");
}

#[tokio::test]
async fn a_flood_from_one_client_does_not_flush_what_another_sent() {
    let home = quarantining(Home::embedded()).with("quarantine.max_bytes", "96KiB");
    let gateway = home.serve().await;
    refused_from("127.0.0.2", &gateway, &basiq_by_another_secret("genuine")).await;
    kept(&home, 1).await;
    for n in 0..80 {
        refused(&gateway, &basiq_by_another_secret(&format!("forged-{n}"))).await;
    }
    let series = async |name: &str| {
        gateway.metric(&format!("hookgate_quarantine_{name}_total{{source=\"basiq\"}}")).await
    };
    let requests = async || gateway.metric("hookgate_quarantine_requests").await;
    // What was kept is either there or was pushed out, and what was not kept is counted as that too.
    until("all are counted", async || series("dropped").await + requests().await == 81.0).await;
    assert!(series("dropped").await > 60.0 && series("kept").await < 81.0);
    assert!(gateway.metric("hookgate_quarantine_bytes").await <= 98_304.0);
    let list = listed(&home);
    assert_eq!(list[0]["client"], "127.0.0.2", "{list:?}");
    assert!(list.len() > 2 && list[1..].iter().all(|one| one["client"] == "127.0.0.1"), "{list:?}");
    // What nobody waits for in vain is let in, and the rest goes.
    ended(gateway).await;
    let home = home.knowing_both_secrets();
    let seq = list[0]["seq"].to_string();
    assert_eq!(only(&reverify(&home, &[&seq]))["id"], "genuine");
    let dropped = &home.lines(&["quarantine", "drop", "--source", "basiq", "--json"])[0]["dropped"];
    assert_eq!(*dropped, list.len() - 1);
    assert_eq!(listed(&home).len(), 0);
}

#[tokio::test]
async fn what_operators_do_is_recorded_with_a_gateway_and_without_one() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    for id in ["q-1", "q-2", "q-3", "q-4"] {
        refused(&gateway, &basiq_by_another_secret(id)).await;
    }
    let list = kept(&home, 4).await;
    let reject = |at: usize| list[at]["reject"].as_str().unwrap();
    let acts = || -> Vec<String> {
        let detail = |act: &Value| act["detail"].as_str().unwrap().rsplit_once(", by ").unwrap().0.to_owned();
        home.records("operator").iter().map(detail).collect()
    };
    told(&home, &["quarantine", "show", reject(0)]);
    reverify(&home, &["--all", "--dry-run"]);
    assert_eq!(acts(), Vec::<String>::new(), "nothing was done");
    let (_, body, _) = told(&home, &["quarantine", "show", "--body", reject(0)]);
    assert!(body.contains("eventTypeId"), "{body}");
    reverify(&home, &[reject(0), reject(1)]);
    assert_eq!(home.lines(&["quarantine", "drop", reject(0), "--json"])[0]["dropped"], 1);
    let (code, _, said) = told(&home, &["quarantine", "drop", reject(0), reject(1), "99"]);
    assert_eq!(
        (code, said.contains(&format!("no kept request {}, 99; nothing", reject(0)))),
        (Some(1), true),
        "{said}"
    );
    let expected = [
        format!("the body of a kept request was printed (asked for: {})", reject(0)),
        format!("2 kept requests verified again: 2 refused (asked for: {}, {})", reject(0), reject(1)),
        format!("1 kept request dropped (asked for: {})", reject(0)),
    ];
    assert_eq!(acts(), expected);
    assert_eq!(
        gateway
            .metric("hookgate_requests_total{outcome=\"rejected\",provider=\"basiq\",source=\"basiq\"}")
            .await,
        4.0
    );
    ended(gateway).await;

    let home = home.knowing_both_secrets();
    reverify(&home, &[reject(1)]);
    assert_eq!(home.events()[0]["quarantined"], true);
    let (code, _, said) = told(&home, &["quarantine", "drop", "--source", "nobody"]);
    assert!(code == Some(1) && said.contains("no such source; it has: "), "{said}");
    assert_eq!(told(&home, &["quarantine", "drop", "--source", "atelio"]).1, "0 dropped\n");
    home.lines(&["quarantine", "drop", "--source", "basiq", "--json"]);
    let acts: Vec<Value> = home.records("operator").split_off(3);
    let detail = |at: usize| acts[at]["detail"].as_str().unwrap();
    assert_eq!(acts.len(), 2, "{acts:?}");
    assert!(detail(0).starts_with("1 kept request verified again: 1 admitted"), "{acts:?}");
    assert!(detail(1).starts_with("2 kept requests dropped, by "), "{acts:?}");
    assert!(acts.iter().all(|act| act["source"] == "basiq" && act["status"] == 200), "{acts:?}");
    assert_eq!(home.command(&["audit", "verify"]).status().unwrap().code(), Some(0));
}

#[tokio::test]
async fn what_is_older_than_retain_is_gone() {
    let home = quarantining(Home::embedded()).with("quarantine.retain", "3s");
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    until("it is kept", async || {
        gateway.metric("hookgate_quarantine_kept_total{source=\"basiq\"}").await == 1.0
    })
    .await;
    until("it is gone", async || gateway.metric("hookgate_quarantine_requests").await == 0.0).await;
    assert_eq!(listed(&home).len(), 0);
    assert_eq!(gateway.metric("hookgate_quarantine_dropped_total{source=\"basiq\"}").await, 0.0);
}

#[tokio::test]
async fn only_what_was_refused_for_its_signature_or_its_time_is_kept() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    gateway.deliver(&basiq("fine")).await.assert_accepted("fine");
    let unsigned = investor_update(1, "domain").to("/hooks/basiq");
    refused(&gateway, &unsigned).await;
    let nowhere = gateway.deliver(&basiq("q").to("/hooks/nowhere")).await;
    assert_eq!(nowhere.status, 404);
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    assert_eq!(kept(&home, 1).await[0]["reason"], "signature_mismatch");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_enters_as_its_bytes() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    refused(&gateway, &basiq_unreadable_by_another_secret("[1]")).await;
    kept(&home, 1).await;
    ended(gateway).await;

    let home = home.knowing_both_secrets();
    let gateway = home.serve().await;
    assert_eq!(only(&reverify(&home, &["--all", "--dry-run"]))["verdict"], "passes");
    assert_eq!(gateway.metric("hookgate_unreadable_total{source=\"basiq\"}").await, 0.0);
    let verdicts = reverify(&home, &["--all"]);
    assert_eq!(only(&verdicts)["verdict"], "admitted");
    let [event] = &home.events()[..] else { panic!("{verdicts:?}") };
    assert_eq!((&event["id"], &event["type"]), (&only(&verdicts)["id"], &"unmapped.unreadable".into()));
    assert_eq!(event["data"]["payload_base64"], "WzFd");
    assert_eq!(gateway.metric("hookgate_unreadable_total{source=\"basiq\"}").await, 1.0);
    let id = event["id"].as_str().unwrap();
    gateway.deliver(&basiq_unreadable("[1]")).await.assert_duplicate(id);
    assert_eq!(gateway.metric("hookgate_unreadable_total{source=\"basiq\"}").await, 1.0);
}

#[tokio::test]
async fn without_a_quarantine_nothing_is_written() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    until("it is recorded", async || home.records("signature_mismatch").len() == 1).await;
    assert_eq!(gateway.metric("hookgate_quarantine_kept_total{source=\"basiq\"}").await, 0.0);
    ended(gateway).await;
    assert!(!file(&home).exists());
    for command in [&["list"][..], &["show", "1"], &["drop", "--all"], &["reverify", "--all"]] {
        let (code, _, said) = told(&home, &[&["quarantine"], command].concat());
        assert_eq!(code, Some(1));
        assert!(said.contains("no gateway has run with quarantine.enabled = true"), "{said}");
    }
}

#[tokio::test]
async fn a_gateway_without_a_quarantine_leaves_what_is_there_and_says_so() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    kept(&home, 1).await;
    ended(gateway).await;
    let home = home.with("quarantine.enabled", false).knowing_both_secrets();
    let gateway = home.serve().await;
    assert!(gateway.log().contains("the quarantine is off"), "{}", gateway.log());
    let (code, _, said) = told(&home, &["quarantine", "reverify", "--all"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("restart it with quarantine.enabled = true, or stop it"), "{said}");
    assert_eq!(listed(&home).len(), 1);
    ended(gateway).await;
    assert_eq!(only(&reverify(&home, &["--all"]))["id"], "q-1");
}

#[test]
fn a_key_that_is_missing_or_short_is_a_problem() {
    let home = Home::embedded().with("quarantine.enabled", true);
    let (code, printed, _) = told(&home, &["check"]);
    assert_eq!(code, Some(1));
    assert!(printed.contains("quarantine.key: missing"), "{printed}");
    let home = home.with("quarantine.key", "fifteen bytes..");
    let (code, printed, _) = told(&home, &["check"]);
    assert_eq!(code, Some(1));
    assert!(printed.contains("quarantine.key: the secret has 15 bytes; it needs at least 16"), "{printed}");
    assert!(!printed.contains("fifteen bytes"), "{printed}");
    let home =
        home.with("quarantine.key", KEY).with("dedupe.window", "1h").with("quarantine.max_bytes", "1MiB");
    let (code, printed, _) = told(&home, &["check"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("warning: quarantine.retain: longer than dedupe.window"), "{printed}");
    assert!(printed.contains("warning: quarantine.max_bytes: one client may use a quarter"), "{printed}");
    let bodies = "bodies over 33550336 bytes are not kept";
    for (max_body, warned) in [("33550336B", false), ("33550337B", true)] {
        let home = quarantining(Home::embedded()).with("edge.max_body", max_body);
        let (code, printed, _) = told(&home, &["check"]);
        assert!(code == Some(0) && printed.contains(bodies) == warned, "{max_body}: {printed}");
    }
}

#[tokio::test]
async fn under_another_key_what_is_kept_is_listed_and_stays_closed() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    let seq = kept(&home, 1).await[0]["seq"].to_string();
    ended(gateway).await;
    let home = home.with("quarantine.key", "the key after this one").knowing_both_secrets();
    let gateway = home.serve().await;
    assert_eq!(listed(&home)[0]["key"], "other");
    let (code, printed, _) = told(&home, &["quarantine", "list"]);
    assert!(code == Some(0) && printed.contains("(kept under another quarantine.key)"), "{printed}");
    let (code, _, said) = told(&home, &["quarantine", "show", &seq]);
    assert!(code == Some(1) && said.contains("set quarantine.key to that one"), "{said}");
    let verdicts = reverify(&home, &["--all"]);
    assert_eq!(only(&verdicts)["verdict"], "closed");
    assert!(only(&verdicts)["why"].as_str().unwrap().contains("another quarantine.key"), "{verdicts:?}");
    ended(gateway).await;
    let home = home.with("quarantine.key", KEY);
    assert_eq!(only(&reverify(&home, &["--all"]))["id"], "q-1");
}

#[tokio::test]
async fn while_the_queue_is_away_they_stay_and_the_command_says_so() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = quarantining(Home::redis(&redis));
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    kept(&home, 1).await;
    ended(gateway).await;
    let home = home.knowing_both_secrets();
    let gateway = home.serve().await;
    redis.stop().await;
    until("the queue is down", async || !gateway.ready().await).await;
    let (code, printed, said) = told(&home, &["quarantine", "reverify", "--all"]);
    assert!(
        code == Some(1) && printed.contains("not admitted, and still kept: the queue"),
        "{printed}{said}"
    );
    assert_eq!(listed(&home).len(), 1);
    redis.restart().await;
    until("the queue is back", async || gateway.ready().await).await;
    assert_eq!(only(&reverify(&home, &["--all"]))["id"], "q-1");
    assert_eq!(ids(&home.events()), ["q-1"]);
}

/// Killed at any moment, and between the queue's confirm and the row's end: each is in the queue once, and none is lost.
async fn survives_a_kill(home: Home) {
    let gateway = home.serve().await;
    let ids_of: Vec<String> = (0..40).map(|n| format!("q-{n}")).collect();
    for (n, id) in ids_of.iter().enumerate() {
        let delivery = basiq_by_another_secret(id);
        refused_from(&format!("127.0.0.{}", 1 + n / 20), &gateway, &delivery).await;
    }
    kept(&home, 40).await;
    ended(gateway).await;
    hand(&home).execute_batch("CREATE TABLE saved AS SELECT * FROM quarantine").unwrap();

    let home = home.knowing_both_secrets();
    let gateway = home.serve().await;
    let mut asking = home.command(&["quarantine", "reverify", "--all", "--json"]);
    let asking = asking.stdout(Stdio::piped()).spawn().unwrap();
    // Not by a command: the config file is not to be written again while the other one reads it.
    let admitted = "hookgate_quarantine_admitted_total{source=\"basiq\"}";
    until("some are admitted", async || gateway.metric(admitted).await > 0.0).await;
    gateway.kill9();
    let gateway = home.serve().await;
    // What was asked for is done by the next gateway, and the command hears of it.
    let answered = tokio::task::spawn_blocking(|| asking.wait_with_output().unwrap()).await.unwrap();
    assert!(answered.status.success());
    assert_eq!(String::from_utf8(answered.stdout).unwrap().lines().count(), 40);
    support::assert_each_once(&home.events(), &ids_of);
    assert_eq!(listed(&home).len(), 0);
    // As if the rows had not gone before the kill.
    hand(&home).execute_batch("INSERT INTO quarantine SELECT * FROM saved").unwrap();
    let again = reverify(&home, &["--all"]);
    assert!(again.len() == 40 && again.iter().all(|(_, one)| one["verdict"] == "duplicate"), "{again:?}");
    support::assert_each_once(&home.events(), &ids_of);
    assert_eq!(listed(&home).len(), 0);
    drop(gateway);
}

#[tokio::test]
async fn a_gateway_killed_while_it_admits_loses_none_and_admits_none_twice() {
    survives_a_kill(quarantining(Home::embedded())).await;
}

#[tokio::test]
async fn the_same_holds_with_redis() {
    let redis = Redis::start(Persistence::Always).await;
    survives_a_kill(quarantining(Home::redis(&redis))).await;
}

#[tokio::test]
async fn what_is_not_there_is_said_and_nothing_is_done() {
    let home = quarantining(Home::embedded());
    let gateway = home.serve().await;
    refused(&gateway, &basiq_by_another_secret("q-1")).await;
    let seq = kept(&home, 1).await[0]["seq"].to_string();
    for (arguments, code) in [
        (&["show", "99"][..], 1),
        (&["drop", &seq, "99"], 1),
        (&["reverify", &seq, "99"], 1),
        (&["reverify", "--source", "nobody"], 1),
        (&["drop"], 2),
        (&["reverify"], 2),
        (&["drop", &seq, "--all"], 2),
        (&["reverify", "--all", "--source", "basiq"], 2),
    ] {
        let arguments = [&["quarantine"], arguments].concat();
        let (found, _, said) = told(&home, &arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
    }
    assert_eq!(reverify(&home, &["--source", "atelio"]).len(), 0);
    assert_eq!(listed(&home).len(), 1);
    assert_eq!(home.lines(&["quarantine", "drop", &seq, "--json"])[0]["dropped"], 1);
    assert_eq!(listed(&home).len(), 0);
}
