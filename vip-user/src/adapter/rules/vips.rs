//! Which addresses are held.

use crate::{
    adapter::{World, gather::Gathered, value},
    config::Config,
};
use std::net::IpAddr;

pub(in crate::adapter) fn apply(gathered: &mut Gathered, config: &mut Config, world: &dyn World) {
    prefix(gathered);
    let (new, old) = (parsed(gathered, "address"), parsed(gathered, "vip_address"));
    let id = match (&new, &old) {
        (Some(new), Some(old)) if same(new, old) => "address",
        (Some(_), Some(_)) => {
            let why = "it differs from vip_address, and kube-vip uses only one of them";
            gathered.refuse("address", why, "remove vip_address");
            "address"
        }
        (None, Some(_)) => "vip_address",
        _ => "address",
    };
    let Some(items) = new.or(old) else {
        if gathered.truth("cp_enable") {
            let why = "the control plane is enabled, and there is no VIP";
            gathered.refuse("address", why, "set address to the VIP");
        }
        return;
    };
    for item in items {
        match item.parse::<IpAddr>() {
            Ok(ip) => config.vips.push(ip.into()),
            Err(_) => refuse(gathered, id, &item, world),
        }
    }
}

/// The items of a list of addresses; `None` if there is none.
fn parsed(gathered: &Gathered, id: &str) -> Option<Vec<String>> {
    let items: Vec<String> = value::list(gathered.text(id)?).map(str::to_owned).collect();
    (!items.is_empty()).then_some(items)
}

/// Whether two lists name the same addresses.
fn same(one: &[String], other: &[String]) -> bool {
    let canonical = |items: &[String]| {
        let ip =
            |item: &String| item.parse::<IpAddr>().map_or_else(|_| item.clone(), |ip| ip.to_string());
        let mut items: Vec<String> = items.iter().map(ip).collect();
        items.sort();
        items
    };
    canonical(one) == canonical(other)
}

fn refuse(gathered: &mut Gathered, id: &'static str, item: &str, world: &dyn World) {
    if let Some((ip, _)) = item.split_once('/').filter(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
        return gathered.refuse(id, "a VIP has no length of a prefix", format!("set {id}={ip}"));
    }
    let found: Vec<String> = world.resolve(item).iter().map(IpAddr::to_string).collect();
    let instead = if found.is_empty() {
        format!("set {id} to the address that is meant")
    } else {
        format!("{item} resolves to {0} here: set {id}={0}", found.join(","))
    };
    let why = format!(
        "{item} is no IP address; nodes may resolve a name differently, and then hold two VIPs under \
         one Lease"
    );
    gathered.refuse(id, why, instead);
}

/// A VIP has the prefix of a single host. Another one only gives the interface a route to its subnet.
fn prefix(gathered: &mut Gathered) {
    for id in ["vip_subnet", "vip_cidr"] {
        let Some(text) = gathered.text(id) else { continue };
        let of_host = |item: &str| matches!(item.trim_start_matches('/'), "32" | "128");
        if !value::list(text).all(of_host) {
            let told = "no effect: a VIP has the prefix 32 or 128, and brings no route to its subnet. \
                        Give the interface an address of its own in that subnet";
            gathered.tell(id, told);
        }
    }
}
