//! Whose turn it is to serve out of a data folder, where a second gateway may take over from the first.
//!
//! Keeps true: of the gateways on one data folder one has the turn; it gives it up when it begins to drain, and leaves its
//! ports only once the next one listens on them, if there is a next one. A gateway that dies leaves its turn at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use super::{StartError, make_data_dir};
use crate::base::clock;
use crate::config::Config;

/// The turn, held. The lock is the turn; the file's text is the mark of the gateway that listened last.
pub struct HandoffLock {
    file: File,
    mark: String,
}

/// A turn that was given up.
pub(super) struct ReleasedLock(HandoffLock);

impl HandoffLock {
    /// Waits for the turn to serve by this config; none is needed where ports are not shared. However long it takes: what was
    /// read before may have changed since.
    ///
    /// # Errors
    /// When the data folder, or the file of the turn in it, cannot be used.
    pub async fn of(config: &Config) -> Result<Option<HandoffLock>, StartError> {
        if !config.edge.reuse_port {
            return Ok(None);
        }
        make_data_dir(&config.data_dir)?;
        let turn = HandoffLock::take(&config.data_dir).await;
        turn.map(Some).map_err(|why| StartError::DataDir { path: config.data_dir.clone(), why })
    }

    async fn take(data_dir: &Path) -> io::Result<HandoffLock> {
        let path = data_dir.join("hookgate.turn");
        let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
        let mut told = false;
        while !locked(&file)? {
            if !told {
                tracing::info!(data_dir = %data_dir.display(), "another gateway serves; waiting for it to drain");
                told = true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(HandoffLock { file, mark: hex::encode(clock::random::<16>()) })
    }

    /// Tells that this gateway listens on every port.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn listens(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(self.mark.as_bytes())
    }

    /// Lets the next one have it.
    pub(super) fn give_up(self) -> ReleasedLock {
        // Should it fail, the end of the process unlocks it.
        let _ = self.file.unlock();
        ReleasedLock(self)
    }
}

impl ReleasedLock {
    /// Returns once another gateway listens.
    pub(super) async fn taken_over(&mut self) {
        while !self.another_listens() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Returns once another gateway listens, or none is about to: it may have stepped forward and not started.
    pub(super) async fn succeeded(&mut self) {
        while self.is_wanted().await && !self.another_listens() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether there is another gateway, listening already or about to. Gives one that waits the time to step forward.
    async fn is_wanted(&mut self) -> bool {
        for _ in 0..LOOKS {
            if self.another_listens() || matches!(locked(&self.0.file), Ok(false)) {
                return true;
            }
            let _ = self.0.file.unlock();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        false
    }

    fn another_listens(&mut self) -> bool {
        let mut text = String::new();
        let HandoffLock { file, mark } = &mut self.0;
        // Half a mark is not its whole length yet.
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        read.is_ok() && text.len() == mark.len() && text != *mark
    }
}

fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The one that waits looks as often as this one.
const LOOKS: u32 = 8;
