//! Which requests may read metrics and see the console.
//!
//! Keeps true: with a token, only a client that sends it. Without one, no page of another site can read the console
//! through an operator's browser: not by a name that it points at this machine, and not by a request of its own.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use subtle::ConstantTimeEq;

use crate::config::secret::Secret;

/// Whether the request has the token as `Bearer`.
pub(super) fn has_bearer(headers: &HeaderMap, token: &Secret) -> bool {
    credentials(headers, BEARER).is_some_and(|given| is_token(given, token))
}

/// Whether the request has the token as the password of `Basic`, with any user name.
pub(super) fn has_password(headers: &HeaderMap, token: &Secret) -> bool {
    let given = credentials(headers, BASIC).and_then(|given| STANDARD.decode(given.trim_ascii()).ok());
    let Some(given) = given else { return false };
    // A user name holds no colon (RFC 7617).
    given.iter().position(|byte| *byte == b':').is_some_and(|at| is_token(&given[at + 1..], token))
}

/// What follows the scheme in the one `Authorization` header.
fn credentials<'h>(headers: &'h HeaderMap, scheme: &[u8]) -> Option<&'h [u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (named, given) = value.as_bytes().split_at_checked(scheme.len())?;
    named.eq_ignore_ascii_case(scheme).then_some(given)
}

fn is_token(given: &[u8], token: &Secret) -> bool {
    // Comparing slices of different lengths reveals only the length.
    bool::from(given.ct_eq(token.expose().as_bytes()))
}

/// Whether the request names this machine by an address or as `localhost`. Only such names cannot be pointed here by
/// another site. A client that sends no host is no browser.
pub(super) fn names_an_address(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => host.to_str().is_ok_and(is_address),
        _ => false,
    }
}

fn is_address(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// Whether a browser sends the request for a page of another site. A link there may lead a person to the
/// `page`: the site itself sees nothing of it.
pub(super) fn is_of_another_site(headers: &HeaderMap, page: bool) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let followed = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_own = matches!(site, None | Some(b"same-origin" | b"none"));
    !(is_own || page && followed)
}

const BEARER: &[u8] = b"Bearer ";
const BASIC: &[u8] = b"Basic ";

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn the_token_is_a_bearer_or_the_password_of_any_user() {
        let token = Secret::new("to:ken");
        let headers =
            |value: &str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())]);
        let basic = |text: &str| headers(&format!("bAsic {}", STANDARD.encode(text)));
        assert!(
            has_bearer(&headers("bearer to:ken"), &token) && !has_password(&headers("bearer to:ken"), &token)
        );
        for (user, may) in [("", true), ("any", true), ("é", true)] {
            assert_eq!(has_password(&basic(&format!("{user}:to:ken")), &token), may, "{user}");
        }
        for wrong in ["to:ken", ":to:kenx", ":to:ke", "any", "any:", ""] {
            assert!(!has_password(&basic(wrong), &token), "{wrong}");
        }
        for wrong in ["Basic", "Basic ", "Basic !!", "Basic to:ken"] {
            assert!(!has_password(&headers(wrong), &token), "{wrong}");
        }
        let mut twice = basic("a:to:ken");
        twice.append(AUTHORIZATION, HeaderValue::from_static("Basic x"));
        assert!(!has_password(&twice, &token) && !has_password(&HeaderMap::new(), &token));
    }

    #[test]
    fn only_addresses_and_localhost_name_this_machine() {
        for host in [
            "127.0.0.1:9090",
            "127.0.0.1",
            "[::1]:9090",
            "[::1]",
            "localhost:1",
            "LOCALHOST",
            "a.localhost:9",
            "10.0.0.7:9090",
        ] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9090",
            "",
            ":9090",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn another_site_may_link_to_the_page_and_no_more() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            HeaderMap::from_iter(pairs)
        };
        let followed = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(!is_of_another_site(&headers(&followed), true));
        assert!(is_of_another_site(&headers(&followed), false));
        let framed =
            [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(is_of_another_site(&headers(&framed), true));
        for site in ["cross-site", "same-site"] {
            assert!(is_of_another_site(
                &headers(&[("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")]),
                true
            ));
        }
        for own in [vec![], vec![("sec-fetch-site", "same-origin")], vec![("sec-fetch-site", "none")]] {
            assert!(!is_of_another_site(&headers(&own), true) && !is_of_another_site(&headers(&own), false));
        }
    }
}
