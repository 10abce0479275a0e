//! Reads and changes links, addresses, neighbours and routes, by rtnetlink.

pub use super::requests::NetlinkError;
use super::{
    requests::{Requests, Result},
    touched::Touched,
};
use crate::model::{
    desired::AddrSpec,
    selection::{Device, Kind},
};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{
            AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
        },
        link::{
            InfoBond, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
            LinkMessage,
        },
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    },
};
use std::{collections::BTreeMap, io, net::IpAddr};
use vip_common::{
    abi::{HostAddr, Ip},
    mac::Mac,
    wire::{BROADCAST, solicited_node_mac},
};

/// The address and MAC of a neighbour that may have the VIP in its cache.
pub type Neighbour = (IpAddr, Mac);

/// An address as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The address and its interface.
    pub addr: HostAddr,
    /// The length of its prefix.
    pub prefix: u8,
    /// Whether it goes away with another address of its subnet.
    pub secondary: bool,
}

/// A connection for requests to this host's kernel.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(super) requests: Requests,
    pub(super) touched: Touched,
}

impl Netlink {
    /// Opens a connection for requests. [`Changes`](super::changes::Changes) use another one.
    pub fn open() -> Result<Self> {
        Ok(Self { requests: Requests::open()?, touched: Touched::default() })
    }

    /// The same for a command that can wait while other processes keep the kernel busy.
    pub fn patient() -> Result<Self> {
        Ok(Self { requests: Requests::patient()?, touched: Touched::default() })
    }

    /// Another connection to the same host, for a look that the kernel may keep waiting.
    pub fn beside(&self) -> Result<Self> {
        Ok(Self { requests: Requests::of_looks()?, touched: self.touched.clone() })
    }

    /// What has changed since the last look.
    pub const fn touched(&self) -> &Touched {
        &self.touched
    }

    /// A recent problem of the connections, as text.
    pub fn trouble(&self) -> Option<String> {
        self.requests.trouble().or_else(|| self.touched.trouble())
    }

    /// All interfaces, with their addresses and default routes.
    pub async fn devices(&self) -> Result<Vec<Device>> {
        let mut devices = self.devices_without_routes().await?;
        let mut by_index = by_index(&mut devices);
        for route in self.default_routes().await? {
            if let Some(device) = by_index.get_mut(&route.ifindex) {
                let (v4, v6) = &mut device.default_route;
                let known = if route.v4 { v4 } else { v6 };
                *known = Some(known.map_or(route.rank, |known| known.min(route.rank)));
            }
        }
        Ok(devices)
    }

    /// All interfaces with their addresses, but without routes, which may be many and change all the
    /// time.
    pub async fn devices_without_routes(&self) -> Result<Vec<Device>> {
        let mut devices = self.links().await?;
        let mut by_index = by_index(&mut devices);
        for (address, prefix, ifindex) in self.subnets().await? {
            if let Some(device) = by_index.get_mut(&ifindex)
                && !device.subnets.contains(&(address, prefix))
            {
                device.subnets.push((address, prefix));
            }
        }
        Ok(devices)
    }

    /// All interfaces, without their addresses and routes.
    async fn links(&self) -> Result<Vec<Device>> {
        let mut message = LinkMessage::default();
        // Statistics would be the largest part of each answer.
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let pick = |found| match found {
            RouteNetlinkMessage::NewLink(link) => Some(device(link)),
            _ => None,
        };
        self.requests.dump("list interfaces", RouteNetlinkMessage::GetLink(message), pick).await
    }

    pub(super) async fn list_addresses<T>(
        &self,
        mut pick: impl FnMut(AddressMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let pick = |found| match found {
            RouteNetlinkMessage::NewAddress(address) => pick(address),
            _ => None,
        };
        self.requests.dump("list addresses", message, pick).await
    }

    /// All addresses with their remaining lifetime in seconds. A VIP on its interface and a joined
    /// group look alike here.
    pub async fn addresses(&self) -> Result<BTreeMap<HostAddr, u32>> {
        let pick = |message: AddressMessage| {
            let ifindex = message.header.index;
            let (mut address, mut local, mut valid) = (None, None, u32::MAX);
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Address(ip) => address = Some(ip),
                    AddressAttribute::Local(ip) => local = Some(ip),
                    AddressAttribute::CacheInfo(info) => valid = info.ifa_valid,
                    _ => {}
                }
            }
            let ip = local.or(address)?;
            Some((HostAddr { ip: Ip::from(ip), ifindex }, valid))
        };
        Ok(self.list_addresses(pick).await?.into_iter().collect())
    }

    /// The same, with the length of the prefix, and whether it is a secondary address of its subnet.
    pub async fn listed(&self) -> Result<Vec<Listed>> {
        let pick = |message: AddressMessage| {
            let (mut address, mut local) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Address(ip) => address = Some(ip),
                    AddressAttribute::Local(ip) => local = Some(ip),
                    _ => {}
                }
            }
            let header = message.header;
            Some(Listed {
                addr: HostAddr { ip: Ip::from(local.or(address)?), ifindex: header.index },
                prefix: header.prefix_len,
                secondary: header.flags.contains(AddressHeaderFlags::Secondary),
            })
        };
        self.list_addresses(pick).await
    }

    /// All addresses with prefix length and interface index.
    pub async fn subnets(&self) -> Result<Vec<(IpAddr, u8, u32)>> {
        let pick = |message: AddressMessage| {
            let header = message.header;
            let ips = message.attributes.into_iter().filter_map(|attribute| match attribute {
                AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(ip),
                _ => None,
            });
            Some(ips.map(|ip| (ip, header.prefix_len, header.index)).collect::<Vec<_>>())
        };
        Ok(self.list_addresses(pick).await?.into_iter().flatten().collect())
    }

    /// Adds an address or joins a group. If it is there already, its lifetime is refreshed.
    pub async fn add_address(&self, addr: HostAddr, spec: AddrSpec) -> Result<()> {
        let ip = IpAddr::from(addr.ip);
        let mut message = host_address(addr);
        match spec {
            AddrSpec::Vip { valid_s } => {
                // Host scope excludes an IPv4 VIP from source address selection. For IPv6, whose scope
                // is in the address, preferred lifetime 0 (deprecated) does the same.
                message.header.scope = AddressScope::Host;
                let mut info = CacheInfo::default();
                info.ifa_valid = valid_s;
                message.attributes.push(AddressAttribute::CacheInfo(info));
                let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
                message.attributes.push(AddressAttribute::Flags(flags));
            }
            AddrSpec::Group => {
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Mcautojoin));
            }
        }
        let what = format!("add {ip} to interface {}", addr.ifindex);
        let message = RouteNetlinkMessage::NewAddress(message);
        self.touched.owns(addr, true);
        self.requests.change(&what, message, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Removes an address or leaves a group. It is no error if the address is not there.
    pub async fn remove_address(&self, addr: HostAddr) -> Result<()> {
        self.remove(addr, host_address(addr)).await
    }

    /// Removes an address that another program has added, with its prefix.
    pub async fn remove_with_prefix(&self, addr: HostAddr, prefix: u8) -> Result<()> {
        let mut message = host_address(addr);
        message.header.prefix_len = prefix;
        self.remove(addr, message).await
    }

    async fn remove(&self, addr: HostAddr, message: AddressMessage) -> Result<()> {
        let what = format!("remove {} from interface {}", IpAddr::from(addr.ip), addr.ifindex);
        let message = RouteNetlinkMessage::DelAddress(message);
        self.touched.owns(addr, false);
        match self.requests.change(&what, message, 0).await {
            Err(NetlinkError::Refused { source, .. }) if is_gone(&source) => Ok(()),
            result => result,
        }
    }

    /// Neighbours on these interfaces whose link-layer address is known, because they may still have
    /// the old MAC of a VIP. At most `limit` on each interface, the default gateways first.
    pub async fn neighbours(
        &self,
        interfaces: &[u32],
        limit: usize,
    ) -> Result<BTreeMap<u32, Vec<Neighbour>>> {
        let mut gateways: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for route in self.default_routes().await? {
            gateways.entry(route.ifindex).or_default().extend(route.gateway);
        }
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let pick = |found| match found {
            RouteNetlinkMessage::NewNeighbour(message)
                if interfaces.contains(&message.header.ifindex) =>
            {
                neighbour(message)
            }
            _ => None,
        };
        let mut found: BTreeMap<u32, Vec<Neighbour>> = BTreeMap::new();
        for (ifindex, known) in self.requests.dump("list neighbours", message, pick).await? {
            found.entry(ifindex).or_default().push(known);
        }
        for ifindex in interfaces {
            let gateways = gateways.get(ifindex).map_or(&[][..], Vec::as_slice);
            let neighbours = found.entry(*ifindex).or_default();
            for gateway in gateways {
                // A gateway without an entry is asked by broadcast or multicast, like any unknown
                // address.
                if !neighbours.iter().any(|(ip, _)| ip == gateway) {
                    let group = match gateway {
                        IpAddr::V4(_) => BROADCAST,
                        IpAddr::V6(v6) => solicited_node_mac(&v6.octets()),
                    };
                    neighbours.push((*gateway, Mac(group)));
                }
            }
            neighbours.sort_by_key(|(ip, _)| !gateways.contains(ip));
            neighbours.truncate(limit);
        }
        Ok(found)
    }
}

/// The same message as from `ip addr add`. The library's builder adds attributes by kind of address: a
/// broadcast address, which the kernel would answer for, or `IFA_MULTICAST`, which the kernel refuses
/// here.
fn host_address(addr: HostAddr) -> AddressMessage {
    let ip = IpAddr::from(addr.ip);
    let mut message = AddressMessage::default();
    message.header.index = addr.ifindex;
    (message.header.family, message.header.prefix_len) =
        if ip.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

/// Whether the address or its interface no longer exists.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV))
}

fn neighbour(message: NeighbourMessage) -> Option<(u32, Neighbour)> {
    let (mut ip, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let mac: Mac = mac?;
    vip_common::wire::is_station_mac(&mac.0).then_some((message.header.ifindex, (ip?, mac)))
}

fn by_index(devices: &mut [Device]) -> BTreeMap<u32, &mut Device> {
    devices.iter_mut().map(|device| (device.ifindex, device)).collect()
}

fn device(message: LinkMessage) -> Device {
    let flags = message.header.flags;
    let mut device = Device {
        ifindex: message.header.index,
        up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
        ..Device::default()
    };
    let mut below = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::Address(bytes) => device.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Link(ifindex) => below = Some(ifindex),
            LinkAttribute::Controller(ifindex) => device.master = Some(ifindex),
            LinkAttribute::LinkInfo(info) => device.kind = kind(&info),
            _ => {}
        }
    }
    // For a veth this attribute is the peer.
    device.lower = below.filter(|_| matches!(device.kind, Kind::Vlan(_) | Kind::Macvlan));
    device
}

fn kind(info: &[LinkInfo]) -> Kind {
    let mut kind = Kind::Plain;
    for part in info {
        match part {
            LinkInfo::Kind(InfoKind::MacVlan) => kind = Kind::Macvlan,
            LinkInfo::Kind(InfoKind::Bridge) => kind = Kind::Bridge,
            LinkInfo::Data(InfoData::Vlan(parts)) => {
                let id = parts.iter().find_map(|part| match part {
                    InfoVlan::Id(id) => Some(*id),
                    _ => None,
                });
                kind = Kind::Vlan(id.unwrap_or(0));
            }
            LinkInfo::Data(InfoData::Bond(parts)) => {
                let mode = parts.iter().find_map(|part| match part {
                    InfoBond::Mode(mode) => Some((*mode).into()),
                    _ => None,
                });
                kind = Kind::Bond(mode.unwrap_or(0));
            }
            _ => {}
        }
    }
    kind
}
