//! Attaching the programs. Links are pinned, so they outlive the process, and replaced atomically, so
//! that a restart or an upgrade loses no frame.

use super::{
    bpf::{self, describe, errno},
    clsact, host,
    pins::{LinkKind, LinkPin, Pins, PinsError},
    programs::{AttachError, Programs, Result},
};
use crate::model::hooks::{Hook, Hooks};
use aya::programs::{
    LinkOrder, ProgramError, ProgramInfo, TcAttachType, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    tc::TcAttachOptions,
};
use std::{collections::BTreeSet, fs, io, os::fd::AsFd as _, path::Path};

/// What the kernel says of one link.
#[derive(Debug)]
pub enum Seen {
    /// The pin or the interface is gone.
    Nothing,
    /// Links at TC egress with their programs, in order.
    Egress(Vec<(u32, u32)>),
    /// The link.
    Link(bpf::LinkInfo),
}

/// A link, and what was seen of it.
pub type Inspected = (LinkPin, io::Result<Seen>);

/// Asks the kernel about a link. It may wait for RTNL, its lock of all interfaces, which others hold
/// for seconds.
pub fn see(pins: &Pins, pin: LinkPin) -> io::Result<Seen> {
    let path = pins.link(&pin);
    let seen = match pin.kind {
        // No descriptor is needed for that.
        LinkKind::Guard if path.try_exists()? => bpf::egress_links(pin.ifindex).map(Seen::Egress),
        // Filters of clsact are asked for by netlink.
        kind if kind.is_guard() || kind.is_clsact() => return Ok(Seen::Nothing),
        _ => bpf::link_info(&path).map(Seen::Link),
    };
    match seen {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => {
            Ok(Seen::Nothing)
        }
        seen => seen,
    }
}

impl Programs {
    /// Begins a look at the interfaces: what is pinned is listed again where it matters.
    pub fn begin_look(&mut self) {
        self.known.pins = None;
        self.known.everyones = None;
    }

    /// Attaches the egress guard as the first program, or replaces the one that is there.
    pub fn attach_guard(&mut self, interface: &str, ifindex: u32) -> Result<LinkKind> {
        let kind = self.attach_tc(interface, ifindex, LinkKind::Guard)?;
        if kind.is_clsact() {
            return Ok(kind);
        }
        let path = self.pins.link(&LinkPin { interface: interface.into(), ifindex, kind });
        let failed = |error: io::Error| AttachError::Attach {
            kind: kind.name(),
            interface: interface.into(),
            why: error.to_string(),
        };
        self.known.guards.insert(ifindex, bpf::link_info(&path).map_err(failed)?.id);
        if self.is_intact(interface, ifindex, kind).map_err(failed)? {
            Ok(kind)
        } else {
            Err(AttachError::NotFirst { interface: interface.into() })
        }
    }

    /// Whether a pinned link still is what was attached, to this interface and with our program. The
    /// guard must also be the first program at TC egress. clsact has no links to look at: see
    /// [`is_foremost`](Self::is_foremost).
    ///
    /// # Errors
    /// If that cannot be found out, which says nothing about the link.
    pub fn is_intact(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> io::Result<bool> {
        if kind.is_clsact() {
            return Ok(true);
        }
        let seen = see(&self.pins, LinkPin { interface: interface.into(), ifindex, kind })?;
        self.judge(ifindex, kind, &seen)
    }

    /// The same, of what was [seen](see).
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn judge(&mut self, ifindex: u32, kind: LinkKind, seen: &Seen) -> io::Result<bool> {
        match seen {
            Seen::Nothing => Ok(false),
            Seen::Egress(links) => self.is_first(ifindex, links),
            Seen::Link(info) => {
                Ok(info.ifindex == ifindex && Some(&info.program) == self.ids.get(kind.program()))
            }
        }
    }

    /// Where things are pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Only guards of xvip, of whichever instance, stand before ours: a guard never lets a frame
    /// around the ones behind it.
    fn is_first(&mut self, ifindex: u32, links: &[(u32, u32)]) -> io::Result<bool> {
        let (ours, program) = (self.known.guards.get(&ifindex), self.ids.get("xvip_egress"));
        let Some(place) = links.iter().position(|(link, _)| Some(link) == ours) else {
            return Ok(false);
        };
        if Some(&links[place].1) != program {
            return Ok(false);
        }
        for (link, _) in &links[..place] {
            if !self.is_anothers_guard(*link, ifindex)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether our filter of this kind runs, before all filters but those of other instances.
    ///
    /// # Errors
    /// If what others have pinned cannot be looked at.
    pub fn is_foremost(
        &self,
        ifindex: u32,
        kind: LinkKind,
        filters: &[clsact::Filter],
    ) -> io::Result<bool> {
        let ours = self.ids.get(kind.program());
        let place = filters.iter().position(|filter| filter.program.as_ref() == ours);
        let Some(place) = place.filter(|_| ours.is_some()) else { return Ok(false) };
        if place == 0 {
            return Ok(true);
        }
        let mut others = BTreeSet::new();
        let everyones = self.pins.everyones(kind).into_iter();
        for (_, path) in everyones.filter(|(there, _)| *there == ifindex) {
            match ProgramInfo::from_pin(&path) {
                Ok(info) => drop(others.insert(info.id())),
                Err(error) if errno(&error) == Some(libc::ENOENT) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(filters[..place].iter().all(|filter| filter.program.is_some_and(|id| others.contains(&id))))
    }

    /// Whether a link is the pinned guard of another instance on the same interface.
    fn is_anothers_guard(&mut self, link: u32, ifindex: u32) -> io::Result<bool> {
        if self.known.others.contains(&link) {
            return Ok(true);
        }
        let everyones =
            self.known.everyones.get_or_insert_with(|| self.pins.everyones(LinkKind::Guard));
        for (_, path) in everyones.iter().filter(|(there, _)| *there == ifindex) {
            match bpf::link_info(path) {
                Ok(info) if info.id == link => {
                    self.known.others.insert(link);
                    return Ok(true);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Pins of ours that are meant.
    fn pinned_links(&mut self, meant: impl Fn(&LinkPin) -> bool) -> Vec<LinkPin> {
        let pins = self.known.pins.get_or_insert_with(|| self.pins.links().into_iter().collect());
        pins.iter().filter(|pin| meant(pin)).cloned().collect()
    }

    fn detach(&mut self, pin: &LinkPin) -> Result<()> {
        detach(&self.pins, pin)?;
        if let Some(pins) = &mut self.known.pins {
            pins.remove(pin);
        }
        Ok(())
    }

    fn note_pin(&mut self, pin: LinkPin) {
        if let Some(pins) = &mut self.known.pins {
            pins.insert(pin);
        }
    }

    /// Attaches what answers at the first of these hooks that takes it. Says what is in force and why
    /// each hook before it refused.
    pub fn attach_ingress(
        &mut self,
        interface: &str,
        ifindex: u32,
        hooks: &Hooks,
    ) -> Result<(LinkKind, Vec<String>)> {
        let mut refused = Vec::new();
        let kind = hooks.0.iter().find_map(|hook| {
            let attached = match hook {
                Hook::Native => self.attach_xdp(interface, ifindex, LinkKind::Native),
                Hook::Tc => self.attach_tc(interface, ifindex, LinkKind::TcIngress),
                Hook::Generic => self.attach_xdp(interface, ifindex, LinkKind::Generic),
            };
            attached.map_err(|error| refused.push(error.to_string())).ok()
        });
        let Some(kind) = kind else {
            return Err(AttachError::NoHook { interface: interface.into(), why: refused.join("; ") });
        };
        let before =
            |pin: &LinkPin| pin.interface == interface && pin.kind != kind && !pin.kind.is_guard();
        for pin in self.pinned_links(before) {
            self.detach(&pin)?;
        }
        Ok((kind, refused))
    }

    /// Gives the pins of a renamed interface its new name: their links are still attached to it.
    pub fn follow_rename(&mut self, interface: &str, ifindex: u32) -> Result<()> {
        let renamed = |pin: &LinkPin| pin.ifindex == ifindex && pin.interface != interface;
        for pin in self.pinned_links(renamed) {
            let from = self.pins.link(&pin);
            let attached = bpf::link_info(&from).is_ok_and(|info| info.ifindex == ifindex);
            if !attached && !pin.kind.is_clsact() {
                continue;
            }
            tracing::info!(interface, formerly = %pin.interface, "the interface was renamed");
            let new = LinkPin { interface: interface.into(), ..pin };
            let renamed = fs::rename(&from, self.pins.link(&new));
            renamed.map_err(|source| PinsError::Io { what: "rename", path: from, source })?;
            self.begin_look();
        }
        Ok(())
    }

    /// Detaches what answers on an interface that is only guarded from now on.
    pub fn detach_answering(&mut self, interface: &str) -> Result<()> {
        let answers = |pin: &LinkPin| pin.interface == interface && !pin.kind.is_guard();
        for pin in self.pinned_links(answers) {
            self.detach(&pin)?;
        }
        Ok(())
    }

    /// Removes what is pinned for interfaces other than these (name and index): they are gone, were
    /// made anew, or are not configured any more. What is on the `spared` ones stays, whatever their
    /// name was.
    pub fn detach_all_but(
        &mut self,
        kept: &BTreeSet<(&str, u32)>,
        spared: &BTreeSet<u32>,
    ) -> Result<()> {
        let left = |pin: &LinkPin| {
            !kept.contains(&(pin.interface.as_str(), pin.ifindex)) && !spared.contains(&pin.ifindex)
        };
        // One that stays must not keep the others.
        let mut failed = Ok(());
        for pin in self.pinned_links(left) {
            match self.detach(&pin) {
                Ok(()) => {
                    let (ifindex, kind) = (pin.ifindex, pin.kind.name());
                    tracing::info!(interface = %pin.interface, ifindex, kind, "detached");
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        let there = kept.iter().map(|(_, ifindex)| *ifindex).chain(spared.iter().copied());
        let there: BTreeSet<u32> = there.collect();
        self.known.guards.retain(|ifindex, _| there.contains(ifindex));
        failed
    }

    fn attach_xdp(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> Result<LinkKind> {
        let program = self.load_xdp()?;
        let pin = LinkPin { interface: interface.into(), ifindex, kind };
        let path = self.pins.link(&pin);
        let mode = if kind == LinkKind::Native { XdpMode::Driver } else { XdpMode::Skb };
        let failed =
            |why: String| AttachError::Attach { kind: kind.name(), interface: interface.into(), why };
        let xdp = self.xdp(program)?;
        if let Some(old) = pinned(&path).map_err(&failed)? {
            let link = old.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
            match xdp.attach_to_link(link) {
                Ok(id) => {
                    // Dropping the taken link closes a descriptor; the pin keeps the link.
                    drop(xdp.take_link(id));
                    return Ok(kind);
                }
                Err(error) if is_dead_link(&error) => {}
                Err(error) => return Err(failed(describe(&error))),
            }
        }
        self.pins.remove(&path)?;
        let xdp = self.xdp(program)?;
        let id = xdp.attach_to_if_index(ifindex, mode).map_err(|error| failed(describe(&error)))?;
        let link = xdp.take_link(id).map_err(|error| failed(describe(&error)))?;
        let link: FdLink = link.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
        link.pin(&path).map_err(|error| failed(error.to_string()))?;
        self.note_pin(pin);
        Ok(kind)
    }

    fn attach_tc(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> Result<LinkKind> {
        if !self.tcx {
            return self.attach_clsact(interface, ifindex, kind);
        }
        let program = kind.program();
        let direction = if kind.is_guard() { TcAttachType::Egress } else { TcAttachType::Ingress };
        let pin = LinkPin { interface: interface.into(), ifindex, kind };
        let path = self.pins.link(&pin);
        let failed =
            |why: String| AttachError::Attach { kind: kind.name(), interface: interface.into(), why };
        let classifier = self.classifier(program)?;
        if let Some(old) = pinned(&path).map_err(&failed)? {
            let link = old.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
            match classifier.attach_to_link(link) {
                Ok(id) => {
                    drop(classifier.take_link(id));
                    return Ok(kind);
                }
                Err(error) if is_dead_link(&error) => {}
                Err(error) => return Err(failed(describe(&error))),
            }
        }
        self.pins.remove(&path)?;
        let classifier = self.classifier(program)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match classifier.attach_with_options(interface, direction, order) {
            Ok(id) => {
                let link = classifier.take_link(id).map_err(|error| failed(describe(&error)))?;
                let link: FdLink =
                    link.try_into().map_err(|error: LinkError| failed(error.to_string()))?;
                link.pin(&path).map_err(|error| failed(error.to_string()))?;
                self.note_pin(pin);
            }
            // tcx came with 6.6; before that, EINVAL.
            Err(error) if errno(&error) == Some(libc::EINVAL) => {
                self.tcx = false;
                return self.attach_clsact(interface, ifindex, kind);
            }
            Err(error) => return Err(failed(describe(&error))),
        }
        Ok(kind)
    }

    /// A filter of clsact outlives the process by itself; its program is pinned as a note of it.
    fn attach_clsact(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> Result<LinkKind> {
        let kind = kind.on_clsact();
        let pin = LinkPin { interface: interface.into(), ifindex, kind };
        let path = self.pins.link(&pin);
        let failed =
            |why: String| AttachError::Attach { kind: kind.name(), interface: interface.into(), why };
        let instance = self.pins.instance().to_owned();
        let others = self.pins.other_instances();
        let twin = clsact::twin(&instance, others.iter().map(Pins::instance));
        // The one that stands there already goes on.
        if let Some(twin) = twin.filter(|_| !path.exists()) {
            let why = "on a kernel before 6.6 their filters have the same handles; choose another";
            return Err(failed(format!(
                "the instances {instance} and {twin} exclude each other: {why}"
            )));
        }
        let classifier = self.classifier(kind.program())?;
        clsact::attach(classifier, interface, kind, &instance)
            .map_err(|error| failed(describe(&error)))?;
        // Until here the note is of the filter that was there before.
        self.pins.remove(&path)?;
        let classifier = self.classifier(kind.program())?;
        // One program serves several interfaces; aya pins it only once.
        let program = classifier.fd().map_err(|error| failed(describe(&error)))?;
        bpf::pin(&path, program.as_fd()).map_err(|error| failed(error.to_string()))?;
        self.note_pin(pin);
        Ok(kind)
    }
}

/// Detaches what a pin stands for, and removes it.
pub fn detach(pins: &Pins, pin: &LinkPin) -> std::result::Result<(), PinsError> {
    // An interface that was made again under the same name has a filter of its own.
    if pin.kind.is_clsact() && host::interface_index(&pin.interface) == Some(pin.ifindex) {
        clsact::detach(&pin.interface, pin.kind, pins.instance());
    }
    pins.remove(&pins.link(pin))
}

fn pinned(path: &Path) -> std::result::Result<Option<FdLink>, String> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The interface of the link is gone: `bpf_link_update` says ENOLINK.
fn is_dead_link(error: &ProgramError) -> bool {
    errno(error) == Some(libc::ENOLINK)
}
