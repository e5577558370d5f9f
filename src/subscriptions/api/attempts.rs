//! When a call to a provider's API is tried again.

use std::time::Duration;

use super::ApiError;
use crate::base::clock;

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub why: ApiError,
    /// How long to wait before the next attempt. None: another attempt would not help.
    pub again_in: Option<Duration>,
}

impl From<ApiError> for Failed {
    fn from(why: ApiError) -> Failed {
        Failed { why, again_in: None }
    }
}

/// The pauses between attempts.
#[derive(Default)]
pub(in crate::subscriptions) struct Attempts(usize);

impl Attempts {
    /// Waits for the next attempt.
    ///
    /// # Errors
    /// When another attempt would not help, or this was the last.
    pub(in crate::subscriptions) async fn wait(&mut self, failed: Failed) -> Result<(), ApiError> {
        let (Some(asked), Some(pause)) = (failed.again_in, PAUSES.get(self.0)) else {
            return Err(failed.why);
        };
        self.0 += 1;
        let jitter = Duration::from_millis(u64::from(u16::from_be_bytes(clock::random())) % 250);
        tokio::time::sleep(asked.max(*pause + jitter)).await;
        Ok(())
    }
}

/// Between the attempts, of which there are one more.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
