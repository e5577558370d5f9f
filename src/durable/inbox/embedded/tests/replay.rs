//! An operator's search and replay, beside a store that is open as a gateway has it.

use super::super::replay::{Replay, ReplayError};
use super::*;
use crate::base::clock::Clock;
use crate::durable::inbox::event_filter::EventFilter;

fn scanned(dir: &TempDir, since: Option<i64>, filter: &EventFilter) -> Vec<(i64, String)> {
    let reader = Reader::open(&dir.path().join("hookgate.db")).unwrap();
    let since = since.map(|since| Timestamp::from_microsecond(since).unwrap());
    let mut scan = Scan::begin(reader, since).unwrap();
    let mut found = Vec::new();
    while let Some(page) = scan.next_page(filter).unwrap() {
        found.extend(page.into_iter().map(|one| (one.cursor.parse().unwrap(), one.event)));
    }
    found
}

fn replay(dir: &TempDir, rows: &[i64], now: i64) -> Result<(), ReplayError> {
    let clock = Clock::manual(Timestamp::from_microsecond(now).unwrap());
    let mut replays = Replays::open(&dir.path().join("hookgate.db"), clock).unwrap();
    let event = |row: &i64| {
        let events = readable(dir);
        let of = events.iter().find(|(seq, _)| seq == row);
        of.map_or(Event::for_test("gone"), |(_, json)| Event::parse(json.clone()).unwrap().0.replayed())
    };
    let events: Vec<Event> = rows.iter().map(event).collect();
    let replayed: Vec<_> = rows.iter().zip(&events).map(|(row, event)| Replay { row: *row, event }).collect();
    replays.replay(&replayed)
}

#[test]
fn a_scan_sees_what_a_reader_sees_from_any_time_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(30, 30));
    assert_eq!(scanned(&dir, None, &EventFilter::default()), []);
    assert_eq!(scanned(&dir, Some(START), &EventFilter::default()), []);
    let at = |n: i64| START + n / 3 * DAY;
    for n in 0..20 {
        one(&mut store, forward(n as u64, "a"), at(n));
    }
    one(&mut store, delivery(7, "b", OnConflict::Drop), at(20));
    let all = readable(&dir);
    assert_eq!(scanned(&dir, None, &EventFilter::default()), all);
    for day in -1..9 {
        let since = START + day * DAY;
        let due: Vec<_> = all.iter().filter(|(seq, _)| at(seq - 1) >= since).cloned().collect();
        // An hour later is past the slack.
        assert_eq!(scanned(&dir, Some(since), &EventFilter::default()), due, "day {day}");
        let due: Vec<_> = all.iter().filter(|(seq, _)| at(seq - 1) > since).cloned().collect();
        assert_eq!(scanned(&dir, Some(since + DAY / 24), &EventFilter::default()), due, "after day {day}");
    }
    let ids = Some(["e3", "e19", "none"].map(str::to_owned).into());
    let some = scanned(&dir, None, &EventFilter { ids, ..EventFilter::default() });
    assert_eq!(some, [all[3].clone(), all[19].clone()]);
}

#[test]
fn a_replayed_event_gets_the_next_number_and_the_open_store_goes_on_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    for n in 1..4 {
        one(&mut store, forward(n, "a"), START);
    }
    replay(&dir, &[2, 1], START).unwrap();
    assert_eq!(one(&mut store, forward(4, "a"), START), new("e4"));
    replay(&dir, &[6], START).unwrap();
    assert_eq!(one(&mut store, forward(2, "a"), START), duplicate("e2"));
    assert!(matches!(one(&mut store, forward(2, "b"), START), Enqueued::Accepted { conflict: true, .. }));
    let events = readable(&dir);
    let seen: Vec<(i64, String, bool)> = events
        .iter()
        .map(|(seq, json)| {
            (*seq, Event::parse(json.clone()).unwrap().0.id, json.contains("\"replayed\":true"))
        })
        .collect();
    let conflict = format!("e2~{}", hex::encode(&BodyHash::of(b"b").0[..4]));
    let due = [
        ("e1", false),
        ("e2", false),
        ("e3", false),
        ("e2", true),
        ("e1", true),
        ("e4", false),
        ("e4", true),
        (&conflict, false),
    ];
    let due: Vec<_> = (1..).zip(due).map(|(seq, (id, mark))| (seq, id.to_owned(), mark)).collect();
    assert_eq!(seen, due);
    drop(store);
    assert_eq!(readable(&dir), events, "as before the restart");
}

#[test]
fn of_a_replay_with_a_row_that_is_gone_nothing_enters() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    one(&mut store, forward(1, "a"), START);
    assert!(matches!(replay(&dir, &[1, 9], START), Err(ReplayError::Gone(id)) if id == "gone"));
    assert_eq!(readable(&dir).len(), 1);
}

#[test]
fn a_replay_does_not_extend_how_long_an_event_is_remembered_even_over_a_restart() {
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut open = store(&dir, days(7, 30));
        one(&mut open, forward(1, "a"), START);
        replay(&dir, &[1], START + 6 * DAY).unwrap();
        if restarts {
            drop(open);
            open = store(&dir, days(7, 30));
        }
        assert_eq!(one(&mut open, forward(1, "a"), START + 6 * DAY), duplicate("e1"), "{restarts}");
        assert_eq!(one(&mut open, forward(1, "a"), START + 8 * DAY), new("e1"), "{restarts}");
    }
}
