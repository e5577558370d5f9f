//! The acts of an operator, and the traces that a gateway leaves for one: commands, reloads, backups, logs, metrics.

mod alerts;
mod audit;
mod backup;
mod commands;
mod console;
mod drain;
mod events;
mod health;
mod observe;
mod provider_documents;
mod provider_simulators;
mod providers;
mod quarantine;
mod reconcile;
mod reload;
mod subscriptions;
mod takeover;
#[cfg(feature = "otlp")]
mod traces;
mod verify;
mod verify_defined;
