//! The lock that decides which gateway serves out of a data folder, so that a second gateway can take over from the
//! first.
//!
//! Keeps true: one gateway at a time holds the lock of a data folder. It releases the lock when it begins to drain. It
//! closes its ports only after its successor listens on them, if there is one. The lock of a gateway that dies is free
//! at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use super::{StartError, make_data_dir};
use crate::base::clock;
use crate::config::Config;

/// The lock, held. The locked file's text is the id of the gateway that began to listen last.
pub struct HandoffLock {
    file: File,
    id: String,
}

/// A lock that this gateway has released.
pub(super) struct ReleasedLock(HandoffLock);

impl HandoffLock {
    /// Waits for the lock, however long that takes; the caller must then read the config again, since it may have
    /// changed. Returns `None` where ports are not shared (`edge.reuse_port`): no lock is needed.
    ///
    /// # Errors
    /// When the data folder, or the lock file in it, cannot be used.
    pub async fn acquire(config: &Config) -> Result<Option<HandoffLock>, StartError> {
        if !config.edge.reuse_port {
            return Ok(None);
        }
        make_data_dir(&config.data_dir)?;
        let lock = HandoffLock::acquire_in(&config.data_dir).await;
        lock.map(Some).map_err(|why| StartError::DataDir { path: config.data_dir.clone(), why })
    }

    async fn acquire_in(data_dir: &Path) -> io::Result<HandoffLock> {
        let path = data_dir.join("hookgate.turn");
        let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
        let mut logged = false;
        while !try_lock(&file)? {
            if !logged {
                tracing::info!(data_dir = %data_dir.display(), "another gateway serves; waiting for it to drain");
                logged = true;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(HandoffLock { file, id: hex::encode(clock::random::<16>()) })
    }

    /// Records that this gateway listens on every port.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn mark_listening(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(self.id.as_bytes())
    }

    pub(super) fn release(self) -> ReleasedLock {
        // If this fails, the end of the process unlocks it.
        let _ = self.file.unlock();
        ReleasedLock(self)
    }
}

impl ReleasedLock {
    /// Returns once another gateway listens.
    pub(super) async fn wait_for_takeover(&mut self) {
        while !self.another_listens() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns once another gateway listens, or no other gateway is starting. One that took the lock may fail to start.
    pub(super) async fn wait_for_successor(&mut self) {
        while self.has_successor().await && !self.another_listens() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether another gateway listens or holds the lock. A waiting gateway gets [`POLLS`] polls to take the lock.
    async fn has_successor(&mut self) -> bool {
        for _ in 0..POLLS {
            if self.another_listens() || matches!(try_lock(&self.0.file), Ok(false)) {
                return true;
            }
            let _ = self.0.file.unlock();
            tokio::time::sleep(POLL).await;
        }
        false
    }

    fn another_listens(&mut self) -> bool {
        let mut text = String::new();
        let HandoffLock { file, id } = &mut self.0;
        // A half-written id is shorter than a whole one.
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        read.is_ok() && text.len() == id.len() && text != *id
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

const POLL: Duration = Duration::from_millis(10);
/// A waiting gateway polls at the same interval as this one.
const POLLS: u32 = 8;
