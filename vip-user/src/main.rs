//! The `xvip` binary: parse, run, exit code.

use clap::Parser as _;
use std::process::ExitCode;
use vip_user::cli::{Cli, dispatch};

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xvip: {error:#}");
            ExitCode::FAILURE
        }
    }
}
