//! Opens the reject log, and the ledger that is kept of it in the database.
//!
//! Keeps true: a key that cannot be used stops the start.

use std::sync::Arc;
use std::time::Duration;

use super::stores::Dependencies;
use super::{LOOK_AGAIN, StartError};
use crate::base::clock::{self, Clock};
use crate::config::{Config, Problem};
use crate::durable::audit_ledger::AuditLedger;
use crate::durable::data_dir;
use crate::observe::admin::Readiness;
use crate::observe::audit::{self, Audit};
use crate::observe::metrics::Metrics;

/// Opens it, once the gateway that gave its turn up has closed it.
pub(super) async fn open(config: &Config, with: &Dependencies<'_>) -> Result<Audit, StartError> {
    let patient_until = clock::instant() + PATIENCE;
    loop {
        match audit(config, with) {
            // A command that records what it did has it for a moment.
            Err(StartError::Audit(audit::OpenError::Held(_)))
                if config.edge.reuse_port || clock::instant() < patient_until =>
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

/// Opens it alone.
pub(super) fn audit(config: &Config, with: &Dependencies<'_>) -> Result<Audit, StartError> {
    let key = audit::Key::of(&config.audit).map_err(|problem| StartError::Config(vec![problem]))?;
    let options = audit::Options::new(config.audit.retain, config.audit.max_bytes);
    let (clock, metrics, readiness) = (with.clock.clone(), Arc::clone(with.metrics), with.readiness.clone());
    Ok(Audit::open(&data_dir::audit_dir(&config.data_dir), options, key, clock, metrics, readiness)?)
}

/// Compares the log with what the database has of it, and keeps that from here on. The database must be open.
pub(super) fn keep(config: &Config, audit: &Audit, with: &Dependencies<'_>) {
    let (db, dir) = (data_dir::database_file(&config.data_dir), data_dir::audit_dir(&config.data_dir));
    let ledger = AuditLedger::open(&db, &dir, with.clock.clone(), with.metrics.audit.clone());
    audit.keep(Box::new(ledger));
}

/// Records the acts of operators that wait, if no gateway has the log to do it. Whether it was done.
///
/// # Errors
/// When the log cannot be opened, or its key cannot be used.
pub fn record_acts(config: &Config, clock: Clock) -> Result<bool, StartError> {
    let (metrics, readiness) = (Arc::new(Metrics::new()?), Arc::new(Readiness::default()));
    let qualified = Arc::default();
    let with =
        Dependencies { clock: &clock, metrics: &metrics, readiness: &readiness, qualified: &qualified };
    let audit = match audit(config, &with) {
        Err(StartError::Audit(audit::OpenError::Held(_))) => return Ok(false),
        opened => opened?,
    };
    keep(config, &audit, &with);
    audit.close();
    Ok(true)
}

/// What would stop [`open`].
pub(super) fn problems(config: &Config) -> impl Iterator<Item = Problem> {
    audit::Key::of(&config.audit).err().into_iter()
}

const PATIENCE: Duration = Duration::from_secs(1);
