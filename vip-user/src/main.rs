//! The `xvip` binary: parse, run, exit code.

use clap::Parser as _;
use std::{io::Write as _, process::ExitCode};
use vip_user::{
    cli::{Cli, Command, arranged, dispatch},
    config::ConfigError,
    escape::printable,
};

/// `EX_USAGE` of sysexits.h. clap's own 2 would be an answer of `xvip probe`.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(arranged(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe does not matter.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // `xvip status | head` must not count as a failure. The daemon ignores SIGPIPE and continues when
    // its log reader is gone.
    match &cli.command {
        Command::Run { .. } | Command::Manager(_) => {}
        // It must not end between the two manifests of a node.
        Command::Migrate { what } if what.changes() => outlive_the_terminal(),
        _ => end_with_the_reader(),
    }
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref() {
                Some(ConfigError::Values(refused)) => refused.iter().for_each(say),
                _ => say(&format!("{error:#}")),
            }
            ExitCode::FAILURE
        }
    }
}

fn say(why: &impl ToString) {
    // A closed pipe does not matter.
    let _ = writeln!(std::io::stderr(), "xvip: {}", printable(&why.to_string()));
}

/// Lets a write to a closed pipe end this process, as usual for a shell command. Rust ignores
/// SIGPIPE before `main`, and then `println!` panics.
fn end_with_the_reader() {
    // SAFETY: no other thread runs yet, and the default action runs none of our code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Lets the command go on when its terminal is closed.
fn outlive_the_terminal() {
    // SAFETY: no other thread runs yet, and an ignored signal runs none of our code.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}
