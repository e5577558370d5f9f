//! The settings of the HTTP services, out of the config.
//!
//! Keeps true: every problem is found before a gateway starts, with its position. No problem shows a secret or a URL.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use rustls::ClientConfig;

use super::routes::{Route, Routes};
use super::signature::SigningKey;
use crate::config::queue_name::QueueName;
use crate::config::secret::SecretRef;
use crate::config::{HttpRoute, Located, Position, Problem, Queue, http_url_flaw};
use crate::net::tls::client;
use crate::observe::metrics::Metrics;

/// The settings.
pub struct Settings {
    targets: Vec<Target>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) tls: ClientConfig,
}

/// A route as configured.
pub struct Target {
    /// The config key of its URL.
    pub key: &'static str,
    /// The URL's position.
    pub at: Position,
    /// The URL.
    pub url: QueueName,
    pattern: String,
    keys: Vec<SigningKey>,
    deadline: Duration,
}

impl Settings {
    /// Reads the secrets and files that `queue` names.
    ///
    /// # Errors
    /// Every problem.
    pub fn of(queue: &Queue) -> Result<Settings, Vec<Problem>> {
        let mut problems = Problems::default();
        let own_keys = problems.keys("queue.secret", &queue.secret);
        let mut targets: Vec<Target> = Vec::new();
        for route in &queue.routes {
            let HttpRoute { r#type, url: located, secret, deadline } = route;
            let keys = problems.keys("queue.routes", secret);
            if let Some(url) = problems.url("queue.routes", located) {
                targets.push(Target {
                    key: "queue.routes",
                    at: located.at,
                    url,
                    pattern: r#type.value.clone(),
                    keys: if secret.is_empty() { own_keys.clone() } else { keys },
                    deadline: deadline.as_ref().map_or(queue.http_deadline(), |deadline| deadline.value),
                });
            }
        }
        if !queue.has_no_url()
            && let Some(url) = problems.url("queue.url", &queue.url)
        {
            let (at, deadline) = (queue.url.at, queue.http_deadline());
            targets.push(Target {
                key: "queue.url",
                at,
                url,
                pattern: ALL.to_owned(),
                keys: own_keys,
                deadline,
            });
        }
        let authorization = queue.authorization.as_ref().and_then(|secret| problems.authorization(secret));
        let ca = queue.ca.as_ref().map(|ca| (ca.at, ca.value.as_path()));
        let needs_tls = targets.iter().any(Target::needs_tls);
        let tls = client_config(ca.map(|(_, path)| path), needs_tls).map_err(|what| {
            let (key, at) = ca.map_or(("queue.url", queue.url.at), |(at, _)| ("queue.ca", at));
            problems.add(key, at, what);
        });
        match tls {
            Ok(tls) if problems.0.is_empty() => Ok(Settings { targets, authorization, tls }),
            _ => Err(problems.0),
        }
    }

    /// The routes as configured, in their order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// How to connect over TLS.
    pub fn tls(&self) -> Arc<ClientConfig> {
        Arc::new(self.tls.clone())
    }

    pub(super) fn routes(self, metrics: &Metrics) -> Routes {
        let route = |target: Target| {
            let Target { url, pattern, keys, deadline, .. } = target;
            Route { url, keys, deadline, metrics: metrics.http_route(&pattern), pattern }
        };
        Routes::new(self.targets.into_iter().map(route).collect())
    }
}

impl Target {
    fn needs_tls(&self) -> bool {
        use crate::config::queue_name::Part;
        matches!(self.url.parts().first(), Some(Part::Text(start)) if start.starts_with("https://"))
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: &str, at: Position, what: String) {
        self.0.push(Problem { at, key: key.to_owned(), what, warning: false });
    }

    fn url(&mut self, key: &str, url: &Located<SecretRef>) -> Option<QueueName> {
        let text = url.value.resolve().map_err(|why| self.add(key, url.at, why.to_string())).ok()?;
        let parsed = match http_url_flaw(text.expose()) {
            Some(flaw) => Err(format!("the URL {flaw}")),
            None => QueueName::parse(text.expose()),
        };
        parsed.map_err(|what| self.add(key, url.at, what)).ok()
    }

    fn keys(&mut self, key: &str, secrets: &[Located<SecretRef>]) -> Vec<SigningKey> {
        let mut keys = Vec::new();
        for secret in secrets {
            let read = secret.value.resolve().map_err(|why| why.to_string());
            match read.and_then(|text| SigningKey::read(&text).map_err(|flaw| format!("the secret {flaw}"))) {
                Ok(read) => keys.push(read),
                Err(what) => self.add(key, secret.at, what),
            }
        }
        keys
    }

    fn authorization(&mut self, secret: &Located<SecretRef>) -> Option<HeaderValue> {
        let text = secret.value.resolve().map_err(|why| why.to_string());
        let value = text.and_then(|text| {
            let value = HeaderValue::from_str(text.expose().trim());
            value.map_err(|_| "holds characters that no header can hold; copy it again".to_owned())
        });
        match value {
            Ok(mut value) => {
                value.set_sensitive(true);
                Some(value)
            }
            Err(what) => {
                self.add("queue.authorization", secret.at, what);
                None
            }
        }
    }
}

/// The TLS settings. With a plain URL alone, they are never used.
fn client_config(ca: Option<&Path>, needed: bool) -> Result<ClientConfig, String> {
    match ca {
        Some(path) => client::of_file(path),
        None if needed => client::of_system().map_err(|why| format!("{why}; set queue.ca")),
        None => client::of_none(),
    }
}

/// The pattern of the route that `queue.url` makes.
const ALL: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn problems(queue: &str) -> Vec<String> {
        let text = format!("[queue]\nkind = \"http\"\n{queue}\n[sources.a]\nprovider = \"basiq\"\n");
        let (config, problems) = config::parse(&text, Path::new(""));
        assert!(problems.iter().all(|problem| problem.warning), "{problems:#?}");
        let found = Settings::of(&config.queue).err().unwrap_or_default();
        found.iter().map(|problem| problem.render("f")).collect()
    }

    #[test]
    fn what_a_secret_or_a_file_holds_is_checked_before_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name).display().to_string()
        };
        let (url, ca) = (file("url", "ftp://hush.example"), file("ca.pem", "hush"));
        let good = "url = \"http://127.0.0.1:3000\"";
        assert_eq!(problems(good), [""; 0]);
        for (queue, at, what) in [
            (format!("url = {{ file = {url:?} }}"), "f:3:7: queue.url: ", "does not begin with http://"),
            (format!("{good}\nsecret = \"hush\""), "f:4:10: queue.secret: ", "3 bytes"),
            (
                format!("{good}\nsecret = {{ env = \"HOOKGATE_TEST_UNSET\" }}"),
                "f:4:10: queue.secret: ",
                "is not set",
            ),
            (
                format!("{good}\nauthorization = \"hu\\u0007sh\""),
                "f:4:17: queue.authorization: ",
                "no header",
            ),
            (format!("{good}\nca = {ca:?}"), "f:4:6: queue.ca: ", "none in PEM"),
            (
                format!(
                    "{good}\nroutes = [{{ type = \"*\", url = {{ file = {url:?} }}, secret = \"hush\" }}]"
                ),
                " queue.routes: ",
                "3 bytes",
            ),
        ] {
            let found = problems(&queue);
            assert!(found[0].contains(at) && found[0].contains(what), "{found:#?}");
            assert!(!found.concat().contains("hush"), "{found:#?}");
        }
    }
}
