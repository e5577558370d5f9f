//! Checks the chain of a reject log, record by record.
//!
//! Keeps true: a log passes only if every line is byte for byte what the gateway wrote, from the oldest file kept to the end.
//! What no chain can show: records cut off its end, and a chain made anew from some record on. With the key, an anchor that holds
//! shows that all records before it are as they were when it was made. No anchor can show that the log ends early, or that its
//! records were made anew before a gateway anchored them. For these, [`VerifyOptions`] takes what was seen of the log before, and
//! [`Mark::missing_in`] what the gateway noted of it.

mod watch;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use jiff::Timestamp;

use super::anchor::Key;
use super::files::{LogFile, list, set_aside, strangers};
use super::mark::{Mark, begins_after, ends_before};
use super::record::{NO_HASH, Record};
use watch::Watch;

/// What is demanded of a log besides an unbroken chain.
#[derive(Clone, Default)]
pub struct VerifyOptions {
    /// Anchors must have been made with one of these; without any, they are records like others.
    pub keys: Vec<Key>,
    /// From this record on, each must have an anchor behind it, unless that is not due yet.
    pub anchored_since: Option<u64>,
    /// This record must be there, and an anchor at it or after it, unless that is not due yet.
    pub anchored_to: Option<u64>,
    /// This very record must be there.
    pub holding: Option<Mark>,
    /// When it is checked: an anchor is due once a record is more than a minute old. None: none is due.
    pub now: Option<Timestamp>,
}

/// A chain that holds.
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
    /// The newest file ends in a line without end: a write in progress, or cut short by a crash.
    pub unfinished: bool,
    /// Files that held nothing readable at a start, or parts of files, which were kept aside.
    pub set_aside: usize,
    /// The anchors, if there are any that were checked.
    pub anchors: Option<Anchors>,
    /// Anchors that were not checked, since no key was given.
    pub unchecked: u64,
}

/// The anchors of a log; all of them hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// How many.
    pub count: u64,
    /// The first one's number. What stands before it is as it was then, and may be from before there was a key.
    pub first_seq: u64,
    /// When that was made.
    pub first_at: String,
    /// The last one's number: the log is vouched for up to here.
    pub last_seq: u64,
    /// What stands after the last one has waited for longer than a gateway that runs lets it.
    pub overdue: bool,
}

/// Where a chain breaks first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{why}", seq.map_or_else(String::new, |seq| format!("record {seq}: ")))]
pub struct Broken {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The record that is altered, missing or out of order, where that can be told.
    pub seq: Option<u64>,
    /// What is wrong.
    pub why: String,
}

/// Why a log did not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not as it was written.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The chain holds, but nothing vouches for it.
    #[error(
        "no anchor vouches for these {0} records: a gateway that runs with the key anchors them at its start; \
         if one has run, its anchors were removed"
    )]
    Unanchored(u64),
    /// It could not be read.
    #[error("cannot read the reject log: {0}")]
    Io(#[from] io::Error),
}

/// Verifies the log in `dir`. The oldest record's `prev` is taken as given, since what it names may have been
/// deleted in its time.
///
/// # Errors
/// When the chain is broken or cannot be read.
pub fn verify(dir: &Path) -> Result<VerifyReport, VerifyError> {
    verify_with(dir, &VerifyOptions::default())
}

/// The same, and holds it to more.
///
/// # Errors
/// The same, and when a demand is not met.
pub fn verify_with(dir: &Path, demand: &VerifyOptions) -> Result<VerifyReport, VerifyError> {
    verify_listed(|| list(dir), dir, demand)
}

fn verify_listed(
    mut files: impl FnMut() -> io::Result<Vec<LogFile>>,
    dir: &Path,
    demand: &VerifyOptions,
) -> Result<VerifyReport, VerifyError> {
    let mut tries = 0;
    loop {
        match Chain::new(demand).follow_all(&files()?, set_aside(dir)?) {
            // The gateway deleted a file since it was listed.
            Err(VerifyError::Io(why)) if why.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            result => {
                let verified = result?;
                return strangers(dir)?.first().map_or(Ok(verified), |file| Err(is_none(file).into()));
            }
        }
    }
}

fn is_none(file: &LogFile) -> Broken {
    let why = "is no regular file, and no gateway has made it: look at it, and remove it".to_owned();
    Broken { file: file.name(), line: 0, seq: None, why }
}

/// The chain as far as it holds.
struct Chain<'a> {
    last: Option<Seen>,
    first_seq: u64,
    records: u64,
    anchors: u64,
    demand: &'a VerifyOptions,
    /// The hash of the record that is demanded.
    demanded: Option<String>,
    watch: Watch<'a>,
}

/// A record and where it stands.
struct Seen {
    seq: u64,
    hash: String,
    file: String,
    line: u64,
}

impl<'a> Chain<'a> {
    fn new(demand: &'a VerifyOptions) -> Chain<'a> {
        let watch = Watch::new(demand);
        Chain { last: None, first_seq: 0, records: 0, anchors: 0, demand, demanded: None, watch }
    }

    fn follow_all(mut self, files: &[LogFile], set_aside: usize) -> Result<VerifyReport, VerifyError> {
        let mut unfinished = false;
        for (index, file) in files.iter().enumerate() {
            unfinished = self.follow(file, index + 1 == files.len())?;
        }
        let unchecked = if self.watch.checks() { 0 } else { self.anchors };
        let missing = self.missing();
        if let Some(broken) = missing.as_ref().filter(|_| self.records == 0) {
            return Err(broken.clone().into());
        }
        let anchors = self.watch.end(self.last.as_ref(), self.records, missing.is_none())?;
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

    /// What of the demanded records is not there.
    fn missing(&self) -> Option<Broken> {
        let VerifyOptions { anchored_since, anchored_to, holding, .. } = self.demand;
        let last = self.last.as_ref().map_or(0, |last| last.seq);
        let wanted = holding.as_ref().map(|mark| mark.seq).or(*anchored_to);
        let (seq, why) = match (wanted, &self.demanded, holding) {
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

    /// Reads one file; true when it is the newest and its last line is unfinished.
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

    /// A file is empty between its beginning and its first record, which is the next one of the chain.
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
        self.watch.see(&record)?.map_err(broken)?;
        self.records += 1;
        if self.demand.holding.as_ref().map(|mark| mark.seq).or(self.demand.anchored_to) == Some(record.seq) {
            self.demanded = Some(record.hash.clone());
        }
        self.anchors += u64::from(record.is_anchor());
        self.last = Some(Seen { seq: record.seq, hash: record.hash, file: file.to_owned(), line });
        Ok(())
    }

    /// A break in a line that does not tell its own number: it stands where the next was due.
    fn broken(&self, file: &str, line: u64, why: &str) -> Broken {
        let seq = self.last.as_ref().map(|last| last.seq + 1);
        Broken { file: file.to_owned(), line, seq, why: why.to_owned() }
    }
}

/// Checks a record whose own hash holds against the one before it.
fn follows(last: &Seen, record: &Record, file: &str, line: u64) -> Result<(), Broken> {
    let broken = |seq, why| Err(Broken { file: file.to_owned(), line, seq: Some(seq), why });
    let (due, found) = (last.seq + 1, record.seq);
    if found > due {
        return broken(due, format!("missing or moved: record {found} stands in its place"));
    }
    if found < due {
        return broken(found, format!("out of order or repeated: record {due} was due"));
    }
    if record.prev != last.hash {
        // This record's own hash vouches for its `prev`, so it is the one before that was changed, and hashed
        // anew to hide it.
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
