//! Checks RabbitMQ: every exchange exists, and the queues bound to it keep the messages that they confirm.
//!
//! Keeps true: it declares no exchange or queue, and does not repeat the client library's error texts.

mod management;

use std::collections::BTreeSet;

use lapin::options::ExchangeDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Connection, ExchangeKind};

use super::{CONNECT, Finding, Setting, listed};
use crate::config::secret::Secret;
use crate::durable::broker::amqp;

/// Checks these exchanges.
pub(super) async fn check(url: &Secret, exchanges: &BTreeSet<String>) -> Vec<Finding> {
    let unreachable = |what: &str| Finding::new(Setting::QueueUnreachable, format!("RabbitMQ {what}"));
    let (connection, uri) = match connect(url).await {
        Ok(connected) => connected,
        Err(why) => return vec![unreachable(&why)],
    };
    let (mut missing, mut present, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for exchange in exchanges {
        match exists(&connection, exchange).await {
            Ok(Some(true)) => present.push(&**exchange),
            Ok(Some(false)) => missing.push(exchange),
            Ok(None) => {
                let what =
                    format!("this user may not read the exchange {exchange}: whether it exists is not known");
                found.push(Finding::new(Setting::AmqpUnreadable, what));
                break;
            }
            Err(_) => {
                found.push(unreachable("does not tell which exchanges exist"));
                break;
            }
        }
    }
    // An error while closing does not matter.
    let _ = connection.close(200, "OK".into()).await;
    if !missing.is_empty() {
        found.push(Finding::new(Setting::AmqpExchange, amqp::no_exchange(&listed(&missing))));
    }
    if !present.is_empty() {
        found.extend(management::check(&uri, &present).await);
    }
    found
}

/// `None` if this user may not read the exchange.
async fn exists(connection: &Connection, exchange: &str) -> lapin::Result<Option<bool>> {
    let Ok(exchange) = ShortString::try_new(exchange) else { return Ok(Some(false)) };
    // A channel for each exchange, since a passive declaration that fails closes its channel.
    let channel = connection.create_channel().await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    match channel.exchange_declare(exchange, ExchangeKind::Topic, passive, FieldTable::default()).await {
        Ok(()) => Ok(Some(true)),
        Err(why) => match amqp::soft(&why) {
            Some(AMQPSoftError::ACCESSREFUSED) => Ok(None),
            Some(_) => Ok(Some(false)),
            None => Err(why),
        },
    }
}

/// Connects to the first server that accepts the connection. The error is that of the last server.
async fn connect(url: &Secret) -> Result<(Connection, AMQPUri), String> {
    let mut failure = "cannot be reached".to_owned();
    for uri in amqp::read(url)? {
        match amqp::connect(&uri, "hookgate check", CONNECT).await {
            Ok(connection) => return Ok((connection, uri)),
            Err(why) => failure = why.why,
        }
    }
    Err(failure)
}
