//! How the API is reached, and with which credentials.

use crate::{
    adapter::{Input, World, gather::Gathered},
    config::Config,
};
use std::net::IpAddr;

/// Where kubeadm puts credentials. On the first node of a new cluster `admin.conf` has no rights until
/// kubeadm has reached the API through the VIP. The other file is never used where both are: nobody can
/// take its rights away.
pub(in crate::adapter) const SUPER_ADMIN: &str = "/etc/kubernetes/super-admin.conf";
pub(in crate::adapter) const ADMIN: &str = "/etc/kubernetes/admin.conf";

pub(in crate::adapter) fn apply(
    gathered: &mut Gathered,
    config: &mut Config,
    input: &Input,
    world: &dyn World,
) {
    credentials(gathered, config, input, world);
    let port = gathered.number("port").unwrap_or(6443);
    if !(1..=65_535).contains(&port) {
        return gathered.refuse("port", "it is no port", "set 1 to 65535");
    }
    config.lease.foreign_port = u16::try_from(port).ok();
    let mut endpoints = Vec::new();
    if let Some(first) = gathered.text("kubernetes_addr").map(str::to_owned) {
        let url = if first.contains("://") { first } else { format!("https://{first}") };
        if config.vips.iter().any(|vip| host_of(&url) == Some(vip.address)) {
            let told = "left out: it is a VIP, which this node itself would have to bring up";
            gathered.tell("kubernetes_addr", told);
        } else {
            endpoints.push(url);
        }
    }
    if config.api.kubeconfig.is_none() {
        endpoints.extend(of_the_manifest(input));
    }
    endpoints.push(local(port));
    endpoints.dedup();
    config.api.endpoints = endpoints;
    // The role of kube-vip does not let it create Events.
    config.events = false;
}

/// The API server of this node.
pub(in crate::adapter) fn local(port: i64) -> String {
    format!("https://127.0.0.1:{port}")
}

fn credentials(gathered: &mut Gathered, config: &mut Config, input: &Input, world: &dyn World) {
    let chosen = gathered.text("k8s_config_file").filter(|path| *path != ADMIN).map(str::to_owned);
    if let Some(path) = &chosen {
        if world.is_file(path) {
            config.api.kubeconfig = Some(path.into());
            return;
        }
        gathered.tell("k8s_config_file", "there is no such file, so others are tried, as by kube-vip");
    }
    let home = variable(input, "HOME").map(|home| format!("{home}/.kube/config"));
    let files = [Some(ADMIN.to_owned()), Some(SUPER_ADMIN.to_owned()), home];
    // Nothing is left: the pod's service account.
    config.api.kubeconfig =
        files.into_iter().flatten().find(|path| world.is_file(path)).map(Into::into);
}

fn variable<'a>(input: &'a Input, name: &str) -> Option<&'a str> {
    let found = input.environment.iter().find(|(variable, _)| variable == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// The API server that the manifest itself names, as for KubePrism. The kubelet always sets the same
/// variables to the address of the Service, and then also KUBERNETES_PORT.
fn of_the_manifest(input: &Input) -> Option<String> {
    let host = variable(input, "KUBERNETES_SERVICE_HOST")?;
    let port = variable(input, "KUBERNETES_SERVICE_PORT").unwrap_or("443");
    let bracketed = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    };
    let of_kubelet = format!("tcp://{bracketed}:{port}");
    (variable(input, "KUBERNETES_PORT") != Some(of_kubelet.as_str()))
        .then(|| format!("https://{bracketed}:{port}"))
}

/// The host of a URL, if it is an address.
fn host_of(url: &str) -> Option<IpAddr> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => authority.split(':').next()?,
    };
    host.parse().ok()
}
