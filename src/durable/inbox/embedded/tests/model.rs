//! Compares the store with a map in memory, over random deliveries, crashes, failures and passing time.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// The expected memory: per identity and body, the id and the time.
#[derive(Default)]
struct Model {
    bodies: HashMap<(u64, u8), (String, i64)>,
    first: HashMap<u64, (u8, String, i64)>,
}

impl Model {
    fn enqueue(&mut self, identity: u64, body: u8, drop: bool, now: i64, window: i64) -> Enqueued {
        let id = format!("e{identity}");
        let Some((first_body, first_id, newest)) =
            self.first.get_mut(&identity).filter(|(_, _, newest)| *newest > now - window)
        else {
            self.first.insert(identity, (body, id.clone(), now));
            self.bodies.retain(|(known, _), _| *known != identity);
            return Enqueued::Accepted { id, conflict: false };
        };
        if *first_body == body || *first_body == UNKNOWN || body == UNKNOWN {
            return duplicate(first_id);
        }
        if let Some((id, at)) = self.bodies.get(&(identity, body)).filter(|(_, at)| *at > now - window) {
            let _ = at;
            return duplicate(id);
        }
        *newest = now;
        let hash = BodyHash::of(body.to_string().as_bytes());
        let own = format!("{id}~{}", hex::encode(&hash.0[..4]));
        let entered = if drop { first_id.clone() } else { own.clone() };
        self.bodies.insert((identity, body), (entered, now));
        match drop {
            true => Enqueued::Duplicate { id: first_id.clone(), dropped: true },
            false => Enqueued::Accepted { id: own, conflict: true },
        }
    }
}

/// Stands for [`BodyHash::UNKNOWN`].
const UNKNOWN: u8 = u8::MAX;

#[test]
fn agrees_with_a_map_through_flush_merge_expiry_failure_and_crash() {
    for seed in 0..4 {
        simulate(seed, 1_500);
    }
}

fn simulate(seed: u64, batches: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let options = if seed.is_multiple_of(2) { days(7, 3) } else { days(3, 7) };
    let window = options.window.as_micros() as i64;
    let (mut model, mut now, mut deepest) = (Model::default(), START, 0);
    let mut dir = tempfile::tempdir().unwrap();
    let mut store = super::store(&dir, options);
    for step in 0..batches {
        now += random.random_range(0..DAY / 40);
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..random.random_range(1..20) {
            let (identity, body) =
                (random.random_range(0..3_000), random.random_range(0..40u8).saturating_sub(36));
            let body = if random.random_bool(0.1) { UNKNOWN } else { body };
            let drop = random.random_bool(0.5);
            expected.push(model.enqueue(identity, body, drop, now, window));
            let policy = if drop { OnConflict::Drop } else { OnConflict::Forward };
            let mut request = delivery(identity, &body.to_string(), policy);
            if body == UNKNOWN {
                request.body = BodyHash::UNKNOWN;
            }
            batch.push(request);
        }
        if random.random_bool(0.02) {
            let poison = "CREATE TEMP TRIGGER broken AFTER UPDATE ON runs BEGIN SELECT raise(ABORT, 'x'); END; \
                          CREATE TEMP TRIGGER broken2 BEFORE INSERT ON events WHEN new.seq % 5 = 0 \
                          BEGIN SELECT raise(ABORT, 'x'); END";
            store.conn.execute_batch(poison).unwrap();
            let failed = store.enqueue(&batch.iter().collect::<Vec<_>>(), now).is_err();
            store.conn.execute_batch("DROP TRIGGER broken; DROP TRIGGER broken2").unwrap();
            if failed {
                store.recover(now).unwrap();
            } else {
                continue;
            }
        }
        assert_eq!(enqueue(&mut store, &batch, now), expected, "seed {seed} step {step}");
        let level: Option<i64> = store
            .conn
            .query_row("SELECT max(level) FROM runs WHERE state = 1", [], |row| row.get(0))
            .unwrap();
        deepest = deepest.max(level.unwrap_or(0));
        if random.random_bool(0.01) {
            let image = crash_image(&dir);
            drop(store);
            dir = image;
            store = super::store(&dir, options);
        }
    }
    assert!(deepest >= 3, "never merged deep: {deepest}");
    let garbage: i64 =
        store.conn.query_row("SELECT count(*) FROM runs WHERE state = 2", [], |r| r.get(0)).unwrap();
    assert!(garbage < 40, "garbage piles up: {garbage}");
    let cursors = readable(&dir);
    assert!(cursors.windows(2).all(|pair| pair[0].0 < pair[1].0));
}
