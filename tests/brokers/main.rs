//! NATS, RabbitMQ and Kafka: by themselves, behind the gateway, and as `check --live` sees them.

mod adapters;
mod live;
mod queues;
