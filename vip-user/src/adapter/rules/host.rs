//! Interfaces, announcements, and what happens to a lost VIP.

use crate::{
    adapter::{gather::Gathered, table},
    config::{Config, LogLevel},
    model::desired::Placement,
};

/// kube-vip's own rule: a shorter period becomes three seconds.
const SHORTEST_MS: i64 = 500;
const USUAL_S: u64 = 3;
/// How long a lost VIP is served. A stop takes as long, and must end within the 30 s that a kubelet
/// gives a pod by default.
const LINGER_MS: u64 = 20_000;

pub(in crate::adapter) fn apply(gathered: &mut Gathered, config: &mut Config) {
    // Guides and scripts look for the VIP with `ip addr show`.
    config.placement = Placement::Interface;
    let interface = gathered.text("vip_interface").unwrap_or("default-route").to_owned();
    if interface == "lo" {
        let why = "nothing reaches a VIP on the loopback interface by ARP";
        gathered.refuse("vip_interface", why, "set the interface of the VIP's subnet");
    } else {
        config.interfaces = vec![interface];
    }
    if gathered.text("vip_interface").is_none() && config.vips.iter().any(|vip| vip.address.is_ipv6()) {
        let told = "an IPv6 VIP is answered on the interface of the IPv6 default route; kube-vip \
                    uses that of IPv4 for both. Set vip_interface if there is no such route";
        gathered.tell("vip_interface", told);
    }
    announcements(gathered, config);
    if gathered.truth("vip_preserve_on_leadership_loss") {
        config.linger_ms = LINGER_MS;
        let told =
            "a lost VIP is served for 20 s, IPv6 too, and is never answered: a stop ends within 30 s";
        gathered.tell("vip_preserve_on_leadership_loss", told);
    }
    if gathered.text("vip_loseleadership").is_some() && !gathered.truth("vip_loseleadership") {
        let told =
            "counts as true: a node whose interface is down always gives its VIPs to a better one";
        gathered.tell("vip_loseleadership", told);
    }
    if gathered.text("vip_allow_interface_not_up").is_some() {
        gathered.tell("vip_allow_interface_not_up", table::ALWAYS_STARTS);
    }
    log(gathered, config);
}

fn announcements(gathered: &mut Gathered, config: &mut Config) {
    let Some(rate) = gathered.number("vip_arpRate") else { return };
    if rate < SHORTEST_MS {
        config.announce.refresh_s = USUAL_S;
        return gathered
            .tell("vip_arpRate", "counts as 3000: less than 500 ms does so with kube-vip too");
    }
    // Rather too often than too seldom.
    config.announce.refresh_s = (rate as u64 / 1_000).max(1);
    if rate % 1_000 != 0 {
        let told = format!("counts as {}000: xvip takes whole seconds", config.announce.refresh_s);
        gathered.tell("vip_arpRate", told);
    }
}

fn log(gathered: &mut Gathered, config: &mut Config) {
    config.log.level = match gathered.number("vip_loglevel").unwrap_or(0) {
        -4 => LogLevel::Debug,
        0 => LogLevel::Info,
        4 => LogLevel::Warn,
        8 => LogLevel::Error,
        _ => {
            gathered.tell("vip_loglevel", "counts as 0: kube-vip's levels are -4, 0, 4 and 8");
            LogLevel::Info
        }
    };
}
