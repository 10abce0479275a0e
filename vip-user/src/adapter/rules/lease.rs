//! Which Lease is used, and its timers.

use crate::{
    adapter::{
        World,
        gather::Gathered,
        lease::{LeaseName, Search},
        table,
    },
    config::Config,
};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "plndr-cp-lock";

pub(in crate::adapter) fn apply(
    gathered: &mut Gathered,
    config: &mut Config,
    world: &dyn World,
) -> Search {
    timers(gathered, config);
    if let Some(node) = gathered.text("vip_nodename") {
        config.node = Some(node.to_lowercase());
    }
    let written = gathered.text("vip_leasename").unwrap_or(NAME).to_owned();
    let is_accepted = |name: &String| table::plain(name) == table::plain("vip_leasename");
    let accepted = gathered.without.iter().any(is_accepted);
    let (of_name, name) = match written.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (None, written),
    };
    let is_decided = accepted || of_name.is_some();
    let configured = gathered.text("cp_namespace").map(str::to_owned);
    let of_pod = world.service_namespace().filter(|namespace| !namespace.is_empty());
    let chosen = of_name.clone().or_else(|| configured.clone()).or_else(|| of_pod.clone());
    let chosen = LeaseName { namespace: chosen.unwrap_or_else(|| NAMESPACE.into()), name };
    let namespaces = [of_name, configured, of_pod, Some(NAMESPACE.into())];
    let mut others = Vec::new();
    for namespace in namespaces.into_iter().flatten() {
        for name in [chosen.name.as_str(), NAME] {
            let lease = LeaseName { namespace: namespace.clone(), name: name.into() };
            if lease != chosen && !others.contains(&lease) {
                others.push(lease);
            }
        }
    }
    config.lease.namespace.clone_from(&chosen.namespace);
    config.lease.name.clone_from(&chosen.name);
    Search { chosen, others, is_decided }
}

fn timers(gathered: &mut Gathered, config: &mut Config) {
    if let Some(duration) = gathered.number("vip_leaseduration") {
        match u32::try_from(duration) {
            Ok(duration) => config.lease.duration_s = duration,
            Err(_) => {
                gathered.refuse("vip_leaseduration", "a Lease lasts some seconds", "set 1 to 600");
            }
        }
    }
    if let Some(retry) = gathered.number("vip_retryperiod") {
        match u64::try_from(retry) {
            Ok(retry) => config.lease.renew_ms = Some(retry * 1_000),
            Err(_) => gathered.refuse("vip_retryperiod", "it is less than nothing", "set 1 or more"),
        }
    }
}
