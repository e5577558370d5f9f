use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::cursor::Link;
use super::lines::{Batch, Lines};
use super::receiver::{READS, Receiver, has_ended};
use super::syslog::Origin;
use super::{PAUSE_MIN, Shipper, Work};
use crate::admin::Readiness;
use crate::audit::tests::{options, records, reject};
use crate::audit::{Audit, files};
use crate::clock::Clock;
use crate::metrics::{AuditMetrics, Metrics};
use crate::secret::Secret;

/// A log of so many records more, by the real writer.
fn log(dir: &std::path::Path, count: u64) {
    let (metrics, readiness) = (Arc::new(Metrics::new().unwrap()), Arc::new(Readiness::default()));
    let mut options = options();
    options.per_second = u32::MAX;
    options.file_bytes = 4000;
    let audit = Audit::open(dir, options, None, Clock::System, metrics, readiness).unwrap();
    (0..count).for_each(|n| audit.record(reject(n)));
    audit.close();
}

fn seqs(batch: &Batch) -> Vec<u64> {
    batch.lines.iter().map(|line| line.seq).collect()
}

#[test]
fn what_was_not_reached_is_read_again_after_a_restart_and_what_was_is_not() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 40);
    let mut lines = Lines::new(dir.path());
    let batch = lines.read(30).unwrap();
    assert_eq!((seqs(&batch), batch.lost, batch.before), ((1..=30).collect(), 0, 0));
    assert!(lines.read(30).unwrap().lines.is_empty());
    lines.reached(&batch.lines[19].link()).unwrap();

    let mut lines = Lines::new(dir.path());
    let batch = lines.read(40).unwrap();
    assert_eq!((seqs(&batch), batch.lost, batch.before), ((21..=40).collect(), 0, 20));
    let text = fs::read_to_string(&files::list(dir.path()).unwrap().last().unwrap().path).unwrap();
    assert_eq!(batch.lines.last().unwrap().text, text.lines().last().unwrap(), "as it stands in the log");
    lines.reached(&batch.lines[19].link()).unwrap();
    log(dir.path(), 2);
    assert_eq!(seqs(&lines.read(42).unwrap()), [41, 42]);
    assert!(Lines::new(dir.path()).read(40).unwrap().lines.is_empty());
}

#[test]
fn a_batch_is_bounded_and_the_next_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 1200);
    let mut lines = Lines::new(dir.path());
    let mut all = Vec::new();
    for expected in [500, 500, 200, 0] {
        let batch = lines.read(1200).unwrap();
        assert_eq!(batch.lines.len(), expected);
        all.extend(seqs(&batch));
    }
    assert_eq!(all, (1..=1200).collect::<Vec<_>>());
}

#[test]
fn what_was_deleted_or_cannot_be_read_before_it_was_shipped_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 40);
    let log_files = files::list(dir.path()).unwrap();
    let mut lines = Lines::new(dir.path());
    let first = lines.read(3).unwrap();
    lines.reached(&first.lines[2].link()).unwrap();
    fs::remove_file(&log_files[0].path).unwrap();
    fs::remove_file(&log_files[1].path).unwrap();
    let third = fs::read_to_string(&log_files[2].path).unwrap();
    fs::write(&log_files[2].path, third.replacen("{\"seq\"", "{\"sex\"", 1)).unwrap();
    for mut lines in [lines, Lines::new(dir.path())] {
        let batch = lines.read(40).unwrap();
        assert_eq!(batch.lost, log_files[2].first_seq - 3, "from 4 to the broken one");
        assert_eq!(seqs(&batch), (log_files[2].first_seq + 1..=40).collect::<Vec<_>>());
    }
    // Where nothing was shipped before, nothing is missed.
    fs::remove_file(dir.path().join(".shipped")).unwrap();
    assert_eq!(Lines::new(dir.path()).read(40).unwrap().lost, 0);
}

/// A line as somebody else would make it, chained to `prev`.
fn forged(like: &str, seq: u64, prev: &str) -> String {
    let mut fields: serde_json::Value = serde_json::from_str(like).unwrap();
    fields["seq"] = seq.into();
    fields["prev"] = prev.into();
    fields["hash"] = "f".repeat(64).into();
    fields.to_string()
}

#[test]
fn lines_forged_between_records_hide_none_of_them() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 40);
    let last = records(dir.path());
    for (n, file) in files::list(dir.path()).unwrap().iter().enumerate() {
        let text = fs::read_to_string(&file.path).unwrap();
        let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
        let zeros = "0".repeat(64);
        // Behind the file's second record, and at its end.
        for at in [all.len(), 2] {
            let before = &last[file.first_seq as usize + at - 2];
            let line = match n % 4 {
                0 => forged(&all[0], u64::MAX, &zeros),
                1 => forged(&all[0], before.seq + 3, &zeros),
                2 => forged(&all[0], before.seq, &before.prev),
                // As the next record would be: only the next file's number tells.
                _ if at == 2 => continue,
                _ => forged(&all[0], before.seq + 1, &before.hash),
            };
            all.insert(at, line);
        }
        fs::write(&file.path, all.join("\n") + "\n").unwrap();
    }
    let mut lines = Lines::new(dir.path());
    let (mut got, mut strays) = (Vec::new(), 0);
    // As the log grows, and over restarts.
    for upto in [2, 3, 7, 8, 20, 40, 40] {
        let batch = lines.read(upto).unwrap();
        assert_eq!((batch.lost, batch.lines.is_empty() || batch.before + 1 == batch.lines[0].seq), (0, true));
        got.extend(batch.lines.iter().map(|line| line.text.clone()));
        strays += batch.strays;
        match batch.lines.last() {
            Some(last) => lines.reached(&last.link()).unwrap(),
            None => assert_eq!(batch.before, 40),
        }
        lines = if upto == 20 { Lines::new(dir.path()) } else { lines };
    }
    assert_eq!(got, last.iter().map(|record| record.line().unwrap()).collect::<Vec<_>>());
    assert!(strays > 4, "{strays}");

    // One that chains where the gateway wrote at the same moment hides the one in its place, and no more.
    let file = &files::list(dir.path()).unwrap()[1];
    let text = fs::read_to_string(&file.path).unwrap();
    let at = &last[file.first_seq as usize];
    let line = forged(text.lines().next().unwrap(), at.seq + 1, &at.hash);
    let whole = at.line().unwrap();
    fs::write(&file.path, text.replacen(&whole, &format!("{whole}\n{line}"), 1)).unwrap();
    fs::remove_file(dir.path().join(".shipped")).unwrap();
    assert_eq!(seqs(&Lines::new(dir.path()).read(40).unwrap()), (1..=40).collect::<Vec<_>>());
}

#[test]
fn what_is_behind_a_gap_within_a_file_is_given_out_again_from_the_second_record_on() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 6);
    let file = files::list(dir.path()).unwrap().remove(0);
    let text = fs::read_to_string(&file.path).unwrap();
    let third = text.lines().nth(2).unwrap();
    fs::write(&file.path, text.replacen(&format!("{third}\n"), "", 1)).unwrap();
    let batch = Lines::new(dir.path()).read(6).unwrap();
    assert_eq!((seqs(&batch), batch.lost + batch.strays), (vec![1, 2, 5, 6], 2));
}

/// What ships the log in `dir` to a URL, and its metrics.
fn ship(dir: &Path, url: &str, synced: u64) -> (Shipper, AuditMetrics, watch::Sender<u64>) {
    let receiver = Receiver::new(&Secret::new(url), "s", 100, None).unwrap();
    let (tell, synced) = watch::channel(synced);
    let metrics = Metrics::new().unwrap().audit;
    (Shipper::start(dir, receiver, synced, metrics.clone()), metrics, tell)
}

#[tokio::test]
async fn two_shippers_never_ship_a_log_at_once() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 3);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("syslog+udp://{}", socket.local_addr().unwrap());
    let mut other = Lines::new(dir.path());
    assert!(other.lock().unwrap());
    let (waiting, metrics, _tell) = ship(dir.path(), &url, 3);
    waiting.finish().await;
    assert_eq!((metrics.shipped.get(), dir.path().join(".shipped").exists()), (0, false));

    let (next, metrics, _tell) = ship(dir.path(), &url, 3);
    drop(other);
    let shipped = async {
        while metrics.shipped.get() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shipped).await.unwrap();
    next.finish().await;
    assert!(Lines::new(dir.path()).lock().unwrap(), "it goes with the shipper");
}

#[tokio::test]
async fn what_was_synced_after_the_last_look_is_looked_at_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (tell, synced) = watch::channel(3);
    let mut work = Work {
        lines: Some(Lines::new(dir.path())),
        receiver: Receiver::new(&Secret::new("syslog+udp://127.0.0.1:9"), "s", 1, None).unwrap(),
        synced,
        metrics: Metrics::new().unwrap().audit,
        closing: Default::default(),
        pause: PAUSE_MIN,
        up: None,
    };
    work.closing.cancel();
    tell.send(4).unwrap();
    assert!(!work.ended(3).await);
    assert!(work.ended(4).await);
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 3);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (shipper, metrics, _tell) = ship(dir.path(), &url, 3);
    let hanging = tokio::task::spawn_blocking(move || {
        let (mut open, _) = listener.accept().unwrap();
        let (mut all, mut part, mut answered) = (String::new(), [0; 4096], 0);
        // It greets, and hangs once it has records.
        while !all.contains("XADD") {
            let read = open.read(&mut part).unwrap();
            assert!(read > 0, "it hung up after {all}");
            all += &String::from_utf8_lossy(&part[..read]);
            while answered < all.matches("SETINFO").count() {
                open.write_all(b"+OK\r\n").unwrap();
                answered += 1;
            }
        }
        open
    });
    let _open = tokio::time::timeout(Duration::from_secs(20), hanging).await.unwrap().unwrap();
    let cut_off = shipper.stop.clone();
    shipper.finish().await;
    assert!(!cut_off.is_cancelled(), "it ends by itself, within the last moment");
    assert_eq!(metrics.shipped.get(), 0);
    assert!(!dir.path().join(".shipped").exists());
}

#[tokio::test]
async fn a_receiver_that_talks_on_is_not_listened_to_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut other, _) = listener.accept().unwrap();
    let mut said = vec![b'x'; READS * 512];
    other.write_all(&said).unwrap();
    drop(other);
    while open.peek(&mut said).await.unwrap() < READS * 512 {}
    open.readable().await.unwrap();
    assert!(!has_ended(&open), "there is more to read");
    assert!(has_ended(&open));
}

#[test]
fn a_log_that_is_not_the_one_that_was_shipped_is_shipped_anew() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 10);
    for stranger in [Link { seq: 5, hash: "0".repeat(64) }, Link { seq: 11, hash: "0".repeat(64) }] {
        let mut lines = Lines::new(dir.path());
        lines.reached(&stranger).unwrap();
        assert_eq!(seqs(&lines.read(10).unwrap()), (1..=10).collect::<Vec<_>>());
    }
    fs::write(dir.path().join(".shipped"), "{\"seq\":").unwrap();
    assert_eq!(lines_left(dir.path()), 10);
    let hash = records(dir.path())[4].hash.clone();
    Lines::new(dir.path()).reached(&Link { seq: 5, hash }).unwrap();
    assert_eq!(lines_left(dir.path()), 5);
}

fn lines_left(dir: &std::path::Path) -> usize {
    Lines::new(dir).read(10).unwrap().lines.len()
}

#[test]
fn a_syslog_message_is_as_rfc_5424_has_it_whatever_the_record_holds() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), 1);
    let mut line = Lines::new(dir.path()).read(1).unwrap().lines.remove(0);
    let origin = Origin::new();
    let message = origin.message(&line);
    let (head, text) = message.split_once("] ").unwrap();
    assert_eq!(text, line.text);
    let fields: Vec<&str> = head.splitn(7, ' ').collect();
    assert_eq!(
        (fields[0], fields[1], fields[3], fields[5]),
        ("<108>1", &*line.ts, "hookgate", "signature_mismatch")
    );
    assert!(!fields[2].is_empty() && fields[4] == std::process::id().to_string(), "{head}");
    assert_eq!(fields[6], "[hookgate@32473 seq=\"1\" source=\"iof\" reason=\"signature_mismatch\"");
    assert_eq!(origin.frame(&line), format!("{} {message}", message.len()));

    line.source = "a\"b\\c]d é".to_owned();
    line.reason = "with spaces, é and far too long for a field of 32".to_owned();
    line.ts = String::new();
    for (status, priority) in [(503, "<107>1 - "), (404, "<108>1 - "), (200, "<109>1 - "), (0, "<109>1 - ")] {
        line.status = status;
        let message = origin.message(&line);
        assert!(message.starts_with(priority), "{message}");
        assert!(message.contains(" withspaces,andfartoolongforafiel [hookgate@32473 "), "{message}");
        assert!(message.contains("source=\"a\\\"b\\\\c\\]d é\""), "{message}");
    }
    line.text = "é".repeat(10);
    let frame = origin.frame(&line);
    let (count, message) = frame.split_once(' ').unwrap();
    assert_eq!(count.parse::<usize>().unwrap(), message.len(), "octets, not characters");
}

#[test]
fn a_url_is_read_or_refused_without_being_told() {
    let new = |url: &str| Receiver::new(&Secret::new(url), "s", 1, None);
    for (url, name) in [
        ("redis://user:hush@cache:7000/3", "redis://cache:7000"),
        ("rediss://:hush@cache", "rediss://cache"),
        ("syslog+tcp://logs:1", "syslog+tcp://logs:1"),
        ("syslog+tcp://logs/", "syslog+tcp://logs"),
        ("syslog+udp://[::1]:514", "syslog+udp://[::1]:514"),
        ("syslog+udp://[::1]", "syslog+udp://[::1]"),
    ] {
        assert_eq!(new(url).map(|receiver| receiver.to_string()), Ok(name.to_owned()), "{url}");
    }
    for url in [
        "hush",
        "http://hush",
        "syslog+tcp://hush@logs:1",
        "syslog+tcp://logs:0",
        "syslog+tcp://logs:hush",
        "syslog+tcp://:1",
        "syslog+udp://logs/hush",
        "redis://:hush@[",
        "rediss://hush/#insecure",
    ] {
        let why = new(url).err().unwrap();
        assert!(!why.contains("hush"), "{why}");
    }
}

#[test]
fn a_receiver_over_tls_is_held_against_the_given_authority() {
    let url = Secret::new("rediss://cache");
    let why = Receiver::new(&url, "s", 1, Some(Path::new("/no/such.pem"))).err().unwrap();
    assert!(why.contains("redis.ca: cannot use /no/such.pem"), "{why}");
}
