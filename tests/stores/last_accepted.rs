//! `hookgate_last_accepted_timestamp_seconds` shows a provider that went silent, over kills, restarts and reloads.

use support::{Gateway, Home, Nats, Persistence, Redis, STANDARD_SECRET, basiq, until};

/// Two sources that a delivery may come to, the second of which gets none.
fn sources() -> String {
    source("basiq") + &source("idle")
}

fn source(name: &str) -> String {
    format!("[sources.{name}]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n")
}

async fn last(gateway: &Gateway, source: &str) -> f64 {
    gateway.metric(&format!("hookgate_last_accepted_timestamp_seconds{{source=\"{source}\"}}")).await
}

fn now() -> f64 {
    hookgate::base::clock::Clock::System.now().as_microsecond() as f64 / 1e6
}

/// What the database holds of a source.
fn written(home: &Home, source: &str) -> Option<f64> {
    let conn = rusqlite::Connection::open(home.database()).unwrap();
    let row = conn.query_row("SELECT at FROM last_accepted WHERE source = ?1", [source], |row| row.get(0));
    row.ok().map(|at: i64| at as f64 / 1e6)
}

async fn is_written(home: &Home, source: &str, value: f64) {
    until("the time is written", async || written(home, source) == Some(value)).await;
}

/// Kills a gateway once it has written the times, stops the next one, and looks at the gauges after each.
async fn over_a_kill_and_a_stop(home: Home) {
    let home = home.with_sources(sources());
    let before = now();
    let gateway = home.serve().await;
    let idle = last(&gateway, "idle").await;
    assert!((before..=now()).contains(&idle), "{before} {idle}");
    assert_eq!(gateway.deliver(&basiq("a")).await.status, 200);
    let event = last(&gateway, "basiq").await;
    assert!(event > idle, "{event} {idle}");
    // Requests to no known source have no such series.
    assert!(!gateway.admin("/metrics").await.body.contains("timestamp_seconds{source=\"unknown\"}"));
    is_written(&home, "basiq", event).await;
    is_written(&home, "idle", idle).await;
    gateway.kill9();

    let mut gateway = home.serve().await;
    assert_eq!((last(&gateway, "basiq").await, last(&gateway, "idle").await), (event, idle));
    assert_eq!(gateway.deliver(&basiq("a")).await.status, 200);
    assert_eq!(last(&gateway, "basiq").await, event, "a duplicate is no event");
    assert_eq!(gateway.deliver(&basiq("b")).await.status, 200);
    let later = last(&gateway, "basiq").await;
    assert!(later > event);
    // At once, before the next look.
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    let gateway = home.serve().await;
    assert_eq!((last(&gateway, "basiq").await, last(&gateway, "idle").await), (later, idle));
}

#[tokio::test]
async fn it_is_kept_beside_the_embedded_queue() {
    over_a_kill_and_a_stop(Home::embedded()).await;
}

#[tokio::test]
async fn it_is_kept_beside_redis_with_the_spool_and_without() {
    let redis = Redis::start(Persistence::Always).await;
    over_a_kill_and_a_stop(Home::redis(&redis).with("spool.enabled", true)).await;
    let redis = Redis::start(Persistence::Always).await;
    over_a_kill_and_a_stop(Home::redis(&redis)).await;
}

#[tokio::test]
async fn it_is_kept_beside_a_broker() {
    let nats = Nats::start().await;
    nats.create_stream("hookgate", &["hookgate.>"]).await;
    let home = Home::embedded().with("queue.kind", "nats").with("queue.url", nats.url());
    over_a_kill_and_a_stop(home).await;
}

#[tokio::test]
async fn a_source_that_a_reload_brings_begins_then_and_one_that_comes_back_goes_on() {
    let home = Home::embedded().with_sources(source("basiq"));
    let gateway = home.serve().await;
    assert_eq!(gateway.deliver(&basiq("a")).await.status, 200);
    let event = last(&gateway, "basiq").await;
    let reload = async |home: &Home, source: &str, is_there: bool| {
        home.write_config();
        gateway.sighup();
        until("the source comes or goes", async || (last(&gateway, source).await > 0.0) == is_there).await;
    };
    let home = home.with_sources(source("idle"));
    let before = now();
    reload(&home, "basiq", false).await;
    let idle = last(&gateway, "idle").await;
    assert!((before..=now()).contains(&idle), "{before} {idle}");
    let home = home.with_sources(sources());
    reload(&home, "basiq", true).await;
    assert_eq!((last(&gateway, "basiq").await, last(&gateway, "idle").await), (event, idle));
}

#[tokio::test]
async fn a_database_that_takes_nothing_holds_up_no_event_and_no_start() {
    let home = Home::embedded().with_sources(sources());
    let gateway = home.serve().await;
    let idle = last(&gateway, "idle").await;
    is_written(&home, "idle", idle).await;
    // What every write of the time meets from now on.
    let conn = rusqlite::Connection::open(home.database()).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON last_accepted BEGIN SELECT RAISE(ABORT, 'no'); END";
    conn.execute_batch(refuse).unwrap();
    for id in ["a", "b"] {
        assert_eq!(gateway.deliver(&basiq(id)).await.status, 200);
    }
    let warning = "cannot write down when each source last had an event";
    until("it says so", async || gateway.log().contains(warning)).await;
    gateway.kill9();
    let gateway = home.serve().await;
    assert_eq!(gateway.deliver(&basiq("c")).await.status, 200);
    assert_eq!(last(&gateway, "idle").await, idle);
    let event = last(&gateway, "basiq").await;
    conn.execute_batch("DROP TRIGGER refuse").unwrap();
    is_written(&home, "basiq", event).await;
    assert!(gateway.log().matches(warning).count() <= 1, "{}", gateway.log());
}
