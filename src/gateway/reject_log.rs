//! Opens the reject log, and its ledger in the database.
//!
//! Keeps true: a gateway does not start with an `audit.key` that cannot be used.

use std::sync::Arc;
use std::time::Duration;

use super::stores::Dependencies;
use super::{POLL, StartError};
use crate::base::clock::{self, Clock};
use crate::config::{Config, Problem};
use crate::durable::audit_ledger::AuditLedger;
use crate::durable::data_dir;
use crate::observe::admin::Readiness;
use crate::observe::audit::{self, Audit};
use crate::observe::metrics::Metrics;

/// Opens the reject log. Waits for a draining gateway, or a command, to close it.
pub(super) async fn open(config: &Config, deps: &Dependencies<'_>) -> Result<Audit, StartError> {
    let deadline = clock::instant() + MAX_WAIT;
    loop {
        match try_open(config, deps) {
            // A command holds the log for a moment to record its act.
            Err(StartError::Audit(audit::OpenError::Held(_)))
                if config.edge.reuse_port || clock::instant() < deadline =>
            {
                tokio::time::sleep(POLL).await;
            }
            opened => return opened,
        }
    }
}

/// Opens the reject log without its ledger. Does not wait.
pub(super) fn try_open(config: &Config, deps: &Dependencies<'_>) -> Result<Audit, StartError> {
    let key = audit::Key::of(&config.audit).map_err(|problem| StartError::Config(vec![problem]))?;
    let options = audit::Options::new(config.audit.retain, config.audit.max_bytes);
    let (clock, metrics, readiness) = (deps.clock.clone(), Arc::clone(deps.metrics), deps.readiness.clone());
    Ok(Audit::open(&data_dir::audit_dir(&config.data_dir), options, key, clock, metrics, readiness)?)
}

/// Compares the log with its ledger in the database, and keeps the ledger up to date. The database must be open.
pub(super) fn attach_ledger(config: &Config, audit: &Audit, deps: &Dependencies<'_>) {
    let (db, dir) = (data_dir::database_file(&config.data_dir), data_dir::audit_dir(&config.data_dir));
    let ledger = AuditLedger::open(&db, &dir, deps.clock.clone(), deps.metrics.audit.clone());
    audit.keep(Box::new(ledger));
}

/// Writes operators' waiting acts to the log. Returns `false` if a gateway has the log open: that gateway writes them.
///
/// # Errors
/// When the log cannot be opened, or its key cannot be used.
pub fn record_acts(config: &Config, clock: Clock) -> Result<bool, StartError> {
    let (metrics, readiness) = (Arc::new(Metrics::new()?), Arc::new(Readiness::default()));
    let qualified = Arc::default();
    let deps =
        Dependencies { clock: &clock, metrics: &metrics, readiness: &readiness, qualified: &qualified };
    let audit = match try_open(config, &deps) {
        Err(StartError::Audit(audit::OpenError::Held(_))) => return Ok(false),
        opened => opened?,
    };
    attach_ledger(config, &audit, &deps);
    audit.close();
    Ok(true)
}

/// The config problems that would make [`open`] fail.
pub(super) fn problems(config: &Config) -> impl Iterator<Item = Problem> {
    audit::Key::of(&config.audit).err().into_iter()
}

const MAX_WAIT: Duration = Duration::from_secs(1);
