//! Checks the anchors of a chain.
//!
//! Keeps true: without a key it demands nothing. An anchor holds only if it is, to the last byte, the one that a key makes at its
//! place.

use std::io;

use jiff::{SignedDuration, Timestamp};

use super::{Anchors, Broken, Seen, VerifyError, VerifyOptions};
use crate::observe::audit::record::Record;

/// What was seen of the anchors so far.
pub(super) struct Watch<'a> {
    demand: &'a VerifyOptions,
    anchors: Option<Anchors>,
    /// The time of the first record behind the last anchor; none where no record is.
    unanchored: Option<Timestamp>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(demand: &'a VerifyOptions) -> Watch<'a> {
        Watch { demand, anchors: None, unanchored: None }
    }

    /// Whether there is a key to check anchors with.
    pub(super) fn checks(&self) -> bool {
        !self.demand.keys.is_empty()
    }

    /// The next record of the chain; the inner error says what is wrong with it.
    pub(super) fn see(&mut self, record: &Record) -> io::Result<Result<(), String>> {
        if !self.checks() {
            return Ok(Ok(()));
        }
        if record.is_anchor() {
            return self.anchor(record);
        }
        // A text that is no time is not a gateway's, and has waited too long in any case.
        self.unanchored.get_or_insert_with(|| record.ts.parse().unwrap_or(Timestamp::MIN));
        Ok(Ok(()))
    }

    fn anchor(&mut self, record: &Record) -> io::Result<Result<(), String>> {
        let mut holds = false;
        for key in &self.demand.keys {
            holds |= Record::anchor(record.seq, record.ts.clone(), &record.prev, key)? == *record;
        }
        if !holds {
            let (after, tried) = (self.after(), self.demand.keys.len());
            return Ok(Err(format!(
                "this anchor does not hold: records {after} were altered and hashed anew, or the anchor was forged, or \
                 made with a key that is not among the {tried} given (an older one is given with --key-file)"
            )));
        }
        self.unanchored = None;
        match &mut self.anchors {
            Some(anchors) => {
                anchors.count += 1;
                anchors.last_seq = record.seq;
            }
            None => {
                let (first_seq, first_at) = (record.seq, record.ts.clone());
                let last_seq = first_seq;
                self.anchors = Some(Anchors { count: 1, first_seq, first_at, last_seq, overdue: false });
            }
        }
        Ok(Ok(()))
    }

    /// After the last record, at `last`; `there`: the demanded record was among them.
    pub(super) fn end(
        mut self,
        last: Option<&Seen>,
        records: u64,
        there: bool,
    ) -> Result<Option<Anchors>, VerifyError> {
        let demand = self.demand;
        if demand.keys.is_empty() {
            return Ok(None);
        }
        let end = last.map_or(0, |last| last.seq);
        let missing = |seq: u64, why: String| {
            let (file, line) = last.map_or((String::from("-"), 0), |last| (last.file.clone(), last.line));
            VerifyError::Broken(Broken { file, line, seq: Some(seq), why })
        };
        if let Some(since) = demand.anchored_since.filter(|since| *since > end + 1) {
            return Err(missing(
                end + 1,
                format!("missing: the log ends before record {since}, from which on it is to be anchored"),
            ));
        }
        let anchored = self.anchors.as_ref().map_or(0, |anchors| anchors.last_seq);
        let overdue =
            demand.now.zip(self.unanchored).is_some_and(|(now, began)| now.duration_since(began) > OVERDUE);
        if let Some(to) = demand.anchored_to.filter(|to| *to > anchored && (!there || overdue)) {
            let why = format!(
                "not anchored: the last anchor is record {anchored}, and one is to stand at record {to} or after it"
            );
            return Err(missing(anchored + 1, why));
        }
        if overdue && demand.anchored_since.is_some_and(|since| since <= end) {
            let why = format!(
                "not anchored: no anchor {}, and a gateway that runs anchors within a minute: it was ended without its \
                 last one, or anchors were removed",
                self.after()
            );
            return Err(missing(anchored + 1, why));
        }
        if self.anchors.is_none() && overdue {
            return Err(VerifyError::Unanchored(records));
        }
        if let Some(anchors) = &mut self.anchors {
            anchors.overdue = overdue;
        }
        Ok(self.anchors)
    }

    fn after(&self) -> String {
        match &self.anchors {
            Some(anchors) => format!("after record {}, the last anchor that holds", anchors.last_seq),
            None => "from the oldest on".to_owned(),
        }
    }
}

/// A gateway that runs anchors its records within a minute. A clock may have been set by a little.
const OVERDUE: SignedDuration = SignedDuration::from_secs(70);
