//! An accepted event reaches its queue once, while disks, Redis and gateways fail.

mod backlog;
mod cluster;
mod data_dir;
mod fault_table;
mod full_disk;
mod last_accepted;
mod once;
mod outage;
mod reconcile;
mod spool;
