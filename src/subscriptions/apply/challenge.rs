//! Asks the gateway's own URL for Anduin's validation, as Anduin will.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use rustls::ClientConfig;

use crate::base::clock;
use crate::subscriptions::api;

/// Why the URL would not pass the validation. None: it passes.
pub(super) async fn refused(tls: &Arc<ClientConfig>, url: &str) -> Option<String> {
    let client = match api::client(tls) {
        Ok(client) => client,
        Err(why) => return Some(why.to_string()),
    };
    let key = hex::encode(clock::random::<16>());
    let request = client.get(url).header(HEADER, &key).timeout(TIMEOUT).send();
    match request.await {
        Err(why) => Some(api::reason(&why)),
        Ok(answer) if !answer.status().is_success() => {
            Some(format!("it answered {}", answer.status().as_u16()))
        }
        Ok(answer) => {
            let is_echoed = answer.headers().get(HEADER).map(HeaderValue::as_bytes) == Some(key.as_bytes());
            (!is_echoed).then(|| format!("its answer lacks the header {HEADER} with the key that was sent"))
        }
    }
}

const HEADER: &str = "x-anduin-webhook-validation-key";
const TIMEOUT: Duration = Duration::from_secs(5);
