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
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};

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
        let filters = match self.filters(ifindex, egress).await {
            // Without the qdisc there are no filters either, and the kernel says so with an error.
            Err(NetlinkError::Refused { .. }) => return Ok(false),
            filters => filters?,
        };
        Ok(filters.iter().any(|filter| {
            filter.header.info >> 16 == u32::from(PRIORITY) && u32::from(filter.header.handle) == HANDLE
        }))
    }

    /// Removes a clsact qdisc that has no filters any more. Says whether it did.
    pub async fn remove_empty_clsact(&self, ifindex: u32) -> bool {
        for egress in [true, false] {
            if self.filters(ifindex, egress).await.is_ok_and(|filters| !filters.is_empty()) {
                return false;
            }
        }
        let mut message = TcMessage::default();
        message.header.index = ifindex.cast_signed();
        message.header.parent = TcHandle::CLSACT;
        let message = RouteNetlinkMessage::DelQueueDiscipline(message);
        self.requests.change("remove a clsact qdisc", message, 0).await.is_ok()
    }

    async fn filters(&self, ifindex: u32, egress: bool) -> Result<Vec<TcMessage>, NetlinkError> {
        let mut message = TcMessage::default();
        message.header.index = ifindex.cast_signed();
        let minor = if egress { TcHandle::MIN_EGRESS } else { TcHandle::MIN_INGRESS };
        message.header.parent = TcHandle { major: 0xffff, minor };
        let pick = |found| match found {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
            _ => None,
        };
        let message = RouteNetlinkMessage::GetTrafficFilter(message);
        self.requests.dump("list filters", message, pick).await
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
