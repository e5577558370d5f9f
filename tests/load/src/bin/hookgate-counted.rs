//! The gateway, or the bare server, with an allocator that counts. It tells the count to each connection at the address in
//! `HOOKGATE_COUNT_AT`. Only the bench runs it: `hookgate-counted bare …`, else the gateway's own arguments.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[path = "../bare.rs"]
mod bare;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    if let Ok(at) = std::env::var("HOOKGATE_COUNT_AT")
        && let Err(error) = tell(&at)
    {
        eprintln!("hookgate-counted: cannot tell the count at {at}: {error}");
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("bare") {
        return hookgate::cli::main();
    }
    let listen = arguments.nth(1).and_then(|listen| listen.parse().ok());
    match listen.map(bare::serve) {
        Some(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Answers every connection with the allocations so far, reallocations included.
fn tell(at: &str) -> Result<()> {
    let listener = TcpListener::bind(at)?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Closed with a request unread, the connection would be reset.
            let _ = stream.read(&mut [0; 1024]);
            let stats = COUNTED.stats();
            let count = stats.allocations + stats.reallocations;
            // The bench sees an answer that did not come.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{count}");
        }
    });
    Ok(())
}
