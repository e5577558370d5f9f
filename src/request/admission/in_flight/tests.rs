//! The shares, held against what they promise over any course of requests and reloads.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Enter(usize, usize),
    Hold(usize, u64),
    Leave(usize),
    Reload,
}

fn edge(max_in_flight: usize, max_in_flight_bytes: u64) -> Edge {
    let (config, problems) = crate::config::parse("sources.any.provider = \"any\"", "".as_ref());
    assert!(problems.is_empty());
    Edge { max_in_flight, max_in_flight_bytes, max_body: 100, ..config.edge }
}

fn gauge() -> IntGauge {
    IntGauge::new("bytes", "bytes").unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What each client that has a place has of either.
fn by_client(places: &[InFlightPermit]) -> HashMap<IpAddr, [u64; 2]> {
    let mut by = HashMap::new();
    for place in places {
        let Some(client) = place.holder.client else { continue };
        let [requests, bytes]: &mut [u64; 2] = by.entry(client).or_default();
        (*requests, *bytes) = (*requests + 1, *bytes + place.bytes());
    }
    by
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..4_usize).prop_map(|(source, client)| Step::Enter(source, client)),
        4 => (0..32_usize, 0..200_u64).prop_map(|(which, bytes)| Step::Hold(which, bytes)),
        3 => (0..32_usize).prop_map(Step::Leave),
        1 => Just(Step::Reload),
    ]
}

proptest! {
    #[test]
    fn each_source_has_its_share_and_each_client_its_part_and_all_together_the_bound(steps in prop::collection::vec(step(), 1..200)) {
        // A third of a half is 2 places and 100 bytes; a client has at most 6 and 300.
        let (edge, gauge) = (edge(12, 600), gauge());
        let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        let clients = [None, Some(ip("203.0.113.7")), Some(ip("203.0.113.8")), Some(ip("2001:db8::"))];
        let mut shares = InFlightLimit::new(&edge, 3, &gauge, None);
        let mut places: Vec<InFlightPermit> = Vec::new();
        for step in steps {
            let requests = |of: &Arc<str>| places.iter().filter(|place| place.holder.source == *of).count();
            let bytes = |of: &Arc<str>| places.iter().filter(|place| place.holder.source == *of).map(InFlightPermit::bytes).sum::<u64>();
            let by = by_client(&places);
            let of_client = |client: Option<IpAddr>| client.and_then(|client| by.get(&client).copied()).unwrap_or_default();
            match step {
                Step::Enter(source, client) => {
                    let client = clients[client];
                    let (had, over) = (requests(&names[source]), of_client(client)[0] >= 6);
                    match shares.enter(&names[source], client) {
                        Ok(place) => {
                            prop_assert!(!over, "a client has more than its part");
                            places.push(place);
                        }
                        Err(rejection) => {
                            prop_assert_eq!(rejection.detail.contains("this client has its part"), over);
                            prop_assert!(over || had >= 2, "refused within its own share");
                            prop_assert!(rejection.detail.contains("edge.max_in_flight:"));
                        }
                    }
                }
                Step::Hold(which, amount) if !places.is_empty() => {
                    let which = which % places.len();
                    let (had, of_source) = (places[which].bytes(), bytes(&places[which].holder.source));
                    let client = places[which].holder.client;
                    let over = client.is_some() && amount > had && of_client(client)[1] - had + amount > 300;
                    match places[which].hold(amount) {
                        Ok(()) => {
                            prop_assert!(!over, "a client holds more than its part");
                            prop_assert_eq!(places[which].bytes(), amount);
                        }
                        Err(rejection) => {
                            prop_assert_eq!(rejection.detail.contains("this client has its part"), over);
                            prop_assert!(over || of_source - had + amount > 100, "refused within its own share");
                            prop_assert!(rejection.detail.contains("edge.max_in_flight_bytes:"));
                            prop_assert_eq!(places[which].bytes(), had);
                        }
                    }
                }
                Step::Leave(which) if !places.is_empty() => drop(places.swap_remove(which % places.len())),
                Step::Reload => shares = InFlightLimit::new(&edge, 3, &gauge, Some(&shares)),
                Step::Hold(..) | Step::Leave(_) => {}
            }
            prop_assert!(places.len() <= 12);
            let held: u64 = places.iter().map(InFlightPermit::bytes).sum();
            prop_assert!(held <= 600);
            prop_assert_eq!(gauge.get(), held as i64);
            prop_assert_eq!(&lock(&shares.ledger).clients, &by_client(&places));
        }
        places.clear();
        prop_assert_eq!(gauge.get(), 0);
        let ledger = lock(&shares.ledger);
        prop_assert_eq!(ledger.common, [0; 2]);
        prop_assert!(ledger.used.values().all(|used| *used == [0; 2]));
        prop_assert!(ledger.clients.is_empty());
    }
}

#[test]
fn one_source_takes_its_share_and_the_common_part_and_leaves_the_others_theirs() {
    let (edge, gauge) = (edge(8, 800), gauge());
    let (greedy, other): (Arc<str>, Arc<str>) = ("greedy".into(), "other".into());
    let shares = InFlightLimit::new(&edge, 2, &gauge, None);
    let mut taken: Vec<InFlightPermit> = std::iter::from_fn(|| shares.enter(&greedy, None).ok()).collect();
    assert_eq!(taken.len(), 6);
    taken[0].hold(600).unwrap();
    assert!(taken[1].hold(1).is_err());
    let mut theirs = [shares.enter(&other, None).unwrap(), shares.enter(&other, None).unwrap()];
    theirs[0].hold(200).unwrap();
    assert!(shares.enter(&other, None).is_err() && theirs[1].hold(1).is_err());
    taken.pop();
    assert!(shares.enter(&other, None).is_ok(), "a place of the common part is anybody's");
}

#[test]
fn one_client_has_its_part_and_is_forgotten_with_its_last_request() {
    let (source, other): (Arc<str>, Arc<str>) = ("source".into(), "other".into());
    let shares = InFlightLimit::new(&edge(8, 800), 2, &gauge(), None);
    let enter = |source: &Arc<str>, client: &str| shares.enter(source, Some(ip(client)));
    let mut taken: Vec<InFlightPermit> =
        [&source, &source, &other, &other].map(|source| enter(source, "2001:db8::ffff:2").unwrap()).into();
    for source in [&source, &other] {
        let refused = enter(source, "2001:db8::3").err().unwrap();
        assert_eq!(refused.reason, Reason::Overloaded);
        assert_eq!(refused.detail, format!("over edge.max_in_flight: {CLIENT_FULL}"), "a /64 is one client");
    }
    let neighbour = enter(&source, "2001:db8:0:1::1").unwrap();
    // A source can have 600 bytes, a client 450.
    taken[0].hold(225).unwrap();
    taken[1].hold(225).unwrap();
    let refused = taken[1].hold(226).unwrap_err();
    assert_eq!(refused.detail, format!("over edge.max_in_flight_bytes: {CLIENT_FULL}"));
    assert_eq!(taken[1].bytes(), 225);
    // A proxy's requests are those of many clients.
    let mut many: Vec<InFlightPermit> = std::iter::from_fn(|| shares.enter(&source, None).ok()).collect();
    assert_eq!(many.len(), 3);
    many[0].hold(150).unwrap();
    taken.pop();
    assert!(enter(&other, "2001:db8::3").is_ok());
    drop((taken, neighbour));
    assert!(lock(&shares.ledger).clients.is_empty());
}

#[test]
fn one_client_always_has_a_request_and_a_body() {
    let source: Arc<str> = "source".into();
    let shares = InFlightLimit::new(&edge(2, 200), 1, &gauge(), None);
    let mut place = shares.enter(&source, Some(ip("203.0.113.7"))).unwrap();
    assert!(shares.enter(&source, Some(ip("::ffff:203.0.113.7"))).is_err(), "the same, written otherwise");
    place.hold(150).unwrap();
    assert!(place.hold(151).is_err());
}

#[test]
fn what_a_client_has_in_flight_counts_on_over_a_reload() {
    let (source, client): (Arc<str>, _) = ("source".into(), Some(ip("203.0.113.7")));
    let before = InFlightLimit::new(&edge(16, 1600), 1, &gauge(), None);
    let mut old: Vec<InFlightPermit> = (0..10).map(|_| before.enter(&source, client).unwrap()).collect();
    let after = InFlightLimit::new(&edge(12, 400), 1, &gauge(), Some(&before));
    assert!(after.enter(&source, client).is_err());
    let other = after.enter(&source, Some(ip("203.0.113.8"))).unwrap();
    old.pop();
    assert!(after.enter(&source, client).is_err(), "it has nine still, which is its part now");
    old[0].hold(300).unwrap();
    assert!(old[1].hold(1).is_err(), "an old request is held to the new part");
    old[1].hold(0).unwrap();
    old.pop();
    let new = after.enter(&source, client).unwrap();
    drop((old, before, new, other));
    assert!(lock(&after.ledger).clients.is_empty());
}

#[test]
fn what_is_in_flight_counts_on_by_the_new_bounds_of_a_reload() {
    let (source, other): (Arc<str>, Arc<str>) = ("source".into(), "other".into());
    let gauge = gauge();
    let before = InFlightLimit::new(&edge(8, 800), 2, &gauge, None);
    let old: Vec<InFlightPermit> = std::iter::from_fn(|| before.enter(&source, None).ok()).collect();
    assert_eq!(old.len(), 6);
    let after = InFlightLimit::new(&edge(4, 400), 2, &gauge, Some(&before));
    drop(InFlightLimit::new(&edge(4, 1), 2, &gauge, Some(&before)));
    assert!(before.enter(&other, None).is_ok(), "nothing changes before the first request");
    assert!(after.enter(&source, None).is_err());
    let place = after.enter(&other, None).unwrap();
    assert!(after.enter(&other, None).is_err(), "the common part is overdrawn by the old ones");
    drop(old);
    let new: Vec<InFlightPermit> = std::iter::from_fn(|| after.enter(&source, None).ok()).collect();
    assert_eq!(new.len(), 3);
    drop((new, place, before));
    assert!(after.enter(&other, None).is_ok());
}

#[test]
fn a_bound_smaller_than_twice_its_sources_is_shared_all_the_same() {
    for (bound, sources, own) in [(10_000, 5, 1000), (4, 3, 1), (3, 3, 1), (2, 3, 0), (1, 1, 1), (5, 0, 2)] {
        let part = Quota::of(bound, sources, 1);
        assert_eq!(part.own, own, "{bound} for {sources}");
        assert_eq!(part.common + part.own * sources.max(1), bound);
    }
}
