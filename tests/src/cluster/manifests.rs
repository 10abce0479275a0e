//! The manifests of `deploy/`, with the addresses of the lab.

use crate::lab::{API, VIP4, VIP6};
use std::net::IpAddr;

const CONFIG: &str = include_str!("../../../deploy/base/config.yaml");

/// The DaemonSet and all that belongs to it.
pub fn daemonset() -> Vec<String> {
    let config = CONFIG
        .replace("vips: [192.0.2.10]", &format!("vips: [{}]", vips()))
        .replace("https://127.0.0.1:6443", &format!("https://{API}"));
    vec![
        include_str!("../../../deploy/base/rbac.yaml").into(),
        include_str!("../../../deploy/base/flowschema.yaml").into(),
        config + "    lease: {duration_s: 3}\n",
        include_str!("../../../deploy/base/daemonset.yaml").into(),
    ]
}

/// The DaemonSet with another image.
pub fn daemonset_of(image: &str) -> String {
    include_str!("../../../deploy/base/daemonset.yaml")
        .replace("image: xvip:0.1.0", &format!("image: {image}"))
}

/// The static pod.
pub const STATIC_POD: &str = include_str!("../../../deploy/static-pod/xvip.yaml");

/// The configuration of a static pod, for `/etc/xvip/xvip.yaml`.
pub fn static_config(node: &str) -> String {
    format!(
        "node: {node}\nvips: [{}]\nlease: {{duration_s: 3}}\nadmin: {{port: 21112}}\n\
         api: {{kubeconfig: /etc/xvip/kubeconfig, endpoints: ['https://{API}']}}\n",
        vips()
    )
}

fn vips() -> String {
    format!("{}, \"{}\"", IpAddr::from(VIP4), IpAddr::from(VIP6))
}
