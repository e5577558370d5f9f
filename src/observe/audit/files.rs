//! The log's files: names, order, and the end of the last complete record.
//!
//! Keeps true: names sort in the order of the chain. Each has the number of its first record and its start time.

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::Deserialize;

/// A file of the log. The order is that of the chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// The number of its first record.
    pub first_seq: u64,
    /// Its start time, to the second.
    pub started: Timestamp,
    /// Its path.
    pub path: PathBuf,
}

impl LogFile {
    /// A new file whose first record is `first_seq`.
    pub(super) fn new(dir: &Path, first_seq: u64, started: Timestamp) -> LogFile {
        let path = dir.join(format!("{first_seq:020}-{}.jsonl", started.strftime(STARTED)));
        LogFile { path, first_seq, started }
    }

    /// Parses a path; none if it is not a file of the log.
    fn from_path(path: PathBuf) -> Option<LogFile> {
        let (first_seq, started) = path.file_name()?.to_str()?.strip_suffix(".jsonl")?.split_once('-')?;
        let started = DateTime::strptime(STARTED, started).ok()?;
        let started = Offset::UTC.to_timestamp(started).ok()?;
        Some(LogFile { first_seq: first_seq.parse().ok()?, started, path })
    }

    /// The file's name, for display.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The files of the log in `dir`, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<LogFile>> {
    Ok(named(dir)?.into_iter().filter_map(|(file, regular)| regular.then_some(file)).collect())
}

/// Entries with the name of a log file that are not regular files: a folder, a FIFO or a dangling link. A gateway never
/// makes these, and opening one could block for ever.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn irregular_files(dir: &Path) -> io::Result<Vec<LogFile>> {
    Ok(named(dir)?.into_iter().filter_map(|(file, regular)| (!regular).then_some(file)).collect())
}

/// Every entry with the name of a log file, in order, and whether it is a regular file.
fn named(dir: &Path) -> io::Result<Vec<(LogFile, bool)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(file) = LogFile::from_path(entry.path()) {
            let regular = is_regular(&entry)?;
            files.push((file, regular));
        }
    }
    files.sort();
    Ok(files)
}

/// Follows links: the log may be on another disk.
fn is_regular(entry: &DirEntry) -> io::Result<bool> {
    let kind = entry.file_type()?;
    Ok(kind.is_file() || kind.is_symlink() && entry.path().is_file())
}

/// Whether a file with this name belongs to the log, or was set aside from it.
pub fn is_of_log(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == SET_ASIDE)
        || LogFile::from_path(name.to_owned()).is_some()
}

/// The files in `dir` that were set aside as unreadable.
///
/// # Errors
/// When the directory cannot be read.
pub fn unreadable(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == SET_ASIDE) && is_regular(&entry)? {
            files.push(path);
        }
    }
    Ok(files)
}

/// How many files in `dir` were set aside.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn set_aside(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(dir)? {
        count += usize::from(entry?.path().extension().is_some_and(|extension| extension == SET_ASIDE));
    }
    Ok(count)
}

/// The fields of a record that the next one needs. Also reads records of newer versions, so that a gateway can continue
/// the chain after a downgrade.
#[derive(Debug, Deserialize)]
pub(super) struct RecordHead {
    pub(super) seq: u64,
    pub(super) ts: String,
    pub(super) hash: String,
    #[serde(default)]
    pub(super) reason: String,
}

/// The end of the last complete record, and that record. Bytes after it are left over from an interrupted write.
pub(super) fn last_record(bytes: &[u8]) -> (usize, Option<RecordHead>) {
    let mut rest = bytes;
    while let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
        let start = rest[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        if let Ok(link) = serde_json::from_slice(&rest[start..end]) {
            return (end + 1, Some(link));
        }
        rest = &rest[..start];
    }
    (0, None)
}

/// The extension of a file that was unreadable at a start and was kept aside.
pub(super) const SET_ASIDE: &str = "unreadable";
const STARTED: &str = "%Y%m%dT%H%M%SZ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_strangers_are_not_of_the_log() {
        let at = "2026-11-21T10:00:59Z".parse().unwrap();
        let file = LogFile::new(Path::new("/a"), 812, at);
        assert_eq!(file.name(), "00000000000000000812-20261121T100059Z.jsonl");
        assert_eq!(LogFile::from_path(file.path.clone()), Some(file));
        for stranger in [".lock", "x.jsonl", "1-2.jsonl", "00000000000000000812-20261121T100059Z.jsonl.bak"] {
            assert_eq!(LogFile::from_path(PathBuf::from(stranger)), None, "{stranger}");
        }
    }

    #[test]
    fn the_last_whole_record_is_found_before_any_kind_of_torn_tail() {
        let whole = "{\"seq\":7,\"ts\":\"2026-11-21T10:00:00.000000Z\",\"hash\":\"h\",\"later\":1}\n";
        for torn in ["", "{\"seq\":8", "\0\0\0\0", "\0\0\n", "{\"seq\":8\n{\"seq\"\n"] {
            let (end, link) = last_record(format!("{whole}{torn}").as_bytes());
            assert_eq!((end, link.unwrap().seq), (whole.len(), 7), "{torn:?}");
        }
        assert!(matches!(last_record(b"{\"seq\":1"), (0, None)));
        assert!(matches!(last_record(b""), (0, None)));
    }
}
