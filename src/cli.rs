//! The commands, one file each.
//!
//! Keeps true: the exit code is 0 for success, 1 for a reported failure, 2 for wrong usage. A command may add
//! one, and says so in its help. Output is text for people,
//! or one JSON object a line under `--json`. Commands decide nothing that the gateway decides.

mod act;
mod audit;
mod backup;
mod capture;
mod check;
mod dead;
mod demo;
mod events;
mod health;
mod providers;
mod quarantine;
mod reconcile;
mod schema;
mod send;
mod serve;
mod subscriptions;
mod terminal;
mod verify;
mod when;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::base::label::UNKNOWN;
use crate::config::{self, Config};
use crate::durable::data_dir;
use crate::gateway::{OfflineError, StartError};
use crate::observe::audit::Key;
use crate::observe::telemetry::Format;
use act::Act;

/// Inbound webhook gateway: verifies, dedupes and normalizes provider webhooks, and queues each event once.
#[derive(Parser)]
#[command(name = "hookgate", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The options of every command.
#[derive(Args)]
struct Global {
    /// The config file.
    #[arg(long, global = true, env = "HOOKGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object a line instead of text for people.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT, then drain.
    Serve {
        /// Format of the log lines on standard error. --json implies json.
        #[arg(long, value_enum, default_value_t)]
        log_format: Format,
    },
    /// Start a gateway without config or services, and send it deliveries of Securitize, Anduin, Basiq, Atelio and IOF.
    Demo(demo::Demo),
    /// Print every problem of the config, and resolve every secret.
    Check(check::Check),
    /// Sign a sample delivery as its provider would, and post it.
    Send(send::Send),
    /// Explain why a captured delivery passes or fails.
    Verify(verify::Verify),
    /// Show the providers that this config knows, and try a definition on a captured delivery.
    Providers {
        #[command(subcommand)]
        command: providers::Providers,
    },
    /// Plan, apply and list the subscriptions at the providers.
    Subscriptions {
        #[command(subcommand)]
        command: subscriptions::Subscriptions,
    },
    /// Read the queue, and handle dead letters.
    Events {
        #[command(subcommand)]
        command: events::Events,
    },
    /// Read and verify the reject log.
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Show, verify again or delete the refused requests that were kept.
    Quarantine {
        #[command(subcommand)]
        command: quarantine::QuarantineCommand,
    },
    /// Admit events that the provider sent and that never arrived, out of the provider's own log (Basiq). Have IOF deliver
    /// failed events again. Name the numbers of Securitize's events that never arrived.
    ///
    /// Leaves a record with reason `operator` in the reject log. Exits 1 if anything failed; what was done stays done.
    Reconcile(reconcile::Reconcile),
    /// Copy every store of data_dir, while the gateway runs or is stopped.
    Backup(backup::Backup),
    /// Restore a backup into the data_dir of a stopped gateway. Existing files are moved aside.
    Restore(backup::Restore),
    /// Print the JSON Schema of the normalized event.
    Schema,
    /// Ask the running gateway's admin listener whether it is ready. For container health checks.
    Health(health::Health),
}

/// Why a command failed, for its user.
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// A command's exit code, or the error to print before exiting with 1.
type CommandResult = Result<u8, Failure>;

/// The commands and their options, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let done = match command {
        Command::Serve { log_format } => serve::run(&global, log_format),
        Command::Demo(demo) => demo::run(&global, &demo),
        Command::Check(check) => check::run(&global, &check),
        Command::Send(send) => send::run(&global, &send),
        Command::Verify(verify) => verify::run(&global, &verify),
        Command::Providers { command } => providers::run(&global, &command),
        Command::Subscriptions { command } => subscriptions::run(&global, &command),
        Command::Events { command } => events::run(&global, &command),
        Command::Audit { command } => audit_log(&global, &command),
        Command::Quarantine { command } => quarantine::run(&global, &command),
        Command::Reconcile(reconcile) => reconcile::run(&global, &reconcile),
        Command::Backup(backup) => backup::back_up(&global, &backup),
        Command::Restore(restore) => backup::restore(&global, &restore),
        Command::Schema => schema::run(&global),
        Command::Health(health) => health::run(&global, &health),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure(what)) => {
            // Standard error may be closed.
            let _ = writeln!(io::stderr(), "hookgate: {what}");
            ExitCode::from(FAILED)
        }
    }
}

impl Global {
    fn config_path(&self) -> Result<&PathBuf, Failure> {
        match &self.config {
            Some(path) => Ok(path),
            None => {
                let what = "no config: give --config FILE, or set HOOKGATE_CONFIG";
                let usage = command().error(clap::error::ErrorKind::MissingRequiredArgument, what);
                usage.exit()
            }
        }
    }

    /// The config, or its first error. Does not resolve secrets.
    fn config(&self) -> Result<Config, Failure> {
        let path = self.config_path()?;
        let loaded = config::load(path);
        let (config, problems) =
            loaded.map_err(|unreadable| Failure(unreadable.problem().render(&path.display().to_string())))?;
        match problems.iter().find(|problem| !problem.warning) {
            None => Ok(config),
            Some(first) => {
                let first = first.render(&path.display().to_string());
                Err(Failure(format!("{first}\nhookgate: `hookgate check` lists every problem")))
            }
        }
    }
}

fn audit_log(global: &Global, command: &audit::AuditCommand) -> CommandResult {
    let config = global.config()?;
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let dir = data_dir::audit_dir(&config.data_dir);
    // Another user may have no right to look.
    if !dir.try_exists().map_err(|why| Failure(format!("{}: {why}", dir.display())))? {
        return Err(Failure(format!("{}: no gateway has written a reject log here yet", dir.display())));
    }
    let key = match command {
        audit::AuditCommand::Verify(_) => {
            let file = global.config_path()?.display().to_string();
            Key::of(&config.audit).map_err(|problem| Failure(problem.render(&file)))?
        }
        _ => None,
    };
    if let audit::AuditCommand::Query(query) = command
        && let Some(name) = &query.source
        && *name != UNKNOWN
        && !config.sources.iter().any(|source| source.name.value == *name)
    {
        let names: Vec<&str> = config.sources.iter().map(|source| source.name.value.as_str()).collect();
        let names = names.join(", ");
        // Only a note: the log may hold records of a source that was removed. Standard error may be closed.
        let _ = writeln!(
            io::stderr(),
            "hookgate: the config has no source {name:?} (now); it has: {names}, {UNKNOWN}"
        );
    }
    let accepts = matches!(command, audit::AuditCommand::Verify(verify) if verify.accept);
    let act = if accepts { Some(Act::begin(&config, "audit verify --accept")?) } else { None };
    let db = data_dir::database_file(&config.data_dir);
    let code = audit::run(command, audit::Log { dir: &dir, db: &db, key }, global.json, &mut io::stdout())?;
    if let Some(act) = act {
        let accepted = act::entry("the reject log was accepted as it is");
        act.end(if code == OK { vec![accepted] } else { Vec::new() })?;
    }
    Ok(code)
}

/// Runs a command's future on this thread. A gateway's requests and stores have threads of their own. On several threads, a
/// connection that ends just as `send` hands it a request would lose the request without a reason.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Why a command cannot open the stores itself.
fn offline_failure(why: OfflineError) -> Failure {
    match why {
        OfflineError::Start(StartError::Config(problems)) => {
            let first = problems.first().map(|problem| format!("{}: {}", problem.key, problem.what));
            Failure(format!("{}\nhookgate: `hookgate check` lists every problem", first.unwrap_or_default()))
        }
        why => why.into(),
    }
}

/// Writes a line. Returns `false` once the reader has closed the pipe (`| head`), which is no failure.
fn print_line(out: &mut impl Write, text: &str) -> io::Result<bool> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("HOOKGATE_REVISION"), ")");
const OK: u8 = 0;
const FAILED: u8 = 1;
