//! RabbitMQ: is there an exchange of every name, and do the queues bound to it keep what they confirmed?
//!
//! Keeps true: nothing is declared; what the client library says of a failure is not repeated.

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

/// Asks the server about these exchanges.
pub(super) async fn look(url: &Secret, exchanges: &BTreeSet<String>) -> Vec<Finding> {
    let unreachable = |what: &str| Finding::new(Setting::QueueUnreachable, format!("RabbitMQ {what}"));
    let (connection, uri) = match connect(url).await {
        Ok(connected) => connected,
        Err(why) => return vec![unreachable(&why)],
    };
    let (mut missing, mut present, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for exchange in exchanges {
        match is_there(&connection, exchange).await {
            Ok(Some(true)) => present.push(&**exchange),
            Ok(Some(false)) => missing.push(exchange),
            Ok(None) => {
                let what = format!(
                    "this user may not look at the exchange {exchange}: whether it is there is not known"
                );
                found.push(Finding::new(Setting::AmqpUnreadable, what));
                break;
            }
            Err(_) => {
                found.push(unreachable("does not say which exchanges there are"));
                break;
            }
        }
    }
    // Nothing is lost with the connection.
    let _ = connection.close(200, "OK".into()).await;
    if !missing.is_empty() {
        found.push(Finding::new(Setting::AmqpExchange, amqp::no_exchange(&listed(&missing))));
    }
    if !present.is_empty() {
        found.extend(management::look(&uri, &present).await);
    }
    found
}

/// None where our user may not know.
async fn is_there(connection: &Connection, exchange: &str) -> lapin::Result<Option<bool>> {
    let Ok(exchange) = ShortString::try_new(exchange) else { return Ok(Some(false)) };
    // A passive declaration that fails closes its channel.
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

/// Connects to the first server that lets us. The error is what the last one does.
async fn connect(url: &Secret) -> Result<(Connection, AMQPUri), String> {
    let mut failed = "cannot be reached".to_owned();
    for uri in amqp::read(url)? {
        match amqp::connect(&uri, "hookgate check", CONNECT).await {
            Ok(connection) => return Ok((connection, uri)),
            Err(why) => failed = why.why,
        }
    }
    Err(failed)
}
