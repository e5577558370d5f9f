//! TLS for both listeners: certificates from files, sessions that may be resumed, and what a handshake tells of the client.
//!
//! Keeps true: what cannot be read or does not fit together never starts a listener; a client that must show a certificate
//! shows it at every handshake: where there is a `client_ca`, no session is resumed.

mod chosen;
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
use chosen::Chosen;
use files::Files;
use opening::Opening;

/// A listener's side of TLS. Clones share it.
#[derive(Clone)]
pub struct Server(Arc<Parts>);

struct Parts {
    config: Arc<ServerConfig>,
    /// Who vouches for clients, which then must show a certificate.
    authorities: Option<Vec<CertificateDer<'static>>>,
    expires: Timestamp,
}

/// A section of the config, and what its listener is like.
pub struct Section<'a> {
    /// What it says.
    pub tls: &'a Tls,
    /// Its key: `edge.tls`.
    pub key: &'static str,
    /// What the listener speaks, by ALPN's names, the best first.
    pub protocols: &'static [&'static str],
    /// What the certificates' dates are held against.
    pub now: Timestamp,
}

impl Server {
    /// Reads the files that the section names. Adds what is wrong with them to `problems`; none with an error among it.
    /// Sessions of `before` go on, where there are any.
    pub fn build(
        section: &Section<'_>,
        before: Option<&Server>,
        problems: &mut Vec<Problem>,
    ) -> Option<Server> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut files = Files { section, problems };
        let pairs = section.tls.pairs().into_iter().enumerate();
        // All of them, so that every problem is told at once.
        let own: Vec<_> = pairs.map(|(number, pair)| files.own(number, &pair, &provider)).collect();
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
        let mut config = builder.with_cert_resolver(Arc::new(Chosen::among(own)));
        config.alpn_protocols = section.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Senders are servers, whose own order is as good as none; ours puts the strongest first.
        config.ignore_client_order = true;
        match (&clients, before.filter(|before| before.0.authorities.is_none())) {
            // A session would bring its client's certificate back, expired or no longer vouched for, and renew itself with
            // it: whoever shows a certificate shows it each time.
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

    /// Whether clients are held against the same authorities, or none, by both.
    pub fn vouches_as(&self, before: &Server) -> bool {
        self.0.authorities == before.0.authorities
    }

    /// When the first of its own certificates expires.
    pub fn expires(&self) -> Timestamp {
        self.0.expires
    }

    /// Shakes hands. Takes as long as the client does: the caller sets the deadline.
    ///
    /// # Errors
    /// When the client goes away, does not speak TLS, or not one that we speak, or shows no certificate that it needs.
    pub async fn accept<S>(&self, stream: S) -> Result<Secured<S>, Failure<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accept = TlsAcceptor::from(self.0.config.clone()).accept(Opening::of(stream));
        let stream = accept.into_fallible().await.map_err(|(error, stream)| {
            let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            match (stream.is_http(), error) {
                (true, _) => Failure::PlainHttp(stream.into_inner()),
                (false, Some(error)) => Failure::Refused(stream.into_inner(), detail(error)),
                (false, None) => Failure::Gone,
            }
        })?;
        match self.client(stream.get_ref().1) {
            Ok(certificate) => Ok(Secured { stream, certificate: certificate.map(Arc::new) }),
            Err(error) => Err(Failure::Refused(stream.into_inner().0.into_inner(), detail(&error))),
        }
    }

    /// The names in the client's certificate, where one is required.
    fn client(&self, connection: &ServerConnection) -> Result<Option<Certificate>, rustls::Error> {
        if self.0.authorities.is_none() {
            return Ok(None);
        }
        let chain = connection.peer_certificates().unwrap_or_default();
        let own = chain.first().ok_or(rustls::Error::NoCertificatesPresented)?;
        Ok(Some(names::of_client(own)))
    }
}

/// A connection with TLS on it.
pub struct Secured<S> {
    /// What is said on it.
    pub stream: TlsStream<Opening<S>>,
    /// The client's, verified, where one is required.
    pub certificate: Option<Arc<Certificate>>,
}

impl<S> Secured<S> {
    /// The protocol that was agreed on, by ALPN's name.
    pub fn agreed(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

/// How a handshake failed.
pub enum Failure<S> {
    /// The client went away.
    Gone,
    /// The client speaks HTTP without TLS. Nothing was answered yet.
    PlainHttp(S),
    /// It came to nothing, for this reason. An alert was sent where there is one.
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

/// For the record: what was wrong, and whose fault it was. rustls' own texts name types and dates, never bytes.
fn detail(error: &rustls::Error) -> String {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented, PeerIncompatible,
        PeerMisbehaved,
    };
    match error {
        AlertReceived(alert) => format!("the client ended the handshake with the alert {alert:?}"),
        NoCertificatesPresented => "the client showed no certificate".to_owned(),
        InvalidCertificate(why) => format!("the client's certificate was refused: {why}"),
        InvalidMessage(why) => format!("the client sent what is no TLS handshake: {why:?}"),
        PeerIncompatible(why) => format!("the client offers nothing that is taken here: {why:?}"),
        PeerMisbehaved(why) => format!("the client broke the protocol: {why:?}"),
        error => error.to_string(),
    }
}

/// What a listener speaks that takes HTTP/1.1 and HTTP/2.
pub const HTTP: &[&str] = &["h2", "http/1.1"];
/// What a listener speaks that takes HTTP/1.1 alone.
pub const HTTP1: &[&str] = &["http/1.1"];
/// Sessions remembered for clients without tickets.
const SESSIONS: usize = 4096;
