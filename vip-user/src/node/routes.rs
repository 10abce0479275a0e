//! Reads routes in all forms that the kernel has. These are one way or several (`RTA_MULTIPATH`),
//! next-hop objects (`RTA_NH_ID`), and IPv4 by a gateway of IPv6 (`RTA_VIA`). They are in the main
//! table or in others.

use super::{
    netlink::{Netlink, NetlinkError},
    nexthops::NextHops,
    requests::{Result, aside},
};
use futures::TryStreamExt as _;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia},
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::IpAddr,
    time::Duration,
};
use vip_common::abi::HostAddr;

/// The table of the addresses for which this host accepts traffic.
const LOCAL_TABLE: u8 = 255;
/// The value by which a rule says that it has no such limit.
const NO_LIMIT: u32 = u32::MAX;
/// The time limit for reading next hops or the local table, because the loop that renews waits for it.
const LIMIT: Duration = Duration::from_millis(200);

/// One way of a route. A route that balances its load has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The table of the route.
    pub table: u32,
    /// The metric of the route. Of two routes in one table, the kernel uses the one with the lower
    /// metric.
    pub metric: u32,
    /// The interface.
    pub ifindex: u32,
    /// The router, unless the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the route is of IPv4. Its gateway may still be of IPv6.
    pub v4: bool,
    /// Whether it is a default route.
    pub default: bool,
}

/// A way of a default route that this host uses for its own traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) v4: bool,
    /// The order of use, the lowest first.
    pub(super) rank: u32,
}

impl Netlink {
    /// Default gateways on an interface.
    pub async fn gateways(&self, ifindex: u32) -> Result<Vec<IpAddr>> {
        let routes = self.default_routes().await?.into_iter();
        let here = routes.filter(|route| route.ifindex == ifindex);
        let gateways: BTreeSet<IpAddr> = here.filter_map(|route| route.gateway).collect();
        Ok(gateways.into_iter().collect())
    }

    /// The ways of the default routes, in the main table and in tables in which every packet is looked
    /// up.
    pub(super) async fn default_routes(&self) -> Result<Vec<DefaultRoute>> {
        let mut routes = Vec::new();
        for v4 in [true, false] {
            let mut ways: Vec<Way> = self.ways(v4, false).await?;
            ways.retain(|way| way.default);
            let main = u32::from(RouteHeader::RT_TABLE_MAIN);
            // Few hosts have default routes in other tables, and only those hosts need their rules.
            let tables = if ways.iter().all(|way| way.table == main) {
                vec![main]
            } else {
                tables(&self.rules(v4).await?)
            };
            routes.extend(ranked(ways, &tables));
        }
        Ok(routes)
    }

    /// Every router that is named by a route of any table or by a next-hop object.
    pub(super) async fn all_gateways(&self) -> Result<BTreeSet<Gateway>> {
        let mut gateways = BTreeSet::new();
        for v4 in [true, false] {
            for way in self.ways(v4, true).await? {
                let Way { table, ifindex, default, .. } = way;
                gateways.extend(way.gateway.map(|ip| Gateway { ip, default, ifindex, table }));
            }
        }
        let table = u32::from(RouteHeader::RT_TABLE_MAIN);
        for (ifindex, ip) in next_hops().await?.gateways() {
            if !gateways.iter().any(|known| known.ip == ip) {
                gateways.insert(Gateway { ip, default: false, ifindex, table });
            }
        }
        Ok(gateways)
    }

    /// The ways of the unicast routes of a family; unless `all`, only of its default routes.
    async fn ways(&self, v4: bool, all: bool) -> Result<Vec<Way>> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(v4);
        // A "default" on the loopback interface is unreachable: it says that there is no default route.
        // Unwanted routes are dropped at once, because there may be a million.
        let pick = |found| match found {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.kind == RouteType::Unicast
                    && (all || route.header.destination_prefix_length == 0) =>
            {
                Some(route)
            }
            _ => None,
        };
        let request = RouteNetlinkMessage::GetRoute(request);
        let routes = self.requests.dump("list routes", request, pick).await?;
        let hops = if routes.iter().any(is_bare) { next_hops().await? } else { NextHops::default() };
        Ok(routes.iter().flat_map(|route| ways(route, &hops)).collect())
    }

    async fn rules(&self, v4: bool) -> Result<Vec<RuleMessage>> {
        let mut request = RuleMessage::default();
        request.header.family = family(v4);
        let pick = |found| match found {
            RouteNetlinkMessage::NewRule(rule) => Some(rule),
            _ => None,
        };
        let request = RouteNetlinkMessage::GetRule(request);
        self.requests.dump("list routing rules", request, pick).await
    }
}

/// A router that this host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gateway {
    pub(super) ip: IpAddr,
    pub(super) default: bool,
    pub(super) ifindex: u32,
    pub(super) table: u32,
}

impl Gateway {
    /// Describes the router, with the name of its interface.
    pub(super) fn describe(&self, interface: &str) -> String {
        let what = if self.default { "the default gateway" } else { "a gateway" };
        if self.table == u32::from(RouteHeader::RT_TABLE_MAIN) {
            format!("{what} on {interface}")
        } else {
            format!("{what} on {interface} (routing table {})", self.table)
        }
    }
}

/// Watches the local table. If another program has deleted an address's route there, the kernel still
/// shows the address, but accepts no traffic for it.
#[derive(Debug, Default)]
pub(super) struct LocalRoutes {
    /// Addresses that had no route at the last look.
    missing: BTreeSet<HostAddr>,
}

impl LocalRoutes {
    /// The addresses without a route. An IPv6 address counts only if it had none at the last look
    /// either, because the kernel creates its route a moment after the address. If the table cannot be
    /// read, no route counts as missing.
    pub(super) async fn look(&mut self, addrs: impl Iterator<Item = &HostAddr>) -> BTreeSet<HostAddr> {
        let unicast: Vec<(HostAddr, IpAddr)> = addrs
            .map(|addr| (*addr, IpAddr::from(addr.ip)))
            .filter(|(_, ip)| !ip.is_multicast())
            .collect();
        if unicast.is_empty() {
            self.missing.clear();
            return BTreeSet::new();
        }
        let families = [true, false].into_iter();
        let families = families.filter(|v4| unicast.iter().any(|(_, ip)| ip.is_ipv4() == *v4));
        let families: Vec<bool> = families.collect();
        let read = aside(|| taken_in(families.into_iter()));
        match in_time("list local routes", read).await {
            Ok(taken) => {
                let missing = unicast.into_iter().filter(|(_, ip)| !taken.contains(ip));
                let missing: BTreeSet<HostAddr> = missing.map(|(addr, _)| addr).collect();
                let before = std::mem::replace(&mut self.missing, missing);
                let lost = self
                    .missing
                    .iter()
                    .filter(|addr| before.contains(addr) || IpAddr::from(addr.ip).is_ipv4());
                lost.copied().collect()
            }
            Err(error) => {
                tracing::debug!(%error, "the local table was not read");
                BTreeSet::new()
            }
        }
    }
}

/// The addresses for which this host accepts traffic. This needs a separate socket, because the kernel
/// lists a single table only if it checks requests strictly (Linux 4.20).
async fn taken_in(families: impl Iterator<Item = bool>) -> Result<BTreeSet<IpAddr>> {
    let (connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Socket)?;
    tokio::spawn(connection);
    let mut taken = BTreeSet::new();
    for v4 in families {
        let mut request = RouteMessage::default();
        request.header.address_family = family(v4);
        request.header.table = LOCAL_TABLE;
        let mut stream = handle.route().get(request).execute();
        while let Some(route) = stream.try_next().await.map_err(failed("list local routes"))? {
            if route.header.kind == RouteType::Local {
                taken.extend(destination(&route));
            }
        }
    }
    Ok(taken)
}

fn family(v4: bool) -> AddressFamily {
    if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

async fn next_hops() -> Result<NextHops> {
    let read = || async { NextHops::read().await.map_err(NetlinkError::Socket) };
    in_time("list next hops", aside(read)).await
}

async fn in_time<T>(what: &str, read: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| NetlinkError::TimedOut { what: what.into(), limit: LIMIT };
    tokio::time::timeout(LIMIT, read).await.map_err(late)?
}

fn failed(what: &str) -> impl Fn(rtnetlink::Error) -> NetlinkError {
    move |error| NetlinkError::Refused { what: what.into(), source: io::Error::other(error) }
}

/// Whether a route names a next-hop object without showing what it contains.
fn is_bare(route: &RouteMessage) -> bool {
    let shows =
        |part: &RouteAttribute| matches!(part, RouteAttribute::MultiPath(_) | RouteAttribute::Oif(_));
    object(route).is_some() && !route.attributes.iter().any(shows)
}

fn object(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|part| match part {
        RouteAttribute::NhId(id) => Some(*id),
        _ => None,
    })
}

fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Destination(to) => address(to),
        _ => None,
    })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// The gateway in the attributes of a way or of a route.
fn gateway(parts: &[RouteAttribute]) -> Option<IpAddr> {
    parts.iter().find_map(|part| match part {
        RouteAttribute::Gateway(to) => address(to),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    })
}

/// All ways of a route.
fn ways(route: &RouteMessage, hops: &NextHops) -> Vec<Way> {
    let header = &route.header;
    let (mut table, mut metric, mut oif) = (u32::from(header.table), 0, None);
    let mut several = BTreeSet::new();
    for part in &route.attributes {
        match part {
            // The table in the header has only eight bits.
            RouteAttribute::Table(full) => table = *full,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(ifindex) => oif = Some(*ifindex),
            RouteAttribute::MultiPath(hops) => {
                let hops = hops.iter().map(|hop| (hop.interface_index, gateway(&hop.attributes)));
                several.extend(hops);
            }
            _ => {}
        }
    }
    several.extend(oif.map(|ifindex| (ifindex, gateway(&route.attributes))));
    if several.is_empty() {
        several.extend(object(route).into_iter().flat_map(|id| hops.ways(id)));
    }
    let (v4, default) =
        (header.address_family == AddressFamily::Inet, header.destination_prefix_length == 0);
    let way = |(ifindex, gateway)| Way { table, metric, ifindex, gateway, v4, default };
    several.into_iter().map(way).collect()
}

/// The tables in which every packet of this host is looked up, in that order. The tables of a VRF, a
/// mark or a source address apply only to some packets. The main table counts even if every rule to it
/// has conditions.
fn tables(rules: &[RuleMessage]) -> Vec<u32> {
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let mut tables: Vec<u32> = rules.iter().filter_map(table_for_all).collect();
    if !tables.contains(&main) {
        tables.push(main);
    }
    tables
}

fn table_for_all(rule: &RuleMessage) -> Option<u32> {
    let header = &rule.header;
    let plain = header.action == RuleAction::ToTable
        && !header.flags.contains(RuleFlags::Invert)
        && (header.src_len, header.dst_len, header.tos) == (0, 0, 0);
    let mut table = u32::from(header.table);
    let unconditional = rule.attributes.iter().all(|part| match part {
        RuleAttribute::Table(full) => {
            table = *full;
            true
        }
        RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) => true,
        RuleAttribute::SuppressPrefixLen(limit) | RuleAttribute::SuppressIfGroup(limit) => {
            *limit == NO_LIMIT
        }
        _ => false,
    });
    (plain && unconditional).then_some(table)
}

/// Default routes with their rank, in the order in which the kernel uses them.
fn ranked(ways: Vec<Way>, tables: &[u32]) -> Vec<DefaultRoute> {
    let place = |way: &Way| tables.iter().position(|table| *table == way.table);
    let placed: Vec<((usize, u32), Way)> =
        ways.into_iter().filter_map(|way| Some(((place(&way)?, way.metric), way))).collect();
    let order: BTreeSet<(usize, u32)> = placed.iter().map(|(key, _)| *key).collect();
    let ranks: BTreeMap<(usize, u32), u32> = order.into_iter().zip(0..).collect();
    let route = |(key, way): ((usize, u32), Way)| DefaultRoute {
        ifindex: way.ifindex,
        gateway: way.gateway,
        v4: way.v4,
        rank: ranks.get(&key).copied().unwrap_or(0),
    };
    placed.into_iter().map(route).collect()
}

#[cfg(test)]
mod tests;
