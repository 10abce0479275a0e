//! Which mode is on, and what is to be held.

use crate::adapter::{gather::Gathered, table};

/// The modes of kube-vip. It stops unless exactly one is on, and so does xvip.
const MODES: [&str; 4] = ["vip_arp", "bgp_enable", "vip_routingtable", "vip_wireguard"];

pub(in crate::adapter) fn apply(gathered: &mut Gathered) {
    let on: Vec<&str> = MODES.into_iter().filter(|mode| gathered.truth(mode)).collect();
    let readable = !gathered.refused.iter().any(|refusal| refusal.name == "vip_arp");
    match on.as_slice() {
        [] if readable => gathered.refuse("vip_arp", "no mode is on, and kube-vip stops then too", ARP),
        [] | [_] => {}
        several => {
            let why = format!("several modes are on: {}; kube-vip stops then too", several.join(", "));
            gathered.refuse("vip_arp", why, "set one of them only: vip_arp=true");
        }
    }
    load_balancer(gathered);
    if gathered.truth("cp_enable") {
        return;
    }
    if gathered.truth("svc_enable") {
        // Without Services there would be nothing to hold, so this loss cannot be accepted.
        let refusals = gathered.refused.iter_mut().filter(|refusal| refusal.name == "svc_enable");
        for refusal in refusals {
            refusal.waivable = false;
            refusal.why += ", and without cp_enable there is nothing else to hold";
            refusal.instead =
                "leave this instance on kube-vip, or set cp_enable=true and address".into();
        }
    } else if !gathered.refused.iter().any(|refusal| refusal.name == "cp_enable") {
        let why = "neither the control plane nor Services are enabled: there is nothing to hold";
        gathered.refuse("cp_enable", why, "set cp_enable=true");
    }
}

const ARP: &str = "set vip_arp=true";

/// With `lb_fwdmethod` unset or `local`, kube-vip's load balancer gives the VIP up when the API server
/// of this node is dead, and no more. Otherwise it forwards.
fn load_balancer(gathered: &mut Gathered) {
    if !gathered.truth("lb_enable") {
        return;
    }
    if !gathered.truth("cp_enable") {
        return gathered.tell("lb_enable", "without cp_enable it has no effect, as with kube-vip");
    }
    let method = gathered.text("lb_fwdmethod").unwrap_or("local").to_lowercase();
    if matches!(method.as_str(), "masquerade" | "tunnel" | "directroute" | "bypass") {
        let why = format!("{} (lb_fwdmethod={method})", table::FORWARDS);
        return gathered.loses("lb_enable", why, "set lb_fwdmethod=local or lb_enable=false");
    }
    let port = |gathered: &Gathered, id| gathered.number(id).unwrap_or(6443);
    if port(gathered, "lb_port") != port(gathered, "port") {
        let port = port(gathered, "port");
        gathered.tell("lb_port", format!("{}; clients reach it on port {port}", table::LB));
    }
}
