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

pub use args::Migrate;
use std::process::ExitCode;

/// Exit code 0: done, or may go on. 1: something stands against it, or the node went back.
pub async fn migrate(what: &Migrate) -> anyhow::Result<ExitCode> {
    match what {
        Migrate::Plan(args) => plan::plan(args).await,
        Migrate::Apply(args) => apply::apply(args).await,
        Migrate::Finish(args) => finish::finish(args).await,
        Migrate::Rollback(args) => rollback::rollback(args).await,
    }
}
