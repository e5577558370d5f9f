//! The bench: hookgate and a bare hyper server under one load generator, in one run, because machines are
//! noisy and only the ratio of two figures taken side by side means anything.
//!
//! - [`bare`]: the server to compare with
//! - [`request`]: distinct signed requests, made ahead of time
//! - [`drive`]: the load generator; [`http2`]: its HTTP/2
//! - [`process`]: servers as processes: start, ready, processor time, memory, stop
//! - [`case`]: what is measured, one row each
//! - [`leg`]: which processes a measurement needs, and their configs
//! - [`mod@bench`]: the order of measurements
//! - [`report`]: medians, ratios, targets, the table
//!
//! A target that falls short is printed as `SHORT`, and the exit code is 1. It is 1 as well when a server does not start, or
//! more than one answer in a thousand is not `accepted`.

#![forbid(unsafe_code)]

mod bare;
mod bench;
mod case;
mod drive;
mod http2;
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
        Command::Bare { listen } => bare::serve(listen).map(|()| true),
        Command::Run(options) => bench::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hookgate-load: {error}");
            ExitCode::FAILURE
        }
    }
}
