//! The host as the controller changes it: pinned maps, programs, addresses, announcements.

use super::{
    announce::{Announcer, announcement, probe, question},
    attach::{AttachError, Programs},
    dataplane::{Dataplane, HostError, drained},
    maps::{Maps, SlotRecord},
    netlink::{HostLink, Netlink},
    pins::LinkKind,
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
    attached: Option<(u32, Option<LinkKind>)>,
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
}

impl Kernel {
    /// Takes over what [`super::start::start`] has checked and opened.
    pub fn new(
        config: &Config,
        maps: Maps,
        programs: Programs,
        netlink: Netlink,
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
    fn ensure_attached(
        &mut self,
        index: usize,
        link: &HostLink,
        vlans: bool,
    ) -> Result<(), AttachError> {
        let configured = &mut self.configured[index];
        let known = configured.attached.filter(|(ifindex, _)| *ifindex == link.ifindex);
        if known.is_some() {
            match self.programs.check_guard(&link.name) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(interface = %link.name, %error, "guard is put back"),
            }
        }
        self.programs.attach_guard(&link.name, link.ifindex)?;
        let mut kind = known.and_then(|(_, kind)| kind);
        if configured.answer && kind.is_none() {
            let mode = if vlans && self.attach == Attach::Auto { Attach::Tc } else { self.attach };
            let (attached, why) = self.programs.attach_ingress(&link.name, link.ifindex, mode)?;
            kind = Some(attached);
            let why = why.or_else(|| (mode != self.attach).then(|| "it carries VLAN devices".into()));
            if let Some(why) = why {
                tracing::warn!(interface = %link.name, mode = attached.name(), %why, "native XDP is not possible");
                self.problems.insert(
                    format!("attach {}", link.name),
                    format!("native XDP is not possible ({why}); answering at TC ingress"),
                );
            }
        }
        configured.attached = Some((link.ifindex, kind));
        Ok(())
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
        self.links.clear();
        for index in 0..self.configured.len() {
            let Configured { name, bit, answer, .. } = self.configured[index].clone();
            let problem = format!("interface {name}");
            let found = host.iter().find(|link| link.name == name);
            let Some((link, mac)) = found.and_then(|link| Some((link, link.mac?))) else {
                self.configured[index].attached = None;
                self.problems.insert(problem, "it does not exist or has no MAC address".into());
                continue;
            };
            let vlans = host.iter().any(|other| other.vlan_of == Some(link.ifindex));
            let guarded = match self.ensure_attached(index, link, vlans) {
                Ok(()) => {
                    self.problems.remove(&problem);
                    true
                }
                Err(error) => {
                    tracing::error!(interface = %name, %error, "interface is not guarded");
                    self.problems.insert(problem, error.to_string());
                    false
                }
            };
            let up = link.up && guarded;
            self.links.push(Link { ifindex: link.ifindex, bit, answer, mac, up });
        }
        Ok(self.links.clone())
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
