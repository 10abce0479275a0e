//! The host as the controller changes it: pinned maps, programs, addresses, announcements.

use super::{
    announce::{Announcer, announcement, probe, question},
    carry,
    dataplane::{Dataplane, HostError, drained},
    maps::{Maps, SlotRecord},
    netlink::{HostLink, Netlink},
    pins::{LinkKind, Pins},
    programs::Programs,
};
use crate::{
    config::{Attach, Config},
    model::{
        desired::Link,
        plan::{Action, Actual},
        record::Tenure,
        time::BootNs,
    },
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

/// Neighbours that are asked from the VIP after a take-over, per interface.
const MAX_ASKED: usize = 64;

/// One configured interface.
#[derive(Clone, Debug)]
struct Configured {
    name: String,
    bit: u8,
    answer: bool,
    attached: Option<Attached>,
}

/// What is on an interface.
#[derive(Clone, Copy, Debug)]
struct Attached {
    ifindex: u32,
    guard: LinkKind,
    answers: Option<LinkKind>,
}

impl Attached {
    fn kinds(self) -> impl Iterator<Item = LinkKind> {
        std::iter::once(self.guard).chain(self.answers)
    }
}

/// The real host.
pub struct Kernel {
    maps: Maps,
    programs: Programs,
    netlink: Netlink,
    announcer: Announcer,
    configured: Vec<Configured>,
    links: Vec<Link>,
    attach: Attach,
    lease: (String, String),
    problems: BTreeMap<String, String>,
    /// What another version has left: its programs are replaced by the first look at the interfaces.
    retiring: Vec<Pins>,
    /// An interface that is there could not be guarded.
    unguarded: bool,
}

impl Kernel {
    /// Takes over what [`super::start::start`] has checked and opened.
    pub fn new(
        config: &Config,
        maps: Maps,
        programs: Programs,
        netlink: Netlink,
        retiring: Vec<Pins>,
    ) -> std::io::Result<Self> {
        let answer = config.interfaces.iter().map(|name| (name, true));
        let guard = config.guard.iter().map(|name| (name, false));
        let configured = (0..)
            .zip(answer.chain(guard))
            .map(|(bit, (name, answer))| Configured { name: name.clone(), bit, answer, attached: None })
            .collect();
        Ok(Self {
            maps,
            programs,
            netlink,
            announcer: Announcer::open()?,
            configured,
            links: Vec::new(),
            attach: config.attach,
            lease: (config.lease.namespace.clone(), config.lease.name.clone()),
            problems: BTreeMap::new(),
            retiring,
            unguarded: false,
        })
    }

    /// The programs, for the ring buffer and debug logs.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Attaches the programs to one interface unless they are there. A failure leaves the interface
    /// unguarded, which the caller turns into "not usable".
    ///
    /// A NIC takes the tags off (rxvlan offload, on by default) before XDP sees a frame, so with VLAN
    /// devices above it XDP would answer questions of other VLANs. TC knows the tag.
    async fn ensure_attached(
        &mut self,
        index: usize,
        link: &HostLink,
        vlans: bool,
    ) -> Result<(), HostError> {
        let known = self.configured[index].attached.filter(|known| known.ifindex == link.ifindex);
        if let Some(known) = known {
            if self.is_intact(link, known).await? {
                return Ok(());
            }
            tracing::warn!(interface = %link.name, "programs are not as they were; putting them back");
        }
        let guard = self.programs.attach_guard(&link.name, link.ifindex)?;
        let mut attached = Attached { ifindex: link.ifindex, guard, answers: None };
        if self.configured[index].answer {
            let mode = if vlans && self.attach == Attach::Auto { Attach::Tc } else { self.attach };
            let (kind, why) = self.programs.attach_ingress(&link.name, link.ifindex, mode)?;
            attached.answers = Some(kind);
            let why = why.or_else(|| (mode != self.attach).then(|| "it carries VLAN devices".into()));
            let subject = format!("attach {}", link.name);
            if let Some(why) = why {
                tracing::warn!(interface = %link.name, mode = kind.name(), %why, "native XDP is not possible");
                let why = format!("native XDP is not possible ({why}); answering at TC ingress");
                self.problems.insert(subject, why);
            } else {
                self.problems.remove(&subject);
            }
        }
        self.configured[index].attached = Some(attached);
        Ok(())
    }

    async fn is_intact(&self, link: &HostLink, attached: Attached) -> Result<bool, HostError> {
        for kind in attached.kinds() {
            let there = if kind.is_clsact() {
                self.netlink.has_filter(link.ifindex, kind.is_guard()).await?
            } else {
                self.programs.is_intact(&link.name, link.ifindex, kind)
            };
            if !there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn record(&self, tenure: &Tenure, duration_s: u32, generation: u64) -> SlotRecord {
        let (namespace, name) = self.lease.clone();
        SlotRecord { namespace, name, tenure: tenure.clone(), duration_s, generation }
    }

    fn answering(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.answer && link.up)
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

    async fn links(&mut self) -> Result<Vec<Link>, HostError> {
        let host = self.netlink.links().await?;
        self.programs.keep_pinned()?;
        self.links.clear();
        self.unguarded = false;
        let mut present = Vec::new();
        for index in 0..self.configured.len() {
            let Configured { name, bit, answer, .. } = self.configured[index].clone();
            let problem = format!("interface {name}");
            let found = host.iter().find(|link| link.name == name);
            let Some((link, mac)) = found.and_then(|link| Some((link, link.mac?))) else {
                self.configured[index].attached = None;
                self.problems.insert(problem, "it does not exist or has no MAC address".into());
                continue;
            };
            present.push((name.clone(), link.ifindex));
            let vlans = host.iter().any(|other| other.vlan_of == Some(link.ifindex));
            let guarded = match self.ensure_attached(index, link, vlans).await {
                Ok(()) => {
                    if self.problems.remove(&problem).is_some() {
                        tracing::info!(interface = %name, "interface is guarded");
                    }
                    true
                }
                Err(error) => {
                    // Tried again at the next inspection; told once.
                    if self.problems.insert(problem, error.to_string()).is_none() {
                        tracing::error!(interface = %name, %error, "interface is not guarded");
                    }
                    self.configured[index].attached = None;
                    self.unguarded = true;
                    false
                }
            };
            let up = link.up && guarded;
            self.links.push(Link { ifindex: link.ifindex, bit, answer, mac, up });
        }
        let present: Vec<_> = present.iter().map(|(name, index)| (name.as_str(), *index)).collect();
        self.programs.detach_all_but(&present)?;
        // Where a program could not be replaced, the other version's has no fence any more.
        for old in std::mem::take(&mut self.retiring) {
            if let Err(error) = carry::retire(&old) {
                self.retiring.push(old);
                return Err(error.into());
            }
        }
        Ok(self.links.clone())
    }

    async fn is_guarded(&mut self) -> bool {
        if self.unguarded || !self.programs.are_pinned() {
            return false;
        }
        for configured in &self.configured {
            let Some(attached) = configured.attached else { continue };
            let (name, ifindex) = (configured.name.clone(), attached.ifindex);
            let link = HostLink { name, ifindex, mac: None, up: true, vlan_of: None };
            if !self.is_intact(&link, attached).await.unwrap_or(false) {
                return false;
            }
        }
        true
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
        let record = self.record(tenure, duration_s, generation);
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
        self.maps.set_deadline(slot, BootNs(0))?;
        self.maps.wait_for_programs()?;
        drained(&self.announcer).await
    }

    async fn announce(&mut self, vips: &[IpAddr], ask: bool) -> Result<(), HostError> {
        for link in self.answering() {
            for frame in vips.iter().flat_map(|vip| announcement(*vip, link.mac)) {
                self.announcer.send(link.ifindex, &frame).map_err(HostError::Announce)?;
            }
            if ask {
                for neighbour in self.netlink.neighbours(link.ifindex, MAX_ASKED).await? {
                    for frame in vips.iter().filter_map(|vip| question(*vip, link.mac, neighbour)) {
                        self.announcer.send(link.ifindex, &frame).map_err(HostError::Announce)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn problems(&self) -> BTreeMap<String, String> {
        self.problems.clone()
    }

    async fn probe(&mut self, vips: &[IpAddr]) -> Result<(), HostError> {
        let addresses = self.netlink.addresses().await?;
        for link in self.answering() {
            let source = addresses.keys().find_map(|addr| {
                let v6 = Ipv6Addr::from(addr.ip.octets);
                (addr.ifindex == link.ifindex && v6.is_unicast_link_local()).then_some(addr.ip.octets)
            });
            for frame in vips.iter().filter_map(|vip| probe(*vip, link.mac, source)) {
                self.announcer.send(link.ifindex, &frame).map_err(HostError::Announce)?;
            }
        }
        Ok(())
    }
}
