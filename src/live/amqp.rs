//! RabbitMQ: is there an exchange of every name?
//!
//! Keeps true: nothing is declared; what the client library says of a failure is not repeated.

use std::collections::BTreeSet;

use lapin::options::ExchangeDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, ConnectionProperties, ErrorKind, ExchangeKind};

use super::{CONNECT, Finding, Setting, listed};
use crate::broker::amqp;
use crate::secret::Secret;

/// Asks the server about these exchanges.
pub(super) async fn look(url: &Secret, exchanges: &BTreeSet<String>) -> Vec<Finding> {
    let unreachable = |what| Finding::new(Setting::QueueUnreachable, format!("RabbitMQ {what}"));
    let connection = match connect(url).await {
        Ok(connection) => connection,
        Err(why) => return vec![unreachable(why)],
    };
    let (mut missing, mut found) = (Vec::new(), Vec::new());
    for exchange in exchanges {
        match is_there(&connection, exchange).await {
            Ok(true) => {}
            Ok(false) => missing.push(exchange),
            Err(_) => {
                found.push(unreachable("does not say which exchanges there are"));
                break;
            }
        }
    }
    // Nothing is lost with the connection.
    let _ = connection.close(200, "OK".into()).await;
    if !missing.is_empty() {
        let what = format!(
            "no such exchange, or none that may be used: {}; declare it and bind queues to it",
            listed(&missing)
        );
        found.push(Finding::new(Setting::AmqpExchange, what));
    }
    found
}

async fn is_there(connection: &Connection, exchange: &str) -> lapin::Result<bool> {
    let Ok(exchange) = ShortString::try_new(exchange) else { return Ok(false) };
    // A passive declaration that fails closes its channel.
    let channel = connection.create_channel().await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    match channel.exchange_declare(exchange, ExchangeKind::Topic, passive, FieldTable::default()).await {
        Ok(()) => Ok(true),
        Err(why) if amqp::soft(&why).is_some() => Ok(false),
        Err(why) => Err(why),
    }
}

/// Connects to the first server that lets us. The error is what the last one does.
async fn connect(url: &Secret) -> Result<Connection, &'static str> {
    let mut failed = UNREACHABLE;
    for uri in amqp::read(url)? {
        let name = ConnectionProperties::default().with_connection_name("hookgate check".into());
        match tokio::time::timeout(CONNECT, Connection::connect_uri(uri, name)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(why)) => failed = explain(&why),
            Err(_) => failed = UNREACHABLE,
        }
    }
    Err(failed)
}

fn explain(why: &lapin::Error) -> &'static str {
    let ErrorKind::ProtocolError(said) = why.kind() else { return UNREACHABLE };
    match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => "refuses the login: check user and password",
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
            "refuses the virtual host: check the end of the URL"
        }
        _ => "refuses the connection",
    }
}

const UNREACHABLE: &str = "cannot be reached";
