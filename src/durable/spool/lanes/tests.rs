//! Lanes with a scripted inbox and a real database.

use super::super::dead::Selection;
use super::super::tests::{Bench, of, until};
use super::*;
use crate::durable::inbox::EnqueueRequest;
use crate::durable::inbox::scripted::Scripted;

fn bench() -> Bench {
    let routes = Routes::to(&[("kyc.*", "http://one/"), ("*", "http://other/{source}")]);
    let mut bench = Bench::new();
    bench.inbox = Scripted::with_routes(routes);
    bench
}

/// An event about a subject. It goes to `http://other/src`.
fn about(subject: &str, id: &str) -> EnqueueRequest {
    let mut request = of("src", id, "1");
    request.event.partition_key = subject.to_owned();
    request.event.kind = "user.created".into();
    request
}

/// An event about a subject. It goes to `http://one/`.
fn elsewhere(subject: &str, id: &str) -> EnqueueRequest {
    let mut request = about(subject, id);
    request.event.kind = "kyc.verified".into();
    request
}

fn later() -> Option<EnqueueError> {
    Some(EnqueueError::Unclear("it answered 500".to_owned()))
}

fn dead(bench: &Bench) -> usize {
    bench.observed.0.lock().unwrap().iter().filter(|told| *told == "dead: src").count()
}

#[tokio::test]
async fn an_event_is_tried_ten_times_if_it_is_refused_and_then_frees_its_lane() {
    let bench = bench();
    bench.inbox.one("bad", Some(EnqueueError::Rejected("it answered 422".to_owned())));
    let opened = bench.started().await;
    for id in ["bad", "next", "last"] {
        opened.0.enqueue(about("a", id)).await.unwrap();
    }
    until("it is given up", || dead(&bench) == 1).await;
    bench.drained().await;
    assert_eq!(bench.inbox.refused(), 10, "the first try, when it arrived, counts");
    assert_eq!(bench.taken(), ["next", "last"]);
    let letters = bench.dead().list().unwrap();
    assert_eq!((letters.len(), letters[0].id.as_str()), (1, "bad"));
    assert!(letters[0].why.contains("it answered 422; tried 10 times"), "{}", letters[0].why);
    bench.close(opened).await;
}

#[tokio::test]
async fn what_may_be_taken_later_is_tried_for_as_long_as_it_takes() {
    let bench = bench();
    bench.inbox.all(later());
    let opened = bench.started().await;
    opened.0.enqueue(about("a", "e")).await.unwrap();
    until("it is tried again", || bench.inbox.refused() >= 50).await;
    assert_eq!((dead(&bench), bench.metrics.spool.events.get()), (0, 1));
    bench.inbox.all(None);
    bench.drained().await;
    assert_eq!(bench.taken(), ["e"]);
    bench.close(opened).await;
}

#[tokio::test]
async fn a_lane_keeps_the_order_and_holds_up_no_other() {
    let bench = bench();
    bench.inbox.one("a1", later());
    let opened = bench.started().await;
    for request in [
        about("a", "a1"),
        about("a", "a2"),
        about("b", "b1"),
        elsewhere("a", "k1"),
        about("a", "a3"),
        about("b", "b2"),
    ] {
        opened.0.enqueue(request).await.unwrap();
    }
    let before = bench.inbox.refused();
    until("the first is tried again", || bench.inbox.refused() >= before + 5).await;
    assert_eq!(bench.taken(), ["b1", "k1", "b2"]);
    bench.inbox.one("a1", None);
    bench.drained().await;
    assert_eq!(bench.taken(), ["b1", "k1", "b2", "a1", "a2", "a3"]);
    bench.close(opened).await;
}

#[tokio::test]
async fn rows_of_an_earlier_run_go_before_new_ones() {
    let bench = bench();
    bench.inbox.all(later());
    let before = bench.started().await;
    for id in ["a1", "a2"] {
        before.0.enqueue(about("a", id)).await.unwrap();
    }
    bench.close(before).await;
    bench.inbox.all(None);
    let (enqueuer, database) = bench.open().await;
    enqueuer.enqueue(about("a", "a3")).await.unwrap();
    assert_eq!(bench.taken(), [""; 0], "the rows of before are not known yet");
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(bench.taken(), ["a1", "a2", "a3"]);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_letter_that_is_sent_back_is_found() {
    let bench = bench();
    bench.inbox.all(Some(EnqueueError::Unacceptable("no URL".to_owned())));
    let opened = bench.started().await;
    opened.0.enqueue(about("a", "e")).await.unwrap();
    until("it is dead", || dead(&bench) == 1).await;
    bench.inbox.all(None);
    opened.0.enqueue(about("a", "f")).await.unwrap();
    bench.dead().retry(&Selection::All).unwrap();
    until("it is taken", || bench.taken() == ["f", "e"]).await;
    bench.drained().await;
    bench.close(opened).await;
}

#[tokio::test]
async fn a_lane_without_events_is_forgotten() {
    let bench = bench();
    bench.inbox.one("a", later());
    let opened = bench.started().await;
    for request in [about("a", "a"), about("b", "b"), elsewhere("c", "c")] {
        opened.0.enqueue(request).await.unwrap();
    }
    bench.inbox.one("a", None);
    bench.drained().await;
    let lanes = opened.0.spool.as_ref().unwrap().lanes.clone().unwrap();
    until("nothing is left in memory", || lanes.lock().urls.is_empty()).await;
    bench.close(opened).await;
}
