//! The `xvip` binary: parse, run, exit code.

use clap::Parser as _;
use std::process::ExitCode;
use vip_user::cli::{Cli, dispatch};

/// `EX_USAGE` of sysexits.h. clap's own 2 is an answer of `xvip probe`.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe does not matter here.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xvip: {error:#}");
            ExitCode::FAILURE
        }
    }
}
