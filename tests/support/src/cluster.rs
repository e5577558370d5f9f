//! A Redis cluster of a test's own: three masters with a replica each.

use super::process::free_port;
use super::{Persistence, Redis, until};

pub struct Cluster {
    /// Each starts with a third of the slots.
    pub masters: Vec<Redis>,
    /// Each starts as the replica of the master with the same index.
    pub replicas: Vec<Redis>,
}

impl Cluster {
    /// The cluster serves its other slots while one master is dead, and notices the death after 1.5 seconds.
    pub async fn start() -> Cluster {
        let (mut masters, mut replicas) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            masters.push(node().await);
            replicas.push(node().await);
        }
        let cluster = Cluster { masters, replicas };
        for (node, slots) in
            cluster.masters.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
        {
            let _: String = node.run(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await;
        }
        for (epoch, node) in (1..).zip(cluster.nodes()) {
            let _: String = node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]).await;
        }
        let (first, bus) = (&cluster.masters[0], bus(&cluster.masters[0]).await);
        for node in cluster.nodes().skip(1) {
            let (port, bus) = (first.port().to_string(), bus.as_str());
            let _: String = node.run(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        for (master, replica) in cluster.masters.iter().zip(&cluster.replicas) {
            let id: String = master.run(&["CLUSTER", "MYID"]).await;
            // Refused until the two have heard of each other.
            until("a replica has its master", async || {
                replica.try_run::<String>(&["CLUSTER", "REPLICATE", &id]).await.is_ok()
            })
            .await;
        }
        until("the cluster is whole", async || cluster.is_whole().await).await;
        cluster
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes().map(|node| format!("redis://127.0.0.1:{}", node.port())).collect()
    }

    fn nodes(&self) -> impl Iterator<Item = &Redis> {
        self.masters.iter().chain(&self.replicas)
    }

    async fn is_whole(&self) -> bool {
        for node in self.nodes() {
            let info: String = node.run(&["CLUSTER", "INFO"]).await;
            if !info.contains("cluster_state:ok") || !info.contains("cluster_known_nodes:6") {
                return false;
            }
        }
        for master in &self.masters {
            if !master.run::<String>(&["INFO", "replication"]).await.contains("state=online") {
                return false;
            }
        }
        true
    }
}

async fn node() -> Redis {
    let bus = free_port().to_string();
    let options = [
        ["--cluster-enabled", "yes"],
        ["--cluster-port", &bus],
        ["--cluster-node-timeout", "1500"],
        ["--cluster-require-full-coverage", "no"],
        ["--cluster-replica-validity-factor", "0"],
        ["--repl-diskless-sync-delay", "0"],
    ];
    Redis::start_with(Persistence::Off, options.as_flattened()).await
}

async fn bus(node: &Redis) -> String {
    let (_, port): (String, String) = node.run(&["CONFIG", "GET", "cluster-port"]).await;
    port
}
