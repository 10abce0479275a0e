//! Looks at the interfaces: chosen ones get their programs, others lose them, and programs that are not
//! in place are put back. The work of a look depends on how much has changed.

use super::{
    attach::{Seen, see},
    carry,
    dataplane::HostError,
    ethtool::strips_tags,
    guards::{Guards, InPlace},
    interfaces::{Attached, LeftOver, fit, ports, untagged},
    pins::{LinkKind, LinkPin},
    programs::AttachError,
    touched::Interfaces,
    trouble::Trouble,
};
use crate::{
    clock,
    model::{
        changes::BLIND_FOR,
        desired::{GUARD_BIT, LOOPBACK, Link, LinkRole, Links},
        hooks::{Hook, Hooks},
        selection::{Device, Kind, Roles},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};
use vip_common::abi::{HostAddr, Ip, MAX_IFACES, Port};

/// How long one turn of the loop spends on interfaces that are only guarded.
const LOOK_LIMIT: Duration = Duration::from_millis(20);
/// How long one turn of the loop waits for an inspection.
const INSPECT_LIMIT: Duration = Duration::from_millis(50);
/// The most interfaces that one problem names.
const MAX_NAMED: usize = 8;

impl Guards {
    /// Looks at the interfaces. If that fails because the kernel does not answer, the last result is
    /// kept for a while.
    pub(super) async fn look_or_keep(&mut self, in_place: &InPlace) -> Result<Links, HostError> {
        let touched = self.netlink.touched.clone();
        let begun = touched.begin();
        match self.look(in_place, begun.interfaces()).await {
            Ok(()) => {
                begun.done();
                self.blind_since = None;
                self.problems.remove(&Trouble::Look);
            }
            // The last result is kept for a while, and the next inspection looks again.
            Err(error) if error.is_blind() && self.looked && !self.is_blind_for_long() => {
                self.left_over.insert(LeftOver::Unfinished);
                if self.problems.insert(Trouble::Look, error.to_string()).is_none() {
                    tracing::warn!(%error, "the interfaces could not be looked at");
                }
            }
            Err(error) => return Err(error),
        }
        let links = self.links.clone();
        // Cleared only here, because a look that was cut off has not reported it.
        self.links.attached = false;
        Ok(links)
    }

    /// Whether every program and pin is in place, of the interfaces whose turn it is.
    pub(super) async fn inspect(&mut self) -> bool {
        if !self.left_over.is_empty() || !self.programs.are_pinned() {
            return false;
        }
        let inspecting = self.inspecting.get_or_insert_with(|| {
            let due = self.turns.next(&self.attached);
            let pins = due.iter().filter_map(|ifindex| self.attached.get_key_value(ifindex));
            let pins: Vec<LinkPin> =
                pins.flat_map(|(ifindex, known)| links_of(*ifindex, known)).collect();
            let dir = self.programs.pins().clone();
            tokio::task::spawn_blocking(move || {
                let seen = pins.into_iter().map(|pin| (pin.clone(), see(&dir, pin)));
                seen.collect()
            })
        });
        // The loop waits no longer. The answer counts at the next inspection.
        let Ok(seen) = tokio::time::timeout(INSPECT_LIMIT, inspecting).await else {
            let limit = INSPECT_LIMIT.as_millis();
            let why = format!(
                "whether programs are where they were is not known: no answer within {limit} ms"
            );
            self.problems.insert(Trouble::Inspection, why);
            return self.suspects.is_empty();
        };
        self.inspecting = None;
        self.problems.remove(&Trouble::Inspection);
        self.programs.begin_look();
        for (pin, seen) in seen.unwrap_or_default() {
            self.judge(pin, seen).await;
        }
        self.suspects.is_empty()
    }

    /// Notes what was seen of one link.
    async fn judge(&mut self, pin: LinkPin, seen: io::Result<Seen>) {
        let LinkPin { interface, ifindex, kind } = pin;
        let Some((_, attached)) = self.attached.get(&ifindex) else { return };
        if attached.answers.is_none() {
            self.turns.passed(ifindex);
        }
        let intact = if kind.is_clsact() {
            self.is_filter_foremost(&interface, ifindex, kind).await
        } else {
            let intact = seen.and_then(|seen| self.programs.judge(ifindex, kind, &seen));
            intact.map_err(|source| AttachError::Look { interface: interface.clone(), source }.into())
        };
        match intact {
            Ok(true) => drop(self.problems.remove(&Trouble::Programs(interface))),
            Ok(false) => drop(self.suspects.insert(ifindex)),
            // A link that could not be looked at is not known to be gone.
            Err(error) => self.tell_blind(&interface, &error),
        }
    }

    /// Whether our filter of clsact is still attached, and runs first.
    async fn is_filter_foremost(
        &self,
        interface: &str,
        ifindex: u32,
        kind: LinkKind,
    ) -> Result<bool, HostError> {
        let filters = self.netlink.first_filters(ifindex, kind.is_guard()).await?;
        let foremost = self.programs.is_foremost(ifindex, kind, &filters);
        Ok(foremost.map_err(|source| AttachError::Look { interface: interface.into(), source })?)
    }

    fn is_blind_for_long(&mut self) -> bool {
        let now = clock::boot();
        self.blind_since.get_or_insert(now).until(now) >= BLIND_FOR
    }

    /// Whether an interface has its programs, as far as is known. Asks the kernel nothing.
    fn is_settled(&self, device: &Device, answers: bool, touched: &Interfaces) -> bool {
        let known = self.attached.get(&device.ifindex);
        known.is_some_and(|(name, attached)| {
            *name == device.name && attached.answers.is_some() == answers
        }) && !self.suspects.contains(&device.ifindex)
            && !touched.contains(device.ifindex)
    }

    /// Attaches the programs to one interface unless they are there. After a failure the interface is
    /// unguarded, and the caller marks it as not usable.
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

    /// Attaches the answering program. A NIC removes tags (rxvlan offload, on by default) before XDP
    /// sees a frame. So with VLAN devices above it, XDP would answer questions of other VLANs. TC sees
    /// the tag.
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
        let subject = Trouble::Attach(name.into());
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
                self.is_filter_foremost(name, ifindex, kind).await?
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

    /// Gives every interface its programs, and returns the interfaces with a role as the programs see
    /// them. Only interfaces that have changed or are suspect are looked at; for the others the kernel
    /// is not asked. Interfaces that are only guarded may have to wait for the next look, so that
    /// renewals come between.
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
                self.left_over.insert(LeftOver::Unfinished);
                if !self.attached.contains_key(&device.ifindex) {
                    continue;
                }
                self.suspects.insert(device.ifindex);
            } else {
                let begun = clock::boot();
                let vlans = carry_vlans.contains(&device.ifindex);
                let result = self.ensure_attached(device, answer, vlans).await;
                guarded = self.take_in(device, result);
                spent += begun.until(clock::boot());
                // The first look may take long, but other tasks must run meanwhile.
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

    /// Notes the result of attaching. Returns whether the interface is guarded.
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
            // A program that could not be looked at is not known to be gone.
            Err(error) if error.is_blind() && self.attached.contains_key(&device.ifindex) => {
                self.suspects.insert(device.ifindex);
                self.tell_blind(&device.name, &error);
                true
            }
            Err(error) => {
                // The next inspection tries again, but it is logged only once.
                if self.problems.insert(problem, error.to_string()).is_none() {
                    tracing::error!(interface = %device.name, %error, "interface is not guarded");
                }
                self.attached.remove(&device.ifindex);
                self.left_over.insert(LeftOver::Unguarded);
                false
            }
        }
    }

    fn tell_blind(&mut self, interface: &str, error: &HostError) {
        let subject = Trouble::Programs(interface.into());
        if self.problems.insert(subject, error.to_string()).is_none() {
            tracing::warn!(interface, %error, "whether the guard stands is not known");
        }
    }

    /// Looks at the interfaces and puts all programs in place.
    async fn look(&mut self, in_place: &InPlace, touched: &Interfaces) -> Result<(), HostError> {
        let devices = if self.selection.needs_routes() {
            self.netlink.devices().await?
        } else {
            self.netlink.devices_without_routes().await?
        };
        self.programs.keep_pinned()?;
        self.programs.begin_look();
        self.bits.adopt(&in_place.ifaces, &self.links.links);
        self.left_over.clear();
        let roles = self.selection.roles(&devices);
        self.tell_about(&devices, &roles, &in_place.owned);
        let there = |ifindex: &u32| roles.roles.contains_key(ifindex);
        self.attached.retain(|ifindex, _| there(ifindex));
        self.suspects.retain(there);
        let names: BTreeSet<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        self.problems.retain(|subject, _| subject.interface().is_none_or(|name| names.contains(name)));
        let primary = self.attach_all(&devices, &roles, touched).await?;
        self.links.answer = BTreeMap::new();
        for (index, (vip, _)) in self.selection.vips.iter().enumerate() {
            let chosen = |link: &&Link| {
                let role = roles.roles.get(&link.port.ifindex);
                link.answers() && role.is_some_and(|role| role.answers.contains(&index))
            };
            let mask = primary.iter().filter(chosen).fold(0, |mask, link| mask | 1 << link.bit);
            let stray = roles.strays.contains(vip);
            self.links.answer.insert(*vip, if stray { 0 } else { mask });
        }
        self.links.strays.clone_from(&roles.strays);
        let (links, left_out) = fit(ports(&devices, &roles, primary), MAX_IFACES as usize);
        self.links.links = links;
        self.tell_left_out(&devices, &left_out);
        self.detach_rest(&devices, &roles, in_place)?;
        // Another version goes silent here, so a program of it that could not be replaced has no fence.
        for old in std::mem::take(&mut self.retiring) {
            if let Err(error) = carry::retire(&old) {
                self.retiring.push(old);
                return Err(error.into());
            }
        }
        self.looked = true;
        if self.left_over.contains(&LeftOver::Unfinished) {
            self.netlink.touched.again();
        }
        Ok(())
    }

    /// Reports which interfaces are not used, and which VIPs another program has put on interfaces.
    fn tell_about(&mut self, devices: &[Device], roles: &Roles, owned: &BTreeSet<HostAddr>) {
        let refused = roles.refused.iter();
        let refused = refused.map(|(name, why)| (Trouble::Selection(name.clone()), why.clone()));
        let is_one = |known: &Trouble| matches!(known, Trouble::Selection(_));
        self.tell("not answering there", is_one, refused.collect());
        let ours = |vip, ifindex| owned.contains(&HostAddr { ip: Ip::from(vip), ifindex });
        let carried = self.selection.carried_by_others(devices, roles, ours);
        let carried = carried.into_iter().map(|(vip, why)| (Trouble::Address(vip), why));
        let is_one = |known: &Trouble| matches!(known, Trouble::Address(_));
        self.tell("carried by another program", is_one, carried.collect());
    }

    /// Detaches the programs of interfaces without a role. If one carries a VIP of ours, its guard
    /// stays until the address is gone. Otherwise the stack would answer for the VIP, whichever node
    /// holds it. The loop may put an address on an interface that has had a role so far. So the
    /// programs of such an interface also stay until the next look.
    fn detach_rest(
        &mut self,
        devices: &[Device],
        roles: &Roles,
        in_place: &InPlace,
    ) -> Result<(), HostError> {
        let owned = in_place.owned.iter().filter(|addr| !IpAddr::from(addr.ip).is_multicast());
        let carrying: BTreeSet<u32> = owned.map(|addr| addr.ifindex).collect();
        let has_role = |device: &Device| roles.roles.contains_key(&device.ifindex);
        let in_use = |ifindex| carrying.contains(&ifindex) || in_place.in_use.contains(&ifindex);
        let leaving =
            |device: &Device| device.ifindex != LOOPBACK && !has_role(device) && in_use(device.ifindex);
        let kept = devices.iter().filter(|device| has_role(device));
        let kept = kept.map(|device| (device.name.as_str(), device.ifindex)).collect();
        let leaving = devices.iter().filter(|device| leaving(device));
        let leaving: BTreeSet<u32> = leaving.map(|device| device.ifindex).collect();
        if !leaving.is_empty() {
            self.left_over.insert(LeftOver::Leaving);
        }
        // Suspect interfaces keep their pins as well. They were put off or could not be looked at, and
        // their pins may still have an old name.
        let spared = leaving.into_iter().chain(self.suspects.iter().copied()).collect();
        Ok(self.programs.detach_all_but(&kept, &spared)?)
    }

    fn tell_left_out(&mut self, devices: &[Device], left_out: &[Port]) {
        if left_out.is_empty() {
            self.problems.remove(&Trouble::Room);
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
        if self.problems.insert(Trouble::Room, why.clone()).is_none() {
            tracing::warn!(%why, "the map of interfaces is full");
        }
    }
}

fn problem_of(device: &Device) -> Trouble {
    Trouble::Interface(device.name.clone())
}

fn links_of(ifindex: u32, known: &(String, Attached)) -> impl Iterator<Item = LinkPin> {
    let (interface, attached) = known.clone();
    attached.kinds().map(move |kind| LinkPin { interface: interface.clone(), ifindex, kind })
}
