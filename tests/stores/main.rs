//! An accepted event reaches its queue once, over what disks, Redis and gateways do meanwhile.

mod backlog;
mod cluster;
mod data_dir;
mod fault_table;
mod full_disk;
mod last_accepted;
mod once;
mod outage;
mod spool;
