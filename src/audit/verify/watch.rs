//! Checks the anchors of a chain, and that there is one wherever one was due.
//!
//! Keeps true: without a key it demands nothing. An anchor holds only if it is, to the last byte, the one that a key makes at its
//! place; what stands before the first one is not held to any number of records or time, what stands after is.

use std::io;

use jiff::Timestamp;

use super::{Anchors, Broken, Demand, Seen, VerifyError};
use crate::audit::anchor::{ANCHOR_WITHIN_CHECKED, Stretch};
use crate::audit::record::Record;

/// What was seen of the anchors so far.
pub(super) struct Watch<'a> {
    demand: &'a Demand,
    anchors: Option<Anchors>,
    stretch: Option<Stretch>,
    /// More stands before the first anchor than stands between two.
    long_before: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(demand: &'a Demand) -> Watch<'a> {
        Watch { demand, anchors: None, stretch: None, long_before: false }
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
        let Ok(at) = record.ts.parse::<Timestamp>() else {
            return Ok(Err(format!("its time is none: {:?}", record.ts)));
        };
        let held = match self.demand.anchored_since {
            Some(since) => record.seq >= since,
            None => self.anchors.is_some(),
        };
        let longer = self.stretch.map_or(Some(Stretch::from(at)), |s| s.and(at, ANCHOR_WITHIN_CHECKED));
        if longer.is_none() {
            self.long_before |= !held;
            // One that is not held to it begins anew, so that the first that is held does not pay for those before.
            if held {
                let after = self.after();
                return Ok(Err(format!(
                    "no anchor {after}, where one was due before this record: anchors were removed and what follows \
                     was written anew, or a gateway ran without the key"
                )));
            }
        }
        self.stretch = Some(longer.unwrap_or(Stretch::from(at)));
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
        self.stretch = None;
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
        let overdue = demand
            .now
            .zip(self.stretch)
            .is_some_and(|(now, stretch)| stretch.is_over(now, ANCHOR_WITHIN_CHECKED));
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
        if self.anchors.is_none() && (self.long_before || overdue) {
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
