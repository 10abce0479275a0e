//! Shared by the tests: a control plane, which the first test that needs it starts, and a stand-in.

use kube::Client;
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};
use vip_tests::{kube::plane::ControlPlane, netns::NetNs, standin::StandIn};

pub struct Shared {
    plane: OnceLock<Result<(Mutex<ControlPlane>, NetNs), String>>,
    dir: PathBuf,
    names: AtomicU32,
}

impl Shared {
    pub fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("xvip-kube-{}", std::process::id()));
        Self { plane: OnceLock::new(), dir, names: AtomicU32::new(0) }
    }

    /// The real API.
    pub fn plane(&self) -> std::sync::MutexGuard<'_, ControlPlane> {
        let started = self.plane.get_or_init(|| {
            let ns = NetNs::new(&format!("xvk{}", std::process::id())).unwrap();
            let plane = started(&ns, &self.dir).map_err(|error| format!("{error:#}"))?;
            Ok((Mutex::new(plane), ns))
        });
        let (plane, _) = started.as_ref().unwrap();
        plane.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A name that no other test uses.
    pub fn name(&self) -> String {
        format!("lease-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The servers must end before their namespace and files are removed.
        drop(self.plane.take());
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A restarted API server has no history from before, so it refuses a watch from there.
fn started(ns: &NetNs, dir: &Path) -> anyhow::Result<ControlPlane> {
    let mut plane = ControlPlane::single(ns, dir)?;
    plane.members[0].kill_api();
    plane.members[0].start_api()?;
    plane.wait_ready(0)?;
    Ok(plane)
}

/// Runs `work` with a client of a fresh stand-in on loopback.
pub fn with_stand_in<T>(work: impl AsyncFnOnce(Client, StandIn) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let api = StandIn::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(api.clone().serve_on(listener));
        let config = kube::Config::new(url.parse().unwrap());
        work(Client::try_from(config).unwrap(), api).await
    })
}
