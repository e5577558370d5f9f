//! What an operator does with a gateway and reads from it: commands, reloads, drains, backups, logs, metrics.

mod alerts;
mod audit;
mod backup;
mod commands;
mod drain;
mod observe;
mod quarantine;
mod reload;
mod takeover;
mod verify;
