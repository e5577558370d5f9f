//! TLS for both listeners: certificates from files, session resumption, and the names in client certificates.
//!
//! Keeps true: a listener never starts with unreadable or mismatched files. With a `client_ca`, a client shows its
//! certificate at every handshake, and no session is resumed.

mod chosen;
pub mod client;
mod files;
mod names;
mod opening;

use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::base::peer::Certificate;
use crate::config::{Problem, Tls};
use chosen::CertificateResolver;
use files::Files;
use opening::HttpDetector;

/// A listener's side of TLS. Clones share it.
#[derive(Clone)]
pub struct Server(Arc<Parts>);

struct Parts {
    config: Arc<ServerConfig>,
    /// The certificates of `client_ca`. If set, clients must show a certificate.
    authorities: Option<Vec<CertificateDer<'static>>>,
    expires: Timestamp,
}

/// A TLS section of the config, and the properties of its listener.
pub struct Section<'a> {
    /// The section.
    pub tls: &'a Tls,
    /// Its config key, such as `edge.tls`.
    pub key: &'static str,
    /// The listener's protocols by their ALPN names, the preferred one first.
    pub protocols: &'static [&'static str],
    /// The time to check certificate dates against.
    pub now: Timestamp,
}

impl Server {
    /// Reads the files that the section names, and adds errors and warnings to `problems`. Returns none after an error.
    /// Sessions of `before` can still be resumed.
    pub fn build(
        section: &Section<'_>,
        before: Option<&Server>,
        problems: &mut Vec<Problem>,
    ) -> Option<Server> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut files = Files { section, problems };
        let pairs = section.tls.pairs().into_iter().enumerate();
        // Read all files before failing, so that every problem is reported at once.
        let own: Vec<_> = pairs.map(|(number, pair)| files.certificate(number, &pair, &provider)).collect();
        let authorities = section.tls.client_ca.as_ref().map(|path| files.authorities(path));
        let own: Vec<_> = own.into_iter().collect::<Option<_>>()?;
        let expires = own.iter().map(|own| own.expires).min()?;
        let clients = match authorities {
            None => None,
            Some(authorities) => {
                let (authorities, roots) = authorities?;
                Some((authorities, files.usable(verifier(roots, &provider))?))
            }
        };
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = files.usable(builder.map_err(|error| error.to_string()))?;
        let builder = match &clients {
            Some((_, verifier)) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(CertificateResolver::among(own)));
        config.alpn_protocols = section.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // The gateway's cipher order puts the strongest first.
        config.ignore_client_order = true;
        match (&clients, before.filter(|before| before.0.authorities.is_none())) {
            // A resumed session would restore a client certificate that may have expired or lost its authority, and
            // could renew itself without end.
            (Some(_), _) => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            (None, Some(before)) => {
                config.session_storage = before.0.config.session_storage.clone();
                config.ticketer = before.0.config.ticketer.clone();
            }
            (None, None) => {
                config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
                config.ticketer = files.usable(Ticketer::new().map_err(|error| error.to_string()))?;
            }
        }
        let authorities = clients.map(|(authorities, _)| authorities);
        Some(Server(Arc::new(Parts { config: Arc::new(config), authorities, expires })))
    }

    /// Whether both verify clients against the same authorities, or both against none.
    pub fn has_same_client_ca(&self, before: &Server) -> bool {
        self.0.authorities == before.0.authorities
    }

    /// The earliest expiry among its own certificates.
    pub fn expires(&self) -> Timestamp {
        self.0.expires
    }

    /// Performs the handshake. The caller sets the deadline.
    ///
    /// # Errors
    /// When the client disconnects, does not speak TLS, offers no supported version, or shows no valid certificate
    /// where one is required.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsConnection<S>, HandshakeError<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accept = TlsAcceptor::from(self.0.config.clone()).accept(HttpDetector::of(stream));
        let stream = accept.into_fallible().await.map_err(|(error, stream)| {
            let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            match (stream.is_http(), error) {
                (true, _) => HandshakeError::PlainHttp(stream.into_inner()),
                (false, Some(error)) => HandshakeError::Refused(stream.into_inner(), detail(error)),
                (false, None) => HandshakeError::Gone,
            }
        })?;
        match self.client(stream.get_ref().1) {
            Ok(certificate) => Ok(TlsConnection { stream, certificate: certificate.map(Arc::new) }),
            Err(error) => Err(HandshakeError::Refused(stream.into_inner().0.into_inner(), detail(&error))),
        }
    }

    /// The names in the client's certificate, where one is required.
    fn client(&self, connection: &ServerConnection) -> Result<Option<Certificate>, rustls::Error> {
        if self.0.authorities.is_none() {
            return Ok(None);
        }
        let chain = connection.peer_certificates().unwrap_or_default();
        let own = chain.first().ok_or(rustls::Error::NoCertificatesPresented)?;
        Ok(Some(names::client_names(own)))
    }
}

/// A connection after its TLS handshake.
pub struct TlsConnection<S> {
    /// The decrypted stream.
    pub stream: TlsStream<HttpDetector<S>>,
    /// The client's verified certificate, if one is required.
    pub certificate: Option<Arc<Certificate>>,
}

impl<S> TlsConnection<S> {
    /// The ALPN name of the agreed protocol.
    pub fn agreed(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

/// Why a handshake failed.
pub enum HandshakeError<S> {
    /// The client disconnected.
    Gone,
    /// The client speaks HTTP without TLS. Nothing has been answered yet.
    PlainHttp(S),
    /// The handshake failed for this reason. The client was sent an alert, if TLS has one for it.
    Refused(S, String),
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())
}

/// The error for the record, and the side that caused it. Texts of rustls name types and dates, never bytes of the
/// stream.
fn detail(error: &rustls::Error) -> String {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented, PeerIncompatible,
        PeerMisbehaved,
    };
    match error {
        AlertReceived(alert) => format!("the client ended the handshake with the alert {alert:?}"),
        NoCertificatesPresented => "the client showed no certificate".to_owned(),
        InvalidCertificate(why) => format!("the client's certificate was refused: {why}"),
        InvalidMessage(why) => format!("the client sent something other than a TLS handshake: {why:?}"),
        PeerIncompatible(why) => format!("the client offers no supported TLS parameters: {why:?}"),
        PeerMisbehaved(why) => format!("the client broke the protocol: {why:?}"),
        error => error.to_string(),
    }
}

/// The protocols of a listener for HTTP/1.1 and HTTP/2.
pub const HTTP: &[&str] = &["h2", "http/1.1"];
/// The protocols of a listener for HTTP/1.1 alone.
pub const HTTP1: &[&str] = &["http/1.1"];
/// Sessions stored for clients that use no tickets.
const SESSIONS: usize = 4096;
