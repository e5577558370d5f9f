//! Searches the embedded queue.
//!
//! Keeps true: it sees the events that were in the queue when it began, oldest first, and ends. It holds no transaction
//! open between two pages, and at most a page in memory.
//!
//! It reads the table from the oldest wanted row to the end. A million events take about a second, and an operator asks
//! seldom; an index by id would cut the inserts to less than a half, since ids are random. Id, type and source are
//! columns, so other rows cost no look at their event. Receipt times ascend with the rows, so `since` is found by
//! bisection. `until` cannot end the scan: an event that waited elsewhere, or is replayed, enters later than it was
//! recorded.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::durable::database::OpenError;
use crate::durable::inbox::event_filter::EventFilter;
use crate::durable::inbox::{Found, Place};

use super::reader::Reader;
use super::store;

/// A search through the queue.
pub struct Scan {
    reader: Reader,
    /// The last row that was looked at.
    at: i64,
    /// The newest row when the scan began.
    end: i64,
}

impl Scan {
    /// Begins with the events that entered at `since` or later, or else with the oldest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn begin(reader: Reader, since: Option<Timestamp>) -> Result<Scan, OpenError> {
        let bounds = || {
            let end = store::newest(&reader.conn)?;
            let at = match since {
                Some(since) => before(&reader, since.as_microsecond().saturating_sub(SLACK), end)?,
                None => 0,
            };
            rusqlite::Result::Ok((at, end))
        };
        let (at, end) = bounds().map_err(|error| reader.failed(error))?;
        Ok(Scan { reader, at, end })
    }

    /// The wanted events of the next rows. Perhaps none, although later rows have some. `None` at the end.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn next_page(&mut self, filter: &EventFilter) -> Result<Option<Vec<Found>>, OpenError> {
        if self.at >= self.end {
            return Ok(None);
        }
        match self.page(filter) {
            Ok((found, at)) => {
                self.at = at;
                Ok(Some(found))
            }
            Err(error) => Err(self.reader.failed(error)),
        }
    }

    /// The event of a row; none if retention has deleted it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn event(&self, row: i64) -> Result<Option<String>, OpenError> {
        self.reader.event(row)
    }

    fn page(&self, filter: &EventFilter) -> rusqlite::Result<(Vec<Found>, i64)> {
        let mut select = self.reader.conn.prepare_cached(
            "SELECT seq, id, type, source, event FROM events \
             WHERE seq > ?1 AND seq <= ?2 AND event IS NOT NULL ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = select.query(params![self.at, self.end, PAGE_ROWS])?;
        let (mut found, mut bytes, mut looked) = (Vec::new(), 0, 0);
        let mut at = self.at;
        while let Some(row) = rows.next()? {
            let text = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?);
            at = row.get(0)?;
            looked += 1;
            if filter.wants_stored((text(1)?, text(2)?, text(3)?), || text(4))? {
                let event = text(4)?.to_owned();
                bytes += event.len();
                found.push(Found { cursor: at.to_string(), event, place: Place::Row(at) });
            }
            if bytes >= PAGE_BYTES {
                return Ok((found, at));
            }
        }
        Ok((found, if looked < PAGE_ROWS { self.end } else { at }))
    }
}

/// The last row that was received before `since`; 0 if there is none. If the clock was set back, rows of that time may
/// be on the wrong side.
fn before(reader: &Reader, since: i64, end: i64) -> rusqlite::Result<i64> {
    let oldest: Option<i64> = reader.conn.query_row("SELECT min(seq) FROM events", [], |row| row.get(0))?;
    let mut select = reader
        .conn
        .prepare_cached("SELECT seq, received FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    let (mut before, mut last) = (oldest.unwrap_or(1) - 1, end);
    while before < last {
        let middle = before + (last - before + 1) / 2;
        let row: Option<(i64, i64)> =
            select.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match row {
            Some((row, received)) if received < since => before = row,
            _ => last = middle - 1,
        }
    }
    Ok(before)
}

/// Rows of one page: a few milliseconds.
const PAGE_ROWS: i64 = 10_000;
const PAGE_BYTES: usize = 4 << 20;
/// An event is received before it enters, unless the clock was set back by less than this, in microseconds.
const SLACK: i64 = 60_000_000;
