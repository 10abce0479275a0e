//! Tests against a real kube-apiserver and etcd: what a Lease does, which rights are needed, and
//! the promise under faults of the API. Tests that only send requests share one control plane.
//! Needs root and `cargo xtask setup --kube`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "kube/bench.rs"]
mod bench;
#[path = "kube/bootstrap.rs"]
mod bootstrap;
#[path = "kube/contract.rs"]
mod contract;
#[path = "kube/faults.rs"]
mod faults;
#[path = "kube/foreign.rs"]
mod foreign;
#[path = "kube/hosts.rs"]
mod hosts;
#[path = "kube/migrate.rs"]
mod migrate;
#[path = "kube/moving.rs"]
mod moving;
#[path = "kube/quiet.rs"]
mod quiet;
#[path = "kube/rights.rs"]
mod rights;
#[path = "kube/shared.rs"]
mod shared;
#[path = "kube/three.rs"]
mod three;

use libtest_mimic::{Arguments, Conclusion, Trial};
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One test at a time: faults are measured on the wire, and the servers share two cores.
    arguments.test_threads = Some(1);
    let shared = Arc::new(shared::Shared::new());
    let mut trials = contract::trials(&shared);
    trials.extend(rights::trials(&shared));
    trials.extend(quiet::trials());
    trials.extend(bootstrap::trials());
    trials.extend(faults::trials());
    trials.extend(foreign::trials());
    trials.extend(hosts::trials());
    trials.extend(moving::trials());
    trials.extend(migrate::trials());
    trials.extend(three::trials());
    trials.extend(bench::trials());
    let Conclusion { num_failed, .. } = libtest_mimic::run(&arguments, trials);
    drop(shared);
    if num_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A test that fails by a panic.
fn trial(name: impl Into<String>, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}
