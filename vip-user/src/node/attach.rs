//! Attaching the programs. Links are pinned, so they outlive the process, and replaced atomically, so
//! that a restart or an upgrade loses no frame.

use super::{
    bpf, clsact,
    pins::{LinkKind, LinkPin, Pins, PinsError},
    programs::{AttachError, Programs, Result, describe, errno},
};
use crate::config::{Hook, Hooks};
use aya::programs::{
    LinkOrder, ProgramError, TcAttachType, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    tc::TcAttachOptions,
};
use std::{fs, io, os::fd::AsFd as _, path::Path};

impl Programs {
    /// Attaches the egress guard as the first program, or replaces the one that is there.
    pub fn attach_guard(&mut self, interface: &str, ifindex: u32) -> Result<LinkKind> {
        let kind = self.attach_tc(interface, ifindex, LinkKind::Guard)?;
        if kind == LinkKind::Guard && !self.guards_first(ifindex) {
            return Err(AttachError::NotFirst { interface: interface.into() });
        }
        Ok(kind)
    }

    /// Whether a pinned link still is what was attached, to this interface and with our program. The
    /// guard must also be the first program at TC egress. clsact has no links to look at: see
    /// [`Netlink::has_filter`](super::netlink::Netlink::has_filter).
    pub fn is_intact(&self, interface: &str, ifindex: u32, kind: LinkKind) -> bool {
        if kind.is_clsact() {
            return true;
        }
        let pin = LinkPin { interface: interface.into(), ifindex, kind };
        let ours = self.ids.get(kind.program());
        let attached = bpf::link_info(&self.pins.link(&pin))
            .is_ok_and(|info| info.ifindex == ifindex && Some(&info.program) == ours);
        attached && (kind != LinkKind::Guard || self.guards_first(ifindex))
    }

    /// Only guards of xvip, of whichever instance, stand before ours: a guard never lets a frame
    /// around the ones behind it.
    fn guards_first(&self, ifindex: u32) -> bool {
        let guards = self.guards();
        for link in bpf::egress_links(ifindex).unwrap_or_default() {
            match guards.iter().find(|(id, _)| *id == link) {
                Some((_, ours)) if *ours => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    /// Link ids of all guards that are pinned, and whether they are of this instance and version.
    fn guards(&self) -> Vec<(u32, bool)> {
        let pins = self.pins.everyones_guards();
        let guards = pins.into_iter().filter_map(|path| {
            let ours = path.starts_with(self.pins.dir());
            bpf::link_info(&path).ok().map(|info| (info.id, ours))
        });
        guards.collect()
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
        for pin in self.pins.links() {
            if pin.interface == interface && pin.kind != kind && !pin.kind.is_guard() {
                detach(&self.pins, &pin)?;
            }
        }
        Ok((kind, refused))
    }

    /// Gives the pins of a renamed interface its new name: their links are still attached to it.
    pub fn follow_rename(&self, interface: &str, ifindex: u32) -> Result<()> {
        for pin in self.pins.links() {
            if pin.ifindex != ifindex || pin.interface == interface {
                continue;
            }
            let from = self.pins.link(&pin);
            let attached = bpf::link_info(&from).is_ok_and(|info| info.ifindex == ifindex);
            if !attached && !pin.kind.is_clsact() {
                continue;
            }
            tracing::info!(interface, formerly = %pin.interface, "the interface was renamed");
            let to = self.pins.link(&LinkPin { interface: interface.into(), ..pin });
            fs::rename(&from, &to).map_err(|source| PinsError::Io {
                what: "rename",
                path: from,
                source,
            })?;
        }
        Ok(())
    }

    /// Detaches what answers on an interface that is only guarded from now on.
    pub fn detach_answering(&self, interface: &str) -> Result<()> {
        for pin in self.pins.links() {
            if pin.interface == interface && !pin.kind.is_guard() {
                detach(&self.pins, &pin)?;
            }
        }
        Ok(())
    }

    /// Removes what is pinned for interfaces other than these (name and index): they are gone, were
    /// made anew, or are not configured any more.
    pub fn detach_all_but(&self, kept: &[(&str, u32)]) -> Result<()> {
        for pin in self.pins.links() {
            if !kept.contains(&(pin.interface.as_str(), pin.ifindex)) {
                tracing::info!(interface = %pin.interface, ifindex = pin.ifindex, kind = pin.kind.name(), "detached");
                detach(&self.pins, &pin)?;
            }
        }
        Ok(())
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
        let path = self.pins.link(&LinkPin { interface: interface.into(), ifindex, kind });
        let failed =
            |why: String| AttachError::Attach { kind: kind.name(), interface: interface.into(), why };
        self.pins.remove(&path)?;
        let classifier = self.classifier(kind.program())?;
        clsact::attach(classifier, interface, kind).map_err(|error| failed(describe(&error)))?;
        // One program serves several interfaces; aya pins it only once.
        let program = classifier.fd().map_err(|error| failed(describe(&error)))?;
        bpf::pin(&path, program.as_fd()).map_err(|error| failed(error.to_string()))?;
        Ok(kind)
    }
}

/// Detaches what a pin stands for, and removes it.
pub fn detach(pins: &Pins, pin: &LinkPin) -> std::result::Result<(), PinsError> {
    if pin.kind.is_clsact() {
        clsact::detach(&pin.interface, pin.kind);
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
