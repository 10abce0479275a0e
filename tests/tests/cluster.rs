//! The image and the manifests of `deploy/` on a real cluster: three kubelets with containerd, a
//! scheduler and a controller-manager. All tests share one cluster, in a fixed order. Needs root
//! and `cargo xtask test --only cluster`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use libtest_mimic::{Arguments, Conclusion, Trial};
use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};
use vip_tests::cluster::Cluster;

#[path = "cluster/daemonset.rs"]
mod daemonset;
#[path = "cluster/static_pod.rs"]
mod static_pod;

/// A cluster in which a test failed is not used again.
type Shared = Arc<Mutex<Option<Cluster>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared = Shared::default();
    let trials = daemonset::TESTS.iter().chain(&static_pod::TESTS).map(|(name, test)| {
        let shared = Arc::clone(&shared);
        Trial::test(*name, move || {
            let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let mut cluster = kept.take().unwrap_or_else(|| Cluster::start(3).unwrap());
            test(&mut cluster);
            *kept = Some(cluster);
            Ok(())
        })
    });
    let Conclusion { num_failed, .. } = libtest_mimic::run(&arguments, trials.collect());
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    if num_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
