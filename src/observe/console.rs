//! The console: the page of the admin listener for people.
//!
//! Keeps true: it only reads. While nothing asks for it, it does nothing. However many watch, the facts are gathered and
//! rendered once a second at most. The number of watchers is bounded. Nothing that it shows is of a body, and no secret.
//!
//! - `view`: the facts. `parts`: renders them. `page`: the template and its policy. `text`, `sparkline`: their pieces.
//! - `history`: the counts of the last hour.

pub mod history;
mod page;
mod parts;
mod sparkline;
mod text;
pub mod view;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::base::clock;
use parts::SECTIONS;
use view::View;

/// Where the console gets its facts.
pub trait Facts: Send + Sync + 'static {
    /// The facts of now. Must not wait for a part that is down.
    fn view(&self) -> BoxFuture<'_, View>;
}

/// Renders the facts, and tells watchers what changes.
pub struct Console {
    facts: Arc<dyn Facts>,
    rendered: tokio::sync::Mutex<Option<Arc<Rendered>>>,
    /// Cancelled when every watcher has to ask again.
    session: Mutex<CancellationToken>,
    watchers: Arc<Semaphore>,
    /// Tells the versions of this process from those of another.
    process: String,
}

/// The page at one moment.
struct Rendered {
    taken: Instant,
    version: u64,
    /// The time of day.
    now: String,
    said: String,
    parts: Vec<RenderedPart>,
}

struct RenderedPart {
    html: Arc<str>,
    /// The version in which it became what it is.
    changed: u64,
}

/// A page, with the header that it needs.
pub struct Page {
    /// HTML.
    pub html: String,
    /// The value of `Content-Security-Policy`.
    pub policy: &'static str,
}

/// Ends when the watchers have to ask again.
#[derive(Clone)]
pub struct Session(CancellationToken);

impl Console {
    /// Shows these facts.
    pub fn new(facts: Arc<dyn Facts>) -> Console {
        Console {
            facts,
            rendered: tokio::sync::Mutex::default(),
            session: Mutex::default(),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            process: hex::encode(clock::random::<8>()),
        }
    }

    /// Take it before you look whether a client may watch: a change of the token in between then ends the stream.
    pub fn session(&self) -> Session {
        Session(self.session.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Ends every stream. Their browsers ask again, and then need the token of now.
    pub fn end_sessions(&self) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *session).cancel();
    }

    /// The page of now.
    pub async fn page(&self) -> Page {
        let rendered = self.render().await;
        Page { html: page::page(&rendered, &self.id(rendered.version)), policy: &page::POLICY }
    }

    /// Server-sent events: the parts that changed after the event with the id `after`, and then each change. None: too
    /// many watch already. The stream ends when `until` or the session ends.
    pub fn events(
        self: &Arc<Console>,
        after: Option<&str>,
        session: Session,
        until: CancellationToken,
    ) -> Option<impl Stream<Item = Bytes> + Send + use<>> {
        let permit = self.watchers.clone().try_acquire_owned().ok()?;
        let seen = after.and_then(|id| self.version(id)).unwrap_or(0);
        let watcher = Watcher { console: self.clone(), seen, first: true, session, until, _permit: permit };
        Some(stream::unfold(watcher, Watcher::next))
    }

    async fn render(&self) -> Arc<Rendered> {
        let mut last = self.rendered.lock().await;
        if let Some(last) = &*last
            && clock::instant().saturating_duration_since(last.taken) < FRESH
        {
            return last.clone();
        }
        let view = self.facts.view().await;
        let rendered = Arc::new(Rendered::of(&view, last.as_deref()));
        *last = Some(rendered.clone());
        rendered
    }

    /// The id of the events of a version.
    fn id(&self, version: u64) -> String {
        format!("{}-{version}", self.process)
    }

    /// The version of an event's id; none if another process sent it.
    fn version(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.process)?.strip_prefix('-')?.parse().ok()
    }
}

impl Rendered {
    /// Renders a view. A part that is as `before` keeps its version.
    fn of(view: &View, before: Option<&Rendered>) -> Rendered {
        let version = before.map_or(1, |before| before.version + 1);
        let part = |(at, section): (usize, &parts::Section)| {
            let html = (section.render)(view).into_string();
            match before.and_then(|before| before.parts.get(at)) {
                Some(before) if *before.html == *html => {
                    RenderedPart { html: before.html.clone(), changed: before.changed }
                }
                _ => RenderedPart { html: html.into(), changed: version },
            }
        };
        Rendered {
            taken: clock::instant(),
            version,
            now: view.at.strftime("%H:%M:%S").to_string(),
            said: parts::said(&view.status),
            parts: SECTIONS.iter().enumerate().map(part).collect(),
        }
    }

    /// The parts that changed after a version, and the time.
    fn events_after(&self, version: u64, id: &str) -> String {
        let mut events = String::new();
        let mut event = |name: &str, data: &str| {
            events.push_str(&format!("event: {name}\n"));
            for line in data.split(['\n', '\r']) {
                events.push_str(&format!("data: {line}\n"));
            }
            events.push_str(&format!("id: {id}\n\n"));
        };
        for (section, part) in SECTIONS.iter().zip(&self.parts) {
            if part.changed > version {
                event(section.id, &part.html);
            }
        }
        event("now", &format!("{}\n{}", self.now, self.said));
        events
    }
}

/// A browser that watches.
struct Watcher {
    console: Arc<Console>,
    /// The version that it has.
    seen: u64,
    first: bool,
    session: Session,
    until: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(mut self) -> Option<(Bytes, Watcher)> {
        if !self.first {
            tokio::select! {
                biased;
                () = self.until.cancelled() => return None,
                () = self.session.0.cancelled() => return None,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        let rendered = self.console.render().await;
        let events = rendered.events_after(self.seen, &self.console.id(rendered.version));
        let events = if self.first { format!("retry: 1000\n\n{events}") } else { events };
        (self.seen, self.first) = (rendered.version, false);
        Some((events.into(), self))
    }
}

/// Each is a connection of the admin listener.
const MAX_WATCHERS: usize = 16;
/// Between two looks of a watcher.
const EVERY: Duration = Duration::from_secs(2);
/// Facts of this age are still shown.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
