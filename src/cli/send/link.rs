//! The connection to a gateway: HTTP/1.1, over TLS where the URL says https.
//!
//! Keeps true: a request is sent once; where the connection was closed since the last answer, it is opened anew before.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::cli::Failure;

/// A connection that is opened when there is something to send.
pub(super) struct Link {
    host: String,
    port: u16,
    /// What the Host header says.
    named: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    open: Mutex<Option<Open>>,
}

/// A connection that is open. Who asks drives it too, in one task: with a task of its own, a request that is handed over
/// just as the connection ends could stay between the two, and be waited for without an end.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>,
}

impl Link {
    /// To the host of a URL.
    pub(super) fn new(url: &Uri, tls: Option<Arc<ClientConfig>>) -> Result<Link, Failure> {
        let named = url.host().unwrap_or_default();
        let host = named.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let named = match url.port_u16() {
            Some(port) => format!("{named}:{port}"),
            None => named.to_owned(),
        };
        let tls = match tls {
            Some(config) => Some((TlsConnector::from(config), ServerName::try_from(host.clone())?)),
            None => None,
        };
        let named = HeaderValue::try_from(named)?;
        Ok(Link { host, port, named, tls, open: Mutex::default() })
    }

    /// Sends a request and reads the answer, of at most [`MAX_ANSWER`].
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) async fn ask(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        request.headers_mut().insert(HOST, self.named.clone());
        let mut open = self.open.lock().await;
        if let Some(kept) = open.take() {
            match answered(kept, request).await {
                Ok((answer, kept)) => {
                    *open = kept;
                    return Ok(answer);
                }
                // The last answer was the connection's last.
                Err(Unanswered { unsent: Some(unsent), .. }) => request = unsent,
                Err(Unanswered { why, .. }) => return Err(why),
            }
        }
        let (answer, kept) =
            answered(self.connect().await?, request).await.map_err(|unanswered| unanswered.why)?;
        *open = kept;
        Ok(answer)
    }

    async fn connect(&self) -> Result<Open, String> {
        let what = if self.tls.is_some() { "TLS connection" } else { "connection" };
        let nothing = |_| Err(format!("no {what} within {} s", CONNECTS_WITHIN.as_secs()));
        timeout(CONNECTS_WITHIN, self.opened()).await.unwrap_or_else(nothing)
    }

    async fn opened(&self) -> Result<Open, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|why| reason(&why))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((tls, name)) => {
                Box::new(tls.connect(name.clone(), stream).await.map_err(|why| reason(&why))?)
            }
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|why| reason(&why))?;
        Ok(Open { sender, connection })
    }
}

/// There is no answer.
struct Unanswered {
    why: String,
    /// The request, where nothing of it was written.
    unsent: Option<Request<Full<Bytes>>>,
}

/// Sends a request on a connection and reads its answer; gives the connection back where it is open still.
async fn answered(
    open: Open,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Bytes>, Option<Open>), Unanswered> {
    let Open { mut sender, mut connection } = open;
    let (asked, left) = {
        let mut asking = pin!(timeout(ANSWERS_WITHIN, exchange(&mut sender, request)));
        select! {
            biased; // What the other end has said since the last answer comes before the request.
            ended = &mut connection => {
                // With it goes what it was handed and has not sent.
                drop(connection);
                (asking.await, Err(ended))
            }
            asked = &mut asking => (asked, Ok(connection)),
        }
    };
    let (error, unsent) = match asked {
        Ok(Ok(answer)) => return Ok((answer, left.ok().map(|connection| Open { sender, connection }))),
        Ok(Err(failed)) => failed,
        Err(_) => {
            let why = format!("no answer within {} s", ANSWERS_WITHIN.as_secs());
            return Err(Unanswered { why, unsent: None });
        }
    };
    // Without it there is nothing more to be sent, and the connection ends.
    drop(sender);
    let ended = match left {
        Ok(connection) => timeout(ENDS_WITHIN, connection).await.ok(),
        Err(ended) => Some(ended),
    };
    let why = match ended {
        // It has read what the other end said last, such as why it takes no more of TLS.
        Some(Err(why)) => reason(&why),
        _ => reason(&*error),
    };
    Err(Unanswered { why, unsent })
}

type Failed = (Box<dyn Error + Send + Sync>, Option<Request<Full<Bytes>>>);

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Failed> {
    if let Err(why) = sender.ready().await {
        return Err((why.into(), Some(request)));
    }
    let answer = sender.try_send_request(request).await.map_err(|mut failed| {
        let unsent = failed.take_message();
        (failed.into_error().into(), unsent)
    })?;
    let (head, body) = answer.into_parts();
    #[allow(clippy::disallowed_methods)] // Limited here.
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|why| (why, None))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The innermost reason, which is the one that helps: "connection refused", not "client error".
fn reason(error: &(dyn Error + 'static)) -> String {
    let (mut error, mut closed) = (error, false);
    loop {
        let io = error.downcast_ref::<io::Error>();
        let within = io.and_then(io::Error::get_ref);
        if let Some(why) = within.and_then(|within| within.downcast_ref::<rustls::Error>()) {
            return of_tls(why);
        }
        if let Some(why) = error.downcast_ref::<hyper::Error>() {
            closed = why.is_canceled() || why.is_closed() || why.is_incomplete_message();
        }
        closed &= io.is_none();
        match error.source() {
            Some(source) => error = source,
            None if closed => return "it closed the connection without an answer".to_owned(),
            None => return error.to_string(),
        }
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
/// For request and answer: what a gateway takes at most by default, `edge.request_timeout`, twice.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// A connection that has failed has what it still read by then.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    async fn link(scheme: &str) -> (TcpListener, Link) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap()).parse().unwrap();
        let tls =
            || ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let link = Link::new(&url, (scheme == "https").then(|| Arc::new(tls()))).ok().unwrap();
        (listener, link)
    }

    fn get() -> Request<Full<Bytes>> {
        Request::new(Full::default())
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
            let (listener, link) = link(scheme).await;
            let silent = async {
                let taken = listener.accept().await.unwrap();
                // From here on nothing happens but that time passes.
                tokio::time::pause();
                std::future::pending::<()>().await;
                drop(taken);
            };
            let asked = tokio::time::timeout(Duration::from_secs(3600), link.ask(get()));
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
        let (listener, link) = link("http").await;
        for number in 0..20 {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let both = async { tokio::join!(link.ask(get()), serve_one(&listener, answer)) };
            let (asked, stream) = timeout(Duration::from_secs(60), both).await.expect("asked anew");
            assert_eq!(asked.map(|answer| answer.status().as_u16()), Ok(200), "{number}");
            drop(stream);
            // The system tells of it, and whoever drives the connection has not yet looked when the next request is sent.
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_closes_without_an_answer_is_told_so_and_not_asked_twice() {
        let (listener, link) = link("http").await;
        for answer in ["", "HTTP/1.1 2"] {
            let close = async { drop(serve_one(&listener, answer.as_bytes()).await) };
            let (asked, ()) = tokio::join!(link.ask(get()), close);
            assert_eq!(asked.err().unwrap(), "it closed the connection without an answer");
        }
    }

    /// Hyper's way of a task for each connection loses one request in some thousands here.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn who_closes_while_it_is_asked_is_not_waited_for() {
        let (listener, link) = link("http").await;
        let (server, closing) = (TaskTracker::new(), TaskTracker::new());
        let server = server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                closing.spawn(async move {
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                    drop(stream);
                });
            }
        });
        for number in 0..10_000 {
            let why = link.ask(get()).await.err().unwrap();
            assert!(!why.starts_with("no answer"), "{number}: {why}");
        }
        server.abort();
    }
}
