//! Reads from RabbitMQ's management API the queues behind an exchange, and checks their settings. AMQP itself shows
//! neither.
//!
//! Keeps true: it only reads. The password goes only to the host that receives it by AMQP, and in plain text only where
//! AMQP is plain too. Settings that cannot be read are a finding.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use lapin::uri::{AMQPScheme, AMQPUri};
use serde_json::Value;
use tokio::net::TcpStream;

use super::super::{Finding, MIN_RETENTION, Setting, human_duration, listed};

/// Checks the queues behind these exchanges.
pub(super) async fn check(uri: &AMQPUri, exchanges: &[&str]) -> Vec<Finding> {
    let api = match Api::of(uri) {
        Ok(api) => api,
        Err(why) => return vec![unknown(&why)],
    };
    let (mut found, mut checked, mut unbound) = (Vec::new(), BTreeSet::new(), Vec::new());
    for exchange in exchanges.iter().take(MAX_ITEMS) {
        let queues = match api.queues_behind(exchange).await {
            Ok(queues) => queues,
            Err(why) => return vec![unknown(&why)],
        };
        if queues.is_empty() {
            unbound.push(*exchange);
        }
        let mut transient = Vec::new();
        let mut has_durable = false;
        for name in queues {
            let queue = match api.get(&["queues", &api.vhost, &name]).await {
                // The queue was deleted meanwhile.
                Ok(None) => continue,
                Ok(Some(queue)) => queue,
                Err(why) => return vec![unknown(&why)],
            };
            match why_transient(&queue) {
                Some(why) => transient.push(format!("{name} ({why})")),
                None => has_durable = true,
            }
            if checked.insert(name.clone()) {
                let finding = |why| {
                    Finding::new(
                        Setting::AmqpDrops,
                        format!("the queue {name}, bound to the exchange {exchange}, {why}"),
                    )
                };
                found.extend(losses(&queue).into_iter().map(finding));
            }
        }
        if !has_durable && !transient.is_empty() {
            let what = format!(
                "the exchange {exchange} leads to no queue that keeps its messages: {}; declare a durable one and bind it",
                listed(&transient)
            );
            found.push(Finding::new(Setting::AmqpDrops, what));
        }
    }
    if !unbound.is_empty() {
        let what = format!(
            "no queue is bound to the exchange {}: every event is returned; bind one",
            listed(&unbound)
        );
        found.push(Finding::new(Setting::AmqpUnbound, what));
    }
    found
}

fn unknown(why: &str) -> Finding {
    let what = format!(
        "which queues are bound to the exchange, and whether they lose messages, is not known: {why}"
    );
    Finding::new(Setting::AmqpUnreadable, what)
}

/// The settings by which a queue loses confirmed messages, each with its fix.
fn losses(queue: &Value) -> Vec<String> {
    let setting = |name: &str| -> Option<&Value> {
        let argument = queue["arguments"].get(format!("x-{name}"));
        argument.or_else(|| queue["effective_policy_definition"].get(name))
    };
    let mut losses = Vec::new();
    let overflow = setting("overflow").and_then(Value::as_str).unwrap_or("drop-head");
    for limit in ["max-length", "max-length-bytes"] {
        if setting(limit).is_some() && overflow == "drop-head" {
            losses.push(format!(
                "drops its oldest messages at {limit}, read or not (overflow drop-head); set overflow to reject-publish in its \
                 arguments or its policy"
            ));
        }
    }
    let dead_letters = setting("dead-letter-exchange").is_some();
    for (name, what) in [("message-ttl", "drops messages"), ("expires", "is deleted, if nothing uses it,")] {
        let after = setting(name).and_then(Value::as_u64).map(Duration::from_millis);
        if let Some(after) =
            after.filter(|after| *after < MIN_RETENTION && !(dead_letters && name == "message-ttl"))
        {
            losses.push(format!(
                "{what} after {} ({name}): a consumer may be down for longer; set a day or more, or remove it",
                human_duration(after)
            ));
        }
    }
    losses
}

/// Why a queue does not outlive its server or its consumer; `None` if it does.
fn why_transient(queue: &Value) -> Option<&'static str> {
    let is = |name: &str| queue[name].as_bool() == Some(true);
    match () {
        () if is("exclusive") => Some("exclusive: it is deleted with its connection"),
        () if is("auto_delete") => Some("auto-delete: it is deleted with its last consumer"),
        () if !is("durable") => Some("not durable: it is lost when the server restarts"),
        () => None,
    }
}

/// The API of one server.
struct Api {
    host: String,
    port: u16,
    vhost: String,
    authorization: String,
}

impl Api {
    /// By convention the API's port is 10,000 above the AMQP port.
    fn of(uri: &AMQPUri) -> Result<Api, String> {
        let port = uri.authority.port.checked_add(PORT_OFFSET);
        let port = port.ok_or("no port is 10,000 above its AMQP port, so its management API is not known")?;
        if uri.scheme == AMQPScheme::AMQPS {
            return Err("hookgate does not use the management API over TLS".to_owned());
        }
        let user = &uri.authority.userinfo;
        let authorization =
            format!("Basic {}", STANDARD.encode(format!("{}:{}", user.username, user.password)));
        Ok(Api { host: uri.authority.host.clone(), port, vhost: uri.vhost.clone(), authorization })
    }

    /// The queues that an exchange routes to, directly or through other exchanges.
    async fn queues_behind(&self, exchange: &str) -> Result<BTreeSet<String>, String> {
        let (mut queues, mut seen, mut next) = (BTreeSet::new(), BTreeSet::new(), vec![exchange.to_owned()]);
        while let Some(exchange) = next.pop() {
            if !seen.insert(exchange.clone()) || seen.len() > MAX_ITEMS {
                continue;
            }
            let path = ["exchanges", &self.vhost, &exchange, "bindings", "source"];
            let bindings = self.get(&path).await?.unwrap_or_default();
            let bindings = bindings.as_array().map(Vec::as_slice).unwrap_or_default();
            for binding in bindings.iter().take(MAX_ITEMS) {
                let Some(to) = binding["destination"].as_str() else { continue };
                match binding["destination_type"].as_str() {
                    Some("queue") => drop(queues.insert(to.to_owned())),
                    _ => next.push(to.to_owned()),
                }
            }
            if let Some(of) = self.get(&["exchanges", &self.vhost, &exchange]).await?
                && let Some(alternate) = of["arguments"]["alternate-exchange"].as_str()
            {
                next.push(alternate.to_owned());
            }
        }
        Ok(queues)
    }

    /// The object at a path; `None` if it does not exist.
    async fn get(&self, path: &[&str]) -> Result<Option<Value>, String> {
        let path: String = path.iter().map(|part| format!("/{}", percent_encoded(part))).collect();
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(&format!("/api{path}"))).await;
        let (status, body) = asked.ok().and_then(Result::ok).ok_or_else(|| {
            format!(
                "no management API answers at port {}, 10,000 above the AMQP port; enable the plugin rabbitmq_management to \
                 have them checked",
                self.port
            )
        })?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|_| format!("port {} does not answer as a management API", self.port)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(
                "this user may not use the management API; give it the tag management to have them checked"
                    .to_owned(),
            ),
            other => Err(format!("the management API answers {other}")),
        }
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(AUTHORIZATION, &self.authorization)
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            #[allow(clippy::disallowed_methods)] // Limited here.
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            Ok((head.status, body.to_bytes()))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end after the whole answer was received.
            _ = &mut connection => answer.await,
        }
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

const PORT_OFFSET: u16 = 10_000;
/// The most exchanges, and bindings of one exchange, that are read.
const MAX_ITEMS: usize = 100;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn queue(arguments: Value, policy: Value) -> Value {
        json!({"arguments": arguments, "effective_policy_definition": policy, "durable": true})
    }

    #[test]
    fn each_unsafe_setting_of_a_queue_is_found() {
        let none = || json!({});
        for (arguments, policy) in [
            (none(), none()),
            (json!({"x-max-length": 10, "x-overflow": "reject-publish"}), none()),
            (json!({"x-max-length": 10}), json!({"overflow": "reject-publish"})),
            (json!({"x-overflow": "drop-head"}), none()),
            (json!({"x-message-ttl": 604_800_000}), none()),
            (json!({"x-message-ttl": 1000, "x-dead-letter-exchange": "dead"}), none()),
            (none(), json!([])),
        ] {
            assert_eq!(losses(&queue(arguments.clone(), policy.clone())), [""; 0], "{arguments} {policy}");
        }
        for (arguments, policy, says) in [
            (json!({"x-max-length": 10}), none(), "at max-length,"),
            (json!({"x-max-length-bytes": 10, "x-overflow": "drop-head"}), none(), "at max-length-bytes,"),
            (none(), json!({"max-length": 10}), "at max-length,"),
            (
                json!({"x-overflow": "drop-head"}),
                json!({"max-length": 1, "overflow": "reject-publish"}),
                "max-length,",
            ),
            (json!({"x-message-ttl": 60_000}), none(), "after 60 s (message-ttl)"),
            (none(), json!({"expires": 60_000}), "after 60 s (expires)"),
        ] {
            let [why] = &losses(&queue(arguments, policy))[..] else { panic!("{says}") };
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_transient_queue_is_found() {
        assert_eq!(why_transient(&queue(json!({}), json!({}))), None);
        assert!(why_transient(&json!({"durable": false})).is_some_and(|why| why.contains("not durable")));
        assert!(why_transient(&json!({"durable": true, "auto_delete": true})).is_some());
        assert!(why_transient(&json!({"durable": true, "exclusive": true})).is_some());
        assert_eq!(percent_encoded("/a b"), "%2Fa%20b");
    }
}
