//! NATS, RabbitMQ, Kafka and HTTP services: by themselves, behind the gateway, and as `check --live` sees them.

mod adapters;
mod http;
mod live;
mod queues;
