//! Spans of requests for an OpenTelemetry collector. Logs are in `telemetry`.
//!
//! Keeps true: a request never waits for the collector. Beyond a bounded queue, spans are dropped and counted. A span
//! holds no header, query, body or path token.

mod exporter;
#[cfg(feature = "otlp")]
mod otlp;
mod sampler;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::base::label::labels;
use crate::base::trace_context::TraceContext;
pub use exporter::{Exporter, Sink};
#[cfg(feature = "otlp")]
pub use otlp::Otlp;
pub use sampler::Sampler;

labels! {
    /// The stages of a request, one after the other. Each is a span.
    pub enum Stage {
        /// All that needs no authentication, before the body: path, method, address, rate, encoding.
        Admit = "admit",
        /// Reading the body.
        Body = "read body",
        /// Verifying the signature and its time.
        Verify = "verify",
        /// Reading the payload, and normalizing it to an event.
        Normalize = "normalize",
        /// Dedupe and hand-over to the queue or the spool.
        Enqueue = "enqueue",
        /// Counting, recording and rendering the answer.
        Answer = "answer",
    }
}

/// A request with its stages: one span, and one for each stage.
#[derive(Clone, Debug)]
pub struct RequestSpan {
    /// Its trace, and its own id in it.
    pub trace: TraceContext,
    /// The span that the client sent.
    pub parent: Option<[u8; 8]>,
    /// When its head was read.
    pub began: Timestamp,
    /// From then to its answer.
    pub took: Duration,
    /// The stages in order, each with the time from `began` to its begin. Each ends where the next begins.
    pub stages: Vec<(Stage, Duration)>,
    /// The method; [`OTHER_METHOD`] for one that HTTP does not know.
    pub method: &'static str,
    /// The version of HTTP, such as `1.1`.
    pub http_version: &'static str,
    /// `http` or `https`, as the listener speaks it.
    pub scheme: &'static str,
    /// The answer's status; none if the client was gone.
    pub status: Option<u16>,
    /// The source of its path; none if no source has it.
    pub source: Option<SpanSource>,
    /// The outcome, as in metrics.
    pub outcome: &'static str,
    /// Why it was refused.
    pub reason: Option<&'static str>,
    /// The client of a refused request, as in its record.
    pub client: Option<IpAddr>,
    /// The event's id, if the delivery is one event.
    pub event_id: Option<String>,
    /// How many events the delivery holds.
    pub events: Option<usize>,
    /// The size of the body, if it was read.
    pub body_bytes: Option<usize>,
}

/// Stands for a method that HTTP does not know.
pub const OTHER_METHOD: &str = "_OTHER";

/// The source of a traced request.
#[derive(Clone, Debug)]
pub struct SpanSource {
    /// Its name.
    pub name: Arc<str>,
    /// Its path, without path token.
    pub path: Arc<str>,
    /// Its provider's name.
    pub provider: &'static str,
}

impl RequestSpan {
    /// How many spans it is.
    fn spans(&self) -> u64 {
        1 + self.stages.len() as u64
    }
}

/// Hands spans over to the exporter.
#[derive(Clone)]
pub struct Traces {
    queue: mpsc::Sender<RequestSpan>,
    dropped: IntCounter,
}

impl Traces {
    /// Hands a request's spans over, or drops them if the queue is full. Never waits.
    pub fn record(&self, span: RequestSpan) {
        if let Err(mpsc::error::TrySendError::Full(span) | mpsc::error::TrySendError::Closed(span)) =
            self.queue.try_send(span)
        {
            self.dropped.inc_by(span.spans());
        }
    }
}
