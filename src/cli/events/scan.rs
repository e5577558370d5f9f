//! Searches the configured queue: embedded or Redis.

use jiff::Timestamp;

use super::super::Failure;
use super::reader::Reader;
use crate::durable::inbox::event_filter::EventFilter;
use crate::durable::inbox::{Found, Place, embedded, redis};

/// A search. It ends at what was the newest event when it began.
pub(super) enum Scan {
    Embedded(embedded::Scan),
    Redis(Box<redis::Scan>),
}

impl Scan {
    /// Begins a search that skips what certainly does not match.
    pub(super) async fn begin(reader: Reader, filter: &EventFilter) -> Result<Scan, Failure> {
        let since: Option<Timestamp> = filter.since;
        Ok(match reader {
            Reader::Embedded(reader) => Scan::Embedded(embedded::Scan::begin(reader, since)?),
            Reader::Redis(reader) => Scan::Redis(Box::new(redis::Scan::begin(*reader, since).await?)),
        })
    }

    /// The next events that match, oldest first; perhaps none. `None` at the end.
    pub(super) async fn next_page(&mut self, filter: &EventFilter) -> Result<Option<Vec<Found>>, Failure> {
        Ok(match self {
            Scan::Embedded(scan) => scan.next_page(filter)?,
            Scan::Redis(scan) => scan.next_page(filter).await?,
        })
    }

    /// The event at a place that this search has found; none if it was deleted meanwhile.
    pub(super) async fn event(&mut self, place: &Place) -> Result<Option<String>, Failure> {
        Ok(match (self, place) {
            (Scan::Embedded(scan), Place::Row(row)) => scan.event(*row)?,
            (Scan::Redis(scan), Place::Entry { stream, id }) => scan.event(stream, id).await?,
            _ => None,
        })
    }
}
