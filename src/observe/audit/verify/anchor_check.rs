//! Checks the anchors of a chain.
//!
//! Keeps true: without a key it requires nothing. An anchor is valid only if it equals, to the last byte, the anchor
//! that a key makes at its position.

use std::io;

use jiff::{SignedDuration, Timestamp};

use super::{Anchors, Broken, LastRecord, VerifyError, VerifyOptions};
use crate::observe::audit::record::Record;

/// The anchors seen so far.
pub(super) struct AnchorCheck<'a> {
    options: &'a VerifyOptions,
    anchors: Option<Anchors>,
    /// The time of the first record after the last anchor; none if there is no such record.
    unanchored: Option<Timestamp>,
}

impl<'a> AnchorCheck<'a> {
    pub(super) fn new(options: &'a VerifyOptions) -> AnchorCheck<'a> {
        AnchorCheck { options, anchors: None, unanchored: None }
    }

    /// Whether there is a key to check anchors with.
    pub(super) fn has_keys(&self) -> bool {
        !self.options.keys.is_empty()
    }

    /// Checks the next record of the chain. The inner error says what is wrong with it.
    pub(super) fn check_record(&mut self, record: &Record) -> io::Result<Result<(), String>> {
        if !self.has_keys() {
            return Ok(Ok(()));
        }
        if record.is_anchor() {
            return self.anchor(record);
        }
        // No gateway writes an invalid time; treat such a record as overdue.
        self.unanchored.get_or_insert_with(|| record.ts.parse().unwrap_or(Timestamp::MIN));
        Ok(Ok(()))
    }

    fn anchor(&mut self, record: &Record) -> io::Result<Result<(), String>> {
        let mut holds = false;
        for key in &self.options.keys {
            holds |= Record::anchor(record.seq, record.ts.clone(), &record.prev, key)? == *record;
        }
        if !holds {
            let (after, tried) = (self.after(), self.options.keys.len());
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

    /// Call after the last record, `last`. `found`: the required record was among them.
    pub(super) fn finish(
        mut self,
        last: Option<&LastRecord>,
        records: u64,
        found: bool,
    ) -> Result<Option<Anchors>, VerifyError> {
        let options = self.options;
        if options.keys.is_empty() {
            return Ok(None);
        }
        let end = last.map_or(0, |last| last.seq);
        let missing = |seq: u64, why: String| {
            let (file, line) = last.map_or((String::from("-"), 0), |last| (last.file.clone(), last.line));
            VerifyError::Broken(Broken { file, line, seq: Some(seq), why })
        };
        if let Some(since) = options.anchored_since.filter(|since| *since > end + 1) {
            return Err(missing(
                end + 1,
                format!("missing: the log ends before record {since}, from which on it is to be anchored"),
            ));
        }
        let anchored = self.anchors.as_ref().map_or(0, |anchors| anchors.last_seq);
        let overdue =
            options.now.zip(self.unanchored).is_some_and(|(now, began)| now.duration_since(began) > OVERDUE);
        if let Some(to) = options.anchored_to.filter(|to| *to > anchored && (!found || overdue)) {
            let why = format!(
                "not anchored: the last anchor is record {anchored}, and one is to stand at record {to} or after it"
            );
            return Err(missing(anchored + 1, why));
        }
        if overdue && options.anchored_since.is_some_and(|since| since <= end) {
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

/// A running gateway anchors its records within a minute. The margin allows for small clock changes.
const OVERDUE: SignedDuration = SignedDuration::from_secs(70);
