//! The host as the controller changes it: pinned maps, programs, addresses, announcements.

use super::{
    announce::{Announcer, announcement, probe, question},
    attach::Inspected,
    clock,
    dataplane::{Dataplane, Failures, HostError},
    host::interface_name,
    interfaces::{Attached, Bits, LeftOver, Turns},
    maps::{Maps, SlotRecord},
    netlink::{Neighbour, Netlink},
    pins::Pins,
    programs::Programs,
    queues::drained,
    routes::LocalRoutes,
    sysctl,
};
use crate::{
    config::{Config, Hooks},
    model::{
        desired::{Link, LinkRole, Links, Placement},
        plan::{Action, Actual},
        record::Tenure,
        selection::Selection,
        time::BootNs,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};
use tokio::task::JoinHandle;
use vip_common::abi::{Holder, HostAddr, MAX_STATIONS};

/// Neighbours that are asked from the VIP after a take-over, per interface.
const MAX_ASKED: usize = 64;

/// The real host.
pub struct Kernel {
    pub(super) maps: Maps,
    pub(super) programs: Programs,
    pub(super) netlink: Netlink,
    pub(super) announcer: Announcer,
    pub(super) selection: Selection,
    /// What is on which interface, by name and index.
    pub(super) attached: BTreeMap<u32, (String, Attached)>,
    pub(super) bits: Bits,
    pub(super) links: Links,
    pub(super) attach: Hooks,
    /// Namespace and name of the Lease of each slot.
    pub(super) leases: BTreeMap<u32, (String, String)>,
    pub(super) problems: BTreeMap<String, String>,
    /// What another version has left: its programs are replaced by the first look at the interfaces.
    pub(super) retiring: Vec<Pins>,
    /// What the last look left for the next one.
    pub(super) left_over: BTreeSet<LeftOver>,
    /// Interfaces whose programs are to be looked at, or put back.
    pub(super) suspects: BTreeSet<u32>,
    pub(super) turns: Turns,
    /// What is being asked about links; it may wait for the kernel.
    pub(super) inspecting: Option<JoinHandle<Vec<Inspected>>>,
    pub(super) looked: bool,
    /// Since then the interfaces could not be looked at.
    pub(super) blind_since: Option<BootNs>,
    /// When the fence of a slot was cleared.
    pub(super) cleared: BTreeMap<u32, BootNs>,
    /// Where held VIPs are put.
    placement: Placement,
    /// The longest that a frame waits after it has passed the check.
    pub(super) margin: Duration,
    /// Which of our addresses this host takes traffic in for.
    local: LocalRoutes,
}

impl Kernel {
    /// Takes over what [`super::start::start`] has checked and opened.
    pub fn new(
        config: &Config,
        maps: Maps,
        programs: Programs,
        netlink: Netlink,
        retiring: Vec<Pins>,
        leases: BTreeMap<u32, (String, String)>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            maps,
            programs,
            netlink,
            announcer: Announcer::open()?,
            selection: config.selection(),
            attached: BTreeMap::new(),
            bits: Bits::default(),
            links: Links::default(),
            attach: config.attach.clone(),
            leases,
            problems: BTreeMap::new(),
            retiring,
            left_over: BTreeSet::new(),
            suspects: BTreeSet::new(),
            turns: Turns::default(),
            inspecting: None,
            looked: false,
            blind_since: None,
            cleared: BTreeMap::new(),
            margin: config.timing().margin,
            local: LocalRoutes::default(),
            placement: config.placement,
        })
    }

    /// The programs, for the ring buffer and debug logs.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    fn record(&self, slot: u32, tenure: &Tenure, duration_s: u32, generation: u64) -> SlotRecord {
        let (namespace, name) = self.leases.get(&slot).cloned().unwrap_or_default();
        SlotRecord { namespace, name, tenure: tenure.clone(), duration_s, generation }
    }

    /// The interfaces that answer for any of these VIPs, each with those that it answers for.
    fn answering(&self, vips: &[IpAddr]) -> Vec<(Link, Vec<IpAddr>)> {
        let up = self.links.links.iter().filter(|link| link.answers() && link.up);
        let with_vips = up.map(|link| {
            let here = |vip: &IpAddr| self.links.of(*vip).any(|other| other.port == link.port);
            (link.clone(), vips.iter().copied().filter(here).collect::<Vec<_>>())
        });
        with_vips.filter(|(_, vips)| !vips.is_empty()).collect()
    }

    /// Sends frames for one VIP, all of them whatever becomes of each. The first error is kept.
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

    /// Notes the problems of one kind, whose subjects begin with `kind`; logs what has changed.
    pub(super) fn tell(&mut self, kind: &str, what: &str, found: &BTreeMap<String, String>) {
        let gone =
            |known: &String| known.strip_prefix(kind).is_some_and(|name| !found.contains_key(name));
        self.problems.retain(|known, _| !gone(known));
        for (name, why) in found {
            if self.problems.insert(format!("{kind}{name}"), why.clone()).as_ref() != Some(why) {
                tracing::warn!(%name, %why, "{what}");
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
        self.look_or_keep().await
    }

    async fn is_guarded(&mut self) -> Result<bool, HostError> {
        Ok(self.inspect().await)
    }

    fn refused(&self) -> BTreeMap<IpAddr, String> {
        let lo = (self.placement == Placement::Loopback).then_some("lo");
        let vips = self.selection.vips.iter().map(|(vip, _)| *vip).filter(IpAddr::is_ipv6);
        let mut known = BTreeMap::new();
        let mut why = |vip: IpAddr| {
            let answering = self.links.of(vip).filter(|link| link.up);
            let names = answering.filter_map(|link| self.attached.get(&link.port.ifindex));
            let mut names = lo.into_iter().chain(names.map(|(name, _)| name.as_str()));
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

    fn raise_fence(
        &mut self,
        slot: u32,
        tenure: &Tenure,
        duration_s: u32,
        generation: u64,
        deadline: BootNs,
    ) -> Result<(), HostError> {
        let record = self.record(slot, tenure, duration_s, generation);
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

    async fn clear_fence(&mut self, slot: u32) -> Result<(), HostError> {
        if self.maps.fence(slot)?.deadline_ns != 0 {
            self.cleared.insert(slot, clock::boot());
        }
        self.maps.set_deadline(slot, BootNs(0))?;
        self.maps.wait_for_programs()?;
        let speaking = self.links.links.iter().filter(|link| link.role != LinkRole::Guard);
        let interfaces: Vec<u32> = speaking.map(|link| link.port.ifindex).collect();
        let cleared = self.cleared.get(&slot).copied().unwrap_or_default();
        drained(&self.announcer, &self.netlink, &interfaces, cleared.after(self.margin)).await
    }

    fn set_holder(&mut self, slot: u32, stations: &[[u8; 6]], until: BootNs) -> Result<(), HostError> {
        let mut holder = Holder { until_ns: until.0, stations: [[0; 6]; MAX_STATIONS] };
        for (to, from) in holder.stations.iter_mut().zip(stations) {
            *to = *from;
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
        let trouble = self.netlink.trouble().map(|why| ("netlink".to_owned(), why));
        self.problems.clone().into_iter().chain(trouble).collect()
    }

    async fn probe(&mut self, vips: &[IpAddr]) -> Failures {
        let mut failures = Failures::new();
        // IPv4 needs no source. Without the list an IPv6 probe is not sent, and is reported.
        let addresses = self.netlink.addresses().await;
        for (link, vips) in self.answering(vips) {
            let source = addresses.iter().flatten().find_map(|(addr, _)| {
                let v6 = Ipv6Addr::from(addr.ip.octets);
                let here = addr.ifindex == link.port.ifindex;
                (here && v6.is_unicast_link_local()).then_some(addr.ip.octets)
            });
            for vip in vips {
                self.send(&link, vip, probe(vip, link.mac, source), &mut failures);
                if let (IpAddr::V6(_), Err(error)) = (vip, &addresses) {
                    let error = HostError::Announce(io::Error::other(error.to_string()));
                    failures.entry(vip).or_insert(error);
                }
            }
        }
        failures
    }
}
