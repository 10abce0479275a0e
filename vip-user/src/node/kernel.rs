//! The host as the controller changes it: pinned maps, programs, addresses, announcements.

use super::{
    announce::{Announcer, announcement, probe, question},
    carry, clock,
    dataplane::{Dataplane, Failures, HostError},
    ethtool::strips_tags,
    interfaces::{Attached, Bits, ports, untagged},
    maps::{Maps, SlotRecord},
    netlink::{Neighbour, Netlink},
    pins::{LinkKind, Pins},
    programs::{AttachError, Programs},
    queues::drained,
    sysctl,
};
use crate::{
    config::{Config, Hook, Hooks},
    model::{
        desired::{GUARD_BIT, Link, LinkRole, Links, Placement},
        plan::{Action, Actual},
        record::Tenure,
        selection::{Device, Kind, Roles, Selection},
        time::BootNs,
    },
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};
use vip_common::abi::{Holder, MAX_STATIONS};

/// Neighbours that are asked from the VIP after a take-over, per interface.
const MAX_ASKED: usize = 64;

/// The real host.
pub struct Kernel {
    maps: Maps,
    programs: Programs,
    netlink: Netlink,
    announcer: Announcer,
    selection: Selection,
    /// What is on which interface, by name and index.
    attached: BTreeMap<u32, (String, Attached)>,
    bits: Bits,
    links: Links,
    attach: Hooks,
    /// Namespace and name of the Lease of each slot.
    leases: BTreeMap<u32, (String, String)>,
    problems: BTreeMap<String, String>,
    /// What another version has left: its programs are replaced by the first look at the interfaces.
    retiring: Vec<Pins>,
    /// An interface that is there could not be guarded.
    unguarded: bool,
    /// When the fence of a slot was cleared.
    cleared: BTreeMap<u32, BootNs>,
    /// Where held VIPs are put.
    placement: Placement,
    /// The longest that a frame waits after it has passed the check.
    margin: Duration,
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
            unguarded: false,
            cleared: BTreeMap::new(),
            margin: config.timing().margin,
            placement: config.placement,
        })
    }

    /// The programs, for the ring buffer and debug logs.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Attaches the programs to one interface unless they are there. A failure leaves the interface
    /// unguarded, which the caller turns into "not usable".
    async fn ensure_attached(
        &mut self,
        device: &Device,
        answers: bool,
        vlans: bool,
    ) -> Result<(), HostError> {
        let Device { name, ifindex, .. } = device;
        if let Some((known, attached)) = self.attached.get(ifindex) {
            let (known, attached) = (known.clone(), *attached);
            if known == *name && attached.answers.is_some() == answers {
                if self.is_intact(name, *ifindex, attached).await? {
                    return Ok(());
                }
                tracing::warn!(interface = %name, "programs are not as they were; putting them back");
            }
        }
        self.programs.follow_rename(name, *ifindex)?;
        let guard = self.programs.attach_guard(name, *ifindex)?;
        let mut attached = Attached { guard, answers: None };
        if answers {
            attached.answers = Some(self.attach_answering(name, *ifindex, vlans)?);
        } else {
            self.programs.detach_answering(name)?;
        }
        self.attached.insert(*ifindex, (name.clone(), attached));
        Ok(())
    }

    /// A NIC takes the tags off (rxvlan offload, on by default) before XDP sees a frame, so with VLAN
    /// devices above it XDP would answer questions of other VLANs. TC knows the tag.
    fn attach_answering(
        &mut self,
        name: &str,
        ifindex: u32,
        vlans: bool,
    ) -> Result<LinkKind, HostError> {
        let stripped = vlans && self.attach != Hooks::from(Hook::Tc) && strips_tags(name);
        let hooks = if stripped { self.attach.that_know_tags() } else { self.attach.clone() };
        let why =
            "it carries VLAN devices, and the NIC takes the tags off (rxvlan): only `tc` knows them";
        if hooks.0.is_empty() {
            return Err(AttachError::NoHook { interface: name.into(), why: why.into() }.into());
        }
        let (kind, mut refused) = self.programs.attach_ingress(name, ifindex, &hooks)?;
        self.links.attached |= kind == LinkKind::Native;
        if stripped {
            refused.insert(0, why.into());
        }
        let subject = format!("attach {name}");
        if refused.is_empty() {
            self.problems.remove(&subject);
        } else {
            let (how, why) = (kind.describe(), refused.join("; "));
            let text = format!("answering {how}, not by the first choice: {why}");
            if self.problems.insert(subject, text).is_none() {
                tracing::warn!(interface = name, how, %why, "not the first choice of hook");
            }
        }
        Ok(kind)
    }

    async fn is_intact(&self, name: &str, ifindex: u32, attached: Attached) -> Result<bool, HostError> {
        for kind in attached.kinds() {
            let there = if kind.is_clsact() {
                self.netlink.has_filter(ifindex, kind.is_guard()).await?
            } else {
                self.programs.is_intact(name, ifindex, kind)
            };
            if !there {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// Gives every interface its programs; returns those that have a role, as the programs see them.
    async fn attach_all(&mut self, devices: &[Device], roles: &Roles) -> Result<Vec<Link>, HostError> {
        let mut links = Vec::new();
        for device in devices {
            let (Some(role), Some(mac)) = (roles.roles.get(&device.ifindex), device.mac) else {
                continue;
            };
            let answer = !role.answers.is_empty();
            let bit = if answer { self.bits.of(device.ifindex) } else { Some(GUARD_BIT) };
            let vlans = devices.iter().any(|other| {
                matches!(other.kind, Kind::Vlan(_)) && other.lower == Some(device.ifindex)
            });
            let problem = format!("interface {}", device.name);
            let mut guarded = true;
            let result = self.ensure_attached(device, answer, vlans).await;
            if let Err(error) = &result {
                // Tried again at the next inspection; told once.
                if self.problems.insert(problem, error.to_string()).is_none() {
                    tracing::error!(interface = %device.name, %error, "interface is not guarded");
                }
                self.attached.remove(&device.ifindex);
                self.unguarded = true;
                guarded = false;
            } else if bit.is_none() {
                let why = "63 other interfaces answer already; this one is guarded only";
                self.problems.insert(problem, why.into());
            } else if self.problems.remove(&problem).is_some() {
                tracing::info!(interface = %device.name, "interface is guarded");
            }
            let role = if answer && bit.is_some() { LinkRole::Answer } else { LinkRole::Guard };
            let bit = bit.unwrap_or(GUARD_BIT);
            let (port, up) = (untagged(device.ifindex), device.up && guarded);
            links.push(Link { port, bit, role, mac, up, guarded });
        }
        Ok(links)
    }

    fn tell_refused(&mut self, refused: &BTreeMap<String, String>) {
        let subject = |name: &String| format!("selection {name}");
        let gone = |known: &String| {
            known.starts_with("selection ") && !refused.keys().any(|name| subject(name) == *known)
        };
        self.problems.retain(|known, _| !gone(known));
        for (name, why) in refused {
            if self.problems.insert(subject(name), why.clone()).as_ref() != Some(why) {
                tracing::warn!(%name, %why, "not answering there");
            }
        }
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
        let devices = self.netlink.devices().await?;
        self.programs.keep_pinned()?;
        self.bits.adopt(&self.maps.ifaces()?);
        self.unguarded = false;
        let roles = self.selection.roles(&devices);
        self.tell_refused(&roles.refused);
        let there = |ifindex: &u32| roles.roles.contains_key(ifindex);
        self.attached.retain(|ifindex, _| there(ifindex));
        let known = |name: &str| devices.iter().any(|device| device.name == name);
        self.problems.retain(|subject, _| match subject.split_once(' ') {
            Some(("interface" | "attach", name)) => known(name),
            _ => true,
        });
        let primary = self.attach_all(&devices, &roles).await?;
        self.links.answer = BTreeMap::new();
        for (index, (vip, _)) in self.selection.vips.iter().enumerate() {
            let chosen = |link: &&Link| {
                let role = roles.roles.get(&link.port.ifindex);
                link.answers() && role.is_some_and(|role| role.answers.contains(&index))
            };
            let mask = primary.iter().filter(chosen).fold(0, |mask, link| mask | 1 << link.bit);
            self.links.answer.insert(*vip, mask);
        }
        self.links.links = ports(&devices, &roles, primary);
        let present: Vec<(&str, u32)> = devices
            .iter()
            .filter(|device| there(&device.ifindex))
            .map(|device| (device.name.as_str(), device.ifindex))
            .collect();
        self.programs.detach_all_but(&present)?;
        // Where a program could not be replaced, the other version's has no fence any more.
        for old in std::mem::take(&mut self.retiring) {
            if let Err(error) = carry::retire(&old) {
                self.retiring.push(old);
                return Err(error.into());
            }
        }
        let links = self.links.clone();
        // A look that was cut off has told nobody.
        self.links.attached = false;
        Ok(links)
    }

    async fn is_guarded(&mut self) -> Result<bool, HostError> {
        if self.unguarded || !self.programs.are_pinned() {
            return Ok(false);
        }
        for (ifindex, (name, attached)) in &self.attached {
            if !self.is_intact(name, *ifindex, *attached).await? {
                return Ok(false);
            }
        }
        Ok(true)
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
            Action::SetIface(port, iface) => self.maps.set_iface(port, iface)?,
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
        for (link, vips) in self.answering(vips) {
            for vip in &vips {
                self.send(&link, *vip, announcement(*vip, link.mac), &mut failures);
            }
            if !ask {
                continue;
            }
            match self.netlink.neighbours(link.port.ifindex, MAX_ASKED).await {
                Ok(neighbours) => {
                    for vip in &vips {
                        let ask = |neighbour: &Neighbour| question(*vip, link.mac, *neighbour);
                        self.send(&link, *vip, neighbours.iter().filter_map(ask), &mut failures);
                    }
                }
                Err(error) => {
                    tracing::debug!(ifindex = link.port.ifindex, %error, "no neighbour is asked");
                    let refused = error.to_string();
                    for vip in vips {
                        let error = HostError::Announce(io::Error::other(refused.clone()));
                        failures.entry(vip).or_insert(error);
                    }
                }
            }
        }
        failures
    }

    fn problems(&self) -> BTreeMap<String, String> {
        self.problems.clone()
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
