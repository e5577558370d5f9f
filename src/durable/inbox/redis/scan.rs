//! Searches the streams of a queue.
//!
//! Keeps true: it sees the events that were in the streams when it began, in the order of [`Reader::after`], and ends.
//! It holds at most a page of each stream and a page of found events in memory. It changes nothing in Redis.
//!
//! Redis has no index of a stream but the entry's id, which starts with the server's time. So `since` skips older
//! entries, and everything else reads the entries one by one. `until` cannot end the scan: an event that waited in the
//! spool, or is replayed, enters later than it was recorded.

use std::collections::VecDeque;

use jiff::Timestamp;
use redis::Value;

use crate::durable::inbox::event_filter::EventFilter;
use crate::durable::inbox::{Found, Place};

use super::reader::{Entry, EntryId, Position, ReadError, Reader, format_cursor, rows};

/// A search through the streams.
pub struct Scan {
    reader: Reader,
    streams: Vec<Source>,
    /// The last entry of each stream that was looked at.
    position: Position,
}

/// One stream of the search.
struct Source {
    stream: String,
    /// The entries that were read and not looked at yet.
    page: VecDeque<(EntryId, Option<String>)>,
    /// The last entry that was read; none before the first.
    read: Option<EntryId>,
    /// The newest entry when the scan began.
    end: EntryId,
    /// How many entries to read next.
    count: usize,
}

impl Scan {
    /// Begins with the events that entered at `since` or later, or else with the oldest.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn begin(mut reader: Reader, since: Option<Timestamp>) -> Result<Scan, ReadError> {
        let before = since.and_then(|since| u64::try_from(since.as_millisecond() - SLACK).ok());
        // The last possible id before that time.
        let before = before.and_then(|ms| ms.checked_sub(1)).map(|ms| EntryId(ms, u64::MAX));
        let (mut streams, mut position) = (Vec::new(), Position::new());
        for stream in reader.existing_streams().await? {
            let last = redis::cmd("XREVRANGE").arg(&stream).arg("+").arg("-").arg("COUNT").arg(1).to_owned();
            let reply: Value = reader.ask(&stream, &last).await?;
            let Some((end, ..)) = rows(&stream, reply)?.pop() else { continue };
            if let Some(before) = before {
                position.insert(stream.clone(), before);
            }
            streams.push(Source { stream, page: VecDeque::new(), read: before, end, count: FIRST_COUNT });
        }
        Ok(Scan { reader, streams, position })
    }

    /// The wanted events of the next entries. Perhaps none, although later entries have some. `None` at the end.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn next_page(&mut self, filter: &EventFilter) -> Result<Option<Vec<Found>>, ReadError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for looked in 0..PAGE_ENTRIES {
            let Some((id, stream, event)) = self.next().await? else {
                return Ok((looked > 0).then_some(found));
            };
            self.position.insert(stream.clone(), id);
            // Skips an entry that no gateway wrote.
            let Some(event) = event.filter(|event| filter.wants(event)) else { continue };
            bytes += event.len();
            let place = Place::Entry { stream, id: format!("{}-{}", id.0, id.1) };
            found.push(Found { cursor: format_cursor(&self.position), event, place });
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(Some(found))
    }

    /// The event of an entry; none if it was trimmed.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn event(&mut self, stream: &str, id: &str) -> Result<Option<String>, ReadError> {
        let range = redis::cmd("XRANGE").arg(stream).arg(id).arg(id).to_owned();
        let reply: Value = self.reader.ask(stream, &range).await?;
        Ok(rows(stream, reply)?.pop().and_then(|(_, _, event)| event))
    }

    /// The next entry of all streams.
    async fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        for source in &mut self.streams {
            if source.page.is_empty() {
                source.fill(&mut self.reader).await?;
            }
        }
        let first = self.streams.iter_mut().filter(|source| !source.page.is_empty());
        let first = first.min_by(|a, b| a.key().cmp(&b.key()));
        Ok(first.and_then(|source| {
            let (id, event) = source.page.pop_front()?;
            Some((id, source.stream.clone(), event))
        }))
    }
}

impl Source {
    /// What [`Reader::after`] sorts by.
    fn key(&self) -> (Option<EntryId>, &str) {
        (self.page.front().map(|(id, _)| *id), &self.stream)
    }

    /// Reads the next page, unless the end is reached.
    async fn fill(&mut self, reader: &mut Reader) -> Result<(), ReadError> {
        if self.read.is_some_and(|read| read >= self.end) {
            return Ok(());
        }
        let from = self.read.map_or("-".to_owned(), |id| format!("({}-{}", id.0, id.1));
        let end = format!("{}-{}", self.end.0, self.end.1);
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.stream).arg(from).arg(end).arg("COUNT").arg(self.count);
        let reply: Value = reader.ask(&self.stream, &range).await?;
        let entries = rows(&self.stream, reply)?;
        // Trimmed entries at the end leave fewer.
        self.read = Some(match entries.last() {
            Some((last, ..)) if entries.len() == self.count => *last,
            _ => self.end,
        });
        let bytes: usize = entries.iter().filter_map(|(.., event)| event.as_ref()).map(String::len).sum();
        if !entries.is_empty() {
            self.count = (STREAM_BYTES / (bytes / entries.len()).max(1)).clamp(1, MAX_COUNT);
        }
        self.page.extend(entries.into_iter().map(|(id, _, event)| (id, event)));
        Ok(())
    }
}

/// The first page is small, since the size of the events is not known yet.
const FIRST_COUNT: usize = if cfg!(test) { 2 } else { 16 };
const MAX_COUNT: usize = if cfg!(test) { 3 } else { 500 };
/// About how much of a stream is in memory.
const STREAM_BYTES: usize = 1 << 20;
const PAGE_ENTRIES: usize = 1000;
const PAGE_BYTES: usize = 4 << 20;
/// An event is recorded before it enters, unless the clocks differ by more than this, in milliseconds.
const SLACK: i64 = 60_000;
