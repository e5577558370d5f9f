//! The bench: hookgate and a bare hyper server under one load generator, in one run, because machines are
//! noisy and only the ratio of two figures taken side by side means anything.
//!
//! - [`bare`]: the server to compare with
//! - [`request`]: distinct signed requests, made ahead of time
//! - [`drive`]: the load generator
//! - [`process`]: servers as processes: start, ready, processor time, memory, stop
//! - [`leg`]: which processes a measurement needs, and their configs
//! - [`bench`]: the order of measurements
//! - [`report`]: medians, ratios, targets, the table
//!
//! It asserts nothing about speed: a target that falls short is printed as `SHORT` and the exit code stays 0.
//! What ends a run with 1 is a server that does not start, or more than one answer in a thousand that is not
//! `accepted`.

#![forbid(unsafe_code)]

mod bare;
mod bench;
mod drive;
mod leg;
mod process;
mod report;
mod request;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One line for the operator, whatever went wrong.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures hookgate against a bare hyper server.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve 200 to every request, with no gateway in between.
    Bare {
        /// Address to listen on; it is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Start the servers in turn, drive them, print the figures and how they stand to the targets.
    Run(bench::Options),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Bare { listen } => bare::serve(listen),
        Command::Run(options) => bench::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hookgate-load: {error}");
            ExitCode::FAILURE
        }
    }
}
