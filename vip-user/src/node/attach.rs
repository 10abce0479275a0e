//! Attaches the programs. Links are pinned, so they outlive the process. They are replaced atomically,
//! so that a restart or an upgrade loses no frame.

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

/// What the kernel reports about one link.
#[derive(Debug)]
pub enum Seen {
    /// The pin or the interface is gone.
    Nothing,
    /// The links at TC egress with their programs, in the order in which they run.
    Egress(Vec<(u32, u32)>),
    /// What the link is attached to.
    Link(bpf::LinkInfo),
}

/// A link, and what the kernel has reported about it.
pub type Inspected = (LinkPin, io::Result<Seen>);

/// Asks the kernel about a link. This may wait for RTNL, the kernel's lock on all interfaces, which
/// other processes can hold for seconds.
pub fn see(pins: &Pins, pin: LinkPin) -> io::Result<Seen> {
    let path = pins.link(&pin);
    let seen = match pin.kind {
        // The query needs no descriptor of the link.
        LinkKind::Guard if path.try_exists()? => bpf::egress_links(pin.ifindex).map(Seen::Egress),
        // Filters of clsact are not links. They are read by netlink.
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
    /// Begins a look at the interfaces: lists of pins from the last look are forgotten.
    pub fn begin_look(&mut self) {
        self.known.pins = None;
        self.known.everyones = None;
    }

    /// Attaches the egress guard as the first program, or replaces the guard that is there.
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

    /// Whether a pinned link is still attached to this interface with our program. The guard must also
    /// be the first program at TC egress. clsact has no links: see [`is_foremost`](Self::is_foremost).
    ///
    /// # Errors
    /// If the kernel cannot be asked. That says nothing about the link.
    pub fn is_intact(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> io::Result<bool> {
        if kind.is_clsact() {
            return Ok(true);
        }
        let seen = see(&self.pins, LinkPin { interface: interface.into(), ifindex, kind })?;
        self.judge(ifindex, kind, &seen)
    }

    /// The same as [`is_intact`](Self::is_intact), from what was already [seen](see).
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn judge(&mut self, ifindex: u32, kind: LinkKind, seen: &Seen) -> io::Result<bool> {
        match seen {
            Seen::Nothing => Ok(false),
            Seen::Egress(links) => self.is_first(ifindex, links),
            Seen::Link(info) => {
                Ok(info.ifindex == ifindex && Some(&info.program) == self.ids.get(kind.program()))
            }
        }
    }

    /// The pin directory.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Whether our guard is attached and only guards of other instances run before it. Those are
    /// harmless: a guard never sends a frame around the programs behind it.
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

    /// Whether our filter of this kind is attached, and runs before all filters except those of other
    /// instances.
    ///
    /// # Errors
    /// If the pins of other instances cannot be read.
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

    /// The pins of this instance for which `meant` is true.
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

    /// Attaches the answering program at the first of these hooks that accepts it. Returns the kind of
    /// link, and why each earlier hook refused.
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

    /// Renames the pins of a renamed interface, because their links are still attached to it.
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

    /// Detaches the answering programs of an interface that is only guarded from now on.
    pub fn detach_answering(&mut self, interface: &str) -> Result<()> {
        let answers = |pin: &LinkPin| pin.interface == interface && !pin.kind.is_guard();
        for pin in self.pinned_links(answers) {
            self.detach(&pin)?;
        }
        Ok(())
    }

    /// Removes the pins of all interfaces other than these (name and index), which are gone, were
    /// created again, or are not configured any more. The pins of the `spared` interfaces stay,
    /// whatever name is in them.
    pub fn detach_all_but(
        &mut self,
        kept: &BTreeSet<(&str, u32)>,
        spared: &BTreeSet<u32>,
    ) -> Result<()> {
        let left = |pin: &LinkPin| {
            !kept.contains(&(pin.interface.as_str(), pin.ifindex)) && !spared.contains(&pin.ifindex)
        };
        // One pin that cannot be removed must not keep the others.
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
                    // Dropping the taken link only closes a descriptor; the pin keeps the link.
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
            // tcx exists since 6.6. Older kernels return EINVAL.
            Err(error) if errno(&error) == Some(libc::EINVAL) => {
                self.tcx = false;
                return self.attach_clsact(interface, ifindex, kind);
            }
            Err(error) => return Err(failed(describe(&error))),
        }
        Ok(kind)
    }

    /// Attaches a filter of clsact, which outlives the process without a pin. The pin of its program
    /// only records it.
    fn attach_clsact(&mut self, interface: &str, ifindex: u32, kind: LinkKind) -> Result<LinkKind> {
        let kind = kind.on_clsact();
        let pin = LinkPin { interface: interface.into(), ifindex, kind };
        let path = self.pins.link(&pin);
        let failed =
            |why: String| AttachError::Attach { kind: kind.name(), interface: interface.into(), why };
        let instance = self.pins.instance().to_owned();
        let others = self.pins.other_instances();
        let twin = clsact::twin(&instance, others.iter().map(Pins::instance));
        // If this instance already has a filter there, that filter may still be replaced.
        if let Some(twin) = twin.filter(|_| !path.exists()) {
            let why = "on a kernel before 6.6 their filters have the same handles; choose another";
            return Err(failed(format!(
                "the instances {instance} and {twin} exclude each other: {why}"
            )));
        }
        let classifier = self.classifier(kind.program())?;
        clsact::attach(classifier, interface, kind, &instance)
            .map_err(|error| failed(describe(&error)))?;
        // Until here the pin belongs to the filter that was there before.
        self.pins.remove(&path)?;
        let classifier = self.classifier(kind.program())?;
        // One program serves several interfaces, but aya pins it only once.
        let program = classifier.fd().map_err(|error| failed(describe(&error)))?;
        bpf::pin(&path, program.as_fd()).map_err(|error| failed(error.to_string()))?;
        self.note_pin(pin);
        Ok(kind)
    }
}

/// Detaches the link or filter of a pin, and removes the pin.
pub fn detach(pins: &Pins, pin: &LinkPin) -> std::result::Result<(), PinsError> {
    // An interface that was created again under the same name has another filter.
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

/// Whether the interface of the link is gone: then `bpf_link_update` returns ENOLINK.
fn is_dead_link(error: &ProgramError) -> bool {
    errno(error) == Some(libc::ENOLINK)
}
