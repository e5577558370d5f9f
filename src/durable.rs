//! What survives a crash: the stores of events, and the database and the folder that they share.

pub mod audit_ledger;
pub mod backup;
pub mod broker;
pub mod data_dir;
pub mod database;
pub mod inbox;
pub mod last_accepted;
pub mod quarantine;
pub mod reconcile;
pub mod spool;
