//! `hookgate events replay`: puts events of the queue into it once more.
//!
//! Keeps true: if an id is unknown, nothing is replayed. An event is printed only once it is durable. Of the events
//! with one id, the oldest of each source is replayed, so that a second replay adds one event and not two.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::super::act::{Act, Tally, entries, entry};
use super::super::terminal::safe;
use super::super::{CommandResult, Failure, OK, print_line};
use super::line::columns;
use super::reader::Reader;
use super::scan::Scan;
use crate::base::clock::Clock;
use crate::base::label::UNKNOWN;
use crate::config::Config;
use crate::durable::inbox::event_filter::EventFilter;
use crate::durable::inbox::{Found, Place};
use crate::event::{Event, Head};
use crate::gateway::replay::{self, Replay, Replayer};

/// `events replay`.
#[derive(Args)]
pub(in crate::cli) struct ReplayArgs {
    /// The events' ids. If the queue has no event with one of them, nothing is replayed.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Only print which events would be replayed.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(config: &Config, args: &ReplayArgs, json: bool) -> CommandResult {
    let filter = EventFilter { ids: Some(args.ids.iter().cloned().collect()), ..EventFilter::default() };
    let mut scan = Scan::begin(Reader::open(config, "events replay").await?, &filter).await?;
    let chosen = choose(config, &mut scan, &filter).await?;
    if args.dry_run {
        for one in &chosen {
            if !print_line(&mut io::stdout(), &one.render(false, json))? {
                break;
            }
        }
        return Ok(OK);
    }
    let act = Act::begin(config, "events replay")?;
    let mut replayed = Replayed { json, ..Replayed::default() };
    let result = replayed.all(config, &mut scan, &chosen).await;
    let mut done = entries(&replayed.tally, &args.ids, |count| {
        format!("{count} event{} replayed", if count == 1 { "" } else { "s" })
    });
    if let Err(Failure(why)) = &result {
        done.push(entry(&safe(&format!("events replay: failed, and may have done a part: {why}"))));
    }
    act.end(done)?;
    result.map(|()| OK)
}

/// An event to replay.
struct Chosen {
    place: Place,
    id: String,
    kind: String,
    path: String,
    columns: String,
}

impl Chosen {
    fn of(found: &Found) -> Option<Chosen> {
        let head = Head::parse(&found.event).ok()?;
        let (id, kind, path) = (head.id.to_string(), head.kind.to_string(), head.source.to_string());
        Some(Chosen { place: found.place.clone(), columns: columns(&head), id, kind, path })
    }

    fn render(&self, replayed: bool, json: bool) -> String {
        let Chosen { id, kind, path, columns, .. } = self;
        if json {
            return json!({ "id": id, "source": path, "type": kind, "replayed": replayed }).to_string();
        }
        format!("{}  {columns}", if replayed { "replayed" } else { "would replay" })
    }
}

/// Finds the oldest event of each id and source, oldest first.
async fn choose(config: &Config, scan: &mut Scan, filter: &EventFilter) -> Result<Vec<Chosen>, Failure> {
    let (mut chosen, mut known) = (Vec::new(), BTreeSet::new());
    let mut unknown = filter.ids.clone().unwrap_or_default();
    while let Some(page) = scan.next_page(filter).await? {
        for one in page.iter().filter_map(Chosen::of) {
            unknown.remove(&one.id);
            if known.insert((one.path.clone(), one.id.clone())) {
                chosen.push(one);
            }
        }
    }
    if !unknown.is_empty() {
        let ids: Vec<String> = unknown.iter().map(|id| safe(id)).collect();
        return Err(Failure(format!("the queue has no event {}; nothing was replayed", ids.join(", "))));
    }
    let removed = chosen.iter().find(|one| source_name(config, &one.path).is_none());
    if let Some(one) = removed.filter(|_| replay::needs_source(config)) {
        return Err(Failure(format!(
            "the event {} is of {}, a path that no source of the config has, and queue.name holds {{source}}; nothing was \
             replayed",
            safe(&one.id),
            safe(&one.path)
        )));
    }
    Ok(chosen)
}

/// What was replayed so far.
#[derive(Default)]
struct Replayed {
    tally: Tally,
    json: bool,
    /// The reader of standard output has closed it.
    unread: bool,
}

impl Replayed {
    async fn all(&mut self, config: &Config, scan: &mut Scan, chosen: &[Chosen]) -> Result<(), Failure> {
        let mut replayer = Replayer::open(config, Clock::System).await?;
        let result = self.batches(config, scan, chosen, &mut replayer).await;
        replayer.close().await;
        result
    }

    /// Replays in batches, so that memory is bounded and a running gateway never waits long for the database.
    async fn batches(
        &mut self,
        config: &Config,
        scan: &mut Scan,
        chosen: &[Chosen],
        replayer: &mut Replayer,
    ) -> Result<(), Failure> {
        let names: BTreeMap<&str, Arc<str>> = config
            .sources
            .iter()
            .map(|source| (&*source.path.value, Arc::from(&*source.name.value)))
            .collect();
        let unknown: Arc<str> = UNKNOWN.into();
        let (mut batch, mut bytes, mut from) = (Vec::new(), 0, 0);
        for (at, one) in chosen.iter().enumerate() {
            let source = names.get(&*one.path).unwrap_or(&unknown).clone();
            let replay = load(scan, one, source).await?;
            bytes += replay.event.json.len();
            batch.push(replay);
            if at + 1 < chosen.len() && batch.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
                continue;
            }
            if from > 0 {
                replayer.pause();
            }
            let (done, result) = replayer.replay(&batch).await;
            for replay in &batch[..done] {
                *self.tally.entry(replay.source.to_string()).or_default() += 1;
            }
            chosen[from..from + done].iter().try_for_each(|one| self.print(one))?;
            result?;
            (batch, bytes, from) = (Vec::new(), 0, at + 1);
        }
        Ok(())
    }

    /// A reader that hangs up does not stop the replay.
    fn print(&mut self, one: &Chosen) -> Result<(), Failure> {
        self.unread = self.unread || !print_line(&mut io::stdout(), &one.render(true, self.json))?;
        Ok(())
    }
}

/// Reads an event again, marked as replayed.
async fn load(scan: &mut Scan, one: &Chosen, source: Arc<str>) -> Result<Replay, Failure> {
    let gone = || Failure(format!("the event {} is no longer in the queue", safe(&one.id)));
    let event = scan.event(&one.place).await?.ok_or_else(gone)?;
    let (event, provider) = Event::parse(event).ok_or_else(|| {
        Failure(format!("no gateway wrote the event {}, so it cannot be replayed", safe(&one.id)))
    })?;
    Ok(Replay { place: one.place.clone(), event: event.replayed(), provider, source })
}

fn source_name<'c>(config: &'c Config, path: &str) -> Option<&'c str> {
    config.sources.iter().find(|source| source.path.value == path).map(|source| source.name.value.as_str())
}

const BATCH_EVENTS: usize = 200;
const BATCH_BYTES: usize = 4 << 20;
