//! Reads the configured queue: embedded or Redis.

use super::super::Failure;
use crate::config::{Config, QueueKind};
use crate::durable::data_dir;
use crate::durable::inbox::redis::ReadError;
use crate::durable::inbox::{embedded, redis};

/// Reads the configured queue.
pub(in crate::cli) enum Reader {
    Embedded(embedded::Reader),
    Redis(Box<redis::Reader>),
}

impl Reader {
    /// Opens the queue for `command`, which errors name.
    pub(in crate::cli) async fn open(config: &Config, command: &str) -> Result<Reader, Failure> {
        Ok(match config.queue.kind {
            QueueKind::Embedded => {
                data_dir::readable(&config.data_dir).map_err(Failure)?;
                Reader::Embedded(embedded::Reader::open(&data_dir::database_file(&config.data_dir))?)
            }
            QueueKind::Redis => {
                let servers = redis::Servers::of(&config.redis)?;
                let (name, partitions) = (&config.queue.name.value, config.queue.partitions);
                Reader::Redis(Box::new(redis::Reader::open(&servers, name, partitions).await?))
            }
            QueueKind::Http => {
                return Err(Failure(format!(
                    "{command} cannot read a queue of kind http: its events are at the services that took them; `events \
                     dead list` shows those that none took"
                )));
            }
            kind @ (QueueKind::Nats | QueueKind::Amqp | QueueKind::Kafka) => {
                let kind = kind.label();
                return Err(Failure(format!(
                    "{command} cannot read a queue of kind {kind}; read it with the broker's own tools"
                )));
            }
        })
    }

    /// Events after a cursor, each with its own cursor. An empty cursor is before the first event.
    pub(in crate::cli) async fn after(
        &mut self,
        cursor: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, QueueReadError> {
        Ok(match self {
            Reader::Embedded(reader) => {
                let from = match cursor {
                    "" => 0,
                    text => text.parse().map_err(|_| {
                        QueueReadError::Failed(format!(
                            "{text:?} is not a cursor of this queue; `events tail --json` prints them"
                        ))
                    })?,
                };
                let events =
                    reader.after(from, limit).map_err(|why| QueueReadError::Failed(why.to_string()))?;
                events.into_iter().map(|(at, event)| (at.to_string(), event)).collect()
            }
            Reader::Redis(reader) => reader.after(cursor, limit).await?,
        })
    }

    /// The number of events, and the cursor before the last `last` events.
    pub(super) async fn end(&mut self, last: usize) -> Result<(u64, String), Failure> {
        Ok(match self {
            Reader::Embedded(reader) => {
                let (total, cursor) = reader.end(last)?;
                (total, cursor.to_string())
            }
            Reader::Redis(reader) => reader.end(last).await?,
        })
    }
}

/// Why the queue cannot be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum QueueReadError {
    /// The queue does not answer now.
    #[error("{0}")]
    Down(String),
    /// A retry would fail too.
    #[error("{0}")]
    Failed(String),
}

impl From<ReadError> for QueueReadError {
    fn from(why: ReadError) -> QueueReadError {
        match &why {
            ReadError::Redis(_) => QueueReadError::Down(why.to_string()),
            ReadError::Open(_) | ReadError::Cursor(_) => QueueReadError::Failed(why.to_string()),
        }
    }
}
