//! Checks of the host before anything on it is changed.

use super::{
    netlink::{Netlink, NetlinkError},
    pins::Pins,
    settings::Settings,
    start::StartError,
};
use crate::model::{
    edges::{self, Edge},
    selection::{Device, removal},
};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use std::{fs, net::IpAddr, time::Duration};

/// The pause before a kernel that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Checks the host, and checks again while the kernel is too busy to answer. If the start failed then,
/// the next start would find the same host.
///
/// # Errors
/// Why xvip must not run on this host.
pub async fn check(settings: &Settings, pins: &Pins, netlink: &Netlink) -> Result<(), StartError> {
    let mut told = false;
    loop {
        match check_once(settings, pins, netlink).await {
            Err(StartError::Netlink(error)) if error.is_blind() => {
                if !told {
                    tracing::warn!(%error, "the kernel is busy; asking again");
                    told = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Checks everything about the host that can be checked without changing it.
async fn check_once(settings: &Settings, pins: &Pins, netlink: &Netlink) -> Result<(), StartError> {
    pins.check_bpffs()?;
    pins.check_owners()?;
    pins.check_geometry()?;
    // A missing interface is not an error. It may appear later, and until then other interfaces serve.
    let links = netlink.devices().await?;
    let unknown = Device { name: "?".into(), ..Device::default() };
    let device = |ifindex| links.iter().find(|link| link.ifindex == ifindex).unwrap_or(&unknown);
    for gateway in netlink.all_gateways().await? {
        let name = &device(gateway.ifindex).name;
        refuse_vip(settings, gateway.ip, || gateway.describe(name))?;
    }
    if let Some(Edge { vip, what }) = edges::first(&settings.selection, &links) {
        return Err(StartError::Vip { vip, what });
    }
    let addresses = addresses(netlink).await?;
    let is_vip = |ip: IpAddr| settings.has_vip(ip);
    for own in addresses.iter().filter(|own| is_own(own, &addresses, is_vip)) {
        let device = device(own.ifindex);
        refuse_vip(settings, own.ip, || {
            format!(
                "this host's own address on {} (if another program has left it there: {})",
                device.name,
                removal(own.ip, own.prefix, device)
            )
        })?;
    }
    for line in fs::read_to_string("/etc/resolv.conf").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(Ok(server)) = words.next().map(str::parse::<IpAddr>)
        {
            warn_of_name_server(settings, server);
        }
    }
    Ok(())
}

/// Only warns if a VIP is a name server, because a router advertisement may name any name server (RFC
/// 8106). The LAN is probed before the VIP is published for the first time.
fn warn_of_name_server(settings: &Settings, server: IpAddr) {
    if settings.has_vip(server) {
        tracing::warn!(vip = %server, "this VIP is also a name server of this host (/etc/resolv.conf)");
    }
}

fn refuse_vip(settings: &Settings, ip: IpAddr, what: impl Fn() -> String) -> Result<(), StartError> {
    if settings.has_vip(ip) { Err(StartError::Vip { vip: ip, what: what() }) } else { Ok(()) }
}

/// An address of this host.
#[derive(Clone, Copy, Debug)]
struct Address {
    ip: IpAddr,
    prefix: u8,
    ifindex: u32,
    /// IPv4 only: the interface had another address in the same subnet first.
    secondary: bool,
}

impl Address {
    fn is_of_subnet(&self) -> bool {
        self.prefix < if self.ip.is_ipv4() { 32 } else { 128 }
    }
}

async fn addresses(netlink: &Netlink) -> Result<Vec<Address>, NetlinkError> {
    let pick = |message: AddressMessage| {
        let header = message.header;
        let secondary = header.flags.contains(AddressHeaderFlags::Secondary);
        let ips = message.attributes.into_iter().filter_map(|attribute| match attribute {
            AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(ip),
            _ => None,
        });
        let found = |ip| Address { ip, prefix: header.prefix_len, ifindex: header.index, secondary };
        Some(ips.map(found).collect::<Vec<_>>())
    };
    Ok(netlink.list_addresses(pick).await?.into_iter().flatten().collect())
}

/// Whether an address is the host's own. kube-vip, kube-proxy (IPVS) and xvip give a VIP a host prefix.
/// Other programs (keepalived) give it the prefix of its subnet, beside an address that the host
/// already has. Such a VIP is not the host's own, and is silenced while it is there. In IPv4 a flag
/// says which of the two came first.
fn is_own(address: &Address, all: &[Address], is_vip: impl Fn(IpAddr) -> bool) -> bool {
    let beside = all.iter().any(|other| {
        other.ifindex == address.ifindex
            && other.is_of_subnet()
            && !is_vip(other.ip)
            && IpNet::new(other.ip, other.prefix).is_ok_and(|net| net.contains(&address.ip))
    });
    address.is_of_subnet() && !(beside && (address.secondary || address.ip.is_ipv6()))
}

#[cfg(test)]
mod tests;
