//! Opens the reject log, and what ships it.
//!
//! Keeps true: a key or a receiver that cannot be used stops the start; nothing is shipped before it is synced.

use std::sync::Arc;

use super::stores::Surroundings;
use super::{LOOK_AGAIN, StartError, audit_dir};
use crate::audit::{self, Audit};
use crate::config::{Config, Problem};
use crate::ship::{Receiver, Shipper};

/// The reject log of a gateway.
pub(super) struct RejectLog {
    pub(super) audit: Audit,
    /// None where it goes nowhere else.
    pub(super) shipper: Option<Shipper>,
}

/// Opens it and starts to ship it, once the gateway that gave its turn up has closed it.
pub(super) async fn open(config: &Config, with: &Surroundings<'_>) -> Result<RejectLog, StartError> {
    let receiver = Receiver::of(config).map_err(|problem| StartError::Config(vec![problem]))?;
    let audit = loop {
        match audit(config, with) {
            Err(StartError::Audit(audit::OpenError::Held(_))) if config.edge.reuse_port => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            opened => break opened?,
        }
    };
    let dir = audit_dir(&config.data_dir);
    let ship = |receiver| Shipper::start(&dir, receiver, audit.synced(), with.metrics.audit.clone());
    let shipper = receiver.map(ship);
    Ok(RejectLog { audit, shipper })
}

/// Opens it alone.
pub(super) fn audit(config: &Config, with: &Surroundings<'_>) -> Result<Audit, StartError> {
    let key = audit::Key::of(&config.audit).map_err(|problem| StartError::Config(vec![problem]))?;
    let options = audit::Options::new(config.audit.retain, config.audit.max_bytes);
    let (clock, metrics, readiness) = (with.clock.clone(), Arc::clone(with.metrics), with.readiness.clone());
    Ok(Audit::open(&audit_dir(&config.data_dir), options, key, clock, metrics, readiness)?)
}

/// What would stop [`open`].
pub(super) fn problems(config: &Config) -> impl Iterator<Item = Problem> {
    audit::Key::of(&config.audit).err().into_iter().chain(Receiver::of(config).err())
}
