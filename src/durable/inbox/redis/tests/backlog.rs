//! The bound of a stream, and the metrics of its consumer groups, against a real Redis.

use super::*;

/// An entry's id, and its fields and values.
type Entry = (String, Vec<String>);

/// Reads without acknowledging.
async fn read(server: &Server, group: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let read = ["XREADGROUP", "GROUP", group, "me", "COUNT", &count, "STREAMS", "hooks", ">"];
    let got: Option<Vec<(String, Vec<Entry>)>> = server.run(&read).await;
    got.into_iter().flatten().flat_map(|(_, entries)| entries).map(|(id, _)| id).collect()
}

async fn acknowledge(server: &Server, group: &str, ids: &[String]) {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let _: u64 = server.run(&[&["XACK", "hooks", group], &ids[..]].concat()).await;
}

async fn group(server: &Server, name: &str) {
    let _: String = server.run(&["XGROUP", "CREATE", "hooks", name, "0", "MKSTREAM"]).await;
}

async fn length(server: &Server) -> u64 {
    server.run(&["XLEN", "hooks"]).await
}

/// The ids of the events in the stream.
async fn kept(server: &Server) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = server.run(&["XRANGE", "hooks", "-", "+"]).await;
    entries.into_iter().map(|(_, fields)| fields[1].clone()).collect()
}

fn bounded(max_backlog: u64) -> Options {
    Options { max_backlog, ..options() }
}

#[tokio::test]
async fn at_its_bound_a_stream_loses_what_every_group_has_acknowledged_and_nothing_else() {
    let server = Server::start(&[]).await;
    for name in ["a", "b"] {
        group(&server, name).await;
    }
    let inbox = inbox(&server, bounded(10)).await;
    for n in 0..100 {
        inbox.enqueue(request(&format!("e{n}"), "1")).await.unwrap();
        for name in ["a", "b"] {
            let ids = read(&server, name, 10).await;
            acknowledge(&server, name, &ids).await;
        }
        assert!(length(&server).await <= 10);
    }
    // The ten entries: acknowledged by a, and four of them read by b.
    let _: u64 = server.run(&["XTRIM", "hooks", "MAXLEN", "0"]).await;
    for n in 0..10 {
        inbox.enqueue(request(&format!("f{n}"), "1")).await.unwrap();
    }
    let ids = read(&server, "a", 100).await;
    acknowledge(&server, "a", &ids).await;
    read(&server, "b", 4).await;
    let full = kept(&server).await;
    let said = inbox.enqueue(request("more", "1")).await.unwrap_err().to_string();
    assert!(said.contains("max_backlog") && said.contains("consumer group b"), "{said}");
    assert_eq!(kept(&server).await, full);
    until("it shows", async || inbox.metrics.up.get() == 0 && inbox.metrics.full.get() == 1).await;
    // The third entry that b has read.
    acknowledge(&server, "b", &ids[2..3]).await;
    assert!(inbox.enqueue(request("more", "1")).await.is_err(), "older ones are pending");
    acknowledge(&server, "b", &ids[..2]).await;
    inbox.enqueue(request("more", "1")).await.unwrap();
    assert_eq!(kept(&server).await[..7], full[3..], "no more than is acknowledged");
    until("it shows", async || inbox.metrics.up.get() == 1 && inbox.metrics.full.get() == 0).await;
}

#[tokio::test]
async fn a_full_stream_of_acknowledged_entries_accepts_events_from_any_gateway() {
    let server = Server::start(&[]).await;
    group(&server, "a").await;
    let first = inbox(&server, bounded(200)).await;
    let mut all = tokio::task::JoinSet::new();
    let first = Arc::new(first);
    for n in 0..200 {
        let inbox = first.clone();
        all.spawn(async move { inbox.enqueue(request(&format!("e{n}"), "1")).await.unwrap() });
    }
    all.join_all().await;
    let ids = read(&server, "a", 1000).await;
    acknowledge(&server, "a", &ids).await;
    assert_eq!((ids.len(), length(&server).await), (200, 200));
    // This inbox has enqueued no event yet, so its first call takes all that waits.
    let second = Arc::new(inbox(&server, bounded(200)).await);
    until("it is up", async || second.metrics.up.get() == 1).await;
    let mut all = tokio::task::JoinSet::new();
    for n in 0..200 {
        let inbox = second.clone();
        all.spawn(async move { inbox.enqueue(request(&format!("f{n}"), "1")).await });
    }
    let refused = all.join_all().await.into_iter().filter(Result::is_err).count();
    assert_eq!((refused, length(&server).await), (0, 200));
    assert!(kept(&server).await.iter().all(|id| id.starts_with('f')));
}

#[tokio::test]
async fn a_deleted_pending_entry_does_not_block_trimming() {
    let server = Server::start(&[]).await;
    group(&server, "a").await;
    let inbox = inbox(&server, bounded(4)).await;
    for n in 0..4 {
        inbox.enqueue(request(&format!("e{n}"), "1")).await.unwrap();
    }
    let ids = read(&server, "a", 3).await;
    let _: u64 = server.run(&["XDEL", "hooks", &ids[1]]).await;
    acknowledge(&server, "a", &[ids[0].clone(), ids[2].clone()]).await;
    for n in 4..7 {
        inbox.enqueue(request(&format!("e{n}"), "1")).await.unwrap();
    }
    assert_eq!(kept(&server).await, ["e3", "e4", "e5", "e6"]);
    assert!(inbox.enqueue(request("e7", "1")).await.is_err());
}

#[tokio::test]
async fn an_idle_group_does_not_block_trimming() {
    let server = Server::start(&[]).await;
    group(&server, "a").await;
    // One group with a consumer, and one without.
    for name in ["debug-alice", "debug-bob"] {
        group(&server, name).await;
    }
    let idle = Duration::from_secs(2);
    let patient = inbox(&server, bounded(3)).await;
    let inbox = inbox(&server, Options { ignore_idle_groups: Some(idle), ..bounded(3) }).await;
    for n in 0..3 {
        inbox.enqueue(request(&format!("e{n}"), "1")).await.unwrap();
    }
    read(&server, "debug-alice", 1).await;
    let ids = read(&server, "a", 3).await;
    acknowledge(&server, "a", &ids).await;
    assert!(inbox.enqueue(request("early", "1")).await.is_err(), "both were seen just now");
    let start = clock::instant();
    until("they are ignored", async || inbox.enqueue(request("late", "1")).await.is_ok()).await;
    assert!(start.elapsed() >= idle - Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!(kept(&server).await.last().unwrap(), "late");
    // An active group still keeps its entries.
    let mut ids = read(&server, "a", 1).await;
    for n in 0..2 {
        inbox.enqueue(request(&format!("f{n}"), "1")).await.unwrap();
    }
    assert!(inbox.enqueue(request("more", "1")).await.is_err());
    // A gateway without `ignore_idle_groups` ignores no group.
    ids.extend(read(&server, "a", 3).await);
    acknowledge(&server, "a", &ids).await;
    assert!(patient.enqueue(request("more", "1")).await.is_err());
    // A group that reads again keeps its entries again at once.
    read(&server, "debug-alice", 1).await;
    assert!(inbox.enqueue(request("more", "1")).await.is_err());
}

const FUTURE: &str = "1999999999999-0";

#[tokio::test]
async fn an_id_from_the_future_does_not_end_the_trimming() {
    let server = Server::start(&[]).await;
    group(&server, "a").await;
    let _: String = server.run(&["XADD", "hooks", FUTURE, "id", "x"]).await;
    let inbox = inbox(&server, Options { retain: Duration::from_secs(1), ..options() }).await;
    for n in 0..5 {
        inbox.enqueue(request(&format!("e{n}"), "1")).await.unwrap();
    }
    let ids = read(&server, "a", 4).await;
    acknowledge(&server, "a", &[ids[0].clone(), ids[1].clone(), ids[3].clone()]).await;
    until("what is acknowledged is gone", async || kept(&server).await.len() == 4).await;
    assert_eq!(kept(&server).await, ["e1", "e2", "e3", "e4"], "what is not stays");
    acknowledge(&server, "a", &ids).await;
    let ids = read(&server, "a", 10).await;
    acknowledge(&server, "a", &ids).await;
    until("all of it is gone", async || length(&server).await == 0).await;
}

#[tokio::test]
async fn without_a_group_ids_from_the_future_age_from_when_they_were_seen() {
    let server = Server::start(&[]).await;
    let _: String = server.run(&["XADD", "hooks", FUTURE, "id", "x"]).await;
    let inbox = inbox(&server, Options { retain: Duration::from_secs(2), ..options() }).await;
    let start = clock::instant();
    inbox.enqueue(request("young", "1")).await.unwrap();
    until("both are gone", async || length(&server).await == 0).await;
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
}

/// A group's series: the number of entries that it has not acknowledged, and the age of the oldest.
async fn shown(metrics: &Metrics, group: &str) -> Option<(f64, f64)> {
    let text = metrics.render().unwrap().0;
    let value = |family: &str| {
        let of = format!("hookgate_consumer_group_{family}{{group=\"{group}\",stream=\"hooks\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&of)).map(|value| value.parse().unwrap())
    };
    Some((value("lag_events")?, value("oldest_age_seconds")?))
}

#[tokio::test]
async fn the_metrics_show_each_groups_lag_and_no_group_that_is_gone() {
    let (server, metrics) = (Server::start(&[]).await, Metrics::new().unwrap());
    for n in 1..=12 {
        let _: String = server.run(&["XADD", "hooks", &format!("{n}-0"), "id", "x"]).await;
    }
    let started = ["0", "12", "5-7", "5", "0", "0"];
    for (name, id) in ["new", "done", "odd", "deletes", "pending", "trimmed"].into_iter().zip(started) {
        let _: String = server.run(&["XGROUP", "CREATE", "hooks", name, id]).await;
    }
    read(&server, "pending", 6).await;
    acknowledge(&server, "pending", &["1-0".to_owned(), "4-0".to_owned()]).await;
    read(&server, "trimmed", 12).await;
    // Deletes one pending entry, one unread entry, and the first two.
    let _: u64 = server.run(&["XDEL", "hooks", "5-0", "8-0"]).await;
    let _: u64 = server.run(&["XTRIM", "hooks", "MINID", "3"]).await;
    for n in 0..40 {
        let _: String = server.run(&["XGROUP", "CREATE", "hooks", &format!("z{n:02}"), "11"]).await;
    }
    let inbox = inbox_counted_by(&metrics, &server, bounded(77)).await;
    until("they are shown", async || shown(&metrics, "other").await.is_some()).await;
    let lag = async |group: &str| shown(&metrics, group).await.unwrap().0;
    // The entries 3, 4, 6, 7, 9, 10, 11 and 12 are left.
    assert_eq!(
        (lag("new").await, lag("done").await, lag("odd").await, lag("deletes").await),
        (8.0, 0.0, 6.0, 6.0)
    );
    assert_eq!((lag("pending").await, lag("trimmed").await), (2.0 + 5.0, 8.0));
    assert_eq!(shown(&metrics, "done").await, Some((0.0, 0.0)));
    let age = shown(&metrics, "new").await.unwrap().1;
    assert!(age > 1e9, "since 1970: {age}");
    // Six other groups come before them by name.
    assert_eq!((lag("z25").await, shown(&metrics, "z26").await, lag("other").await), (1.0, None, 14.0));
    let text = metrics.render().unwrap().0;
    for line in [
        "hookgate_queue_backlog_events{queue=\"redis\",stream=\"hooks\"} 8\n",
        "hookgate_queue_max_backlog_events{queue=\"redis\",stream=\"hooks\"} 77\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let _: u64 = server.run(&["XGROUP", "DESTROY", "hooks", "new"]).await;
    until("it is gone", async || shown(&metrics, "new").await.is_none()).await;
    let _: u64 = server.run(&["DEL", "hooks"]).await;
    until("they all are", async || shown(&metrics, "done").await.is_none()).await;
    inbox.close().await;
}

#[tokio::test]
async fn a_large_lag_is_counted_exactly_from_the_shorter_side() {
    let server = Server::start(&[]).await;
    let add = "for n = 1, 3000 do redis.call('XADD', KEYS[1], n .. '-0', 'id', 'x') end return 1";
    let _: u64 = server.run(&["EVAL", add, "1", "hooks"]).await;
    for (name, id) in [("few", "2500"), ("many", "700")] {
        let _: String = server.run(&["XGROUP", "CREATE", "hooks", name, id]).await;
    }
    let _: u64 = server.run(&["XDEL", "hooks", "1000-0", "2600-0", "100-0"]).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info = lag::StreamInfo::of(&mut connection, "hooks").await.unwrap();
    let behind: Vec<u64> = info.groups.iter().map(|group| group.behind).collect();
    assert_eq!(behind, [499, 2298]);
    assert_eq!(info.groups[0].oldest.as_deref(), Some("2501-0"));
    assert_eq!(lag::StreamInfo::of(&mut connection, "absent").await.map(|info| info.length), None);
}
