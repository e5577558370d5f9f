//! A reader's position in the log, across files.
//!
//! Keeps true: nothing is written. Every complete line is read once, in order, while files are created and deleted. A
//! partial line is left for the next call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use super::files::{LogFile, list};

/// How far each file was read. Every file may still grow: a file placed by hand does not end the one before it.
#[derive(Default)]
pub struct Position(BTreeMap<LogFile, u64>);

impl Position {
    /// Reads to the end. Calls `each` for every complete line, with whether it is the first of its file.
    ///
    /// # Errors
    /// When a file cannot be read, or an error of `each`.
    pub fn advance(
        &mut self,
        dir: &Path,
        mut each: impl FnMut(bool, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let files = list(dir)?;
        // Retention deletes the oldest files, and they never return.
        let oldest = files.first().map_or(0, |file| file.first_seq);
        self.0.retain(|file, _| file.first_seq >= oldest);
        for file in files {
            let offset = self.0.entry(file.clone()).or_default();
            match read(&file, offset, &mut each) {
                // Deleted by retention after it was listed.
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                read => read?,
            }
        }
        Ok(())
    }
}

/// Reads a file from `offset` on, and advances it.
fn read(
    file: &LogFile,
    offset: &mut u64,
    each: &mut impl FnMut(bool, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    if file.path.metadata()?.len() == *offset {
        return Ok(());
    }
    let mut opened = File::open(&file.path)?;
    // A restarted gateway may have cut off a partial line.
    *offset = (*offset).min(opened.metadata()?.len());
    opened.seek(SeekFrom::Start(*offset))?;
    let mut reader = BufReader::new(opened);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        let Some(whole) = line.strip_suffix(b"\n") else { return Ok(()) };
        each(*offset == 0, whole)?;
        *offset += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Three files of two lines each.
    struct Log {
        dir: tempfile::TempDir,
        files: Vec<LogFile>,
    }

    impl Log {
        fn new() -> Log {
            let dir = tempfile::tempdir().unwrap();
            let begun = "2026-11-21T10:00:00Z".parse().unwrap();
            let files: Vec<LogFile> = [1, 3, 5].map(|first| LogFile::new(dir.path(), first, begun)).into();
            for file in &files {
                fs::write(&file.path, format!("{}\n{}\n", file.first_seq, file.first_seq + 1)).unwrap();
            }
            Log { dir, files }
        }

        /// The text read from this position, while `meanwhile` runs at each line.
        fn read(&self, mut from: Position, meanwhile: impl Fn(&str)) -> (String, io::Result<()>) {
            let mut text = String::new();
            let ended = from.advance(self.dir.path(), |_, line| {
                let line = String::from_utf8(line.to_vec()).unwrap();
                meanwhile(&line);
                text += &line;
                Ok(())
            });
            (text, ended)
        }
    }

    #[test]
    fn a_file_put_there_with_a_higher_number_does_not_hide_what_comes() {
        let log = Log::new();
        let mut position = Position::default();
        let mut read = || {
            let mut text = String::new();
            let each = |_, line: &[u8]| {
                text += std::str::from_utf8(line).unwrap();
                Ok(())
            };
            position.advance(log.dir.path(), each).unwrap();
            text
        };
        assert_eq!(read(), "123456");
        let planted = LogFile::new(log.dir.path(), 1_000_000, log.files[0].started);
        fs::write(&planted.path, "planted\n").unwrap();
        assert_eq!(read(), "planted");
        fs::write(&log.files[2].path, "5\n6\n7\n").unwrap();
        fs::write(LogFile::new(log.dir.path(), 8, log.files[0].started).path, "8\n").unwrap();
        assert_eq!(read(), "78");
        fs::remove_file(&log.files[0].path).unwrap();
        assert_eq!(read(), "");
    }

    #[test]
    fn a_file_that_is_deleted_meanwhile_is_passed_over_and_one_that_cannot_be_read_is_not() {
        let log = Log::new();
        let deleted = |line: &str| {
            if line == "1" {
                fs::remove_file(&log.files[1].path).unwrap();
            }
        };
        let (text, ended) = log.read(Position::default(), deleted);
        assert_eq!((text.as_str(), ended.is_ok()), ("1256", true));
        fs::write(&log.files[1].path, "3\n4\n").unwrap();
        let replaced = |line: &str| {
            deleted(line);
            if line == "1" {
                fs::create_dir(&log.files[1].path).unwrap();
            }
        };
        let (text, ended) = log.read(Position::default(), replaced);
        assert_eq!((text.as_str(), ended.unwrap_err().kind()), ("12", io::ErrorKind::IsADirectory));
    }
}
