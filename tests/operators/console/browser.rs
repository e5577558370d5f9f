//! The console in a real Chromium, driven by its own driver: it fits, the browser complains of nothing, a keyboard reaches
//! everything, and news come by themselves.
//!
//! With `HOOKGATE_SHOTS=FOLDER` it leaves a picture of each view there, at each width, light and dark. With axe-core in
//! `target/tools/axe.min.js`, where tests/run puts it if npm is there, it looks for barriers as well.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::blocking::Connection;
use support::{
    Client, Gateway, Home, PATIENCE, Persistence, Process, Redis, Request, STANDARD_SECRET, TOKEN, atelio,
    basiq, free_port, sources, until,
};
use tokio_util::task::TaskTracker;

/// A browser with one tab. It ends with its driver.
struct Browser {
    driver: SocketAddr,
    session: String,
    _process: Process,
}

impl Browser {
    async fn open() -> Browser {
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command);
        let driver = SocketAddr::from(([127, 0, 0, 1], port));
        until("chromedriver listens", async || TcpStream::connect(driver).is_ok()).await;
        // By a pipe the browser notices that its driver is gone, and ends.
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"];
        let wanted = json!({ "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } });
        let mut browser = Browser { driver, session: String::new(), _process: process };
        let session = browser.order("POST", "", json!({ "capabilities": wanted })).await;
        browser.session = format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    /// A command of WebDriver, or of chromedriver beyond it.
    async fn order(&self, method: &str, command: &str, arguments: Value) -> Value {
        let path = format!("/session{}{command}", self.session);
        let request = Request { body: arguments.to_string().into(), ..Request::new(method, &path) };
        let request = request.with("host", self.driver.to_string()).with("content-type", "application/json");
        // It waits as long as a test may: a browser starts slowly on a busy machine.
        let driver = self.driver;
        let asked = tokio::task::spawn_blocking(move || Connection::open(driver).ask(&request));
        let answer = asked.await.unwrap();
        assert_eq!(answer.status, 200, "{command}: {answer:?}");
        answer.json()["value"].take()
    }

    async fn tell(&self, command: &str, arguments: Value) -> Value {
        self.order("POST", "/goog/cdp/execute", json!({ "cmd": command, "params": arguments })).await
    }

    /// Opens the page in a window of this width, with this colour scheme.
    async fn visit(&self, url: &str, width: u32, scheme: &str) {
        let window = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.tell("Emulation.setDeviceMetricsOverride", window).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.tell("Emulation.setEmulatedMedia", features).await;
        self.order("POST", "/url", json!({ "url": url })).await;
        self.until("it is live", "return document.getElementById('live').textContent.startsWith('Live')")
            .await;
    }

    async fn js(&self, script: &str) -> Value {
        self.order("POST", "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    async fn until(&self, what: &str, script: &str) {
        until(what, async || self.js(script).await == json!(true)).await;
    }

    async fn press(&self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let press = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.tell("Input.dispatchKeyEvent", press).await;
        }
    }

    /// What the browser's console has, such as a violation of the policy.
    async fn complaints(&self) -> Value {
        self.order("POST", "/se/log", json!({ "type": "browser" })).await
    }

    /// Fails if axe-core finds a barrier.
    async fn has_no_barriers(&self, what: &str) {
        let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/axe.min.js");
        let Ok(axe) = std::fs::read_to_string(axe) else { return };
        self.js(&format!("{axe}; return true")).await;
        let script = "axe.run().then((found) => arguments[0](found.violations.map((one) => \
            [one.id, one.help, one.nodes.map((node) => node.html.slice(0, 200))])))";
        let found = self.order("POST", "/execute/async", json!({ "script": script, "args": [] })).await;
        assert_eq!(found, json!([]), "{what}");
    }

    async fn shoot(&self, name: &str, width: u32) {
        let Some(folder) = std::env::var_os("HOOKGATE_SHOTS") else { return };
        let height = self.js("return document.documentElement.scrollHeight").await;
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let shot =
            self.tell("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip })).await;
        let bytes = base64::Engine::decode(&super::STANDARD, shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
    }

    /// Looks at the page at each width, light and dark: it fits, nothing is complained of, no barrier is found.
    async fn looks_well(&self, gateway: &Gateway, name: &str) {
        let url = format!("http://{}/", gateway.admin);
        for width in [1280, 390] {
            for scheme in ["light", "dark"] {
                let what = format!("{name}-{width}-{scheme}");
                self.visit(&url, width, scheme).await;
                let fits = "return document.documentElement.scrollWidth <= innerWidth";
                assert_eq!(self.js(fits).await, json!(true), "{what} scrolls sideways");
                self.shoot(&what, width).await;
                self.has_no_barriers(&what).await;
                assert_eq!(self.complaints().await, json!([]), "{what}");
            }
        }
    }

    async fn close(self) {
        self.order("DELETE", "", json!({})).await;
    }
}

/// What has the focus: its id, or its target.
const FOCUSED: &str = "const one = document.activeElement; return one.id || one.getAttribute('href') || \
    one.parentElement.id || one.tagName";

async fn with_data(redis: &Redis) -> (Home, Gateway) {
    let subscribed = "[sources.subscribed]\nprovider = \"basiq\"\nsecrets = [{ file = \"it.secret\" }]\n\
        [sources.subscribed.subscription]\nevents = [\"user.created\", \"consent.*\"]\nsecret_file = \"it.secret\"\n\
        api = { base = \"http://127.0.0.1:1\", key = \"an-api-key-of-18\" }\n";
    let home = Home::redis(redis).with_sources(sources() + subscribed).with("spool.enabled", true);
    let home = home.with("edge.public_url", "https://hooks.example.com");
    home.write("it.secret", STANDARD_SECRET);
    let gateway = home.serve().await;
    for id in ["first", "first", "second", "third"] {
        gateway.deliver(&basiq(id)).await.taken();
    }
    gateway.deliver(&atelio("c1", "n1")).await.taken();
    gateway.deliver(&basiq("x").instead("webhook-id", "y")).await;
    gateway.deliver(&Request::post("/hooks/basik", "")).await;
    let _: String = redis.run(&["XGROUP", "CREATE", "hookgate.events", "billing", "0"]).await;
    super::shows(&gateway, "queue", "billing").await;
    super::shows(&gateway, "rejects", "signature_mismatch").await;
    super::shows(&gateway, "subscriptions", "cannot be looked at").await;
    (home, gateway)
}

#[tokio::test]
async fn it_looks_well_with_data_with_a_broken_queue_and_with_dead_letters() {
    let mut redis = Redis::start(Persistence::Off).await;
    let (home, gateway) = with_data(&redis).await;
    let browser = Browser::open().await;
    browser.looks_well(&gateway, "data").await;
    redis.kill9();
    super::shows(&gateway, "status", "Queue ■ down").await;
    gateway.deliver(&basiq("waits")).await.taken();
    super::shows(&gateway, "spool", "Waiting events 1").await;
    browser.looks_well(&gateway, "broken").await;
    assert_eq!(browser.js("return document.title").await, json!("Ready, queue down, dedupe down – hookgate"));
    // A hand does what the drainer would.
    let hand = rusqlite::Connection::open(home.database()).unwrap();
    let why = format!("the service refused this event: {}", "long".repeat(100));
    hand.execute("UPDATE spool SET why = ?1 WHERE id = 'waits'", [why]).unwrap();
    redis.restart().await;
    super::shows(&gateway, "spool", "the service refused this event").await;
    super::shows(&gateway, "status", "Queue ● up").await;
    browser.looks_well(&gateway, "dead").await;
    browser.close().await;
}

#[tokio::test]
async fn it_looks_well_with_nothing() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let browser = Browser::open().await;
    browser.looks_well(&gateway, "empty").await;
    browser.close().await;
}

#[tokio::test]
async fn it_looks_well_under_a_flood() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let mut client = Client::connect(gateway.edge).await.unwrap();
    let edge = gateway.edge;
    let flood = TaskTracker::new().spawn(async move {
        let mut client = Client::connect(edge).await.unwrap();
        for n in 0.. {
            let path = format!("/{n}/{}", "x".repeat(700));
            if client.deliver(&Request::post(&path, "").with("user-agent", "<b>".repeat(300))).await.is_err()
            {
                return;
            }
        }
    });
    for n in 0..200 {
        client.deliver(&basiq(&format!("{n}-{}", "i".repeat(200)))).await.unwrap().taken();
    }
    let browser = Browser::open().await;
    browser.looks_well(&gateway, "flood").await;
    flood.abort();
    browser.close().await;
}

#[tokio::test]
async fn news_come_by_themselves_and_disturb_no_reader() {
    let home = Home::embedded().with("admin.token", TOKEN);
    let gateway = home.serve().await;
    let browser = Browser::open().await;
    // The password of the address is asked for once, and sent with the stream too.
    browser.visit(&format!("http://any:{TOKEN}@{}/", gateway.admin), 1280, "light").await;
    let shows = |id: &str| format!("return document.getElementById('flow').textContent.includes('{id}')");
    gateway.deliver(&basiq("news-1")).await.assert_accepted("news-1");
    browser.until("the event shows", &shows("news-1")).await;
    // An open record stays open, and keeps the focus, when another comes.
    gateway.deliver(&Request::post("/one", "")).await;
    browser.until("the record shows", "return document.querySelectorAll('details').length == 1").await;
    browser.js("const one = document.querySelector('details'); one.open = true; one.querySelector('summary').focus()").await;
    gateway.deliver(&Request::post("/two", "")).await;
    browser.until("both show", "return document.querySelectorAll('details').length == 2").await;
    let kept = "const [newer, older] = document.querySelectorAll('details'); \
        return older.open && !newer.open && document.activeElement == older.querySelector('summary')";
    assert_eq!(browser.js(kept).await, json!(true));
    // A paused page waits, and then shows what came.
    browser.js("document.getElementById('pause').click()").await;
    gateway.deliver(&basiq("news-2")).await.assert_accepted("news-2");
    let waits = "return /^Paused at .*; news wait$/.test(document.getElementById('live').textContent)";
    browser.until("it says that news wait", waits).await;
    assert_eq!(browser.js(&shows("news-2")).await, json!(false));
    browser.js("document.getElementById('pause').click()").await;
    browser.until("what came shows", &shows("news-2")).await;
    assert_eq!(browser.complaints().await, json!([]));
    browser.close().await;
}

#[tokio::test]
async fn it_says_when_the_gateway_is_gone() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let browser = Browser::open().await;
    browser.visit(&format!("http://{}/", gateway.admin), 390, "dark").await;
    gateway.kill9();
    browser
        .until(
            "it says so",
            "return document.getElementById('live').textContent.startsWith('Not connected since')",
        )
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_keyboard_reaches_everything_in_the_order_of_the_page() {
    let redis = Redis::start(Persistence::Off).await;
    let (_home, gateway) = with_data(&redis).await;
    let browser = Browser::open().await;
    browser.visit(&format!("http://{}/", gateway.admin), 1280, "light").await;
    let mut reached = Vec::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        browser.press("Tab", 9).await;
        let focused = browser.js(FOCUSED).await.as_str().unwrap().to_owned();
        if reached.contains(&focused) || focused == "BODY" {
            break;
        }
        let ring = "return getComputedStyle(document.activeElement).outlineStyle";
        assert_eq!(browser.js(ring).await, json!("solid"), "{focused} does not show that it has the focus");
        reached.push(focused);
        assert!(tokio::time::Instant::now() < end, "{reached:?}");
    }
    let ids = ["status", "sources", "flow", "rejects", "queue", "spool", "subscriptions", "config"];
    let mut expected = vec!["#main".to_owned(), "pause".to_owned()];
    expected.extend(ids.iter().map(|id| format!("#{id}")));
    let records = browser.js("return [...document.querySelectorAll('details')].map((one) => one.id)").await;
    expected.extend(records.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()));
    expected.push("config-text".to_owned());
    assert_eq!(reached, expected);
    // The first of them leads past the others.
    browser.visit(&format!("http://{}/", gateway.admin), 1280, "light").await;
    browser.press("Tab", 9).await;
    browser.press("Enter", 13).await;
    browser.until("the content has the focus", "return document.activeElement.id == 'main'").await;
    browser.close().await;
}
