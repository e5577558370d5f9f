//! Reads a file named by the config or a command. Its path may lead to a FIFO, a device or a directory.
//!
//! Keeps true: a read takes at most two seconds, and never exceeds the limit. Otherwise a FIFO without a writer would
//! block `open` forever, and a device might have no end.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

/// Why a file could not be read. Its text follows "cannot read PATH: ".
#[derive(Debug)]
pub enum ReadError {
    /// An error of the system.
    System(io::Error),
    /// The path is a directory.
    Directory,
    /// The path is a socket.
    Socket,
    /// The path is a FIFO without a writer.
    NoWriter,
    /// The path is a FIFO or a device that did not end in time.
    Stalled,
    /// The file has more bytes than this limit.
    TooLarge(u64),
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// When the file cannot be opened, does not end within two seconds, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(ReadError::Directory);
    }
    if kind.is_socket() {
        return Err(ReadError::Socket);
    }
    // O_NONBLOCK lets the open of a FIFO without a writer return at once. It has no effect on a regular file.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let mut file =
        OpenOptions::new().read(true).custom_flags(flags).open(path)?.take(limit.saturating_add(1));
    let (mut bytes, mut waited) = (Vec::new(), Duration::ZERO);
    loop {
        match file.read_to_end(&mut bytes) {
            // A writer that was blocked until now needs a moment to begin.
            Ok(_) if bytes.is_empty() && kind.is_fifo() && waited < WRITER_WAIT => {}
            Ok(_) if bytes.is_empty() && kind.is_fifo() => return Err(ReadError::NoWriter),
            Ok(_) if bytes.len() as u64 > limit => return Err(ReadError::TooLarge(limit)),
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && waited < TIMEOUT => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(ReadError::Stalled),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(POLL_INTERVAL);
        waited += POLL_INTERVAL;
    }
}

/// Whether two paths are the same, once both are absolute and without `.`. Links are not followed.
pub fn is_same_path(one: &Path, other: &Path) -> bool {
    match (std::path::absolute(one), std::path::absolute(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::System(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::System(error) => error.fmt(f),
            ReadError::Directory => f.write_str("it is a directory; name a file in it"),
            ReadError::Socket => f.write_str("it is a socket; name a regular file"),
            ReadError::NoWriter => {
                f.write_str("it is a FIFO, and no program has written to it; name a regular file")
            }
            ReadError::Stalled => write!(
                f,
                "it is a FIFO or a device, and it did not end within {} s; name a regular file",
                TIMEOUT.as_secs()
            ),
            ReadError::TooLarge(limit) => match (limit >> 20, limit >> 10) {
                (0, 0) => write!(f, "it is larger than {limit} bytes"),
                (0, kib) => write!(f, "it is larger than {kib} KiB"),
                (mib, _) => write!(f, "it is larger than {mib} MiB"),
            },
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(2);
const WRITER_WAIT: Duration = Duration::from_millis(200);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_fifo_a_socket_or_a_directory_is_reported_without_blocking() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let said = |name: &str| read(&at(name), 10).unwrap_err().to_string();
        assert!(said("fifo").contains("FIFO, and no program"), "{}", said("fifo"));
        assert!(said("socket").contains("socket"), "{}", said("socket"));
        assert!(said("").contains("directory"), "{}", said(""));
        assert!(said("absent").contains("No such file"), "{}", said("absent"));
        // Held open by a writer that writes nothing.
        let _writer = OpenOptions::new().read(true).write(true).open(at("fifo")).unwrap();
        assert!(said("fifo").contains("did not end within 2 s"), "{}", said("fifo"));
    }

    #[test]
    fn a_fifo_with_a_writer_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let writer = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::write(fifo, b"text").unwrap()
        });
        assert_eq!(read(&fifo, 10).unwrap(), b"text");
        writer.join().unwrap();
    }

    #[test]
    fn a_file_over_the_limit_is_too_large_even_one_without_an_end() {
        for (limit, said) in [(10, "10 bytes"), (64 << 10, "64 KiB"), (4 << 20, "4 MiB")] {
            let why = read(Path::new("/dev/zero"), limit).unwrap_err().to_string();
            assert_eq!(why, format!("it is larger than {said}"));
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ten"), [7; 10]).unwrap();
        assert_eq!(read(&dir.path().join("ten"), 10).unwrap(), [7; 10]);
        assert!(matches!(read(&dir.path().join("ten"), 9), Err(ReadError::TooLarge(9))));
    }
}
