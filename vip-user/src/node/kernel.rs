//! The host as the controller changes it: pinned maps, programs, addresses, announcements.

use super::{
    announce::{Announcer, announcement, probe, question},
    carry,
    changes::Interfaces,
    clock,
    dataplane::{Dataplane, HostError},
    ethtool::strips_tags,
    interfaces::{Attached, Bits, Turns, fit, ports, untagged},
    maps::{Maps, SlotRecord},
    netlink::Netlink,
    pins::{LinkKind, Pins},
    programs::{AttachError, Programs},
    queues::drained,
};
use crate::{
    config::{Config, Hook, Hooks},
    model::{
        desired::{GUARD_BIT, LOOPBACK, Link, LinkRole, Links},
        plan::{Action, Actual},
        record::Tenure,
        selection::{Device, Kind, Roles, Selection},
        time::BootNs,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};
use vip_common::abi::{Holder, MAX_IFACES, MAX_STATIONS, Port};

/// Neighbours that are asked from the VIP after a take-over, per interface.
const MAX_ASKED: usize = 64;
/// What is only guarded is attached or looked at for this long in one turn of the loop.
const LOOK_LIMIT: Duration = Duration::from_millis(20);
/// Interfaces that one problem names.
const MAX_NAMED: usize = 8;

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
    /// Interfaces whose programs are to be looked at, or put back.
    suspects: BTreeSet<u32>,
    /// The last look had no time for all of them.
    unfinished: bool,
    /// Programs stay on an interface that has no role any more, until it carries no VIP of ours.
    leaving: bool,
    turns: Turns,
    looked: bool,
    /// When the fence of a slot was cleared.
    cleared: BTreeMap<u32, BootNs>,
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
            suspects: BTreeSet::new(),
            unfinished: false,
            leaving: false,
            turns: Turns::default(),
            looked: false,
            cleared: BTreeMap::new(),
            margin: config.timing().margin,
        })
    }

    /// The programs, for the ring buffer and debug logs.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Whether an interface has its programs already, as far as anything is known. That costs nothing.
    fn is_settled(&self, device: &Device, answers: bool, touched: &Interfaces) -> bool {
        let known = self.attached.get(&device.ifindex);
        known.is_some_and(|(name, attached)| {
            *name == device.name && attached.answers.is_some() == answers
        }) && !self.suspects.contains(&device.ifindex)
            && !touched.contains(device.ifindex)
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

    async fn is_intact(
        &mut self,
        name: &str,
        ifindex: u32,
        attached: Attached,
    ) -> Result<bool, HostError> {
        for kind in attached.kinds() {
            let there = if kind.is_clsact() {
                self.netlink.has_filter(ifindex, kind.is_guard()).await?
            } else {
                let cannot_look = |source| AttachError::Look { interface: name.into(), source };
                self.programs.is_intact(name, ifindex, kind).map_err(cannot_look)?
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

    /// Gives every interface its programs; returns those that have a role, as the programs see them. Those that were
    /// told of, or are suspect, are looked at; for the others nothing is asked of the kernel. What is only guarded may
    /// have to wait for the next look: renewals come between.
    async fn attach_all(
        &mut self,
        devices: &[Device],
        roles: &Roles,
        touched: &Interfaces,
    ) -> Result<Vec<Link>, HostError> {
        let is_vlan = |device: &&Device| matches!(device.kind, Kind::Vlan(_));
        let carry_vlans: BTreeSet<u32> =
            devices.iter().filter(is_vlan).filter_map(|device| device.lower).collect();
        let (mut links, mut spent) = (Vec::new(), Duration::ZERO);
        for device in devices {
            let (Some(role), Some(mac)) = (roles.roles.get(&device.ifindex), device.mac) else {
                continue;
            };
            let answer = !role.answers.is_empty();
            let bit = if answer { self.bits.of(device.ifindex) } else { Some(GUARD_BIT) };
            let mut guarded = true;
            if self.is_settled(device, answer, touched) {
                self.problems.remove(&problem_of(device));
            } else if !answer && spent >= LOOK_LIMIT && self.looked {
                self.unfinished = true;
                if !self.attached.contains_key(&device.ifindex) {
                    continue;
                }
                self.suspects.insert(device.ifindex);
            } else {
                let begun = Instant::now();
                let vlans = carry_vlans.contains(&device.ifindex);
                let result = self.ensure_attached(device, answer, vlans).await;
                guarded = self.take_in(device, result);
                spent += begun.elapsed();
                // The first look has time, but other tasks run meanwhile.
                tokio::task::yield_now().await;
            }
            if guarded && bit.is_none() {
                let why = "63 other interfaces answer already; this one is guarded only";
                self.problems.insert(problem_of(device), why.into());
            }
            let role = if answer && bit.is_some() { LinkRole::Answer } else { LinkRole::Guard };
            let bit = bit.unwrap_or(GUARD_BIT);
            let (port, up) = (untagged(device.ifindex), device.up && guarded);
            links.push(Link { port, bit, role, mac, up, guarded });
        }
        Ok(links)
    }

    /// Notes how attaching has ended; says whether the interface is guarded.
    fn take_in(&mut self, device: &Device, result: Result<(), HostError>) -> bool {
        self.suspects.remove(&device.ifindex);
        let problem = problem_of(device);
        match result {
            Ok(()) => {
                if self.problems.remove(&problem).is_some() {
                    tracing::info!(interface = %device.name, "interface is guarded");
                }
                true
            }
            // What could not be looked at is not gone.
            Err(error) if error.is_blind() && self.attached.contains_key(&device.ifindex) => {
                self.suspects.insert(device.ifindex);
                self.tell_blind(&device.name, &error);
                true
            }
            Err(error) => {
                // Tried again at the next inspection; told once.
                if self.problems.insert(problem, error.to_string()).is_none() {
                    tracing::error!(interface = %device.name, %error, "interface is not guarded");
                }
                self.attached.remove(&device.ifindex);
                self.unguarded = true;
                false
            }
        }
    }

    fn tell_blind(&mut self, interface: &str, error: &HostError) {
        let subject = format!("interface {interface}");
        if self.problems.insert(subject, error.to_string()).is_none() {
            tracing::warn!(interface, %error, "whether the guard stands is not known");
        }
    }

    /// Looks at the interfaces, and brings their programs where they belong.
    async fn look(&mut self, touched: &Interfaces) -> Result<(), HostError> {
        let devices = if self.selection.needs_routes() {
            self.netlink.devices().await?
        } else {
            self.netlink.devices_without_routes().await?
        };
        self.programs.keep_pinned()?;
        self.programs.begin_look();
        self.bits.adopt(&self.maps.ifaces()?);
        (self.unguarded, self.unfinished, self.links.attached) = (false, false, false);
        let roles = self.selection.roles(&devices);
        self.tell_refused(&roles.refused);
        let there = |ifindex: &u32| roles.roles.contains_key(ifindex);
        self.attached.retain(|ifindex, _| there(ifindex));
        self.suspects.retain(there);
        let names: BTreeSet<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        self.problems.retain(|subject, _| match subject.split_once(' ') {
            Some(("interface" | "attach", name)) => names.contains(name),
            _ => true,
        });
        let primary = self.attach_all(&devices, &roles, touched).await?;
        self.links.answer = BTreeMap::new();
        for (index, (vip, _)) in self.selection.vips.iter().enumerate() {
            let chosen = |link: &&Link| {
                let role = roles.roles.get(&link.port.ifindex);
                link.answers() && role.is_some_and(|role| role.answers.contains(&index))
            };
            let mask = primary.iter().filter(chosen).fold(0, |mask, link| mask | 1 << link.bit);
            self.links.answer.insert(*vip, mask);
        }
        let (links, left_out) = fit(ports(&devices, &roles, primary), MAX_IFACES as usize);
        self.links.links = links;
        self.tell_left_out(&devices, &left_out);
        self.detach_rest(&devices, &roles)?;
        // Where a program could not be replaced, the other version's has no fence any more.
        for old in std::mem::take(&mut self.retiring) {
            if let Err(error) = carry::retire(&old) {
                self.retiring.push(old);
                return Err(error.into());
            }
        }
        self.looked = true;
        if self.unfinished {
            self.netlink.touched.again();
        }
        Ok(())
    }

    /// Detaches what is on interfaces without a role. Where one carries a VIP of ours, the guard stays until the address
    /// is gone: without it the stack would answer for the VIP, whoever holds it.
    fn detach_rest(&mut self, devices: &[Device], roles: &Roles) -> Result<(), HostError> {
        let owned =
            self.maps.owned_addrs()?.into_iter().filter(|addr| !IpAddr::from(addr.ip).is_multicast());
        let carrying: BTreeSet<u32> = owned.map(|addr| addr.ifindex).collect();
        let has_role = |device: &Device| roles.roles.contains_key(&device.ifindex);
        let leaving = |device: &Device| {
            device.ifindex != LOOPBACK && !has_role(device) && carrying.contains(&device.ifindex)
        };
        self.leaving = devices.iter().any(leaving);
        let kept = devices.iter().filter(|device| has_role(device) || leaving(device));
        let kept = kept.map(|device| (device.name.as_str(), device.ifindex)).collect();
        Ok(self.programs.detach_all_but(&kept)?)
    }

    fn tell_left_out(&mut self, devices: &[Device], left_out: &[Port]) {
        const SUBJECT: &str = "map of interfaces";
        if left_out.is_empty() {
            self.problems.remove(SUBJECT);
            return;
        }
        let name = |port: &Port| {
            let device = devices.iter().find(|device| device.ifindex == port.ifindex);
            let name = device.map_or("?", |device| device.name.as_str());
            match (port.outer_vid, port.inner_vid) {
                (0, _) => name.to_owned(),
                (vid, 0) => format!("VLAN {vid} on {name}"),
                (outer, inner) => format!("VLAN {outer}.{inner} on {name}"),
            }
        };
        let mut names: Vec<String> = left_out.iter().take(MAX_NAMED).map(name).collect();
        if left_out.len() > MAX_NAMED {
            names.push(format!("and {} more", left_out.len() - MAX_NAMED));
        }
        let why = format!(
            "it has {MAX_IFACES} entries, and no room for {}: no claims of the VIPs leave those interfaces; tagged frames \
             that a program writes to the interface below are not looked at. `exclude` leaves interfaces alone",
            names.join(", ")
        );
        if self.problems.insert(SUBJECT.into(), why.clone()).is_none() {
            tracing::warn!(%why, "the map of interfaces is full");
        }
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
        let touched = self.netlink.touched.clone();
        let begun = touched.begin();
        self.look(begun.interfaces()).await?;
        begun.done();
        Ok(self.links.clone())
    }

    async fn is_guarded(&mut self) -> bool {
        if self.unguarded || self.unfinished || self.leaving || !self.programs.are_pinned() {
            return false;
        }
        self.programs.begin_look();
        let begun = Instant::now();
        for ifindex in self.turns.next(&self.attached) {
            let Some((name, attached)) = self.attached.get(&ifindex).cloned() else { continue };
            match self.is_intact(&name, ifindex, attached).await {
                Ok(true) => {}
                Ok(false) => drop(self.suspects.insert(ifindex)),
                // What could not be looked at is not gone.
                Err(error) => self.tell_blind(&name, &error),
            }
            if attached.answers.is_none() {
                self.turns.passed(ifindex);
                if begun.elapsed() >= LOOK_LIMIT {
                    break;
                }
            }
        }
        self.suspects.is_empty()
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

fn problem_of(device: &Device) -> String {
    format!("interface {}", device.name)
}
