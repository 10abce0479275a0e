//! Links, addresses, neighbours and routes, by rtnetlink.

pub use super::requests::NetlinkError;
use super::{
    changes::Touched,
    requests::{Requests, Result},
};
use crate::model::{
    desired::AddrSpec,
    selection::{Device, Kind},
};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
        link::{
            InfoBond, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
            LinkMessage,
        },
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use vip_common::{
    abi::{HostAddr, Ip},
    wire::{BROADCAST, solicited_node_mac},
};

/// A neighbour that may have the VIP in its cache.
pub type Neighbour = (IpAddr, [u8; 6]);

/// What this host is asked over netlink.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(super) requests: Requests,
    pub(super) touched: Touched,
}

impl Netlink {
    /// Opens the connection for requests. [`Changes`](super::changes::Changes) are on another.
    pub fn open() -> Result<Self> {
        Ok(Self { requests: Requests::open()?, touched: Touched::default() })
    }

    /// What has changed since the last look.
    pub const fn touched(&self) -> &Touched {
        &self.touched
    }

    /// What happened to the connection lately, in words.
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
                *known = Some(known.map_or(route.metric, |known| known.min(route.metric)));
            }
        }
        Ok(devices)
    }

    /// All interfaces, with their addresses. Routes may be many, and change all the time.
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

    /// All interfaces, without what addresses and routes say of them.
    async fn links(&self) -> Result<Vec<Device>> {
        let mut message = LinkMessage::default();
        // Statistics are most of what a link says of itself.
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let pick = |found| match found {
            RouteNetlinkMessage::NewLink(link) => Some(device(link)),
            _ => None,
        };
        self.requests.dump("list interfaces", RouteNetlinkMessage::GetLink(message), pick).await
    }

    async fn list_addresses<T>(
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

    /// All addresses with the seconds that they have left. A VIP on its interface and a joined group
    /// look alike here.
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

    /// Adds an address or joins a group, or refreshes the lifetime of what is there.
    pub async fn add_address(&self, addr: HostAddr, spec: AddrSpec) -> Result<()> {
        let ip = IpAddr::from(addr.ip);
        let mut message = host_address(addr);
        match spec {
            AddrSpec::Vip { valid_s } => {
                // Host scope keeps an IPv4 VIP out of source address selection; preferred 0
                // (deprecated) does the same for IPv6, whose scope is in the address.
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
        self.requests.change(&what, message, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Removes an address or leaves a group. One that is not there is fine.
    pub async fn remove_address(&self, addr: HostAddr) -> Result<()> {
        let what = format!("remove {} from interface {}", IpAddr::from(addr.ip), addr.ifindex);
        let message = RouteNetlinkMessage::DelAddress(host_address(addr));
        match self.requests.change(&what, message, 0).await {
            Err(NetlinkError::Refused { source, .. }) if is_gone(&source) => Ok(()),
            result => result,
        }
    }

    /// Neighbours on these interfaces whose link-layer address is known: they may hold the VIP's old
    /// one. At most `limit` on each, the default gateways first.
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
                // A gateway that this host has not talked to is asked as any address is resolved.
                if !neighbours.iter().any(|(ip, _)| ip == gateway) {
                    let group = match gateway {
                        IpAddr::V4(_) => BROADCAST,
                        IpAddr::V6(v6) => solicited_node_mac(&v6.octets()),
                    };
                    neighbours.push((*gateway, group));
                }
            }
            neighbours.sort_by_key(|(ip, _)| !gateways.contains(ip));
            neighbours.truncate(limit);
        }
        Ok(found)
    }

    /// Default gateways on an interface.
    pub async fn gateways(&self, ifindex: u32) -> Result<Vec<IpAddr>> {
        let routes = self.default_routes().await?.into_iter();
        let here = routes.filter(|route| route.ifindex == ifindex);
        Ok(here.filter_map(|route| route.gateway).collect())
    }

    async fn default_routes(&self) -> Result<Vec<DefaultRoute>> {
        let mut routes = Vec::new();
        let v4 = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = rtnetlink::RouteMessageBuilder::<Ipv6Addr>::new().build();
        for (message, v4) in [(v4, true), (v6, false)] {
            for route in self.list_routes(message).await? {
                let (mut gateway, mut oif, mut metric) = (None, None, 0);
                for attribute in route.attributes {
                    match attribute {
                        RouteAttribute::Gateway(RouteAddress::Inet(v4)) => gateway = Some(v4.into()),
                        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => gateway = Some(v6.into()),
                        RouteAttribute::Oif(index) => oif = Some(index),
                        RouteAttribute::Priority(priority) => metric = priority,
                        _ => {}
                    }
                }
                routes.extend(oif.map(|ifindex| DefaultRoute { ifindex, gateway, v4, metric }));
            }
        }
        Ok(routes)
    }

    async fn list_routes(&self, message: RouteMessage) -> Result<Vec<RouteMessage>> {
        // A "default" of the loopback interface says that there is none, and that of a VRF or of a
        // policy's table is not the host's. Others are dropped at once: there may be a million.
        let pick = |found| match found {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.destination_prefix_length == 0
                    && route.header.kind == RouteType::Unicast
                    && route.header.table == RouteHeader::RT_TABLE_MAIN =>
            {
                Some(route)
            }
            _ => None,
        };
        self.requests.dump("list routes", RouteNetlinkMessage::GetRoute(message), pick).await
    }
}

/// What `ip addr add` sends. The attributes of the library's builder differ by kind of address: a broadcast address,
/// which the kernel would answer for, or `IFA_MULTICAST`, which it refuses here.
fn host_address(addr: HostAddr) -> AddressMessage {
    let ip = IpAddr::from(addr.ip);
    let mut message = AddressMessage::default();
    message.header.index = addr.ifindex;
    (message.header.family, message.header.prefix_len) =
        if ip.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

/// The address or its interface is not there any more.
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
    let mac: [u8; 6] = mac?;
    vip_common::wire::is_station_mac(&mac).then_some((message.header.ifindex, (ip?, mac)))
}

struct DefaultRoute {
    ifindex: u32,
    gateway: Option<IpAddr>,
    v4: bool,
    metric: u32,
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
            LinkAttribute::Address(bytes) => device.mac = bytes.try_into().ok(),
            LinkAttribute::Link(ifindex) => below = Some(ifindex),
            LinkAttribute::Controller(ifindex) => device.master = Some(ifindex),
            LinkAttribute::LinkInfo(info) => device.kind = kind(&info),
            _ => {}
        }
    }
    // A veth names its peer there.
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
