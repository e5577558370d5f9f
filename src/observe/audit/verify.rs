//! Checks the chain of a reject log, record by record.
//!
//! Keeps true: a log passes only if every line is byte for byte what the gateway wrote, from the oldest file to the
//! end. A chain alone cannot show that records are missing at its end, or that it was rewritten from some record on.
//! With the key, a valid anchor shows that all records before it are unchanged since it was made. It cannot show that
//! the log ends early, or that records were rewritten before a gateway anchored them. [`VerifyOptions`] takes earlier
//! knowledge of the log for these cases, and [`Mark::missing_in`] takes the head that the gateway stored.

mod anchor_check;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use jiff::Timestamp;

use super::anchor::Key;
use super::files::{LogFile, irregular_files, list, set_aside};
use super::mark::{Mark, begins_after, ends_before};
use super::record::{NO_HASH, Record};
use anchor_check::AnchorCheck;

/// What a log must fulfil besides an unbroken chain.
#[derive(Clone, Default)]
pub struct VerifyOptions {
    /// Anchors must be made with one of these keys. Without keys, anchors are treated like other records.
    pub keys: Vec<Key>,
    /// Every record from this one on must have an anchor after it, if one is due.
    pub anchored_since: Option<u64>,
    /// This record must exist, with an anchor at it or after it, if one is due.
    pub anchored_to: Option<u64>,
    /// This exact record must exist.
    pub required: Option<Mark>,
    /// The time of the check: an anchor is due if a record is more than a minute old. None: no anchor is due.
    pub now: Option<Timestamp>,
}

/// The result for an unbroken chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Records read.
    pub records: u64,
    /// Files read.
    pub files: usize,
    /// The oldest record's number; 0 for none.
    pub first_seq: u64,
    /// The newest record's number; 0 for none.
    pub last_seq: u64,
    /// The newest record's hash; zeros for none.
    pub last_hash: String,
    /// The newest file ends with a partial line: a write in progress, or interrupted by a crash.
    pub unfinished: bool,
    /// Files or parts of files that were unreadable at a start and were kept aside.
    pub set_aside: usize,
    /// The anchors, if any were checked.
    pub anchors: Option<Anchors>,
    /// Anchors that were not checked, because no key was given.
    pub unchecked: u64,
}

/// The anchors of a log; all of them are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// How many.
    pub count: u64,
    /// The first anchor's number. The records before it are unchanged since then, but may be older than the key.
    pub first_seq: u64,
    /// When the first anchor was made.
    pub first_at: String,
    /// The last anchor's number: the log is anchored up to here.
    pub last_seq: u64,
    /// Records after the last anchor are older than a running gateway allows.
    pub overdue: bool,
}

/// The first break of a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{why}", seq.map_or_else(String::new, |seq| format!("record {seq}: ")))]
pub struct Broken {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The altered, missing or misplaced record, if it can be determined.
    pub seq: Option<u64>,
    /// What is wrong there.
    pub why: String,
}

/// Why a log failed verification.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The chain is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The chain is unbroken, but has no anchor.
    #[error(
        "no anchor vouches for these {0} records: a gateway that runs with the key anchors them at its start; \
         if one has run, its anchors were removed"
    )]
    Unanchored(u64),
    /// The log could not be read.
    #[error("cannot read the reject log: {0}")]
    Io(#[from] io::Error),
}

/// Verifies the log in `dir`. The oldest record's `prev` is not checked, because retention may have deleted the record
/// before it.
///
/// # Errors
/// When the chain is broken or cannot be read.
pub fn verify(dir: &Path) -> Result<VerifyReport, VerifyError> {
    verify_with(dir, &VerifyOptions::default())
}

/// Like [`verify`], with more requirements.
///
/// # Errors
/// Like [`verify`], and when a requirement is not met.
pub fn verify_with(dir: &Path, options: &VerifyOptions) -> Result<VerifyReport, VerifyError> {
    verify_listed(|| list(dir), dir, options)
}

fn verify_listed(
    mut files: impl FnMut() -> io::Result<Vec<LogFile>>,
    dir: &Path,
    options: &VerifyOptions,
) -> Result<VerifyReport, VerifyError> {
    let mut tries = 0;
    loop {
        match Chain::new(options).follow_all(&files()?, set_aside(dir)?) {
            // Retention deleted a file after it was listed.
            Err(VerifyError::Io(why)) if why.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            result => {
                let verified = result?;
                return irregular_files(dir)?
                    .first()
                    .map_or(Ok(verified), |file| Err(not_regular(file).into()));
            }
        }
    }
}

fn not_regular(file: &LogFile) -> Broken {
    let why = "is not a regular file, so no gateway wrote it: inspect it, then remove it".to_owned();
    Broken { file: file.name(), line: 0, seq: None, why }
}

/// The verified part of the chain.
struct Chain<'a> {
    last: Option<LastRecord>,
    first_seq: u64,
    records: u64,
    anchors: u64,
    options: &'a VerifyOptions,
    /// The hash of the required record.
    required_hash: Option<String>,
    anchor_check: AnchorCheck<'a>,
}

/// A record and its location.
struct LastRecord {
    seq: u64,
    hash: String,
    file: String,
    line: u64,
}

impl<'a> Chain<'a> {
    fn new(options: &'a VerifyOptions) -> Chain<'a> {
        let anchor_check = AnchorCheck::new(options);
        Chain { last: None, first_seq: 0, records: 0, anchors: 0, options, required_hash: None, anchor_check }
    }

    fn follow_all(mut self, files: &[LogFile], set_aside: usize) -> Result<VerifyReport, VerifyError> {
        let mut unfinished = false;
        for (index, file) in files.iter().enumerate() {
            unfinished = self.follow(file, index + 1 == files.len())?;
        }
        let unchecked = if self.anchor_check.has_keys() { 0 } else { self.anchors };
        let missing = self.missing();
        if let Some(broken) = missing.as_ref().filter(|_| self.records == 0) {
            return Err(broken.clone().into());
        }
        let anchors = self.anchor_check.finish(self.last.as_ref(), self.records, missing.is_none())?;
        if let Some(broken) = missing {
            return Err(broken.into());
        }
        let (last_seq, last_hash) = self.last.map_or((0, NO_HASH.to_owned()), |last| (last.seq, last.hash));
        let Chain { first_seq, records, .. } = self;
        let files = files.len();
        Ok(VerifyReport {
            records,
            files,
            first_seq,
            last_seq,
            last_hash,
            unfinished,
            set_aside,
            anchors,
            unchecked,
        })
    }

    /// The required record that is missing, if any.
    fn missing(&self) -> Option<Broken> {
        let VerifyOptions { anchored_since, anchored_to, required, .. } = self.options;
        let last = self.last.as_ref().map_or(0, |last| last.seq);
        let required_seq = required.as_ref().map(|mark| mark.seq).or(*anchored_to);
        let (seq, why) = match (required_seq, &self.required_hash, required) {
            (Some(seq), Some(hash), Some(mark)) if *hash != mark.hash => (seq, mark.another()),
            (Some(seq), None, _) if seq > last => (seq, ends_before(seq, last)),
            (Some(seq), None, _) => (seq, begins_after(seq, self.first_seq)),
            (None, ..) if self.records == 0 => {
                ((*anchored_since)?, "the log is empty: nothing in it is anchored".to_owned())
            }
            _ => return None,
        };
        let (file, line) = self.last.as_ref().map_or((String::from("-"), 0), |at| (at.file.clone(), at.line));
        Some(Broken { file, line, seq: Some(seq), why })
    }

    /// Reads one file. True if it is the newest and its last line is incomplete.
    fn follow(&mut self, file: &LogFile, newest: bool) -> Result<bool, VerifyError> {
        let name = file.name();
        let mut reader = BufReader::new(File::open(&file.path)?);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                self.check_empty(file, number == 1)?;
                break;
            }
            let Some(whole) = line.strip_suffix(b"\n") else {
                return if newest { Ok(true) } else { Err(self.broken(&name, number, UNFINISHED).into()) };
            };
            self.record(&name, number, whole)?;
            let first = self.last.as_ref().map_or(0, |last| last.seq);
            if number == 1 && first != file.first_seq {
                let why = format!("is the first of a file that was begun with record {}", file.first_seq);
                return Err(Broken { file: name, line: 1, seq: Some(first), why }.into());
            }
        }
        Ok(false)
    }

    /// A file may be empty just after it was created. Its name must then have the number of the chain's next record.
    fn check_empty(&self, file: &LogFile, empty: bool) -> Result<(), Broken> {
        match &self.last {
            Some(last) if empty && file.first_seq != last.seq + 1 => {
                let why = format!(
                    "missing: an empty file is here that was begun with record {}, and record {} is the last before it",
                    file.first_seq, last.seq
                );
                Err(Broken { file: file.name(), line: 1, seq: Some(last.seq + 1), why })
            }
            _ => Ok(()),
        }
    }

    fn record(&mut self, file: &str, line: u64, text: &[u8]) -> Result<(), VerifyError> {
        let record =
            Record::parse(text).map_err(|why| self.broken(file, line, &format!("not a record: {why}")))?;
        let broken = |why: String| Broken { file: file.to_owned(), line, seq: Some(record.seq), why };
        if record.line()?.as_bytes() != text {
            return Err(broken("altered: not in the form that the gateway writes".to_owned()).into());
        }
        if record.digest()? != record.hash {
            return Err(broken("altered: its content does not match its hash".to_owned()).into());
        }
        match &self.last {
            Some(last) => follows(last, &record, file, line)?,
            None if (record.seq == 1) != (record.prev == NO_HASH) => {
                return Err(broken("altered: only record 1 follows none".to_owned()).into());
            }
            None => self.first_seq = record.seq,
        }
        self.anchor_check.check_record(&record)?.map_err(broken)?;
        self.records += 1;
        if self.options.required.as_ref().map(|mark| mark.seq).or(self.options.anchored_to)
            == Some(record.seq)
        {
            self.required_hash = Some(record.hash.clone());
        }
        self.anchors += u64::from(record.is_anchor());
        self.last = Some(LastRecord { seq: record.seq, hash: record.hash, file: file.to_owned(), line });
        Ok(())
    }

    /// A break in a line without a readable number. Reported with the number that was expected there.
    fn broken(&self, file: &str, line: u64, why: &str) -> Broken {
        let seq = self.last.as_ref().map(|last| last.seq + 1);
        Broken { file: file.to_owned(), line, seq, why: why.to_owned() }
    }
}

/// Checks a record against the one before it. Its own hash was already checked.
fn follows(last: &LastRecord, record: &Record, file: &str, line: u64) -> Result<(), Broken> {
    let broken = |seq, why| Err(Broken { file: file.to_owned(), line, seq: Some(seq), why });
    let (expected, found) = (last.seq + 1, record.seq);
    if found > expected {
        return broken(expected, format!("missing or moved: record {found} stands in its place"));
    }
    if found < expected {
        return broken(found, format!("out of order or repeated: record {expected} was expected"));
    }
    if record.prev != last.hash {
        // This record's hash covers its `prev`. So the record before it was changed, and rehashed to hide that.
        let why = format!("altered and hashed anew: record {found} follows one with another hash");
        return Err(Broken { file: last.file.clone(), line: last.line, seq: Some(last.seq), why });
    }
    Ok(())
}

const UNFINISHED: &str = "an unfinished line, and more files after it";
const TRIES: u32 = 3;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_anchors;
