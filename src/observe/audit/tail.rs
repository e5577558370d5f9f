//! The newest records of a log, read from its end.
//!
//! Keeps true: it reads a bounded number of bytes, however large the log is, and changes nothing. The writer may append
//! meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::files::list;
use super::record::Record;

/// The newest records without anchors, newest first, at most `limit`. A line that is no record is left out.
///
/// # Errors
/// When the folder or its newest files cannot be read.
pub fn newest(dir: &Path, limit: usize) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut left = MAX_BYTES;
    let files = match list(dir) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(records),
        files => files?,
    };
    for file in files.iter().rev() {
        let end = match read_end(&file.path, left) {
            // The writer deletes old files.
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            end => end?,
        };
        left = left.saturating_sub(end.len() as u64);
        let lines = end.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty());
        let found = lines.filter_map(|line| Record::parse(line).ok()).filter(|record| !record.is_anchor());
        records.extend(found.take(limit - records.len()));
        if records.len() >= limit || left == 0 {
            break;
        }
    }
    Ok(records)
}

/// At most the last `limit` bytes of a file.
fn read_end(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut end = Vec::new();
    file.take(limit).read_to_end(&mut end)?;
    Ok(end)
}

const MAX_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::super::files::LogFile;
    use super::super::record::NO_HASH;
    use super::super::tests::reject;
    use super::*;

    #[test]
    fn the_newest_come_first_over_files_and_whatever_stands_between() {
        let dir = tempfile::tempdir().unwrap();
        assert!(newest(&dir.path().join("absent"), 9).unwrap().is_empty());
        assert!(newest(dir.path(), 9).unwrap().is_empty());
        let line = |seq: u64| Record::seal(&reject(seq), 0, seq, NO_HASH).unwrap().line().unwrap() + "\n";
        let write = |first: u64, text: String| {
            let file = LogFile::new(dir.path(), first, "2026-11-21T10:00:00Z".parse().unwrap());
            std::fs::write(file.path, text).unwrap();
        };
        write(1, (1..=3).map(line).collect());
        write(4, format!("{}no record\n{}{{\"seq\":6", line(4), line(5)));
        let seqs =
            |limit| newest(dir.path(), limit).unwrap().iter().map(|record| record.seq).collect::<Vec<_>>();
        assert_eq!(seqs(9), [5, 4, 3, 2, 1]);
        assert_eq!(seqs(3), [5, 4, 3]);
    }

    #[test]
    fn a_large_log_is_read_from_its_end_alone() {
        let dir = tempfile::tempdir().unwrap();
        let line = |seq: u64| Record::seal(&reject(seq), 0, seq, NO_HASH).unwrap().line().unwrap() + "\n";
        let file = LogFile::new(dir.path(), 1, "2026-11-21T10:00:00Z".parse().unwrap());
        std::fs::write(file.path, (1..=2000).map(line).collect::<String>()).unwrap();
        let found = newest(dir.path(), 100_000).unwrap();
        assert!(found.len() > 100 && found.len() < 2000 && found[0].seq == 2000, "{}", found.len());
    }
}
