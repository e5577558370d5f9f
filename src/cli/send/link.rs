//! The connection to a gateway: HTTP/1.1, over TLS where the URL says https.
//!
//! Keeps true: a request is sent once; where the connection was closed since the last answer, it is opened anew before.

use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use crate::cli::Failure;

/// A connection that is opened when there is something to send.
pub(super) struct Link {
    host: String,
    port: u16,
    /// What the Host header says.
    named: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    open: Mutex<Option<SendRequest<Full<Bytes>>>>,
    tasks: TaskTracker,
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
        Ok(Link { host, port, named, tls, open: Mutex::default(), tasks: TaskTracker::new() })
    }

    /// Sends a request. The answer before must have been read.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) async fn ask(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        request.headers_mut().insert(HOST, self.named.clone());
        let mut open = self.open.lock().await;
        let mut kept = open.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            // The last answer was the connection's last.
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = sender.send_request(request).await.map_err(|why| reason(&why))?;
        *open = Some(sender);
        Ok(answer)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|why| reason(&why))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((tls, name)) => {
                Box::new(tls.connect(name.clone(), stream).await.map_err(|why| reason(&why))?)
            }
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|why| reason(&why))?;
        self.tasks.spawn(connection);
        Ok(sender)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The innermost reason, which is the one that helps: "connection refused", not "client error".
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    loop {
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(why) = within.and_then(|within| within.downcast_ref::<rustls::Error>()) {
            return of_tls(why);
        }
        match error.source() {
            Some(source) => error = source,
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
        InvalidMessage(_) => "it does not speak TLS there; is it http://?".to_owned(),
        AlertReceived(AlertDescription::CertificateRequired) => {
            "it asks for a client certificate; give --certificate FILE and --key FILE".to_owned()
        }
        error => error.to_string(),
    }
}
