//! Parses the NATS servers and the login from the URL, and connects.
//!
//! Keeps true: the addresses hold no login, because the client library may log them. No error repeats a part of the
//! URL.

use std::future::ready;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};

use super::super::url::{self, IN_A_LOGIN};
use crate::config::secret::{Secret, percent_decoded};

/// Parses one or several URLs, separated by commas. The first URL with a login decides it: `user:password@` or
/// `token@`. The error does not repeat the URL.
pub(crate) fn read(url: &Secret) -> Result<(Vec<ServerAddr>, ConnectOptions), &'static str> {
    url::check(url)?;
    let (mut servers, mut login) = (Vec::new(), None);
    for one in url.expose().split(',') {
        let address: ServerAddr = one.trim().parse().map_err(|_| MALFORMED)?;
        if !matches!(address.scheme(), "nats" | "tls") || address.host().is_empty() {
            return Err(MALFORMED);
        }
        if let Some(user) = address.username() {
            login.get_or_insert((decoded(user)?, address.password().map(decoded).transpose()?));
        }
        let mut bare = address.into_inner();
        if bare.set_username("").is_err() || bare.set_password(None).is_err() {
            return Err(MALFORMED);
        }
        servers.push(ServerAddr::from_url(bare).map_err(|_| MALFORMED)?);
    }
    let options = match login {
        Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
        Some((token, None)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    Ok((servers, options))
}

/// Connects once. `on_event` gets the connection's later events. The error says why, and what to check.
pub(crate) async fn connect(
    url: &Secret,
    name: &str,
    timeout: Duration,
    on_event: impl Fn(&Event) + Send + Sync + 'static,
) -> Result<Client, String> {
    let (servers, options) = read(url)?;
    let tls = servers.iter().any(ServerAddr::tls_required);
    let options = options.name(name).connection_timeout(timeout).event_callback(move |event| {
        on_event(&event);
        ready(())
    });
    options.connect(servers).await.map_err(|why| explain(&why, tls))
}

fn explain(why: &ConnectError, tls: bool) -> String {
    match why.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            format!("refuses the login: check user and password, or token, in queue.url; {IN_A_LOGIN}")
        }
        ConnectErrorKind::Dns => "cannot be reached: its host name is not known; check queue.url".to_owned(),
        ConnectErrorKind::TimedOut => {
            "cannot be reached: nothing answers as NATS does within the time; check host and port in queue.url".to_owned()
        }
        _ => url::failed(why, tls, "nats", "tls"),
    }
}

/// The subject in a server's "Permissions Violation" error; `None` for any other error.
pub(crate) fn forbidden_subject(said: &str) -> Option<&str> {
    let (_, subject) = said.split_once("ermissions Violation for ")?;
    subject.split('"').nth(1)
}

fn decoded(text: &str) -> Result<String, &'static str> {
    String::from_utf8(percent_decoded(text.as_bytes())).map_err(|_| MALFORMED)
}

const MALFORMED: &str =
    "it is not of the form nats://[user:password@]host[:port], or several of these with commas between them";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_stays_out_of_the_addresses() {
        let url = Secret::new("nats://me:s%40cret@one:4222,tls://two, three:4333");
        let (servers, _) = read(&url).unwrap();
        let shown: Vec<_> = servers.iter().map(|server| (server.host(), server.port())).collect();
        assert_eq!(shown, [("one", 4222), ("two", 4222), ("three", 4333)]);
        assert!(servers[1].tls_required() && !servers[0].tls_required());
        assert!(!format!("{servers:?}").contains("cret"));
    }

    #[test]
    fn a_malformed_url_is_not_repeated() {
        for url in ["", "http://me:secret@one", "nats://me:secret@:x", "one,,two", "nats://%ff@one"] {
            assert!(read(&Secret::new(url)).is_err_and(|why| !why.contains("secret")), "{url}");
        }
    }

    #[test]
    fn a_forbidden_subject_is_read_from_the_error() {
        let said = r#"Permissions Violation for Publish to "hooks.a""#;
        assert_eq!(forbidden_subject(said), Some("hooks.a"));
        assert_eq!(forbidden_subject(r#"permissions violation for subscription to "_INBOX.x""#), None);
        assert_eq!(
            forbidden_subject(r#"Permissions Violation for Subscription to "_INBOX.x.*""#),
            Some("_INBOX.x.*")
        );
        assert_eq!(forbidden_subject("Unknown Protocol Operation"), None);
    }
}
