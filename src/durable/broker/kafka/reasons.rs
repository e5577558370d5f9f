//! Explains why no Kafka broker answers, from the errors that librdkafka reports.
//!
//! Keeps true: every reason is a fixed sentence of this file, never librdkafka's text.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Receives librdkafka's connection errors.
#[derive(Clone)]
pub(crate) struct Reasons {
    last: Arc<Mutex<&'static str>>,
    all_down: Arc<dyn Fn(&'static str) + Send + Sync>,
}

impl Reasons {
    /// Calls `all_down` with the last reason when no broker is reachable any more.
    pub(crate) fn new(all_down: impl Fn(&'static str) + Send + Sync + 'static) -> Reasons {
        Reasons { last: Arc::new(Mutex::new(UNREACHABLE)), all_down: Arc::new(all_down) }
    }

    pub(crate) fn last(&self) -> &'static str {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reasons {
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => (self.all_down)(self.last()),
            Some(code) => {
                if let Some(why) = explain(code, reason) {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = why;
                }
            }
            None => {}
        }
    }
}

fn explain(code: Code, reason: &str) -> Option<&'static str> {
    Some(match code {
        Code::Resolve => "cannot be reached: its host name is not known; check queue.url",
        Code::BrokerTransportFailure | Code::Authentication | Code::SSL => {
            let says = |what: &str| reason.contains(what);
            if says("SSL listener") {
                "cannot be reached: that port closes the connection, as one for TLS does; there is no TLS for Kafka: name a \
                 plain listener in queue.url"
            } else if says("SASL") {
                "cannot be reached: that listener asks for a login (SASL), and there is none for Kafka: name one that asks for \
                 none in queue.url"
            } else if says("refused") {
                "cannot be reached: nothing listens at the host and port in queue.url, or at the address that the broker \
                 advertises"
            } else {
                UNREACHABLE
            }
        }
        _ => return None,
    })
}

const UNREACHABLE: &str =
    "cannot be reached; check host and port in queue.url, and the address that the broker advertises";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likely_mistake_is_named() {
        let of = |reason| explain(Code::BrokerTransportFailure, reason).unwrap();
        let tls = "h:1/bootstrap: Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol \
                   configuration (connecting to a SSL listener?) or broker version is < 0.10";
        assert!(of(tls).contains("no TLS for Kafka"));
        let sasl = "h:1/1: Disconnected: verify that security.protocol is correctly configured, broker might require SASL \
                    authentication (after 5ms in state UP)";
        assert!(of(sasl).contains("login"));
        assert!(of("h:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused").contains("listens"));
        assert_eq!(of("h:1/1: anything"), UNREACHABLE);
        assert!(explain(Code::Resolve, "").unwrap().contains("host name"));
        assert_eq!(explain(Code::Fatal, ""), None);
    }
}
