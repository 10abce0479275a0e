//! The real host behind [`Dataplane`]: pinned maps, programs, addresses, announcements.

use super::{
    announce::{Announcer, announcement, probe, question},
    dataplane::{Dataplane, Failures, Fencing, HostError},
    guards::{Guards, InPlace, Watch},
    host::interface_name,
    maps::{Maps, MapsError, SlotRecord},
    netlink::{Neighbour, Netlink},
    pins::Pins,
    programs::Programs,
    queues::{self, Cleared},
    routes::LocalRoutes,
    settings::Settings,
    sysctl,
    trouble::Trouble,
};
use crate::{
    clock,
    model::{
        changes::BLIND_FOR,
        desired::{Link, LinkRole, Links, Placement},
        plan::{Action, Actual},
        time::BootNs,
    },
    sources::chain,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};
use vip_common::{
    abi::{Holder, HostAddr, MAX_STATIONS},
    mac::Mac,
};

/// How many neighbours on each interface are asked from the VIP after a take-over.
const MAX_ASKED: usize = 64;

/// The real host.
pub struct Kernel {
    pub(super) maps: Maps,
    pub(super) netlink: Netlink,
    /// The connection on which the interfaces are looked at.
    looks: Netlink,
    pub(super) announcer: Announcer,
    watch: Watch,
    /// The interfaces as the last look has shown them.
    links: Links,
    /// The last look has failed: what an earlier one has found does not count any more.
    has_failed: bool,
    /// The names of the interfaces that have programs.
    names: BTreeMap<u32, String>,
    /// The problems that the last look has found.
    problems: BTreeMap<Trouble, String>,
    vips: Vec<IpAddr>,
    /// The namespace of the Leases.
    namespace: String,
    /// Slots whose fences were cleared, but which are not known to be silent.
    cleared: BTreeMap<u32, Cleared>,
    /// Where held VIPs are put.
    placement: Placement,
    /// The longest time that a frame waits in a queue after it has passed the check.
    margin: Duration,
    /// Shows for which of our addresses this host has lost the local route.
    local: LocalRoutes,
}

impl Kernel {
    /// Takes over what [`super::start::start`] has checked and opened.
    pub fn new(
        settings: &Settings,
        maps: Maps,
        programs: Programs,
        netlink: Netlink,
        retiring: Vec<Pins>,
    ) -> io::Result<Self> {
        let looks = netlink.beside().map_err(io::Error::other)?;
        let guards = Guards::new(settings, programs, looks.clone(), retiring);
        Ok(Self {
            maps,
            netlink,
            looks,
            announcer: Announcer::open_for_claims()?,
            vips: guards.selection.vips.iter().map(|(vip, _)| *vip).collect(),
            watch: Watch::Idle(Box::new(guards)),
            links: Links::default(),
            has_failed: false,
            names: BTreeMap::new(),
            problems: BTreeMap::new(),
            namespace: settings.namespace.clone(),
            cleared: BTreeMap::new(),
            margin: settings.margin,
            local: LocalRoutes::default(),
            placement: settings.placement,
        })
    }

    /// The programs, for the ring buffer and debug logs; `None` while a look is under way.
    pub fn programs(&mut self) -> Option<&mut Programs> {
        Some(&mut self.watch.guards()?.programs)
    }

    fn in_place(&self) -> Result<InPlace, HostError> {
        Ok(InPlace {
            ifaces: self.maps.ifaces()?,
            owned: self.maps.owned_addrs()?.into_iter().collect(),
            in_use: self.links.links.iter().map(|link| link.port.ifindex).collect(),
        })
    }

    /// Takes over the results of the last look.
    fn take_in(&mut self) {
        let Some(guards) = self.watch.guards() else { return };
        self.problems.clone_from(&guards.problems);
        let names = guards.attached.iter().map(|(ifindex, (name, _))| (*ifindex, name.clone()));
        self.names = names.collect();
    }

    /// Clears the fence of a slot: stores 0 as its deadline.
    fn clear_fence(&mut self, slot: u32) -> Result<(), MapsError> {
        let lives = self.maps.fence(slot)?.deadline_ns != 0;
        self.maps.set_deadline(slot, BootNs(0))?;
        // The time counts from here, because this process may have stood still before.
        if lives || !self.cleared.contains_key(&slot) {
            self.cleared.insert(slot, Cleared::now());
        }
        Ok(())
    }

    /// The interfaces that answer for any of these VIPs, each with the VIPs that it answers for.
    fn answering(&self, vips: &[IpAddr]) -> Vec<(Link, Vec<IpAddr>)> {
        let up = self.links.links.iter().filter(|link| link.answers() && link.up);
        let with_vips = up.map(|link| {
            let here = |vip: &IpAddr| self.links.of(*vip).any(|other| other.port == link.port);
            (link.clone(), vips.iter().copied().filter(here).collect::<Vec<_>>())
        });
        with_vips.filter(|(_, vips)| !vips.is_empty()).collect()
    }

    /// Sends all frames for one VIP, even if some fail. The first error is kept.
    fn send(
        &self,
        link: &Link,
        vip: IpAddr,
        frames: impl IntoIterator<Item = Vec<u8>>,
        failures: &mut Failures,
    ) {
        for frame in frames {
            if let Err(error) = self.announcer.send(link.port.ifindex, &frame) {
                failures.entry(vip).or_insert(HostError::Announce(error));
            }
        }
    }
}

impl Dataplane for Kernel {
    async fn actual(&mut self) -> Result<Actual, HostError> {
        let addrs = self.netlink.addresses().await?;
        let owned: BTreeSet<HostAddr> = self.maps.owned_addrs()?.into_iter().collect();
        let unrouted = self.local.look(owned.iter().filter(|addr| addrs.contains_key(addr))).await;
        let (vips, ifaces) = (self.maps.vips()?, self.maps.ifaces()?);
        Ok(Actual { vips, ifaces, addrs, owned, unrouted })
    }

    async fn links(&mut self) -> Result<Links, HostError> {
        self.netlink.touched.heard();
        let in_place = self.in_place()?;
        let looked = match self.watch.guards() {
            // Before the first look there is no earlier result to return, so the loop waits for it.
            Some(guards) if !guards.looked => guards.look_or_keep(&in_place).await,
            _ => {
                self.watch.begin(in_place);
                let Some(looked) = self.watch.ended().await else {
                    let since = self.watch.since();
                    let took = since.map_or(Duration::ZERO, |since| since.until(clock::boot()));
                    if took >= BLIND_FOR || self.has_failed {
                        return Err(HostError::CutOff { step: "interfaces", took });
                    }
                    return Ok(self.links.clone());
                };
                looked
            }
        };
        self.take_in();
        self.has_failed = looked.is_err();
        if let Ok(links) = &looked {
            self.links = Links { attached: false, ..links.clone() };
        }
        // A look that was already under way may not have seen the change. Until the next look, the
        // programs are inspected.
        if self.netlink.touched.has_changed() {
            self.netlink.touched.again();
        }
        looked
    }

    async fn is_guarded(&mut self) -> Result<bool, HostError> {
        let Some(guards) = self.watch.guards() else { return Ok(!self.watch.has_news()) };
        let intact = guards.inspect().await && !self.netlink.touched.has_changed();
        self.take_in();
        Ok(intact)
    }

    fn refused(&self) -> BTreeMap<IpAddr, String> {
        let lo = (self.placement == Placement::Loopback).then_some("lo");
        let vips = self.vips.iter().copied().filter(IpAddr::is_ipv6);
        let mut known = BTreeMap::new();
        let mut why = |vip: IpAddr| {
            let answering = self.links.of(vip).filter(|link| link.up);
            let names = answering.filter_map(|link| self.names.get(&link.port.ifindex));
            let mut names = lo.into_iter().chain(names.map(String::as_str));
            names.find_map(|name| {
                known.entry(name).or_insert_with(|| sysctl::without_ipv6(name)).clone()
            })
        };
        vips.filter_map(|vip| why(vip).map(|why| (vip, why))).collect()
    }

    async fn apply(&mut self, action: Action) -> Result<(), HostError> {
        match action {
            Action::SetIface(port, iface) => {
                let stored = self.maps.set_iface(port, iface);
                stored.map_err(|error| HostError::Interface {
                    interface: interface_name(port.ifindex),
                    source: Box::new(error),
                })?;
            }
            Action::RemoveIface(port) => self.maps.remove_iface(port)?,
            Action::Publish(ip, vip) => self.maps.publish(ip, vip)?,
            Action::Withdraw(ip) => self.maps.withdraw(ip)?,
            Action::AddAddr(addr, spec) => {
                self.maps.note_addr(addr)?;
                self.netlink.add_address(addr, spec).await?;
            }
            Action::DelAddr(addr) => {
                self.netlink.remove_address(addr).await?;
                self.maps.forget_addr(addr)?;
            }
        }
        Ok(())
    }

    fn raise_fence(&mut self, fencing: &Fencing<'_>, deadline: BootNs) -> Result<(), HostError> {
        let Fencing { slot, lease, tenure, duration_s, generation } = *fencing;
        let (namespace, name) = (self.namespace.clone(), lease.to_owned());
        let record = SlotRecord { namespace, name, tenure: tenure.clone(), duration_s, generation };
        if self.maps.fence(slot)?.generation != generation {
            self.maps.begin_tenure(slot, &record)?;
        } else if self.maps.slot(slot)?.as_ref() != Some(&record) {
            self.maps.store_record(slot, &record)?;
        }
        Ok(self.maps.set_deadline(slot, deadline)?)
    }

    fn lower_fence(&mut self, slot: u32, deadline: BootNs) -> Result<(), HostError> {
        Ok(self.maps.set_deadline(slot, deadline)?)
    }

    async fn silence(&mut self, slots: &[u32]) -> BTreeMap<u32, HostError> {
        let mut failures = BTreeMap::new();
        for slot in slots {
            if let Err(error) = self.clear_fence(*slot) {
                failures.insert(*slot, error.into());
            }
        }
        // One grace period and one look at the queues are enough for all of them.
        let mut lowered: BTreeMap<u32, &mut Cleared> = self
            .cleared
            .iter_mut()
            .filter(|(slot, _)| slots.contains(slot) && !failures.contains_key(slot))
            .map(|(slot, cleared)| (*slot, cleared))
            .collect();
        let result = match self.maps.wait_for_programs() {
            Ok(()) => {
                let speaking = self.links.links.iter().filter(|link| link.role != LinkRole::Guard);
                let interfaces: Vec<u32> = speaking.map(|link| link.port.ifindex).collect();
                let (announcer, netlink) = (&self.announcer, &self.netlink);
                queues::drain(&mut lowered, announcer, netlink, &interfaces, self.margin).await
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            let why = chain(&error);
            failures.extend(lowered.keys().map(|slot| (*slot, HostError::ForAll(why.clone()))));
        }
        failures
    }

    fn set_holder(&mut self, slot: u32, stations: &[Mac], until: BootNs) -> Result<(), HostError> {
        let mut holder = Holder { until_ns: until.0, stations: [[0; 6]; MAX_STATIONS] };
        for (to, from) in holder.stations.iter_mut().zip(stations) {
            *to = from.0;
        }
        Ok(self.maps.set_holder(slot, holder)?)
    }

    async fn announce(&mut self, vips: &[IpAddr], ask: bool) -> Failures {
        let mut failures = Failures::new();
        let answering = self.answering(vips);
        for (link, vips) in &answering {
            for vip in vips {
                self.send(link, *vip, announcement(*vip, link.mac), &mut failures);
            }
        }
        if !ask || answering.is_empty() {
            return failures;
        }
        let interfaces: Vec<u32> = answering.iter().map(|(link, _)| link.port.ifindex).collect();
        let neighbours = match self.netlink.neighbours(&interfaces, MAX_ASKED).await {
            Ok(neighbours) => neighbours,
            Err(error) => {
                tracing::debug!(%error, "no neighbour is asked");
                let refused = error.to_string();
                for vip in answering.iter().flat_map(|(_, vips)| vips) {
                    let error = HostError::Announce(io::Error::other(refused.clone()));
                    failures.entry(*vip).or_insert(error);
                }
                return failures;
            }
        };
        for (link, vips) in &answering {
            let known = neighbours.get(&link.port.ifindex).map_or(&[][..], Vec::as_slice);
            for vip in vips {
                let ask = |neighbour: &Neighbour| question(*vip, link.mac, *neighbour);
                self.send(link, *vip, known.iter().filter_map(ask), &mut failures);
            }
        }
        failures
    }

    fn problems(&self) -> BTreeMap<String, String> {
        let netlink = self.netlink.trouble().or_else(|| self.looks.trouble());
        let netlink = netlink.as_ref().map(|why| (&Trouble::Netlink, why));
        let all = self.problems.iter().chain(netlink);
        all.map(|(subject, why)| (subject.to_string(), why.clone())).collect()
    }

    async fn probe(&mut self, vips: &[IpAddr]) -> Failures {
        let mut failures = Failures::new();
        // An IPv4 probe needs no source. If the list cannot be read, an IPv6 probe is not sent, and is
        // reported as failed.
        let addresses = self.netlink.addresses().await.map_err(|error| error.to_string());
        let mut unasked: BTreeMap<IpAddr, String> = BTreeMap::new();
        let mut asked = BTreeSet::new();
        for (link, vips) in self.answering(vips) {
            let source = source_on(link.port.ifindex, addresses.iter().flatten(), &self.vips);
            for vip in vips {
                let Some(frame) = probe(vip, link.mac, source) else {
                    let nothing = "an interface has no IPv6 address to ask from".to_owned();
                    unasked.insert(vip, addresses.as_ref().err().cloned().unwrap_or(nothing));
                    continue;
                };
                asked.insert(vip);
                self.send(&link, vip, [frame], &mut failures);
            }
        }
        // A probe on one interface is enough: either they are on one segment, or the VIP is not on
        // theirs.
        for (vip, why) in unasked.into_iter().filter(|(vip, _)| !asked.contains(vip)) {
            failures.entry(vip).or_insert(HostError::Announce(io::Error::other(why)));
        }
        failures
    }
}

/// The IPv6 address from which this host asks a neighbour on an interface: the link-local one, or
/// another one that is not a VIP.
fn source_on<'a>(
    ifindex: u32,
    addresses: impl Iterator<Item = (&'a HostAddr, &'a u32)>,
    vips: &[IpAddr],
) -> Option<[u8; 16]> {
    let here = addresses.map(|(addr, _)| addr).filter(|addr| addr.ifindex == ifindex);
    let v6 = here.map(|addr| IpAddr::from(addr.ip)).filter(|ip| !vips.contains(ip));
    let v6 = v6.filter_map(|ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None });
    let asks = v6.filter(|v6| !v6.is_multicast() && !v6.is_unspecified() && !v6.is_loopback());
    asks.min_by_key(|v6| !v6.is_unicast_link_local()).map(|v6| v6.octets())
}
