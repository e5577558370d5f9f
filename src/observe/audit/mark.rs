//! A record's number and hash, stored outside the log, and the check that the log still has that record.
//!
//! Keeps true: a log has a mark only if it has a record with the same number and hash.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use super::files::{RecordHead, list};
use super::record::NO_HASH;

/// A record's number and hash. Its text is `SEQ:HASH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The number; 0 before the first record.
    pub seq: u64,
    /// The hash, 64 hex digits.
    pub hash: String,
}

impl Display for Mark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Mark, String> {
        let wrong = || format!("{text:?} is not SEQ:HASH, as `audit verify --json` prints it in \"head\"");
        let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
        let seq = seq.parse().map_err(|_| wrong())?;
        let is_hash = hash.len() == NO_HASH.len() && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hash {
            return Err(wrong());
        }
        Ok(Mark { seq, hash: hash.to_ascii_lowercase() })
    }
}

impl Mark {
    /// Why this exact record is not in the log in `dir`; none if it is. Reads only one file if nothing is missing.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn missing_in(&self, dir: &Path) -> io::Result<Option<String>> {
        if self.seq == 0 {
            return Ok(None);
        }
        let mut oldest = None;
        for file in list(dir)?.into_iter().rev() {
            let bytes = match fs::read(&file.path) {
                // Deleted by retention after it was listed.
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            let links =
                bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
            let links: Vec<RecordHead> = links.collect();
            if let Some(there) = links.iter().find(|link| link.seq == self.seq) {
                return Ok((there.hash != self.hash).then(|| self.another()));
            }
            match (links.first(), links.last()) {
                (Some(_), Some(last)) if last.seq < self.seq => {
                    return Ok(Some(self.beyond(last.seq, oldest)));
                }
                (Some(first), _) => oldest = Some(first.seq),
                _ => {}
            }
        }
        Ok(Some(self.before(oldest)))
    }

    /// Another record has the same number.
    pub(super) fn another(&self) -> String {
        format!("record {} is another one: its hash is not {}", self.seq, self.hash)
    }

    /// The log, or one of its files, ends with `last` before this record; the next file begins with `next`.
    fn beyond(&self, last: u64, next: Option<u64>) -> String {
        match next {
            Some(next) => format!("record {} is missing between records {last} and {next}", self.seq),
            None => ends_before(self.seq, last),
        }
    }

    fn before(&self, oldest: Option<u64>) -> String {
        match oldest {
            Some(oldest) => begins_after(self.seq, oldest),
            None => ends_before(self.seq, 0),
        }
    }
}

/// The log ends with record `last`, before `seq`.
pub(super) fn ends_before(seq: u64, last: u64) -> String {
    match last {
        0 => format!("the log is empty, and record {seq} was in it"),
        last => format!("the log ends with record {last}, before record {seq}"),
    }
}

/// The log begins with record `first`, after `seq`.
pub(super) fn begins_after(seq: u64, first: u64) -> String {
    format!(
        "the log begins with record {first}, after record {seq}: the files before it were deleted, by retention ([audit] \
         retain and max_bytes) or by hand"
    )
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::super::tests::reject;
    use super::*;

    /// Records 3 to 8 in three files of two, and their marks.
    fn log() -> (tempfile::TempDir, Vec<Mark>) {
        let dir = tempfile::tempdir().unwrap();
        let (mut marks, mut prev) = (Vec::new(), NO_HASH.to_owned());
        for first in [3, 5, 7] {
            let mut text = String::new();
            for seq in first..first + 2 {
                let record = Record::seal(&reject(seq), 0, seq, &prev).unwrap();
                text += &(record.line().unwrap() + "\n");
                prev = record.hash.clone();
                marks.push(Mark { seq, hash: record.hash });
            }
            fs::write(dir.path().join(format!("{first:020}-20261121T100000Z.jsonl")), text).unwrap();
        }
        (dir, marks)
    }

    #[test]
    fn a_mark_reads_back_and_nothing_else_is_one() {
        let mark = Mark { seq: 7, hash: "0b".repeat(32) };
        assert_eq!(mark.to_string().parse(), Ok(mark.clone()));
        assert_eq!(format!("7:{}", "0B".repeat(32)).parse(), Ok(mark));
        for wrong in ["7", "7:", "7:0b", ":0b", "x:0b", &format!("-7:{}", "0b".repeat(32))] {
            assert!(wrong.parse::<Mark>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_very_record_counts() {
        let (dir, marks) = log();
        let why = |mark: &Mark| mark.missing_in(dir.path()).unwrap();
        assert!(marks.iter().all(|mark| why(mark).is_none()));
        assert!(why(&Mark { seq: 0, hash: NO_HASH.to_owned() }).is_none());
        let says = |seq: u64, what: &str| {
            let said = why(&Mark { seq, hash: "0b".repeat(32) }).unwrap();
            assert!(said.contains(what), "{said}");
        };
        says(6, "is another one");
        says(9, "ends with record 8");
        says(2, "begins with record 3");
        fs::remove_file(dir.path().join("00000000000000000005-20261121T100000Z.jsonl")).unwrap();
        says(6, "missing between records 4 and 7");
        for first in [3, 7] {
            fs::remove_file(dir.path().join(format!("{first:020}-20261121T100000Z.jsonl"))).unwrap();
        }
        says(6, "is empty");
    }
}
