//! A real Kubernetes API: kube-apiserver and etcd, built by `cargo xtask setup --kube`.

pub mod api;
pub mod foreign;
pub mod kubelet;
pub mod member;
pub mod objects;
pub mod pki;
pub mod plane;
pub mod proxy;

use anyhow::ensure;
use std::path::PathBuf;

/// The directory with `etcd` and `kube-apiserver`: `KUBEBUILDER_ASSETS`, as in other projects, else
/// the output of `cargo xtask setup --kube`.
///
/// # Errors
/// If they do not exist.
#[expect(clippy::disallowed_methods, reason = "the convention of envtest")]
pub fn assets() -> anyhow::Result<PathBuf> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kube");
    let dir = std::env::var("KUBEBUILDER_ASSETS").map_or_else(|_| built.into(), PathBuf::from);
    for program in ["etcd", "kube-apiserver"] {
        ensure!(
            dir.join(program).exists(),
            "{program} is not in {}; run `cargo xtask setup --kube`",
            dir.display()
        );
    }
    Ok(dir)
}
