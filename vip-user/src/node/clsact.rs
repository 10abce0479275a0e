//! TC filters on kernels without tcx (before 6.6). They live in the clsact qdisc under a fixed priority
//! and handle, so that a restart finds and replaces them.

use super::{
    netlink::{Netlink, NetlinkError},
    pins::LinkKind,
};
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact},
};
use futures::TryStreamExt as _;
use rtnetlink::packet_route::tc::TcHandle;

/// Runs before everything else.
pub const PRIORITY: u16 = 1;
/// Ours, among filters of that priority.
pub const HANDLE: u32 = 0x7869;

/// Attaches a filter, or replaces the one that is there.
pub fn attach(
    classifier: &mut SchedClassifier,
    interface: &str,
    kind: LinkKind,
) -> Result<(), ProgramError> {
    // It may be there already: the attachment tells.
    let _ = qdisc_add_clsact(interface);
    let options = NlOptions {
        priority: PRIORITY,
        handle: aya::programs::tc::TcHandle::new(0, HANDLE as u16),
        ..NlOptions::default()
    };
    let id = classifier
        .attach_with_options(interface, direction(kind), TcAttachOptions::Netlink(options))
        .or_else(|_| classifier.attach_to_link(filter(interface, kind)?))?;
    // The filter must outlive the process; dropping the link would remove it.
    std::mem::forget(classifier.take_link(id)?);
    Ok(())
}

/// Removes a filter. One that is not there is fine.
pub fn detach(interface: &str, kind: LinkKind) {
    // Dropping a link of this sort removes its filter.
    drop(filter(interface, kind));
}

impl Netlink {
    /// Whether our filter is in the clsact qdisc of an interface (kernels before 6.6).
    pub async fn has_filter(&self, ifindex: u32, egress: bool) -> Result<bool, NetlinkError> {
        let filters = self.handle.traffic_filter(ifindex.cast_signed()).get();
        let filters = if egress { filters.egress() } else { filters.ingress() };
        let mut stream = filters.execute();
        // Without the qdisc there are no filters either, and the kernel says so with an error.
        while let Ok(Some(filter)) = stream.try_next().await {
            let priority = filter.header.info >> 16;
            let handle = u32::from(filter.header.handle);
            if priority == u32::from(PRIORITY) && handle == HANDLE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes a clsact qdisc that has no filters any more. Says whether it did.
    pub async fn remove_empty_clsact(&self, ifindex: u32) -> bool {
        let index = ifindex.cast_signed();
        for egress in [true, false] {
            let filters = self.handle.traffic_filter(index).get();
            let filters = if egress { filters.egress() } else { filters.ingress() };
            if matches!(filters.execute().try_next().await, Ok(Some(_))) {
                return false;
            }
        }
        let mut del = self.handle.qdisc().del(index);
        let header = &mut del.message_mut().header;
        header.parent = TcHandle::CLSACT;
        del.execute().await.is_ok()
    }
}

fn filter(interface: &str, kind: LinkKind) -> Result<SchedClassifierLink, ProgramError> {
    let handle = aya::programs::tc::TcHandle::new(0, HANDLE as u16);
    SchedClassifierLink::attached(interface, direction(kind), PRIORITY, handle, None)
        .map_err(ProgramError::from)
}

fn direction(kind: LinkKind) -> TcAttachType {
    if kind.is_guard() { TcAttachType::Egress } else { TcAttachType::Ingress }
}
