//! What the console reads from the data folder.
//!
//! Keeps true: one look at a time, on a thread of its own. A disk that hangs delays the console only so long.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use crate::config::{Config, QueueKind};
use crate::durable::data_dir;
use crate::durable::spool::dead::{self, DeadLetters};
use crate::gateway::watch::on_own_thread;
use crate::observe::audit::record::Record;
use crate::observe::audit::tail;
use crate::observe::console::view::{self, DeadLetter, LATEST};

/// The last look.
#[derive(Default)]
pub(super) struct Files {
    under_way: Arc<AtomicBool>,
    found: Arc<Mutex<Found>>,
}

/// What to look for.
pub(super) struct Wanted {
    audit: PathBuf,
    database: PathBuf,
    /// Without dead letters the database is not opened.
    letters: bool,
    /// Whether the database is the queue.
    is_queue: bool,
}

impl Wanted {
    pub(super) fn of(config: &Config, dead: u64) -> Wanted {
        Wanted {
            audit: data_dir::audit_dir(&config.data_dir),
            database: data_dir::database_file(&config.data_dir),
            letters: dead > 0,
            is_queue: config.queue.kind == QueueKind::Embedded,
        }
    }
}

/// What a look found.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// Newest first.
    pub(super) records: Vec<view::Record>,
    /// Why there are no newer records.
    pub(super) records_unread: Option<String>,
    /// Newest first.
    pub(super) letters: Vec<DeadLetter>,
    /// Why there are none.
    pub(super) letters_unread: Option<String>,
    /// The size of the embedded queue.
    pub(super) queue_bytes: Option<u64>,
}

/// Ends a look, even if it panics.
struct UnderWay(Arc<AtomicBool>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Files {
    /// Looks, for a limited time. If that is over, the answer is the last one.
    pub(super) async fn look(&self, wanted: Wanted) -> Found {
        let mut late = true;
        if !self.under_way.swap(true, Ordering::AcqRel) {
            let (under_way, found) = (UnderWay(self.under_way.clone()), self.found.clone());
            let look = on_own_thread("console", move || {
                let _ends = under_way;
                *lock(&found) = read(&wanted);
            });
            late = !matches!(tokio::time::timeout(LIMIT, look).await, Ok(Some(())));
        }
        let mut found = lock(&self.found).clone();
        if late {
            found.records_unread = Some("the disk does not answer in time".to_owned());
        }
        found
    }
}

fn read(wanted: &Wanted) -> Found {
    let (records, records_unread) = match tail::newest(&wanted.audit, LATEST) {
        Ok(records) => (records.into_iter().map(shown).collect(), None),
        Err(why) => (Vec::new(), Some(why.to_string())),
    };
    let letters = if wanted.letters { letters(&wanted.database) } else { Ok(Vec::new()) };
    let (letters, letters_unread) = match letters {
        Ok(letters) => (letters, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let queue_bytes =
        wanted.is_queue.then(|| size(&wanted.database) + size(&wanted.database.with_extension("db-wal")));
    Found { records, records_unread, letters, letters_unread, queue_bytes }
}

fn letters(database: &Path) -> Result<Vec<DeadLetter>, String> {
    let letters = DeadLetters::open(database).and_then(|letters| letters.newest(LATEST));
    let shown = |letter: dead::DeadLetter| {
        let dead::DeadLetter { seq, received, source, kind, id, why, .. } = letter;
        DeadLetter { seq, received, source, kind, id, why }
    };
    Ok(letters.map_err(|why| why.to_string())?.into_iter().map(shown).collect())
}

/// A record by its fields, those that an operator asks for first.
fn shown(record: Record) -> view::Record {
    let mut fields = vec![
        ("detail".to_owned(), record.detail),
        ("method".to_owned(), record.method),
        ("provider".to_owned(), record.provider),
    ];
    let more = [
        ("body_bytes", record.body_bytes.map(|bytes| bytes.to_string())),
        ("body_sha256", record.body_sha256),
        ("observed", record.observed.map(|observed| observed.to_string())),
        ("suppressed", record.suppressed.map(|suppressed| suppressed.to_string())),
    ];
    fields.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    fields.extend(record.headers.into_iter().take(MAX_HEADERS));
    fields.extend([("seq".to_owned(), record.seq.to_string()), ("hash".to_owned(), record.hash)]);
    fields.retain(|(_, value)| !value.is_empty());
    view::Record {
        id: record.id,
        // To the second: 2026-11-21 10:00:00.
        at: record.ts.get(..19).unwrap_or(&record.ts).replace('T', " "),
        source: record.source,
        reason: record.reason,
        status: record.status,
        client: record.client,
        path: record.path,
        fields,
    }
}

const LIMIT: Duration = Duration::from_millis(500);
const MAX_HEADERS: usize = 30;
