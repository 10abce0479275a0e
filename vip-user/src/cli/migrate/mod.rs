//! `xvip migrate`: moves a node of a live cluster from kube-vip to xvip, and back.

mod apply;
pub mod args;
mod files;
mod finish;
mod gather;
mod leftovers;
mod plan;
mod reading;
mod rollback;
mod show;
mod signals;
mod sysctls;

pub use args::Migrate;
use std::process::ExitCode;

/// Exit code 0: done, or may go on. 1: something stands against it, or the node went back.
pub async fn migrate(what: &Migrate) -> anyhow::Result<ExitCode> {
    match what {
        Migrate::Plan(args) => plan::plan(args).await,
        Migrate::Apply(args) => Box::pin(alone(&args.common, apply::apply(args))).await,
        Migrate::Finish(args) => Box::pin(alone(&args.common, finish::finish(args))).await,
        Migrate::Rollback(args) => Box::pin(alone(&args.common, rollback::rollback(args))).await,
    }
}

/// Does the work while no other command does.
async fn alone(
    common: &args::Common,
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let _lock = files::Folder::new(&common.state).lock()?;
    signals::unless_stopped(work).await
}
