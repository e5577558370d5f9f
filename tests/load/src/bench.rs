//! The order of measurements: rounds, and in every round each case once, so that a machine that slows down slows all of them.
//! A ratio is taken within its round.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::Result;
use crate::case::{CASES, Case, IDLE_LEGS, RATES};
use crate::drive::{self, Load, Plan, Window};
use crate::leg::{Leg, Look, Places, Setup};
use crate::report::{Open, Report, Sample, Terms};
use crate::request::{Batch, Fields, Protocol};

/// Options of `run`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only the cases whose name contains this, and those that they are compared with.
    #[arg(long)]
    only: Option<String>,
    /// How often to measure each case.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a measurement, after one second of warm-up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
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
    /// Print one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the report on stdout; progress goes to stderr. Whether every target is met.
pub(crate) fn run(options: &Options) -> Result<bool> {
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
    Ok(report.is_met())
}

async fn measure(options: &Options) -> Result<Report> {
    let places = options.places()?;
    let terms = Terms {
        body: options.body,
        cores: thread::available_parallelism()?.get(),
        rounds: options.rounds,
        seconds: options.seconds,
        stored: options.stored,
        on_tmpfs: rustix::fs::statfs(&places.folder)?.f_type == TMPFS,
        sync: sync_time(&places.folder)?,
    };
    let mut report = Report::new(terms);
    let filled = match options.stored {
        0 => None,
        count => Some(fill(count, &places).await?),
    };
    for round in 1..=options.rounds {
        let mut samples = Vec::new();
        for case in options.cases() {
            let sample = match (&filled, case.leg) {
                (Some(setup), Leg::Stored) => sample(case, setup, options).await?,
                _ => {
                    let setup = Setup::start(case.leg, &places).await?;
                    let sample = sample(case, &setup, options).await?;
                    setup.stop().await?;
                    sample
                }
            };
            eprintln!("round {round} of {}: {}: {:.0} requests/s", options.rounds, case.name, sample.rate);
            samples.push(sample);
        }
        report.rounds.push(samples);
    }
    if let Some(setup) = filled {
        setup.stop().await?;
    }
    if options.only.is_none() {
        for leg in IDLE_LEGS {
            for rate in RATES {
                report.open.push(open(leg, rate, &places, options).await?);
            }
            report.idle.push((leg, idle(leg, &places).await?));
            report.allocations.push((leg, allocations(leg, &places, options).await?));
        }
    }
    Ok(report)
}

async fn sample(case: &'static Case, setup: &Setup, options: &Options) -> Result<Sample> {
    let batches = setup.batches().await?;
    let window = drive(case.load, case.fields, setup, options, SIGNED_PER_SECOND).await;
    let window = window.map_err(|error| format!("{}: {error}\n{}", case.name, setup.output()))?;
    let after = setup.batches().await?;
    let count = after.0 - batches.0;
    Ok(to_sample(case, window, (count > 0.0).then(|| (after.1 - batches.1) / count)))
}

async fn drive(
    load: Load,
    fields: Fields,
    setup: &Setup,
    options: &Options,
    per_second: usize,
) -> Result<Window<Look>> {
    let plan = Plan { load, warm_up: WARM_UP, window: Duration::from_secs(options.seconds) };
    let seconds = (plan.warm_up + plan.window).as_secs() as usize;
    let protocol = if let Load::Streams { .. } = load { Protocol::Http2 } else { Protocol::Http1 };
    let batch = Batch::sign(seconds * per_second, options.body, fields, protocol)?;
    drive::measure(batch, setup.address, plan, || setup.look()).await
}

fn to_sample(case: &'static Case, window: Window<Look>, events_a_batch: Option<f64>) -> Sample {
    let (before, after) = (window.before, window.after);
    let requests = window.latency.len() as f64;
    let each = |used: Duration| used.as_secs_f64() * 1e6 / requests;
    Sample {
        case,
        rate: requests / window.elapsed.as_secs_f64(),
        cpu_micros: each(after.server.cpu - before.server.cpu),
        redis_cpu_micros: after.redis.zip(before.redis).map(|(after, before)| each(after.cpu - before.cpu)),
        load_cpu_micros: each(after.load.cpu - before.load.cpu),
        switches: after.server.switches.saturating_sub(before.server.switches) as f64 / requests,
        events_a_batch,
        rss: after.server.rss,
        latency: window.latency,
    }
}

/// Latencies at a fixed rate.
async fn open(leg: Leg, rate: u32, places: &Places, options: &Options) -> Result<Open> {
    let setup = Setup::start(leg, places).await?;
    let window = drive(Load::Open(rate), Fields::Known, &setup, options, rate as usize * 2).await?;
    setup.stop().await?;
    eprintln!("open loop: {} at {rate} requests/s", leg.name());
    Ok(Open { leg, rate, latency: window.latency })
}

/// Bytes resident for each connection that is open and asks nothing.
async fn idle(leg: Leg, places: &Places) -> Result<f64> {
    raise_files()?;
    let setup = Setup::start(leg, places).await?;
    let sign = |count| Batch::sign(count, IDLE_BODY, Fields::Known, Protocol::Http1);
    // What is used by any number of connections is not counted.
    let some = drive::idle(sign(IDLE_BEFORE)?, setup.address, IDLE_BEFORE).await?;
    let before = setup.look()?.server.rss;
    let more = drive::idle(sign(IDLE_CONNECTIONS)?, setup.address, IDLE_CONNECTIONS).await?;
    let after = setup.look()?.server.rss;
    drop((some, more));
    setup.stop().await?;
    Ok(after.saturating_sub(before) as f64 / IDLE_CONNECTIONS as f64)
}

/// Heap allocations a request, by the build that counts them.
async fn allocations(leg: Leg, places: &Places, options: &Options) -> Result<f64> {
    let setup = Setup::counting(leg, places).await?;
    let sign = |count| Batch::sign(count, options.body, Fields::Known, Protocol::Http1);
    drive::pour(sign(COUNTED / 4)?, setup.address, 64).await?;
    let before = setup.allocations().await?;
    let accepted = drive::pour(sign(COUNTED)?, setup.address, 64).await?;
    let after = setup.allocations().await?;
    setup.stop().await?;
    Ok((after - before) as f64 / accepted as f64)
}

/// As many open files as the system lets this process have.
fn raise_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A gateway that has accepted `count` events, through its front door.
async fn fill(count: u64, places: &Places) -> Result<Setup> {
    let setup = Setup::start(Leg::Stored, places).await?;
    let start = Instant::now();
    let mut stored = 0;
    while stored < count {
        let batch = (count - stored).min(FILL_BATCH) as usize;
        let batch = Batch::sign(batch, FILL_BODY, Fields::Known, Protocol::Http1)?;
        let accepted = drive::pour(batch, setup.address, FILL_CONNECTIONS).await;
        stored += accepted.map_err(|error| format!("after {stored} stored: {error}\n{}", setup.output()))?;
        eprintln!("stored {stored} of {count}: {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(setup)
}

impl Options {
    fn cases(&self) -> Vec<&'static Case> {
        let wanted = |case: &Case| self.only.as_ref().is_none_or(|only| case.name.contains(only.as_str()));
        let compared: Vec<&str> =
            CASES.iter().filter(|case| wanted(case)).filter_map(|case| case.compared_with).collect();
        let runs = |case: &&Case| wanted(case) || compared.contains(&case.name);
        CASES.iter().filter(runs).filter(|case| case.leg != Leg::Stored || self.stored > 0).collect()
    }

    fn places(&self) -> Result<Places> {
        let own = std::env::current_exe()?;
        let beside = own.parent().ok_or("this program is in no folder")?;
        let gateway = self.gateway.clone().unwrap_or_else(|| beside.join("hookgate"));
        let folder = self.folder.clone().unwrap_or_else(|| beside.with_file_name("bench"));
        fs::create_dir_all(&folder)?;
        Ok(Places {
            gateway,
            counted: beside.join("hookgate-counted"),
            redis: self.redis_server.clone(),
            folder: folder.canonicalize()?,
        })
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
const FILL_BODY: usize = 300;
/// More than are measured with: fuller group commits fill faster.
const FILL_CONNECTIONS: usize = 256;
const IDLE_BODY: usize = 300;
const IDLE_BEFORE: usize = 200;
const IDLE_CONNECTIONS: usize = 2000;
/// Requests over which allocations are counted.
const COUNTED: usize = 40_000;
/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
