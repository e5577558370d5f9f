//! Measurements, run by hand: `cargo test --release --lib inbox::embedded::tests::speed -- --ignored --nocapture`.

use super::*;
use rusqlite::params;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn random_delivery(n: u64, data: &str) -> EnqueueRequest {
    EnqueueRequest {
        identity: Identity(crate::base::clock::random()),
        event: Event::with_payload(&format!("{n:032x}"), data),
        ..forward(0, "a")
    }
}

fn resident_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    format!("{} {}", line("VmRSS"), line("VmHWM"))
}

/// This thread's CPU time. On a shared machine it says more than the wall clock.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn rate(events: usize, spent: Duration, busy: Duration) -> String {
    let events = events as f64;
    format!("{:.0}/s, CPU {:.2} us each", events / spent.as_secs_f64(), busy.as_secs_f64() * 1e6 / events)
}

/// Runs one round and reports events per second and the slowest batch.
fn round(store: &mut Store, batches: usize, size: usize, data: &str) -> String {
    let (mut spent, mut slowest, mut busy) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for n in 0..batches {
        let batch: Vec<EnqueueRequest> =
            (0..size).map(|m| random_delivery((n * size + m) as u64, data)).collect();
        let batch: Vec<&EnqueueRequest> = batch.iter().collect();
        let now = Clock::System.now().as_microsecond();
        let (started, ran) = (crate::base::clock::instant(), cpu());
        store.enqueue(&batch, now).unwrap();
        store.checkpoint();
        let took = started.elapsed();
        spent += took;
        busy += cpu() - ran;
        slowest = slowest.max(took);
    }
    format!("{}, slowest batch {slowest:?}", rate(batches * size, spent, busy))
}

/// Appends the same rows with the same checkpoints, but without an index.
fn append(dir: &TempDir, tuning: &Tuning, batches: usize, size: usize, data: &str) -> String {
    let (conn, _) =
        database::open(&dir.path().join("append.db"), tuning.layout, &super::super::store::tables()).unwrap();
    let (mut spent, mut busy, mut logged) = (Duration::ZERO, Duration::ZERO, 0);
    for n in 0..batches {
        let batch: Vec<EnqueueRequest> =
            (0..size).map(|m| random_delivery((n * size + m) as u64, data)).collect();
        let (started, ran) = (crate::base::clock::instant(), cpu());
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for a in &batch {
            let sql = "INSERT INTO events (identity, body, received, state, id, type, source, event) \
                       VALUES (?1, ?2, 1760000000000000, 0, ?3, ?4, ?5, ?6)";
            let e = &a.event;
            conn.prepare_cached(sql)
                .unwrap()
                .execute(params![a.identity.0, a.body.0, e.id, e.kind.as_ref(), e.source.as_ref(), e.json])
                .unwrap();
            logged += e.json.len() as i64 + 400;
        }
        conn.execute_batch("COMMIT").unwrap();
        if logged > tuning.layout.checkpoint_bytes {
            logged = 0;
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        }
        spent += started.elapsed();
        busy += cpu() - ran;
    }
    rate(batches * size, spent, busy)
}

#[test]
#[ignore = "measures"]
fn speed() {
    let tuning = Tuning {
        layout: Layout {
            page_size: number("PAGE", Layout::default().page_size as usize) as u32,
            checkpoint_bytes: number("CHECKPOINT", Layout::default().checkpoint_bytes as usize) as i64,
        },
        ..Tuning::default()
    };
    let data = format!("{{\"payload\":\"{}\"}}", "x".repeat(1_580));
    let dir = tempfile::tempdir().unwrap();
    let (size, events) = (48, number("EVENTS", 200_000));
    let mut store = Store::open(&dir.path().join("hookgate.db"), days(7, 7), tuning).unwrap();
    println!("page {} checkpoint {} KiB", tuning.layout.page_size, tuning.layout.checkpoint_bytes >> 10);
    let report = |label: &str, store: &mut Store| {
        for _ in 0..number("ROUNDS", 2) {
            println!("{label}: append {}", append(&dir, &tuning, events / size, size, &data));
            println!("{label}: inbox  {}; {}", round(store, events / size, size, &data), resident_kib());
        }
    };
    report("empty", &mut store);
    let prefill = number("PREFILL", 0);
    if prefill > 0 {
        println!("prefill: {}", round(&mut store, prefill / 1024, 1024, "0"));
        report("full", &mut store);
        drop(store);
        let started = crate::base::clock::instant();
        let _store = Store::open(&dir.path().join("hookgate.db"), days(7, 7), tuning).unwrap();
        println!("open: {:?} {}", started.elapsed(), resident_kib());
    }
}
