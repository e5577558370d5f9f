//! The quotas over random sequences of requests and reloads.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Acquire(usize, usize),
    Reserve(usize, u64),
    Release(usize),
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

/// The requests and bytes of each client that has a permit.
fn by_client(permits: &[InFlightPermit]) -> HashMap<IpAddr, [u64; 2]> {
    let mut by = HashMap::new();
    for permit in permits {
        let Some(client) = permit.holder.client else { continue };
        let [requests, bytes]: &mut [u64; 2] = by.entry(client).or_default();
        (*requests, *bytes) = (*requests + 1, *bytes + permit.bytes());
    }
    by
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..4_usize).prop_map(|(source, client)| Step::Acquire(source, client)),
        4 => (0..32_usize, 0..200_u64).prop_map(|(which, bytes)| Step::Reserve(which, bytes)),
        3 => (0..32_usize).prop_map(Step::Release),
        1 => Just(Step::Reload),
    ]
}

proptest! {
    #[test]
    fn sources_clients_and_the_total_stay_within_their_quotas(steps in prop::collection::vec(step(), 1..200)) {
        // A third of a half is 2 permits and 100 bytes; a client has at most 6 and 300.
        let (edge, gauge) = (edge(12, 600), gauge());
        let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        let clients = [None, Some(ip("203.0.113.7")), Some(ip("203.0.113.8")), Some(ip("2001:db8::"))];
        let mut limit = InFlightLimit::new(&edge, 3, &gauge, None);
        let mut permits: Vec<InFlightPermit> = Vec::new();
        for step in steps {
            let requests = |of: &Arc<str>| permits.iter().filter(|permit| permit.holder.source == *of).count();
            let bytes = |of: &Arc<str>| permits.iter().filter(|permit| permit.holder.source == *of).map(InFlightPermit::bytes).sum::<u64>();
            let by = by_client(&permits);
            let of_client = |client: Option<IpAddr>| client.and_then(|client| by.get(&client).copied()).unwrap_or_default();
            match step {
                Step::Acquire(source, client) => {
                    let client = clients[client];
                    let (had, over) = (requests(&names[source]), of_client(client)[0] >= 6);
                    match limit.acquire(&names[source], client) {
                        Ok(permit) => {
                            prop_assert!(!over, "a client exceeds its quota");
                            permits.push(permit);
                        }
                        Err(rejection) => {
                            prop_assert_eq!(rejection.detail.contains("this client's quota is used up"), over);
                            prop_assert!(over || had >= 2, "refused within its own quota");
                            prop_assert!(rejection.detail.contains("edge.max_in_flight:"));
                        }
                    }
                }
                Step::Reserve(which, amount) if !permits.is_empty() => {
                    let which = which % permits.len();
                    let (had, of_source) = (permits[which].bytes(), bytes(&permits[which].holder.source));
                    let client = permits[which].holder.client;
                    let over = client.is_some() && amount > had && of_client(client)[1] - had + amount > 300;
                    match permits[which].reserve(amount) {
                        Ok(()) => {
                            prop_assert!(!over, "a client exceeds its quota");
                            prop_assert_eq!(permits[which].bytes(), amount);
                        }
                        Err(rejection) => {
                            prop_assert_eq!(rejection.detail.contains("this client's quota is used up"), over);
                            prop_assert!(over || of_source - had + amount > 100, "refused within its own quota");
                            prop_assert!(rejection.detail.contains("edge.max_in_flight_bytes:"));
                            prop_assert_eq!(permits[which].bytes(), had);
                        }
                    }
                }
                Step::Release(which) if !permits.is_empty() => drop(permits.swap_remove(which % permits.len())),
                Step::Reload => limit = InFlightLimit::new(&edge, 3, &gauge, Some(&limit)),
                Step::Reserve(..) | Step::Release(_) => {}
            }
            prop_assert!(permits.len() <= 12);
            let held: u64 = permits.iter().map(InFlightPermit::bytes).sum();
            prop_assert!(held <= 600);
            prop_assert_eq!(gauge.get(), held as i64);
            prop_assert_eq!(&lock(&limit.usage).clients, &by_client(&permits));
        }
        permits.clear();
        prop_assert_eq!(gauge.get(), 0);
        let usage = lock(&limit.usage);
        prop_assert_eq!(usage.common, [0; 2]);
        prop_assert!(usage.used.values().all(|used| *used == [0; 2]));
        prop_assert!(usage.clients.is_empty());
    }
}

#[test]
fn one_source_can_use_its_own_and_the_common_quota_but_not_another_sources() {
    let (edge, gauge) = (edge(8, 800), gauge());
    let (greedy, other): (Arc<str>, Arc<str>) = ("greedy".into(), "other".into());
    let limit = InFlightLimit::new(&edge, 2, &gauge, None);
    let mut taken: Vec<InFlightPermit> = std::iter::from_fn(|| limit.acquire(&greedy, None).ok()).collect();
    assert_eq!(taken.len(), 6);
    taken[0].reserve(600).unwrap();
    assert!(taken[1].reserve(1).is_err());
    let mut theirs = [limit.acquire(&other, None).unwrap(), limit.acquire(&other, None).unwrap()];
    theirs[0].reserve(200).unwrap();
    assert!(limit.acquire(&other, None).is_err() && theirs[1].reserve(1).is_err());
    taken.pop();
    assert!(limit.acquire(&other, None).is_ok(), "any source may use the common quota");
}

#[test]
fn one_client_has_a_quota_and_is_forgotten_with_its_last_request() {
    let (source, other): (Arc<str>, Arc<str>) = ("source".into(), "other".into());
    let limit = InFlightLimit::new(&edge(8, 800), 2, &gauge(), None);
    let acquire = |source: &Arc<str>, client: &str| limit.acquire(source, Some(ip(client)));
    let mut taken: Vec<InFlightPermit> =
        [&source, &source, &other, &other].map(|source| acquire(source, "2001:db8::ffff:2").unwrap()).into();
    for source in [&source, &other] {
        let refused = acquire(source, "2001:db8::3").err().unwrap();
        assert_eq!(refused.reason, Reason::Overloaded);
        assert_eq!(refused.detail, format!("over edge.max_in_flight: {CLIENT_FULL}"), "a /64 is one client");
    }
    let neighbour = acquire(&source, "2001:db8:0:1::1").unwrap();
    // A source can have 600 bytes, a client 450.
    taken[0].reserve(225).unwrap();
    taken[1].reserve(225).unwrap();
    let refused = taken[1].reserve(226).unwrap_err();
    assert_eq!(refused.detail, format!("over edge.max_in_flight_bytes: {CLIENT_FULL}"));
    assert_eq!(taken[1].bytes(), 225);
    // A proxy's requests come from many clients.
    let mut many: Vec<InFlightPermit> = std::iter::from_fn(|| limit.acquire(&source, None).ok()).collect();
    assert_eq!(many.len(), 3);
    many[0].reserve(150).unwrap();
    taken.pop();
    assert!(acquire(&other, "2001:db8::3").is_ok());
    drop((taken, neighbour));
    assert!(lock(&limit.usage).clients.is_empty());
}

#[test]
fn one_client_always_has_a_request_and_a_body() {
    let source: Arc<str> = "source".into();
    let limit = InFlightLimit::new(&edge(2, 200), 1, &gauge(), None);
    let mut permit = limit.acquire(&source, Some(ip("203.0.113.7"))).unwrap();
    assert!(
        limit.acquire(&source, Some(ip("::ffff:203.0.113.7"))).is_err(),
        "the same address in another notation"
    );
    permit.reserve(150).unwrap();
    assert!(permit.reserve(151).is_err());
}

#[test]
fn what_a_client_has_in_flight_counts_on_over_a_reload() {
    let (source, client): (Arc<str>, _) = ("source".into(), Some(ip("203.0.113.7")));
    let before = InFlightLimit::new(&edge(16, 1600), 1, &gauge(), None);
    let mut old: Vec<InFlightPermit> = (0..10).map(|_| before.acquire(&source, client).unwrap()).collect();
    let after = InFlightLimit::new(&edge(12, 400), 1, &gauge(), Some(&before));
    assert!(after.acquire(&source, client).is_err());
    let other = after.acquire(&source, Some(ip("203.0.113.8"))).unwrap();
    old.pop();
    assert!(after.acquire(&source, client).is_err(), "it has nine still, which is its quota now");
    old[0].reserve(300).unwrap();
    assert!(old[1].reserve(1).is_err(), "the new quota applies to old requests too");
    old[1].reserve(0).unwrap();
    old.pop();
    let new = after.acquire(&source, client).unwrap();
    drop((old, before, new, other));
    assert!(lock(&after.usage).clients.is_empty());
}

#[test]
fn what_is_in_flight_counts_on_by_the_new_bounds_of_a_reload() {
    let (source, other): (Arc<str>, Arc<str>) = ("source".into(), "other".into());
    let gauge = gauge();
    let before = InFlightLimit::new(&edge(8, 800), 2, &gauge, None);
    let old: Vec<InFlightPermit> = std::iter::from_fn(|| before.acquire(&source, None).ok()).collect();
    assert_eq!(old.len(), 6);
    let after = InFlightLimit::new(&edge(4, 400), 2, &gauge, Some(&before));
    drop(InFlightLimit::new(&edge(4, 1), 2, &gauge, Some(&before)));
    assert!(before.acquire(&other, None).is_ok(), "nothing changes before the first request");
    assert!(after.acquire(&source, None).is_err());
    let permit = after.acquire(&other, None).unwrap();
    assert!(after.acquire(&other, None).is_err(), "the old requests exceed the common quota");
    drop(old);
    let new: Vec<InFlightPermit> = std::iter::from_fn(|| after.acquire(&source, None).ok()).collect();
    assert_eq!(new.len(), 3);
    drop((new, permit, before));
    assert!(after.acquire(&other, None).is_ok());
}

#[test]
fn a_bound_smaller_than_twice_its_sources_is_shared_all_the_same() {
    for (bound, sources, own) in [(10_000, 5, 1000), (4, 3, 1), (3, 3, 1), (2, 3, 0), (1, 1, 1), (5, 0, 2)] {
        let quota = Quota::of(bound, sources, 1);
        assert_eq!(quota.own, own, "{bound} for {sources}");
        assert_eq!(quota.common + quota.own * sources.max(1), bound);
    }
}
