use super::view::*;
use super::*;

/// Facts that a test changes.
struct Fixed(Mutex<View>, std::sync::atomic::AtomicUsize);

impl Facts for Fixed {
    fn view(&self) -> BoxFuture<'_, View> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let view = self.0.lock().unwrap().clone();
        Box::pin(async { view })
    }
}

fn console(view: View) -> (Arc<Console>, Arc<Fixed>) {
    let facts = Arc::new(Fixed(Mutex::new(view), Default::default()));
    (Arc::new(Console::new(facts.clone())), facts)
}

/// A view with something in every part, in texts that a client could have chosen.
fn full(text: &str) -> View {
    let text = || text.to_owned();
    let part =
        Part { name: "queue", state: "down", health: Health::Bad, detail: Some(text()), ..Part::default() };
    let source = Source {
        name: text(),
        provider: Some(text()),
        path: text(),
        types: Rows::first([(text(), 2)], 1),
        reasons: vec![(text(), 3)],
        slots: vec![4, 0],
        notes: vec![("conflict", 5)],
        ..Source::default()
    };
    let record = Record {
        id: text(),
        at: text(),
        source: text(),
        reason: text(),
        client: Some(text()),
        path: text(),
        status: 401,
        fields: vec![(text(), text())],
    };
    let letter =
        DeadLetter { source: text(), kind: text(), id: text(), why: text(), ..DeadLetter::default() };
    let group = Group { stream: text(), name: text(), lag: 6, oldest: 7.0 };
    View {
        status: Status {
            parts: vec![part.clone()],
            warnings: vec![text()],
            version: text(),
            ..Status::default()
        },
        sources: Rows { shown: vec![source], more: 8 },
        flow: vec![Accepted { source: text(), kind: text(), id: text(), ..Accepted::default() }],
        rejects: Rejects {
            reasons: vec![(text(), 9)],
            records: vec![record],
            unread: Some(text()),
            ..Rejects::default()
        },
        queue: Queue {
            kind: "redis",
            name: text(),
            part: part.clone(),
            failures: vec![(text(), 10)],
            streams: Rows::first([(text(), 11, 12)], 1),
            groups: Rows::first([group], 1),
            routes: Rows::first([(text(), vec![(text(), 13)])], 1),
            ..Queue::default()
        },
        spool: Spool { part, dead: 14, letters: vec![letter], unread: Some(text()), ..Spool::default() },
        subscriptions: Rows::first(
            [Subscription {
                source: text(),
                provider: text(),
                events: vec![text()],
                state: text(),
                ..Subscription::default()
            }],
            1,
        ),
        config: Config { text: text(), ..Config::default() },
        ..View::default()
    }
}

#[tokio::test]
async fn a_text_of_a_client_cannot_become_markup_anywhere() {
    let html = console(full("<script>\"'{{now}}\u{202e}&")).0.page().await.html;
    assert_eq!(html.matches("<script>").count(), 1, "the page's own");
    assert!(!html.contains('\u{202e}') && !html.contains("\"\"'{{"));
    assert!(
        html.matches("&lt;script&gt;&quot;'{{now}}\\u{202e}&amp;").count() > 30,
        "every text was shown: {html}"
    );
}

#[tokio::test]
async fn a_page_of_long_texts_is_short() {
    let long = "x".repeat(1_000_000);
    assert!(console(full(&long)).0.page().await.html.len() < 300_000);
}

#[tokio::test]
async fn a_part_says_what_to_do_when_it_has_nothing() {
    let html = console(View::default()).0.page().await.html;
    for advice in ["No event yet. Send one", "No record yet", "No source declares a subscription"] {
        assert!(html.contains(advice), "{advice}");
    }
}

#[tokio::test]
async fn however_many_ask_at_once_the_facts_are_gathered_once() {
    let (console, facts) = console(View::default());
    for _ in 0..50 {
        console.page().await;
    }
    assert_eq!(facts.1.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_watcher_gets_what_changed_and_the_time() {
    let mut view = View::default();
    let first = Rendered::of(&view, None);
    assert_eq!(names(&first.events_after(0, "p-1")).len(), SECTIONS.len() + 1);
    assert_eq!(names(&first.events_after(1, "p-1")), ["now"]);
    view.spool.events = 1;
    view.flow = vec![Accepted::default()];
    let second = Rendered::of(&view, Some(&first));
    assert_eq!(names(&second.events_after(1, "p-2")), ["flow", "spool", "now"]);
    let third = Rendered::of(&view, Some(&second));
    assert_eq!(names(&third.events_after(2, "p-3")), ["now"]);
    assert_eq!(names(&third.events_after(1, "p-3")), ["flow", "spool", "now"], "one that missed a version");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_where_it_was_and_ends_when_it_has_to() {
    use futures_util::StreamExt;
    let (console, _) = console(View::default());
    let until = CancellationToken::new();
    let events =
        |after: Option<&str>| Box::pin(console.events(after, console.session(), until.clone()).unwrap());
    console.page().await;
    let known = console.id(1);
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fresh = events(None);
    assert_eq!(names(&text(fresh.next().await.unwrap())).len(), SECTIONS.len() + 1);
    assert_eq!(names(&text(events(Some(&known)).next().await.unwrap())), ["now"]);
    for other in ["other-1", "", &format!("{known}x")] {
        assert!(names(&text(events(Some(other)).next().await.unwrap())).len() > 1, "{other}");
    }
    assert_eq!(names(&text(fresh.next().await.unwrap())), ["now"]);
    let before = console.session();
    console.end_sessions();
    assert!(fresh.next().await.is_none());
    let mut late = Box::pin(console.events(None, before, until.clone()).unwrap());
    late.next().await;
    assert!(late.next().await.is_none(), "it began before the sessions ended");
    let mut last = events(None);
    last.next().await;
    until.cancel();
    assert!(last.next().await.is_none());
}

#[test]
fn the_number_of_watchers_is_bounded() {
    let (console, _) = console(View::default());
    let watch = || console.events(None, console.session(), CancellationToken::new());
    let mut watchers: Vec<_> = std::iter::from_fn(watch).take(MAX_WATCHERS + 1).collect();
    assert_eq!(watchers.len(), MAX_WATCHERS);
    watchers.pop();
    assert!(watch().is_some());
}

fn names(events: &str) -> Vec<&str> {
    events.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
}
