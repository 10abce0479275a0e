//! Links, addresses, neighbours and routes, by rtnetlink.

use crate::model::{
    desired::AddrSpec,
    selection::{Device, Kind},
};
use futures::{StreamExt as _, TryStreamExt as _, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::NetlinkMessage,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
        link::{
            InfoBond, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        },
        neighbour::{NeighbourAddress, NeighbourAttribute},
    },
    sys::SocketAddr,
};
use std::{collections::BTreeMap, io, net::IpAddr};
use vip_common::{
    abi::{HostAddr, Ip},
    wire::{BROADCAST, solicited_node_mac},
};

/// A netlink request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {what}")]
    Request {
        /// The operation and its subject.
        what: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// Something that changed; a hint to look again, not the truth.
pub type Changes = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// A neighbour that may have the VIP in its cache.
pub type Neighbour = (IpAddr, [u8; 6]);

/// The netlink connection.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(super) handle: Handle,
}

impl Netlink {
    /// Opens a connection, and the stream of changes of links and addresses; of routes too where the
    /// choice of interfaces depends on them (a CNI changes routes all the time).
    pub fn open(routes: bool) -> Result<(Self, Changes)> {
        let mut groups = vec![
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Tc,
        ];
        if routes {
            groups.extend([MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route]);
        }
        let (connection, handle, changes) =
            rtnetlink::new_multicast_connection(&groups).map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        Ok((Self { handle }, changes))
    }

    /// All interfaces, with their addresses and default routes.
    pub async fn devices(&self) -> Result<Vec<Device>> {
        let mut devices = Vec::new();
        let mut stream = self.handle.link().get().execute();
        while let Some(message) = stream.try_next().await.map_err(request("list interfaces"))? {
            devices.push(device(message));
        }
        for (address, prefix, ifindex) in self.subnets().await? {
            let found = devices.iter_mut().find(|device| device.ifindex == ifindex);
            if let Some(device) = found
                && !device.subnets.contains(&(address, prefix))
            {
                device.subnets.push((address, prefix));
            }
        }
        for route in self.default_routes().await? {
            let found = devices.iter_mut().find(|device| device.ifindex == route.ifindex);
            if let Some(device) = found {
                let (v4, v6) = &mut device.default_route;
                let known = if route.v4 { v4 } else { v6 };
                *known = Some(known.map_or(route.rank, |known| known.min(route.rank)));
            }
        }
        Ok(devices)
    }

    /// All addresses with the seconds that they have left. A VIP on its interface and a joined group
    /// look alike here.
    pub async fn addresses(&self) -> Result<BTreeMap<HostAddr, u32>> {
        let mut addresses = BTreeMap::new();
        let mut stream = self.handle.address().get().execute();
        while let Some(message) = stream.try_next().await.map_err(request("list addresses"))? {
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
            if let Some(ip) = local.or(address) {
                addresses.insert(HostAddr { ip: Ip::from(ip), ifindex }, valid);
            }
        }
        Ok(addresses)
    }

    /// All addresses with prefix length and interface index.
    pub async fn subnets(&self) -> Result<Vec<(IpAddr, u8, u32)>> {
        let mut subnets = Vec::new();
        let mut stream = self.handle.address().get().execute();
        while let Some(message) = stream.try_next().await.map_err(request("list addresses"))? {
            let header = message.header;
            for attribute in message.attributes {
                if let AddressAttribute::Local(ip) | AddressAttribute::Address(ip) = attribute {
                    subnets.push((ip, header.prefix_len, header.index));
                }
            }
        }
        Ok(subnets)
    }

    /// Adds an address or joins a group, or refreshes the lifetime of what is there.
    pub async fn add_address(&self, addr: HostAddr, spec: AddrSpec) -> Result<()> {
        let ip = IpAddr::from(addr.ip);
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        let mut add = self.handle.address().add(addr.ifindex, ip, prefix).replace();
        let message = add.message_mut();
        // The builder's attributes differ by kind of address: a broadcast address, which the kernel
        // would answer for, or IFA_MULTICAST, which it refuses here. Send what `ip addr add` sends.
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
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
        add.execute().await.map_err(|source| NetlinkError::Request { what, source })
    }

    /// Removes an address or leaves a group. One that is not there is fine.
    pub async fn remove_address(&self, addr: HostAddr) -> Result<()> {
        let ip = IpAddr::from(addr.ip);
        let mut message = AddressMessage::default();
        message.header.index = addr.ifindex;
        (message.header.family, message.header.prefix_len) =
            if ip.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        let gone = [libc::EADDRNOTAVAIL, libc::ENODEV];
        match self.handle.address().del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if gone.contains(&-error.raw_code()) => Ok(()),
            Err(source) => {
                let what = format!("remove {ip} from interface {}", addr.ifindex);
                Err(NetlinkError::Request { what, source })
            }
            Ok(()) => Ok(()),
        }
    }

    /// Neighbours on an interface whose link-layer address is known: they may hold the VIP's old
    /// one. At most `limit`, the default gateways first.
    pub async fn neighbours(&self, ifindex: u32, limit: usize) -> Result<Vec<Neighbour>> {
        let gateways = self.gateways(ifindex).await?;
        let mut neighbours = Vec::new();
        let mut stream = self.handle.neighbours().get().execute();
        while let Some(message) = stream.try_next().await.map_err(request("list neighbours"))? {
            if message.header.ifindex != ifindex {
                continue;
            }
            let (mut ip, mut mac) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(v4.into()),
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                        ip = Some(v6.into());
                    }
                    NeighbourAttribute::LinkLayerAddress(bytes) => {
                        mac = bytes.as_slice().try_into().ok();
                    }
                    _ => {}
                }
            }
            if let (Some(ip), Some(mac)) = (ip, mac)
                && vip_common::wire::is_station_mac(&mac)
            {
                neighbours.push((ip, mac));
            }
        }
        for gateway in &gateways {
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
        Ok(neighbours)
    }
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

/// Waits for the next change of a link or address.
pub async fn next_change(changes: &mut Changes) -> bool {
    changes.next().await.is_some()
}

fn request(what: &str) -> impl Fn(rtnetlink::Error) -> NetlinkError {
    move |source| NetlinkError::Request { what: what.into(), source }
}
