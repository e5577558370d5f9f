//! The watch over the consumer groups: it sets their metrics, and notes since when each stands still.
//!
//! Keeps true: every stream is looked at every five seconds, one after the other. The first 32 groups of a stream, by name, have
//! series of their own, and the others share one. A group or stream that is gone has no series.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Seen};
use super::cluster_client::ClusterClient;
use super::lag::{Asked, Budget, Counted, StreamInfo};
use super::retention::Written;
use super::script::Scripts;
use crate::base::clock;
use crate::observe::metrics::QueueMetrics;

/// The watch.
pub(super) struct Watch {
    pub(super) links: Arc<ClusterClient>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) written: Arc<Written>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) metrics: QueueMetrics,
    /// Each of these streams has series, be it there or not.
    pub(super) fixed: BTreeSet<String>,
}

/// A stream, as the last look left it.
#[derive(Default)]
struct Known {
    counted: Counted,
    /// Groups that have series.
    told: BTreeSet<String>,
    ahead: bool,
}

impl Asked for &ClusterClient {
    async fn ask(&mut self, stream: &str, commands: &Pipeline) -> Option<Vec<Value>> {
        self.call(stream, commands).await.ok()
    }
}

impl Watch {
    /// Until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.look_at_all() => {}
        }
    }

    async fn look_at_all(&self) {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        // The first look is as soon as there is a way.
        while !self.links.is_up() {
            tokio::time::sleep(SOON).await;
        }
        let mut turn = tokio::time::interval(EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turns = 0;
        loop {
            turn.tick().await;
            let (mut streams, mut budget) = (self.written.all(), Budget::default());
            // Each turn begins with another stream, so that each stream is within the budget at times.
            turns = (turns + 1) % streams.len().max(1);
            streams.rotate_left(turns);
            for stream in streams {
                if !self.links.is_up() {
                    break;
                }
                self.look(&stream, known.entry(stream.clone()).or_default(), &mut budget).await;
            }
        }
    }

    async fn look(&self, stream: &str, known: &mut Known, budget: &mut Budget) {
        let mut asked = &*self.links;
        let look = StreamInfo::look(&mut asked, &self.scripts, stream, &mut known.counted, budget);
        let Some(standing) = look.await else { return };
        let now = clock::instant();
        let seen = standing.groups.iter().map(|group| {
            let seen = Seen::new(group.read.clone(), group.idle, now);
            (group.raw.clone(), seen)
        });
        self.backlog.has_groups(stream, seen.collect());
        let ahead = standing.ahead();
        if let (Some(ahead), false) = (ahead, known.ahead) {
            tracing::warn!(
                %stream, last = %standing.last, seconds = ahead.as_secs(),
                "the last id of a stream is ahead of Redis' clock: its entries are trimmed once they are acknowledged, without \
                 regard to queue.retain"
            );
        }
        known.ahead = ahead.is_some();
        self.tell(stream, &standing, known);
    }

    fn tell(&self, stream: &str, standing: &StreamInfo, known: &mut Known) {
        if standing.exists || self.fixed.contains(stream) {
            self.metrics.stream(stream, standing.length, self.backlog.max());
        } else {
            self.metrics.no_stream(stream);
        }
        let mut told: BTreeMap<&str, (u64, Duration)> = BTreeMap::new();
        for (n, group) in standing.groups.iter().enumerate() {
            let name = if n < MOST_GROUPS { &*group.name } else { REST };
            let age = group.oldest.as_ref().map(|id| standing.age(id)).unwrap_or_default();
            let (behind, oldest) = told.entry(name).or_default();
            (*behind, *oldest) = (*behind + group.behind, age.max(*oldest));
        }
        for gone in known.told.iter().filter(|name| !told.contains_key(&***name)) {
            self.metrics.no_group(stream, gone);
        }
        for (name, (behind, oldest)) in &told {
            self.metrics.group(stream, name, *behind, *oldest);
        }
        known.told = told.into_keys().map(str::to_owned).collect();
    }
}

/// A stream's groups that have series of their own.
const MOST_GROUPS: usize = 32;
/// What the others are called, all together.
const REST: &str = "other";
const EVERY: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(50);
