//! NATS: is there a stream for every subject, and does it remember message ids for as long as a claim lasts?
//!
//! Keeps true: what the client library says of a failure to connect, which may hold the URL, is not repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::{self, context::GetStreamByNameErrorKind as Failure};
use async_nats::{Client, ConnectErrorKind};

use super::{CONNECT, Finding, Setting, listed};
use crate::broker::nats;
use crate::secret::Secret;

/// Asks the server about these subjects.
pub(super) async fn look(url: &Secret, subjects: &BTreeSet<String>, lease: Duration) -> Vec<Finding> {
    let unreachable = |what: &str| Finding::new(Setting::QueueUnreachable, what);
    let jetstream = match connect(url).await {
        Ok(client) => jetstream::new(client),
        Err(why) => return vec![unreachable(&format!("NATS {why}"))],
    };
    let (mut missing, mut found, mut streams) = (Vec::new(), Vec::new(), BTreeSet::new());
    for subject in subjects {
        match jetstream.stream_by_subject(subject).await {
            Ok(stream) => {
                streams.insert(stream);
            }
            Err(why) if why.kind() == Failure::NotFound => missing.push(subject),
            Err(why) => {
                found.push(unreachable(&format!("JetStream does not answer: {}", why.kind())));
                break;
            }
        }
    }
    if !missing.is_empty() {
        let what = format!("no JetStream stream takes {}; make one that does", listed(&missing));
        found.push(Finding::new(Setting::NatsStream, what));
    }
    match windows(&jetstream, streams).await {
        Ok(windows) => {
            found.extend(windows.iter().filter_map(|(stream, window)| of_window(stream, *window, lease)))
        }
        Err(()) => found.push(unreachable("JetStream does not tell of its streams")),
    }
    found
}

async fn connect(url: &Secret) -> Result<Client, &'static str> {
    let (servers, options) = nats::servers::read(url)?;
    let connecting = options.name("hookgate check").connection_timeout(CONNECT).connect(servers);
    connecting.await.map_err(|why| match why.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            "refuses the login: check user and password, or token"
        }
        ConnectErrorKind::Tls => "cannot be reached over TLS",
        _ => "cannot be reached",
    })
}

/// How long each of these streams remembers message ids.
async fn windows(
    jetstream: &jetstream::Context,
    streams: BTreeSet<String>,
) -> Result<BTreeMap<String, Duration>, ()> {
    let mut windows = BTreeMap::new();
    for stream in streams {
        let info = jetstream.get_stream(&stream).await.map_err(drop)?;
        windows.insert(stream, info.cached_info().config.duplicate_window);
    }
    Ok(windows)
}

fn of_window(stream: &str, window: Duration, lease: Duration) -> Option<Finding> {
    let what = || {
        format!(
            "the stream {stream} remembers message ids for {} s, less than dedupe.lease, {} s: a retry would be stored \
             twice; raise its duplicate window",
            window.as_secs_f64(),
            lease.as_secs_f64()
        )
    };
    (window < lease).then(|| Finding::new(Setting::NatsDuplicateWindow, what()))
}
