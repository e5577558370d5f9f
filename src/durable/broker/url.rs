//! Explains the likely mistake in a broker's URL, or at its server.
//!
//! Keeps true: no text repeats a part of the URL.

use std::error::Error;
use std::io;

use crate::base::causes::causes;
use crate::config::secret::Secret;

/// Finds a user or password that holds an unescaped delimiter, such as `/` in `me:pa/ss@host`.
///
/// # Errors
/// How to escape it.
pub(super) fn check(url: &Secret) -> Result<(), &'static str> {
    let cut = url.expose().split("://").skip(1).any(|server| {
        let host = server.split(['/', '?', '#', ',']).next().unwrap_or_default();
        let Some((_, port)) = host.split_once(':').filter(|_| !host.contains('@')) else { return false };
        let after = &server[host.len()..];
        match after.strip_prefix(',') {
            // After the comma the next server may begin.
            Some(after) => port.parse::<u16>().is_err() && after.contains('@'),
            None => after.split(',').next().is_some_and(|own| own.contains('@')),
        }
    });
    if cut { Err(SPECIAL) } else { Ok(()) }
}

/// Explains a failed connection from its I/O or TLS error. `plain` and `secured` are the schemes without and with TLS.
pub(super) fn failed(why: &(dyn Error + 'static), tls: bool, plain: &str, secured: &str) -> String {
    let causes = || causes(why);
    if let Some(why) = causes().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return match why {
            rustls::Error::InvalidCertificate(why) => format!(
                "has a certificate that is not trusted ({why:?}): it has to be one that this system trusts, for the host in \
                 queue.url; SSL_CERT_FILE names another file of authorities"
            ),
            _ => not_tls(plain, secured),
        };
    }
    let io = causes().find_map(|cause| cause.downcast_ref::<io::Error>());
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => {
            "cannot be reached: nothing listens at the host and port in queue.url".to_owned()
        }
        Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) if tls => not_tls(plain, secured),
        Some(
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::InvalidData,
        ) => closes(plain, secured, tls),
        Some(kind) => format!("cannot be reached: {kind}; check host and port in queue.url"),
        None => "cannot be reached; check host and port in queue.url".to_owned(),
    }
}

/// The server speaks another protocol, or closes the connection at once.
pub(super) fn closes(plain: &str, secured: &str, tls: bool) -> String {
    let (ours, other) = if tls { (secured, plain) } else { (plain, secured) };
    format!(
        "cannot be reached: the connection is closed at once. If that port is not one for {ours}, write {other} as the scheme in \
         queue.url, or another port"
    )
}

fn not_tls(plain: &str, secured: &str) -> String {
    format!(
        "cannot be reached over TLS: that port does not speak TLS. Write {plain} as the scheme in queue.url instead of {secured}, \
         or the port for TLS"
    )
}

/// The usual reason why a server refuses a login.
pub(super) const IN_A_LOGIN: &str = "in a URL, % @ : / in a password are written %25 %40 %3A %2F";
const SPECIAL: &str = "its user or password is cut off: in a URL, / ? # , @ : % in them are written %2F %3F %23 %2C %40 %3A %25";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_with_an_unescaped_delimiter_is_refused() {
        for bad in [
            "amqp://me:pa/ss@host:5672/v",
            "nats://me:1?2@host",
            "nats://a:1,nats://me:x#y@host",
            "nats://me:a,b@host",
        ] {
            assert_eq!(check(&Secret::new(bad)), Err(SPECIAL), "{bad}");
        }
        for good in [
            "nats://me:p@ss@one:4222",
            "nats://one:4222,two:4222,me:pass@three",
            "amqp://me:pass@host/v@w?x=a/b",
            "amqp://host:5672/v,amqp://me:pass@host",
            "host:9092",
        ] {
            assert_eq!(check(&Secret::new(good)), Ok(()), "{good}");
        }
    }
}
