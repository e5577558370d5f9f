//! Monitors the consumer groups: sets their metrics, and records since when each stands still.
//!
//! Keeps true: every five seconds it reads every stream, one after the other. The first 32 groups of a stream, by name,
//! have series of their own; the others share one. A group or stream that is gone has no series.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Seen};
use super::cluster_client::ClusterClient;
use super::lag::{Budget, CommandSender, Counted, StreamInfo};
use super::retention::Written;
use super::script::Scripts;
use crate::base::clock;
use crate::observe::metrics::QueueMetrics;

pub(super) struct GroupMonitor {
    pub(super) client: Arc<ClusterClient>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) written: Arc<Written>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) metrics: QueueMetrics,
    /// These streams have series even if they do not exist.
    pub(super) fixed: BTreeSet<String>,
}

/// The result of the last read of a stream.
#[derive(Default)]
struct Known {
    counted: Counted,
    /// The groups that have series.
    series: BTreeSet<String>,
    ahead: bool,
}

impl CommandSender for &ClusterClient {
    async fn send(&mut self, stream: &str, commands: &Pipeline) -> Option<Vec<Value>> {
        self.call(stream, commands).await.ok()
    }
}

impl GroupMonitor {
    /// Runs until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch_all() => {}
        }
    }

    async fn watch_all(&self) {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        // The first read happens as soon as a master is connected.
        while !self.client.is_up() {
            tokio::time::sleep(SOON).await;
        }
        let mut turn = tokio::time::interval(EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turns = 0;
        loop {
            turn.tick().await;
            let (mut streams, mut budget) = (self.written.all(), Budget::default());
            // Each turn begins with another stream, so that every stream is within the budget sometimes.
            turns = (turns + 1) % streams.len().max(1);
            streams.rotate_left(turns);
            for stream in streams {
                if !self.client.is_up() {
                    break;
                }
                self.look(&stream, known.entry(stream.clone()).or_default(), &mut budget).await;
            }
        }
    }

    async fn look(&self, stream: &str, known: &mut Known, budget: &mut Budget) {
        let mut sender = &*self.client;
        let look = StreamInfo::read(&mut sender, &self.scripts, stream, &mut known.counted, budget);
        let Some(info) = look.await else { return };
        let now = clock::instant();
        let seen = info.groups.iter().map(|group| {
            let seen = Seen::new(group.read.clone(), group.idle, now);
            (group.raw.clone(), seen)
        });
        self.backlog.set_groups(stream, seen.collect());
        let ahead = info.ahead();
        if let (Some(ahead), false) = (ahead, known.ahead) {
            tracing::warn!(
                %stream, last = %info.last, seconds = ahead.as_secs(),
                "the last id of a stream is ahead of Redis' clock: its entries are trimmed once they are acknowledged, without \
                 regard to queue.retain"
            );
        }
        known.ahead = ahead.is_some();
        self.publish(stream, &info, known);
    }

    fn publish(&self, stream: &str, info: &StreamInfo, known: &mut Known) {
        if info.exists || self.fixed.contains(stream) {
            self.metrics.stream(stream, info.length, self.backlog.max());
        } else {
            self.metrics.no_stream(stream);
        }
        let mut series: BTreeMap<&str, (u64, Duration)> = BTreeMap::new();
        for (n, group) in info.groups.iter().enumerate() {
            let name = if n < MAX_GROUPS { &*group.name } else { OTHER_GROUPS };
            let age = group.oldest.as_ref().map(|id| info.age(id)).unwrap_or_default();
            let (behind, oldest) = series.entry(name).or_default();
            (*behind, *oldest) = (*behind + group.behind, age.max(*oldest));
        }
        for gone in known.series.iter().filter(|name| !series.contains_key(&***name)) {
            self.metrics.no_group(stream, gone);
        }
        for (name, (behind, oldest)) in &series {
            self.metrics.group(stream, name, *behind, *oldest);
        }
        known.series = series.into_keys().map(str::to_owned).collect();
    }
}

/// The most groups of a stream that have series of their own.
const MAX_GROUPS: usize = 32;
/// The shared series of the other groups.
const OTHER_GROUPS: &str = "other";
const EVERY: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(50);
