//! The servers that a URL names, and what they are told of us.
//!
//! Keeps true: what authenticates us is cut out of the addresses, which the client library may write to its log.

use async_nats::{ConnectOptions, ServerAddr};

use crate::secret::{Secret, percent_decoded};

/// Reads one or several URLs, separated by commas. Whoever we are stands in the first of them that says so: `user:password@`,
/// or `token@`. The error does not repeat the URL.
pub(crate) fn read(url: &Secret) -> Result<(Vec<ServerAddr>, ConnectOptions), &'static str> {
    let (mut servers, mut who) = (Vec::new(), None);
    for one in url.expose().split(',') {
        let address: ServerAddr = one.trim().parse().map_err(|_| MALFORMED)?;
        if !matches!(address.scheme(), "nats" | "tls") || address.host().is_empty() {
            return Err(MALFORMED);
        }
        if let Some(user) = address.username() {
            who.get_or_insert((decoded(user)?, address.password().map(decoded).transpose()?));
        }
        let mut bare = address.into_inner();
        if bare.set_username("").is_err() || bare.set_password(None).is_err() {
            return Err(MALFORMED);
        }
        servers.push(ServerAddr::from_url(bare).map_err(|_| MALFORMED)?);
    }
    let options = match who {
        Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
        Some((token, None)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    Ok((servers, options))
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
    fn who_we_are_stays_out_of_the_addresses() {
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
}
