//! The commands, one file each.
//!
//! Keeps true: exit code 0 for success, 1 for a failure that is reported, 2 for wrong usage. Human output by default, one JSON
//! object a line under `--json`; nothing here decides anything that the gateway decides.

mod act;
mod audit;
mod backup;
mod check;
mod dead;
mod demo;
mod events;
mod quarantine;
mod schema;
mod send;
mod serve;
mod terminal;
mod verify;
mod when;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::base::label::UNKNOWN;
use crate::config::{self, Config};
use crate::durable::data_dir;
use crate::observe::audit::Key;
use crate::observe::telemetry::Format;
use act::Act;

/// Inbound webhook gateway: verifies, dedupes and normalizes provider webhooks, and hands each event over once.
#[derive(Parser)]
#[command(name = "hookgate", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
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
        /// How log lines on standard error look; --json means json.
        #[arg(long, value_enum, default_value_t)]
        log_format: Format,
    },
    /// Play every provider against a gateway of its own, with no config and no services.
    Demo(demo::Demo),
    /// Print every problem of the config, and resolve every secret.
    Check(check::Check),
    /// Sign a sample as the provider would, and post it.
    Send(send::Send),
    /// Explain why a captured delivery passes or fails.
    Verify(verify::Verify),
    /// Read the queue.
    Events {
        #[command(subcommand)]
        command: events::Events,
    },
    /// Read the reject log.
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Handle refused requests that were kept, and admit those that verify by now.
    Quarantine {
        #[command(subcommand)]
        command: quarantine::QuarantineCommand,
    },
    /// Copy every store of data_dir, with the gateway running or stopped.
    Backup(backup::Backup),
    /// Put a backup back into the data_dir of a stopped gateway; what was there is moved aside.
    Restore(backup::Restore),
    /// Print the JSON Schema of the normalized event.
    Schema,
}

/// Why a command failed, in words for its user.
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// A command's exit code, or what to say before exiting with 1.
type Done = Result<u8, Failure>;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let done = match command {
        Command::Serve { log_format } => serve::run(&global, log_format),
        Command::Demo(demo) => demo::run(&global, &demo),
        Command::Check(check) => check::run(&global, &check),
        Command::Send(send) => send::run(&global, &send),
        Command::Verify(verify) => verify::run(&global, &verify),
        Command::Events { command } => events::run(&global, &command),
        Command::Audit { command } => audit_log(&global, &command),
        Command::Quarantine { command } => quarantine::run(&global, &command),
        Command::Backup(backup) => backup::back_up(&global, &backup),
        Command::Restore(restore) => backup::restore(&global, &restore),
        Command::Schema => schema::run(&global),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure(what)) => {
            // Standard error may be closed; then there is nobody to tell.
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
                let what = "which config? Give --config FILE, or set HOOKGATE_CONFIG";
                let usage = <Cli as clap::CommandFactory>::command()
                    .error(clap::error::ErrorKind::MissingRequiredArgument, what);
                usage.exit()
            }
        }
    }

    /// The config, if nothing is wrong with its text; for commands that read what a gateway leaves.
    fn config(&self) -> Result<Config, Failure> {
        let path = self.config_path()?;
        let loaded = config::load(path);
        let (config, problems) =
            loaded.map_err(|nothing| Failure(nothing.problem().render(&path.display().to_string())))?;
        match problems.iter().find(|problem| !problem.warning) {
            None => Ok(config),
            Some(first) => {
                let first = first.render(&path.display().to_string());
                Err(Failure(format!("{first}\nhookgate: `hookgate check` lists every problem")))
            }
        }
    }
}

fn audit_log(global: &Global, command: &audit::AuditCommand) -> Done {
    let config = global.config()?;
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let dir = data_dir::audit_dir(&config.data_dir);
    // Another user may not be allowed to look.
    if !dir.try_exists().map_err(|why| Failure(format!("{}: {why}", dir.display())))? {
        return Err(Failure(format!(
            "{}: there is no reject log yet: no gateway has opened it",
            dir.display()
        )));
    }
    let key = match command {
        audit::AuditCommand::Verify(_) => {
            let file = global.config_path()?.display().to_string();
            Key::of(&config.audit).map_err(|problem| Failure(problem.render(&file)))?
        }
        _ => None,
    };
    if let audit::AuditCommand::Query(query) = command
        && let Some(asked) = &query.source
        && *asked != UNKNOWN
        && !config.sources.iter().any(|source| source.name.value == *asked)
    {
        let names: Vec<&str> = config.sources.iter().map(|source| source.name.value.as_str()).collect();
        let names = names.join(", ");
        // Its records may be there all the same. Standard error may be closed; then there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "hookgate: no source {asked:?} in the config any more, if there ever was; there are: {names}, {UNKNOWN}"
        );
    }
    let accepts = matches!(command, audit::AuditCommand::Verify(verify) if verify.accept);
    let act = if accepts { Some(Act::begin(&config, "audit verify --accept")?) } else { None };
    let db = data_dir::database_file(&config.data_dir);
    let code = audit::run(command, audit::Log { dir: &dir, db: &db, key }, global.json, &mut io::stdout())?;
    if let Some(act) = act {
        let accepted = act::done("the reject log was accepted as it is");
        act.end(if code == OK { vec![accepted] } else { Vec::new() })?;
    }
    Ok(code)
}

/// Runs a command's future on this thread. A gateway's requests and stores have threads of their own. On several threads, a
/// connection that ends just as `send` hands it a request would lose the request without a reason.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Writes a line; `false` once nobody reads any more (`| head`), which is no failure.
fn line(out: &mut impl Write, text: &str) -> io::Result<bool> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("HOOKGATE_REVISION"), ")");
const OK: u8 = 0;
const FAILED: u8 = 1;
