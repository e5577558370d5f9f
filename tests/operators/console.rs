//! The console: each part with data, with nothing and with a broken queue; its token and its guards; that nothing of a body or
//! a secret is in it; that it stays small in a flood; its stream of events. `browser` looks at it as a person does.

mod browser;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use support::blocking::Connection;
use support::providers::Basiq;
use support::{
    Answer, Client, Gateway, Home, PATIENCE, Persistence, Redis, Request, STANDARD_SECRET, TEXT_SECRET,
    TOKEN, atelio, basiq, basiq_about, basiq_by_another_secret, basiq_unreadable, until, within,
};

/// A request of a browser on this machine.
fn get(path: &str) -> Request {
    Request::get(path).with("host", "127.0.0.1:9090")
}

async fn ask(gateway: &Gateway, request: &Request) -> Answer {
    Client::connect(gateway.admin).await.unwrap().deliver(request).await.unwrap()
}

/// The page. The console renders it anew once a second.
async fn page(gateway: &Gateway) -> String {
    let answer = ask(gateway, &get("/")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// The text of one part, without markup.
fn part(page: &str, id: &str) -> String {
    let (_, part) = page.split_once(&format!("data-part=\"{id}\" tabindex=\"-1\">")).unwrap();
    let (part, _) = part.split_once("</section>").unwrap();
    let mut text = String::new();
    for piece in part.split('<') {
        let (_, said) = piece.split_once('>').unwrap_or(("", piece));
        text.push_str(said);
        text.push(' ');
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Waits until a part shows a text.
async fn shows(gateway: &Gateway, id: &str, text: &str) -> String {
    let mut seen = String::new();
    let shown = async {
        loop {
            seen = part(&page(gateway).await, id);
            if seen.contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, shown).await.is_ok(), "{id} does not show {text:?}: {seen}");
    seen
}

#[tokio::test]
async fn the_page_loads_nothing_and_lets_nothing_be_loaded() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let answer = ask(&gateway, &get("/?any=query")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    let policy = answer.header("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    for tag in ["script", "style"] {
        let (_, inside) = answer.body.split_once(&format!("<{tag}>")).unwrap();
        let (inside, _) = inside.split_once(&format!("</{tag}>")).unwrap();
        let hash = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, inside.as_bytes()));
        assert!(policy.contains(&format!("{tag}-src 'sha256-{hash}'")), "{policy}");
    }
    assert!(!answer.body.contains("https://") && !answer.body.contains(" style="));

    for (path, kind) in [("/", "text/html; charset=utf-8"), ("/console/events", "text/event-stream")] {
        let head = Connection::open(gateway.admin).ask(&get(path).method("HEAD"));
        assert_eq!((head.status, head.header("content-type")), (200, Some(kind)));
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/", "/console/events"] {
            let answer = ask(&gateway, &get(path).method(method)).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    assert_eq!(ask(&gateway, &get("/console")).await.status, 404);
    assert_eq!(gateway.deliver(&get("/")).await.status, 404, "it is nothing for the public");
}

#[tokio::test]
async fn with_a_token_it_asks_for_it() {
    let home = Home::embedded().with("admin.token", TOKEN);
    let gateway = home.serve().await;
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let with =
        |path: &str, value: &str| Request::get(path).with("host", "any.example").with("authorization", value);
    for path in ["/", "/console/events"] {
        for refused in [
            get(path),
            with(path, &basic(TOKEN)),
            with(path, &basic("any:")),
            with(path, &basic(&format!("any:{TOKEN}x"))),
            with(path, &basic(&format!("{TOKEN}:any"))),
            with(path, &format!("Bearer {TOKEN}x")),
            with(path, &format!("Digest {TOKEN}")),
            with(path, &basic(&format!("a:{TOKEN}"))).with("authorization", "Bearer x"),
        ] {
            let answer = ask(&gateway, &refused).await;
            assert_eq!(answer.status, 401, "{refused:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"hookgate\""));
            assert!(answer.body.contains("any user name") && !answer.body.contains("<"), "{}", answer.body);
            assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        }
    }
    // A name that another site could point here shows nothing without the token, so any name is taken with it.
    for taken in [basic(&format!("any:{TOKEN}")), basic(&format!(":{TOKEN}")), format!("bearer {TOKEN}")] {
        let answer = ask(&gateway, &with("/", &taken)).await;
        assert_eq!(answer.status, 200, "{taken}");
        assert!(!answer.body.contains(TOKEN));
    }
    // Scrapers go on as before.
    let metrics = ask(&gateway, &with("/metrics", &basic(&format!("any:{TOKEN}")))).await;
    assert_eq!((metrics.status, metrics.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(ask(&gateway, &get("/livez")).await.status, 200);
}

#[tokio::test]
async fn no_other_site_reads_it_through_an_operators_browser() {
    let gateway = Home::embedded().serve().await;
    for (host, status) in [
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("localhost:9090", 200),
        ("evil.example:9090", 421),
        ("127.0.0.1.evil.example", 421),
    ] {
        for path in ["/", "/metrics"] {
            let answer = ask(&gateway, &Request::get(path).with("host", host)).await;
            assert_eq!(answer.status, if path == "/" { status } else { 200 }, "{host} {path}");
        }
    }
    let of_site = |path: &str, site: &str| get(path).with("sec-fetch-site", site);
    assert_eq!(ask(&gateway, &of_site("/", "none")).await.status, 200);
    for site in ["cross-site", "same-site"] {
        assert_eq!(ask(&gateway, &of_site("/", site)).await.status, 403);
        assert_eq!(ask(&gateway, &of_site("/console/events", site)).await.status, 403);
        let link = of_site("/", site).with("sec-fetch-mode", "navigate").with("sec-fetch-dest", "document");
        assert_eq!(ask(&gateway, &link).await.status, 200, "a link that a person follows");
    }
    let answer = ask(&gateway, &get("/")).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn nothing_of_a_body_or_a_secret_is_in_it() {
    const MARKER: &str = "marker-7d1c4f0a";
    let home = Home::embedded().with("admin.token", TOKEN).with("audit.key", TEXT_SECRET);
    let gateway = home.serve().await;
    gateway.deliver(&basiq_about("taken", MARKER)).await.assert_accepted("taken");
    gateway.deliver(&basiq_unreadable(MARKER)).await.taken();
    let tampered = basiq_about("tampered", MARKER);
    let body = [tampered.body.as_slice(), MARKER.as_bytes()].concat();
    assert_eq!(gateway.deliver(&Request { body, ..tampered }).await.status, 401);
    let query = format!("/nothing?{MARKER}={TOKEN}");
    assert_eq!(gateway.deliver(&Request::post(&query, MARKER)).await.status, 404);
    assert_eq!(
        gateway.deliver(&Request::post(&format!("/hooks/securitize/{TOKEN}/x"), MARKER)).await.status,
        404
    );
    let signed = |page: &Answer| page.status == 200 && page.body.contains("signature_mismatch");
    let mut seen = String::new();
    until("the records show", async || {
        let page = ask(&gateway, &get("/").with("authorization", format!("Bearer {TOKEN}"))).await;
        seen = page.body.clone();
        signed(&page) && seen.contains("unknown_path") && seen.contains("taken")
    })
    .await;
    for hidden in [MARKER, TOKEN, STANDARD_SECRET, TEXT_SECRET] {
        assert!(!seen.contains(hidden), "{hidden}");
    }
    let config = part(&seen, "config");
    assert!(config.contains("token = &quot;&lt;redacted&gt;&quot;"), "{config}");
}

#[tokio::test]
async fn every_part_says_what_to_do_while_it_has_nothing() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let page = page(&gateway).await;
    for (id, text) in [
        ("status", "● ready"),
        ("sources", "none since the start silent for under 1 min"),
        ("flow", "No event yet. Send one: hookgate send --source basiq"),
        ("rejects", "No record yet."),
        ("queue", "consumers read it with hookgate events tail --after CURSOR"),
        ("spool", "None. An event that the queue never takes would stand here."),
        ("subscriptions", "No source declares a subscription."),
        ("config", "[edge]"),
    ] {
        assert!(part(&page, id).contains(text), "{id}: {}", part(&page, id));
    }
}

#[tokio::test]
async fn every_part_shows_what_there_is() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis).knowing_both_secrets();
    let gateway = home.serve().await;
    gateway.deliver(&basiq("first")).await.assert_accepted("first");
    gateway.deliver(&basiq("first")).await.assert_duplicate("first");
    gateway.deliver(&basiq_by_another_secret("second")).await.assert_accepted("second");
    gateway.deliver(&atelio("c1", "n1")).await.taken();
    assert_eq!(gateway.deliver(&basiq("second").instead("webhook-id", "x")).await.status, 401);
    let _: String = redis.run(&["XGROUP", "CREATE", "hookgate.events", "billing", "0"]).await;

    let sources = shows(&gateway, "sources", "signature_mismatch 1").await;
    assert!(sources.contains("slot 0 verified 2, slot 1 verified 1"), "{sources}");
    assert!(sources.contains("user.created 2") && sources.contains("under 1 min ago"), "{sources}");
    assert!(sources.contains("none since the start silent for under 1 min"), "{sources}");
    let flow = shows(&gateway, "flow", "second").await;
    let [first, second] =
        ["first", "second"].map(|id| flow.find(&format!("basiq user.created {id}")).unwrap());
    assert!(second < first, "newest first: {flow}");
    let record = &home.records("signature_mismatch")[0];
    let rejects = shows(&gateway, "rejects", record["id"].as_str().unwrap()).await;
    for field in ["detail", "hash", "client"] {
        assert!(rejects.contains(record[field].as_str().unwrap()), "{field}: {rejects}");
    }
    let queue = shows(&gateway, "queue", "billing").await;
    assert!(queue.contains("● up since") && queue.contains("billing hookgate.events 3"), "{queue}");
    shows(&gateway, "config", "kind = &quot;redis&quot;").await;
    // The counts of the last minute and hour are sampled.
    let sampled = shows(&gateway, "status", "Accepted, last minute 3 Refused, last minute 1").await;
    assert!(sampled.contains("Gateway ● ready"), "{sampled}");
    assert!(page(&gateway).await.contains("Accepted in the last hour: 2, at most 2 in a minute"));
    // A reload shows at once.
    let text = std::fs::read_to_string(home.path("hookgate.toml")).unwrap();
    home.write("hookgate.toml", format!("subscriptions.check = \"7h\"\n{text}"));
    shows(&gateway, "config", "check = &quot;7h&quot;").await;
}

#[tokio::test]
async fn a_broken_queue_is_named_with_its_reason_and_the_page_still_comes_at_once() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis).with("spool.enabled", true);
    let gateway = home.serve().await;
    shows(&gateway, "status", "Queue ● up Dedupe ● up Spool ● empty").await;
    redis.kill9();
    let status = shows(&gateway, "status", "Queue ■ down").await;
    assert!(status.contains("■ queue down since") && status.contains("■ dedupe down since"), "{status}");
    let queue = shows(&gateway, "queue", "■ down since").await;
    assert!(queue.contains("New events wait in the spool."), "{queue}");
    gateway.deliver(&basiq("spooled")).await.assert_accepted("spooled");
    shows(&gateway, "spool", "Waiting events 1").await;
    shows(&gateway, "flow", "spooled").await;
    let page = within(Duration::from_secs(1), "a page beside a dead queue", page(&gateway)).await;
    assert!(page.contains("Ready, queue down"));
    // A hand does what the drainer would.
    let hand = rusqlite::Connection::open(home.database()).unwrap();
    hand.execute("UPDATE spool SET why = 'by <b>hand' WHERE id = 'spooled'", []).unwrap();
    redis.restart().await;
    shows(&gateway, "spool", "spooled by &lt;b&gt;hand").await;
    shows(&gateway, "status", "Queue ● up").await;
}

#[test]
fn a_subscription_shows_whether_it_is_as_declared() {
    let api = Basiq::start();
    let home = Home::new(&format!(
        "edge.public_url = \"https://hooks.example.com\"\nsubscriptions.check = \"1s\"\n[sources.it]\nprovider = \"basiq\"\n\
         secrets = [{{ file = \"it.secret\" }}]\n[sources.it.subscription]\nevents = [\"user.created\"]\n\
         secret_file = \"it.secret\"\napi = {{ base = {:?}, key = {{ file = \"api.key\" }} }}\n",
        api.url()
    ));
    home.write("api.key", Basiq::KEY);
    assert_eq!(home.run(&["subscriptions", "apply"]).code, 0);
    let gateway = home.gateway();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        shows(&gateway, "subscriptions", "it basiq user.created ● as declared").await;
        let webhook = api.subscriptions()[0]["id"].as_str().unwrap().to_owned();
        api.change(&webhook, |webhook| webhook["subscribedEvents"] = json!(["consent.created"]));
        shows(&gateway, "subscriptions", "not as declared (1 different)").await;
        shows(&gateway, "status", "the subscription of it is not as declared").await;
    });
    gateway.stop();
}

#[tokio::test]
async fn a_flood_of_paths_and_types_keeps_it_small() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let mut client = Client::connect(gateway.edge).await.unwrap();
    for n in 0..3000 {
        let path = format!("/{n}/{}", "x".repeat(900));
        let request = Request::post(&path, "")
            .with("user-agent", "u".repeat(900))
            .with("x-forwarded-for", "f".repeat(900));
        assert_eq!(client.deliver(&request).await.unwrap().status, 404);
    }
    for n in 0..300 {
        gateway.deliver(&basiq(&format!("{n}-{}", "i".repeat(200)))).await.taken();
    }
    let sources = shows(&gateway, "sources", "unknown_path 3,000").await;
    assert!(sources.contains("user.created 300"), "{sources}");
    let page = page(&gateway).await;
    assert!(page.len() < 200_000, "{}", page.len());
    assert!(
        page.matches("<details").count() <= 25 && part(&page, "flow").matches("user.created").count() <= 25
    );
    shows(&gateway, "rejects", "unknown_path 3,000").await;
}

/// The stream of events, over a socket of its own.
struct Watcher {
    stream: TcpStream,
    read: String,
}

impl Watcher {
    fn open(admin: SocketAddr, request: &Request) -> Watcher {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&request.bytes()).unwrap();
        Watcher { stream, read: String::new() }
    }

    /// Reads until this text comes, and returns what came before it.
    fn wait_for(&mut self, text: &str) -> String {
        let mut bytes = [0; 16 << 10];
        loop {
            if let Some(at) = self.read.find(text) {
                return self.read.drain(..at + text.len()).collect();
            }
            let read = self.stream.read(&mut bytes).unwrap();
            assert!(read > 0, "it ended without {text:?}: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Reads to the end of the connection.
    fn rest(mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        self.read + &String::from_utf8_lossy(&rest)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_is_told_what_changes_and_no_more() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let page = page(&gateway).await;
    let (_, after) = page.split_once("data-after=\"").unwrap();
    let after = after.split('"').next().unwrap();
    let mut watcher = Watcher::open(gateway.admin, &get(&format!("/console/events?after={after}")));
    let head = watcher.wait_for("event: now\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store") && !head.contains("event: config"), "{head}");
    gateway.deliver(&basiq("seen")).await.assert_accepted("seen");
    let told = watcher.wait_for("<code>seen</code>");
    assert!(told.contains("event: flow\n") && !told.contains("event: config"), "{told}");
    // Another process's id, or none: everything.
    for request in [get("/console/events").with("last-event-id", "0000-1"), get("/console/events")] {
        let told = Watcher::open(gateway.admin, &request).wait_for("event: now\n");
        assert!(told.contains("event: config\n") && told.contains("<code>seen</code>"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_watchers() {
    let home = Home::embedded();
    let mut gateway = home.serve().await;
    let mut watcher = Watcher::open(gateway.admin, &get("/console/events"));
    watcher.wait_for("event: now\n");
    gateway.sigterm();
    let ended = within(Duration::from_secs(5), "a stop with a watcher", gateway.exit()).await;
    assert_eq!(ended.code(), Some(0));
    watcher.rest();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_token_ends_the_stream_of_the_old_one() {
    let home = Home::embedded().with("admin.token.file", "token");
    home.write("token", TOKEN);
    let gateway = home.serve().await;
    let request = |token: &str| get("/console/events").with("authorization", format!("Bearer {token}"));
    let mut watcher = Watcher::open(gateway.admin, &request(TOKEN));
    watcher.wait_for("event: now\n");
    home.write("token", "another-token-of-16");
    // At once, and as a whole: its last chunk has no bytes. By itself it would end after a minute.
    let began = tokio::time::Instant::now();
    watcher.wait_for("\r\n0\r\n\r\n");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(ask(&gateway, &request(TOKEN)).await.status, 401);
    Watcher::open(gateway.admin, &request("another-token-of-16")).wait_for("event: now\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_watchers_is_bounded() {
    let gateway = Home::embedded().serve().await;
    let mut watchers: Vec<Watcher> =
        (0..16).map(|_| Watcher::open(gateway.admin, &get("/console/events"))).collect();
    watchers.iter_mut().for_each(|watcher| drop(watcher.wait_for("event: now\n")));
    let answer = ask(&gateway, &get("/console/events")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("10")));
    assert_eq!(ask(&gateway, &get("/")).await.status, 200);
    watchers.pop();
    let again =
        async || Watcher::open(gateway.admin, &get("/console/events")).wait_for("\r\n").contains(" 200 ");
    until("another may watch", again).await;
}
