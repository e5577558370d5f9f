//! The HTTP client of `send` and `health`, and the reason in words where a request has no answer.
//!
//! Keeps true: a request is sent once, to the host that the URL names; no reason shows the URL.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use reqwest::redirect::Policy;
use reqwest::{Body, Client, RequestBuilder, retry};
use rustls::{AlertDescription, CertificateError, ClientConfig};

use crate::base::causes::causes;

/// A client that connects straight to the host of a URL. It needs a TLS config for `http://` too: reqwest's own would be built at
/// once, and that fails on a system without certificate authorities.
pub(in crate::cli) fn client(tls: ClientConfig) -> Result<Client, reqwest::Error> {
    let client = Client::builder().tls_backend_preconfigured(tls);
    let client = client.no_proxy().redirect(Policy::none()).retry(retry::never());
    client.connect_timeout(CONNECTS_WITHIN).timeout(ANSWERS_WITHIN).build()
}

/// Sends a request and reads the answer, of at most [`MAX_ANSWER`].
///
/// # Errors
/// Why there is no answer, in words.
pub(in crate::cli) async fn answer(request: RequestBuilder) -> Result<Response<Bytes>, String> {
    let named = |why: reqwest::Error| if why.is_timeout() { why } else { why.without_url() };
    let answer = request.send().await.map_err(|why| reason(&named(why)))?;
    let (head, body) = Response::<Body>::from(answer).into_parts();
    #[allow(clippy::disallowed_methods)] // Limited here.
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|why| reason(&*why))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// The address at which a client on this machine reaches a listener: loopback for one on every address.
pub(in crate::cli) fn reachable(listen: SocketAddr) -> SocketAddr {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(host, listen.port())
}

/// The innermost reason, which is the one that helps: "connection refused", not "client error".
fn reason(error: &(dyn Error + 'static)) -> String {
    if let Some(late) = error.downcast_ref::<reqwest::Error>().filter(|error| error.is_timeout()) {
        return match late.url().map(|url| url.scheme()).filter(|_| late.is_connect()) {
            None => format!("no answer within {} s", ANSWERS_WITHIN.as_secs()),
            Some("https") => format!("no TLS connection within {} s", CONNECTS_WITHIN.as_secs()),
            Some(_) => format!("no connection within {} s", CONNECTS_WITHIN.as_secs()),
        };
    }
    if let Some(why) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return of_tls(why);
    }
    let is_io = |cause: &(dyn Error + 'static)| cause.is::<io::Error>();
    let closed = causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).last();
    let closed =
        closed.is_some_and(|why| why.is_canceled() || why.is_closed() || why.is_incomplete_message());
    match causes(error).last() {
        _ if closed && !causes(error).any(is_io) => "it closed the connection without an answer".to_owned(),
        Some(innermost) => innermost.to_string(),
        None => error.to_string(),
    }
}

fn of_tls(error: &rustls::Error) -> String {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(CertificateError::Other(why)) => why.to_string(),
        InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("{error}; give a URL with a name that it is for"),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the certificate that it shows has expired, and providers refuse it too: renew it".to_owned()
        }
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the certificate that it shows is not valid yet, and providers refuse it too: is a clock wrong?"
                .to_owned()
        }
        InvalidMessage(_) => "it does not speak TLS there; is it http://?".to_owned(),
        AlertReceived(AlertDescription::CertificateRequired) => {
            "it asks for a client certificate; give --certificate FILE and --key FILE".to_owned()
        }
        error => error.to_string(),
    }
}

/// For the connection and the handshake of TLS: a network that loses a packet or two is answered by then.
const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
/// For connection, request and answer: what a gateway takes at most by default, `edge.request_timeout`, twice.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A listener, and a request to it.
    async fn request(scheme: &str) -> (TcpListener, RequestBuilder) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        (listener, client(tls.with_no_client_auth()).unwrap().get(url))
    }

    /// Takes a connection, reads the head of a request, and answers.
    async fn serve_one(listener: &TcpListener, answer: &[u8]) -> TcpStream {
        let mut stream = listener.accept().await.unwrap().0;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        stream.write_all(answer).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn who_accepts_and_says_nothing_is_not_waited_for_without_end() {
        for (scheme, said) in [("http", "no answer within 30 s"), ("https", "no TLS connection within 10 s")]
        {
            let (listener, request) = request(scheme).await;
            let silent = async {
                let taken = listener.accept().await.unwrap();
                // From here on nothing happens but that time passes.
                tokio::time::pause();
                std::future::pending::<()>().await;
                drop(taken);
            };
            let asked = tokio::time::timeout(Duration::from_secs(3600), answer(request.try_clone().unwrap()));
            let asked = tokio::select! {
                asked = asked => asked.expect("an end"),
                () = silent => unreachable!(),
            };
            assert_eq!(asked.err().unwrap(), said);
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_after_an_answer_is_opened_anew_for_the_next() {
        let (listener, request) = request("http").await;
        for number in 0..20 {
            let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let both = async { tokio::join!(answer(request.try_clone().unwrap()), serve_one(&listener, ok)) };
            let (asked, stream) =
                tokio::time::timeout(Duration::from_secs(60), both).await.expect("asked anew");
            assert_eq!(asked.map(|answer| answer.status().as_u16()), Ok(200), "{number}");
            drop(stream);
            // The system now reports the close. The connection's task reads that report only after the next request
            // is sent.
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_closes_without_an_answer_is_told_so_and_not_asked_twice() {
        let (listener, request) = request("http").await;
        for begun in ["", "HTTP/1.1 2"] {
            let close = async { drop(serve_one(&listener, begun.as_bytes()).await) };
            let (asked, ()) = tokio::join!(answer(request.try_clone().unwrap()), close);
            assert_eq!(asked.err().unwrap(), "it closed the connection without an answer");
        }
    }

    /// On one thread, as `send` runs: on several, hyper loses one request in some thousands here.
    #[tokio::test]
    async fn who_closes_while_it_is_asked_is_not_waited_for() {
        let (listener, request) = request("http").await;
        let listener = listener.into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                std::thread::yield_now();
                drop(stream);
            }
        });
        for number in 0..10_000 {
            let why = answer(request.try_clone().unwrap()).await.err().unwrap();
            assert!(!why.starts_with("no answer"), "{number}: {why}");
        }
    }
}
