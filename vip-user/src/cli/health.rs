//! `xvip health`: the daemon's health as an exit code, for probes of a kubelet.

use crate::{clock, escape::printable, node::socket};
use clap::Args;
use std::process::ExitCode;

/// What to ask.
#[derive(Debug, Args)]
pub struct Health {
    /// The instance.
    #[arg(long, default_value = "default")]
    pub instance: String,
    /// Also whether this node could take over if it had to.
    #[arg(long)]
    pub ready: bool,
}

/// Exit code 0: the daemon works, and with `--ready` it could take over. Otherwise 1, and prints
/// the reasons.
pub async fn health(args: &Health) -> anyhow::Result<ExitCode> {
    let state = socket::ask(&args.instance).await?;
    let now = clock::boot();
    let lacks = if args.ready { state.lacks(now) } else { state.stuck(now).into_iter().collect() };
    for reason in &lacks {
        println!("{}", printable(reason));
    }
    if lacks.is_empty() {
        println!("ok");
    }
    Ok(ExitCode::from(u8::from(!lacks.is_empty())))
}
