//! The URLs of Redis and the brokers, which may hold passwords.
//!
//! Keeps true: no problem shows a URL.

use std::net::Ipv6Addr;

use toml::de::DeValue;

use super::Located;
use super::item::Item;
use super::kinds::ValueKind;
use super::print::{Shown, redacted_url};
use super::section::Section;
use super::stores::QueueKind;
use super::values::{one_secret, plain};
use crate::base::label::Label;
use crate::config::queue_name::{PlaceholderValues, QueueName};
use crate::config::secret::{Secret, SecretRef};

/// The URLs of Redis: one, or a list.
pub(super) fn redis_urls() -> ValueKind<Vec<Located<SecretRef>>> {
    let read = |item: &Item<'_>| {
        let Some(items) = item.list() else { return Some(vec![REDIS.read(item)?]) };
        let urls = REDIS.read_all(item, &items);
        (!urls.is_empty()).then_some(urls)
    };
    let show = |urls: &Vec<Located<SecretRef>>| {
        let urls: Vec<_> = urls.iter().map(|url| redacted_url(&url.value)).collect();
        Some(Shown::Value(match urls.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        }))
    };
    ValueKind::new(URLS, |section, _| vec![plain(REDIS.example, section)], read, show)
        .naming(|urls, key, found| urls.iter().for_each(|url| one_secret(url, key, found)))
}

/// The URLs of a broker, as one text. The section's `kind` decides their form and the default.
pub(super) fn broker_urls() -> ValueKind<Located<SecretRef>> {
    let default = |section: &Section<'_>, _: &str| {
        let form = kind_of(section.value("kind")).and_then(broker_form);
        // An http queue whose routes take every event needs no URL of its own.
        plain(form.map_or("", |form| form.example), section)
    };
    let show = |urls: &Located<SecretRef>| {
        let is_none = matches!(&urls.value, SecretRef::Plain(url) if url.expose().is_empty());
        (!is_none).then(|| Shown::Value(redacted_url(&urls.value)))
    };
    ValueKind::new(URLS, default, read_broker_urls, show).naming(one_secret)
}

fn read_broker_urls(item: &Item<'_>) -> Option<Located<SecretRef>> {
    let kind = kind_of(item.sibling("kind"))?;
    if kind == QueueKind::Http {
        return read_http_url(item);
    }
    let Some(form) = broker_form(kind) else {
        let brokers = QueueKind::ALL.iter().filter(|kind| kind.is_claimed()).map(|kind| kind.label());
        let brokers = brokers.collect::<Vec<_>>().join(", ");
        item.warning(format!("no effect on this kind of queue; only for {brokers}"));
        return None;
    };
    let Some(items) = item.list() else { return form.read(item) };
    let urls = form.read_all(item, &items);
    let plain = urls.iter().filter_map(|url| match &url.value {
        SecretRef::Plain(text) => Some(text.expose()),
        SecretRef::Env(_) | SecretRef::File(_) => {
            item.problem("a secret cannot stand in a list; let one secret hold the whole list, with commas");
            None
        }
    });
    let joined = plain.collect::<Vec<_>>().join(",");
    (!joined.is_empty()).then(|| Located { value: SecretRef::Plain(Secret::new(joined)), at: item.at })
}

/// The URL of an HTTP service.
pub(super) fn http_url() -> ValueKind<Located<SecretRef>> {
    let show = |url: &Located<SecretRef>| Some(Shown::Value(redacted_url(&url.value)));
    ValueKind::new("a URL", |section, _| plain("", section), read_http_url, show).naming(one_secret)
}

fn read_http_url(item: &Item<'_>) -> Option<Located<SecretRef>> {
    let Some(text) = item.as_text() else {
        return if item.is_table() { item.secret(&[]) } else { item.expected_secret("a URL or a secret") };
    };
    if let Some(flaw) = http_url_flaw(text) {
        item.problem(format!(
            "expected a URL such as \"http://127.0.0.1:3000/events\", found another text: it {flaw}"
        ));
        return None;
    }
    Some(Located { value: SecretRef::Plain(Secret::new(text)), at: item.at })
}

/// The mistake in a text that is no URL of an HTTP service. It follows "it ", and repeats no part of the text.
pub(crate) fn http_url_flaw(url: &str) -> Option<&'static str> {
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("holds blanks or control characters; percent-encode them");
    }
    let Ok(template) = QueueName::parse(url) else {
        return Some("is empty or holds a brace outside of {provider}, {source} and {type}");
    };
    let of_one_event = template.fill(PlaceholderValues { provider: "p", source: "s", kind: "t" });
    if !of_one_event.starts_with("http://") && !of_one_event.starts_with("https://") {
        return Some("does not begin with http:// or https://");
    }
    let Ok(url) = reqwest::Url::parse(&of_one_event) else {
        return Some("names no host, or a port that is none");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Some("holds a user or password; write them into queue.authorization");
    }
    url.fragment().is_some().then_some("holds a #, which is never sent to a server")
}

const URLS: &str = "a URL, or a list of them";

/// The kind of queue that a section sets. None: the value is invalid.
fn kind_of(value: Option<&DeValue<'_>>) -> Option<QueueKind> {
    let Some(value) = value else { return Some(QueueKind::Embedded) };
    QueueKind::ALL.iter().copied().find(|kind| Some(kind.label()) == value.as_str())
}

fn broker_form(kind: QueueKind) -> Option<&'static UrlForm> {
    match kind {
        QueueKind::Nats => Some(&NATS),
        QueueKind::Amqp => Some(&AMQP),
        QueueKind::Kafka => Some(&KAFKA),
        QueueKind::Embedded | QueueKind::Redis | QueueKind::Http => None,
    }
}

/// The form of one kind of server's URLs.
struct UrlForm {
    schemes: &'static [&'static str],
    /// The default, which problems also show as an example.
    example: &'static str,
    /// Whether this is a valid path, without its first slash.
    path: fn(&str) -> bool,
    /// Whether one text may hold several URLs, with commas.
    several: bool,
}

/// Whether a URL has a character that ends the host before its last `@`, that is in its user or password.
pub(crate) fn password_breaks_url(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@').is_some_and(|(user, _)| user.contains(['/', '?', '#']))
}

/// The problem with such a URL, after "the URL ".
pub(crate) const PASSWORD_BREAKS_URL: &str = "has a / ? or # before its last @, which ends the host there: percent-encode these signs in the password \
    (/ as %2F, ? as %3F, # as %23, and @ as %40)";

/// The mistake in a text that is no URL of Redis. It follows "it ", and repeats no part of the text.
pub(crate) fn redis_url_flaw(url: &str) -> Option<&'static str> {
    if url.trim().trim_matches(['"', '\'']) != url {
        return Some("has quotes or blanks around it");
    }
    if url.contains(char::is_whitespace) {
        return Some("has blanks in it; percent-encode them as %20");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("has no scheme; write redis:// before it, or rediss:// for TLS");
    };
    if !matches!(scheme, "redis" | "rediss") {
        return Some("has another scheme than redis:// and rediss://");
    }
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    if address.contains(['?', '#']) {
        return Some("has ? or # after the host; leave out what begins there");
    }
    let (host, database) = address.split_once('/').unwrap_or((address, ""));
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Some("has a database that is not a number; it is 0 unless you chose another");
    }
    let port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Some("has no number from 1 to 65535 as its port");
    }
    (host.is_empty() || host.starts_with(':')).then_some("names no host")
}

impl UrlForm {
    fn read_all(&self, list: &Item<'_>, items: &[Item<'_>]) -> Vec<Located<SecretRef>> {
        if items.is_empty() {
            list.problem("expected at least one URL");
        }
        items.iter().filter_map(|item| self.read(item)).collect()
    }

    fn read(&self, item: &Item<'_>) -> Option<Located<SecretRef>> {
        let Some(text) = item.as_text() else {
            return if item.is_table() {
                item.secret(&[])
            } else {
                item.expected_secret("a URL or a secret")
            };
        };
        // The text is not shown: it may hold a password.
        if !self.several && password_breaks_url(text) {
            item.problem(format!("the URL {PASSWORD_BREAKS_URL}"));
            return None;
        }
        let Some(has_user) = self.has_user(text) else {
            let flaw = redis_url_flaw(text).filter(|_| self.example == REDIS.example);
            // In a list of URLs, the problem does not say which one it is.
            let flaw = flaw.or_else(|| password_breaks_url(text).then_some(PASSWORD_BREAKS_URL));
            let why = flaw.map(|flaw| format!(": it {flaw}")).unwrap_or_default();
            item.problem(format!("expected a URL such as {:?}, found another text{why}", self.example));
            return None;
        };
        if has_user {
            item.warning(
                "a password in the config file; use { env = \"NAME\" } or { file = \"PATH\" } for the URL",
            );
        }
        Some(Located { value: SecretRef::Plain(Secret::new(text)), at: item.at })
    }

    /// Whether it holds a user or password. None: it is no such URL, or no list of them.
    fn has_user(&self, text: &str) -> Option<bool> {
        let mut has_user = false;
        let urls: Vec<&str> = if self.several { text.split(',').collect() } else { vec![text] };
        for url in urls {
            has_user |= self.one_has_user(url.trim())?;
        }
        Some(has_user)
    }

    /// `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/PATH]`.
    fn one_has_user(&self, url: &str) -> Option<bool> {
        let rest = self.schemes.iter().find_map(|scheme| url.strip_prefix(scheme))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, address) = match authority.rsplit_once('@') {
            Some((_, address)) => (true, address),
            None => (false, authority),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (address, 1_u16),
        };
        let host_only = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let name = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
        let host_valid =
            name.map_or(!host.is_empty() && host.chars().all(host_only), |v6| v6.parse::<Ipv6Addr>().is_ok());
        (host_valid && port != 0 && (self.path)(path)).then_some(user)
    }
}

const REDIS: UrlForm = UrlForm {
    schemes: &["redis://", "rediss://"],
    example: "redis://127.0.0.1:6379/0",
    path: |db| db.is_empty() || db.parse::<u32>().is_ok(),
    several: false,
};
const NATS: UrlForm = UrlForm {
    schemes: &["nats://", "tls://"],
    example: "nats://127.0.0.1:4222",
    path: str::is_empty,
    several: true,
};
const AMQP: UrlForm = UrlForm {
    schemes: &["amqp://", "amqps://"],
    example: "amqp://127.0.0.1:5672/%2f",
    path: |_| true,
    several: true,
};
/// Kafka has no scheme of its own.
const KAFKA: UrlForm =
    UrlForm { schemes: &["kafka://", ""], example: "127.0.0.1:9092", path: str::is_empty, several: true };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_is_known_by_its_form() {
        for url in
            [REDIS.example, "redis://cache", "rediss://cache:1", "redis://cache/15", "redis://[::1]:6379/0"]
        {
            assert_eq!(REDIS.has_user(url), Some(false), "{url}");
        }
        assert_eq!(REDIS.has_user("redis://a:b@c@host/0"), Some(true));
        assert_eq!(REDIS.has_user("rediss://:@[::1]"), Some(true));
        for url in [
            "",
            "redis://",
            "redis:///0",
            "redis://h:0",
            "redis://h:x",
            "redis://h/x",
            "redis://h h",
            "http://h",
        ] {
            assert_eq!(REDIS.has_user(url), None, "{url}");
        }
    }

    #[test]
    fn brokers_take_lists() {
        assert_eq!(NATS.has_user("nats://a:4222, nats://u:p@b:4222"), Some(true));
        assert_eq!(NATS.has_user("nats://a,http://b"), None);
        assert_eq!(KAFKA.has_user("a:9092,b:9092"), Some(false));
        assert_eq!(KAFKA.has_user("a:9092,"), None);
        assert_eq!(AMQP.has_user("amqp://guest:guest@mq/%2f?heartbeat=5"), Some(true));
    }
}
