//! Retention: streams are trimmed past an age, once every consumer group has read and acknowledged what goes.
//!
//! Keeps true: nothing that a group has still to read or to acknowledge is trimmed, however old; age is told by the
//! server's clock. Trimming is not how a stream is kept within `max_backlog`: that refuses new events instead.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio_util::sync::CancellationToken;

use super::link::Fault;
use super::links::Links;
use super::script::{self, Scripts};

/// The streams to look after: those that the name tells, and those that this process has written to.
#[derive(Default)]
pub(super) struct Written(Mutex<BTreeSet<String>>);

impl Written {
    /// Starts with these.
    pub(super) fn with(streams: impl IntoIterator<Item = String>) -> Written {
        Written(Mutex::new(streams.into_iter().collect()))
    }

    /// Adds one.
    pub(super) fn note(&self, stream: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Trims every stream now and then, until stopped.
pub(super) async fn run(
    links: Arc<Links>,
    scripts: Arc<Scripts>,
    written: Arc<Written>,
    retain: Duration,
    stop: CancellationToken,
) {
    let every = (retain / 10).clamp(EVERY_MIN, EVERY_MAX);
    let retain_ms = u64::try_from(retain.as_millis()).unwrap_or(u64::MAX);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        for stream in written.all() {
            if stop.is_cancelled() {
                return;
            }
            trim(&links, &scripts, &stream, retain_ms).await;
        }
    }
}

/// Trims one stream, a bounded number of entries a call.
async fn trim(links: &Links, scripts: &Scripts, stream: &str, retain_ms: u64) {
    loop {
        let mut call = redis::pipe();
        call.add_command(scripts.trim(stream, retain_ms));
        match links.call(stream, &call).await.map(|mut replies| replies.pop()) {
            Ok(Some(Value::Int(gone))) if gone > 0 => {
                tracing::debug!(%stream, gone, "trimmed");
            }
            Ok(Some(Value::ServerError(why))) if why.code() == "NOSCRIPT" => {
                // The next turn trims; a lane may have loaded it by then anyway.
                let _ = links.call(stream, &scripts.loads()).await;
                return;
            }
            Ok(Some(Value::ServerError(why))) => {
                tracing::warn!(%stream, why = %script::said(&why), "a stream cannot be trimmed");
                return;
            }
            Ok(_) | Err(Fault::Unreachable | Fault::Unknown) => return,
        }
    }
}

const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(60);
