//! The order of measurements: rounds, and in every round each server once, so that a machine that slows down
//! slows all of them. A ratio is taken within its round.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::Result;
use crate::drive::{self, Plan, Window};
use crate::leg::{Leg, Look, Places, Setup};
use crate::report::{Report, Sample, Terms};
use crate::request::Batch;

/// Options of `run`.
#[derive(Args)]
pub(crate) struct Options {
    /// Measure the gateway on this backend only.
    #[arg(long)]
    only: Option<Backend>,
    /// How often to measure each server.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a measurement, after one second of warm-up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Bytes of a request's body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
    /// Measure also an embedded store that holds this many identities before; the target is for 10000000,
    /// which takes minutes and some 15 GB of disk.
    #[arg(long, default_value_t = 0)]
    stored: u64,
    /// The gateway [default: hookgate beside this program].
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// The Redis server.
    #[arg(long, default_value = "redis-server")]
    redis_server: PathBuf,
    /// Where to make the servers' folders, on the disk to measure [default: bench in the target folder].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    Embedded,
    Redis,
}

/// Measures, and prints the report on stdout; progress goes to stderr.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.only == Some(Backend::Redis) && options.stored > 0 {
        return Err("--stored is of the embedded backend: leave out --only redis".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            report = measure(options) => report,
            _ = interrupt.recv() => Err("interrupted".into()),
            _ = terminate.recv() => Err("terminated".into()),
        }
    })?;
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    Ok(())
}

async fn measure(options: &Options) -> Result<Report> {
    let places = options.places()?;
    let terms = Terms {
        connections: options.connections,
        body: options.body,
        cores: thread::available_parallelism()?.get(),
        rounds: options.rounds,
        seconds: options.seconds,
        stored: options.stored,
        on_tmpfs: rustix::fs::statfs(&places.folder)?.f_type == TMPFS,
        sync: sync_time(&places.folder)?,
    };
    let filled = match options.stored {
        0 => None,
        count => Some(fill(count, &places).await?),
    };
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let mut samples = Vec::new();
        for leg in options.legs() {
            let sample = match (&filled, leg) {
                (Some(setup), Leg::Stored) => sample(leg, setup, options).await?,
                _ => {
                    let setup = Setup::start(leg, &places).await?;
                    let sample = sample(leg, &setup, options).await?;
                    setup.stop().await?;
                    sample
                }
            };
            let rate = sample.rate;
            eprintln!("round {round} of {}: {}: {rate:.0} requests/s", options.rounds, leg.name());
            samples.push(sample);
        }
        rounds.push(samples);
    }
    if let Some(setup) = filled {
        setup.stop().await?;
    }
    Ok(Report::new(terms, &rounds))
}

async fn sample(leg: Leg, setup: &Setup, options: &Options) -> Result<Sample> {
    let plan = Plan {
        connections: options.connections as usize,
        warm_up: WARM_UP,
        window: Duration::from_secs(options.seconds),
    };
    let seconds = (plan.warm_up + plan.window).as_secs() as usize;
    let batch = Batch::sign(seconds * SIGNED_PER_SECOND, options.body)?;
    let window = drive::measure(batch, setup.address, plan, || setup.look()).await;
    Ok(to_sample(leg, window.map_err(|error| format!("{}: {error}\n{}", leg.name(), setup.output()))?))
}

fn to_sample(leg: Leg, window: Window<Look>) -> Sample {
    let (before, after) = (window.before, window.after);
    let each = |used: Duration| used.as_secs_f64() * 1e6 / window.latency.len() as f64;
    Sample {
        leg,
        rate: window.latency.len() as f64 / window.elapsed.as_secs_f64(),
        cpu_micros: each(after.server.cpu - before.server.cpu),
        redis_cpu_micros: after.redis.zip(before.redis).map(|(after, before)| each(after.cpu - before.cpu)),
        load_cpu_micros: each(after.load.cpu - before.load.cpu),
        rss: after.server.rss,
        peak: after.server.peak,
        latency: window.latency,
    }
}

/// A gateway that has accepted `count` events, through its front door.
async fn fill(count: u64, places: &Places) -> Result<Setup> {
    let setup = Setup::start(Leg::Stored, places).await?;
    let start = Instant::now();
    let mut stored = 0;
    while stored < count {
        let batch = Batch::sign((count - stored).min(FILL_BATCH) as usize, FILL_BODY)?;
        let accepted = drive::pour(batch, setup.address, FILL_CONNECTIONS).await;
        stored += accepted.map_err(|error| format!("after {stored} stored: {error}\n{}", setup.output()))?;
        eprintln!("stored {stored} of {count}: {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(setup)
}

impl Options {
    fn legs(&self) -> Vec<Leg> {
        let mut legs = vec![Leg::Bare];
        if self.only != Some(Backend::Redis) {
            legs.push(Leg::Embedded);
        }
        if self.stored > 0 {
            legs.push(Leg::Stored);
        }
        if self.only != Some(Backend::Embedded) {
            legs.push(Leg::Redis);
        }
        legs
    }

    fn places(&self) -> Result<Places> {
        let own = std::env::current_exe()?;
        let beside = own.parent().ok_or("this program is in no folder")?;
        let gateway = self.gateway.clone().unwrap_or_else(|| beside.join("hookgate"));
        let folder = self.folder.clone().unwrap_or_else(|| beside.with_file_name("bench"));
        fs::create_dir_all(&folder)?;
        Ok(Places { gateway, redis: self.redis_server.clone(), folder: folder.canonicalize()? })
    }
}

/// Median time of a small synced write, which bounds what an embedded store can do.
fn sync_time(folder: &Path) -> Result<Duration> {
    let path = folder.join("sync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..101 {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

const WARM_UP: Duration = Duration::from_secs(1);
/// More than one thread of load can send: a batch that runs out fails the run.
const SIGNED_PER_SECOND: usize = 300_000;
const FILL_BATCH: u64 = 500_000;
/// Little more than a delivery's fields.
const FILL_BODY: usize = 280;
/// More than are measured with: fuller group commits fill faster.
const FILL_CONNECTIONS: usize = 256;
/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
