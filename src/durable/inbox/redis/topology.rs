//! Which master has which hash slots.
//!
//! Keeps true: a key's slot is the one that Redis computes. Without a cluster the one server has all slots.

use std::ops::RangeInclusive;

use redis::{RedisResult, Value};

use super::servers::{self, Address, Kind, Server, Servers, Timeouts};

/// The masters and their slots, as one node sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// The cluster's election counter. Of two nodes' views, the one with the higher epoch is newer.
    pub(super) epoch: u64,
    pub(super) masters: Vec<Master>,
}

/// A master and its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) server: Server,
    pub(super) slots: Vec<RangeInclusive<u16>>,
}

impl Topology {
    /// Reads the topology, in a cluster from the node at `address`. The error is for the log.
    pub(super) async fn look(
        servers: &Servers,
        address: &Address,
        timeouts: Timeouts,
    ) -> Result<Topology, String> {
        if *servers.kind() != Kind::Cluster {
            let all = Master { server: Server::Master, slots: vec![0..=SLOTS - 1] };
            return Ok(Topology { epoch: 0, masters: vec![all] });
        }
        let failed = |why: String| format!("node {address}: {why}");
        let node = servers.find(&Server::Node(address.clone()), timeouts).await.map_err(failed)?;
        let asked: RedisResult<(String, Vec<Value>)> = async {
            let mut connection = servers::connect(&node, timeouts).await?;
            let mut ask = redis::pipe();
            ask.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
            ask.query_async(&mut connection).await
        }
        .await;
        let (info, slots) = asked.map_err(|why| failed(why.to_string()))?;
        let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
        let epoch = epoch.and_then(|epoch| epoch.trim().parse().ok()).unwrap_or_default();
        Ok(Topology { epoch, masters: masters(&slots, address) })
    }

    /// Whether every slot has a master.
    pub(super) fn is_whole(&self) -> bool {
        let slots = self.masters.iter().flat_map(|master| &master.slots);
        slots.map(|range| range.len()).sum::<usize>() == usize::from(SLOTS)
    }
}

impl Master {
    pub(super) fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }

    /// A key of this master, for probes. A few thousand candidates cover every slot.
    pub(super) fn probe_key(&self) -> String {
        let mut keys = (0..u32::MAX).map(|n| format!("hookgate:probe:{n}"));
        keys.find(|key| self.has(slot(key))).unwrap_or_default()
    }
}

/// Parses CLUSTER SLOTS: each range has its ends and its nodes, the master first, each with host and port.
fn masters(slots: &[Value], asked: &Address) -> Vec<Master> {
    let mut masters: Vec<Master> = Vec::new();
    for range in slots {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else { continue };
        let [host, Value::Int(port), ..] = &master[..] else { continue };
        let host = match host {
            Value::BulkString(host) if host == b"?" => continue,
            Value::BulkString(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
            // An empty host means the node that was asked.
            _ => asked.host.clone(),
        };
        let (Ok(first), Ok(last), Ok(port)) =
            (u16::try_from(*first), u16::try_from(*last), u16::try_from(*port))
        else {
            continue;
        };
        let server = Server::Node(Address { host, port });
        match masters.iter_mut().find(|master| master.server == server) {
            Some(master) => master.slots.push(first..=last),
            None => masters.push(Master { server, slots: vec![first..=last] }),
        }
    }
    masters
}

/// The slot of a key: CRC-16 (XMODEM) of the text in its first braces, or else of the whole key.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    });
    crc % SLOTS
}

const SLOTS: u16 = 16384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("foo{hash_tag}"), slot("hash_tag"));
        assert_ne!(slot("foo{}{bar}"), slot("bar"));
        assert_eq!(slot("{hooks.1}:seen:a:b"), slot("hooks.1"));
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
    }

    #[test]
    fn slots_without_a_master_are_told() {
        let asked = Address { host: "asked".to_owned(), port: 1 };
        let range = |first: i64, last: i64, host: &str| {
            let master = vec![Value::BulkString(host.as_bytes().to_vec()), Value::Int(7000)];
            Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(master)])
        };
        let of = |slots: &[Value]| Topology { epoch: 0, masters: masters(slots, &asked) };
        assert!(of(&[range(0, 99, "a"), range(100, 16383, "b")]).is_whole());
        assert!(!of(&[range(0, 99, "a"), range(101, 16383, "b")]).is_whole());
        // A master with an unknown address does not count.
        assert!(!of(&[range(0, 99, "a"), range(100, 16383, "?")]).is_whole());
    }

    #[test]
    fn a_node_that_does_not_know_its_name_is_the_one_that_was_asked() {
        let node = |host: &[u8], port| Value::Array(vec![Value::BulkString(host.to_vec()), Value::Int(port)]);
        let range = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let asked = Address { host: "seed".to_owned(), port: 1 };
        let slots = [
            range(0, 99, node(b"", 7000)),
            range(100, 16382, node(b"b", 7001)),
            range(16383, 16383, node(b"", 7000)),
        ];
        let masters = masters(&slots, &asked);
        assert_eq!(masters.len(), 2);
        assert_eq!(masters[0].server, Server::Node(Address { host: "seed".to_owned(), port: 7000 }));
        assert!(masters[0].has(16383) && masters[0].has(0) && !masters[0].has(100));
        assert!(Topology { epoch: 0, masters }.is_whole());
    }
}
