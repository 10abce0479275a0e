//! The ports for metrics and health.

use crate::{adapter::gather::Gathered, config::Config};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// kube-vip's default.
const METRICS: &str = ":2112";

pub(in crate::adapter) fn apply(gathered: &mut Gathered, config: &mut Config) {
    let everywhere = everywhere(config);
    let given = gathered.values.get("prometheus_server").map(|given| given.value.trim().to_owned());
    match given.as_deref() {
        // Only a flag can be empty.
        Some("") => {
            gathered.tell("prometheus_server", "no metrics, no health and no state over HTTP");
        }
        Some(text) => {
            if let Some((address, port)) = socket(text, everywhere) {
                config.admin.address = address;
                config.admin.port = Some(port);
            } else {
                let told = "it is no address with a port, so nothing is served over HTTP; set :2112, \
                            or an IP address with a port";
                gathered.tell("prometheus_server", told);
            }
        }
        None => {
            config.admin.address = everywhere;
            config.admin.port = socket(METRICS, everywhere).map(|(_, port)| port);
            let told = "metrics, health and state are served on port 2112 of all addresses, as \
                        kube-vip serves its metrics. There is no password";
            gathered.tell("prometheus_server", told);
        }
    }
    let Some(port) = gathered.number("health_check_port") else { return };
    match u16::try_from(port) {
        // A flag of 0 is kube-vip's default: no port.
        Ok(0) => {}
        Ok(port) if port >= 1024 => config.admin.health_port = Some(port),
        _ => gathered.refuse("health_check_port", "kube-vip takes 1024 to 65535", "set such a port"),
    }
}

/// The address that stands for all of them. A cluster with IPv6 VIPs has nodes with IPv6.
fn everywhere(config: &Config) -> IpAddr {
    if config.vips.iter().any(|vip| vip.address.is_ipv6()) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// Reads `:PORT`, `ADDRESS:PORT` and `localhost:PORT`.
fn socket(text: &str, everywhere: IpAddr) -> Option<(IpAddr, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "" => everywhere,
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().ok()?,
    };
    Some((address, port))
}
