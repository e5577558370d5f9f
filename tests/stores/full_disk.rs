//! A gateway on a disk that is full when it starts, and what its log says while the disk is full.

use std::fs;

use support::*;

/// With its data folder on the disk.
fn on(disk: &SmallDisk, home: Home) -> Home {
    home.with("data_dir", disk.path().join("data").to_str())
}

async fn refused(gateway: &Gateway) {
    let answer = gateway.deliver(&basiq_by_another_secret("forged")).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_gateway_before_redis_starts_on_a_full_disk_and_takes_it_into_use_once_there_is_room() {
    let mut redis = Redis::start(Persistence::Always).await;
    // One that has never served, one that was stopped, and one that was killed.
    for before in ["never", "stopped", "killed"] {
        let Some(disk) = SmallDisk::mount(4) else { return };
        let home = on(&disk, Home::redis(&redis).with("spool.enabled", true));
        if before != "never" {
            let mut gateway = home.serve().await;
            gateway.deliver(&basiq(before)).await.assert_accepted(before);
            if before == "killed" {
                gateway.kill9();
            } else {
                gateway.sigterm();
                gateway.exit().await;
            }
        }
        let filler = disk.fill();
        let gateway = home.serve().await;
        let id = format!("full-{before}");
        gateway.deliver(&basiq(&id)).await.assert_accepted(&id);
        let readiness = gateway.readiness().await;
        assert_eq!((&readiness["queue"], &readiness["spool"]), (&"up".into(), &"full".into()), "{before}");
        refused(&gateway).await;
        until("the refusal is counted", async || {
            gateway.metric("hookgate_rejects_total{reason=\"signature_mismatch\",source=\"basiq\"}").await
                == 1.0
        })
        .await;
        fs::remove_file(filler).unwrap();
        until("the spool is there", async || gateway.readiness().await["spool"] == "empty").await;
        redis.kill9();
        let spooled = format!("spooled-{before}");
        gateway.deliver(&basiq(&spooled)).await.assert_accepted(&spooled);
        redis.restart().await;
        until("the spool is drained", async || gateway.metric("hookgate_spool_events").await == 0.0).await;
        assert!(ids(&home.events()).contains(&spooled.as_str()));
        assert_eq!(gateway.log().matches("the database cannot be opened").count(), 1, "{}", gateway.log());
    }
}

/// Its claims are on the disk: it can take nothing until there is room.
#[tokio::test]
async fn a_gateway_before_a_broker_starts_on_a_full_disk_and_serves_once_there_is_room() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    let nats = Nats::start().await;
    nats.create_stream("HOOKS", &["hookgate.>"]).await;
    let home = on(&disk, Home::embedded().with("queue.kind", "nats").with("queue.url", nats.url()));
    let filler = disk.fill();
    let gateway = home.serve_unready().await;
    gateway.deliver(&basiq("evt")).await.assert_come_again();
    assert!(!gateway.ready().await);
    fs::remove_file(filler).unwrap();
    until("it is ready", async || gateway.ready().await).await;
    gateway.deliver(&basiq("evt")).await.assert_accepted("evt");
    assert_eq!(nats.messages("HOOKS").await.len(), 1);
}

#[tokio::test]
async fn a_flood_of_forgeries_onto_a_full_disk_is_one_line_of_the_log_that_names_the_database() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    let home = Home::embedded()
        .with("quarantine.enabled", true)
        .with("quarantine.key", "a key of over sixteen bytes");
    let gateway = on(&disk, home).serve().await;
    let _filler = disk.fill();
    for _ in 0..150 {
        refused(&gateway).await;
    }
    until("the quarantine has dropped them", async || {
        gateway.metric("hookgate_quarantine_dropped_total{source=\"basiq\"}").await >= 100.0
    })
    .await;
    let said = gateway.log();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("refuses writes")).collect();
    assert!(lines.len() == 1 && lines[0].contains("quarantine.db"), "{said}");
    let warnings =
        said.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).count();
    assert!(warnings < 20, "{said}");
}
