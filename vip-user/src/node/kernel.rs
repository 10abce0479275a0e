//! The host as the controller changes it: pinned maps, programs, addresses, announcements.

use super::{
    announce::{Announcer, announcement, probe, question},
    attach::Inspected,
    clock,
    dataplane::{Dataplane, HostError},
    host::interface_name,
    interfaces::{Attached, Bits, LeftOver, Turns},
    maps::{Maps, SlotRecord},
    netlink::Netlink,
    pins::Pins,
    programs::Programs,
    queues::drained,
};
use crate::{
    config::{Config, Hooks},
    model::{
        desired::{Link, LinkRole, Links},
        plan::{Action, Actual},
        record::Tenure,
        selection::Selection,
        time::BootNs,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};
use tokio::task::JoinHandle;
use vip_common::abi::{Holder, MAX_STATIONS};

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
    /// The longest that a frame waits after it has passed the check.
    pub(super) margin: Duration,
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
}

impl Dataplane for Kernel {
    async fn actual(&mut self) -> Result<Actual, HostError> {
        Ok(Actual {
            vips: self.maps.vips()?,
            ifaces: self.maps.ifaces()?,
            addrs: self.netlink.addresses().await?,
            owned: self.maps.owned_addrs()?.into_iter().collect(),
        })
    }

    async fn links(&mut self) -> Result<Links, HostError> {
        self.look_or_keep().await
    }

    async fn is_guarded(&mut self) -> bool {
        self.inspect().await
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

    async fn announce(&mut self, vips: &[IpAddr], ask: bool) -> Result<(), HostError> {
        let answering = self.answering(vips);
        for (link, vips) in &answering {
            for frame in vips.iter().flat_map(|vip| announcement(*vip, link.mac)) {
                self.announcer.send(link.port.ifindex, &frame).map_err(HostError::Announce)?;
            }
        }
        if !ask || answering.is_empty() {
            return Ok(());
        }
        let interfaces: Vec<u32> = answering.iter().map(|(link, _)| link.port.ifindex).collect();
        let neighbours = self.netlink.neighbours(&interfaces, MAX_ASKED).await?;
        for (link, vips) in &answering {
            let ifindex = link.port.ifindex;
            for neighbour in neighbours.get(&ifindex).into_iter().flatten() {
                for frame in vips.iter().filter_map(|vip| question(*vip, link.mac, *neighbour)) {
                    self.announcer.send(ifindex, &frame).map_err(HostError::Announce)?;
                }
            }
        }
        Ok(())
    }

    fn problems(&self) -> BTreeMap<String, String> {
        let trouble = self.netlink.trouble().map(|why| ("netlink".to_owned(), why));
        self.problems.clone().into_iter().chain(trouble).collect()
    }

    async fn probe(&mut self, vips: &[IpAddr]) -> Result<(), HostError> {
        let addresses = self.netlink.addresses().await?;
        for (link, vips) in self.answering(vips) {
            let ifindex = link.port.ifindex;
            let source = addresses.keys().find_map(|addr| {
                let v6 = Ipv6Addr::from(addr.ip.octets);
                (addr.ifindex == ifindex && v6.is_unicast_link_local()).then_some(addr.ip.octets)
            });
            for frame in vips.iter().filter_map(|vip| probe(*vip, link.mac, source)) {
                self.announcer.send(ifindex, &frame).map_err(HostError::Announce)?;
            }
        }
        Ok(())
    }
}
