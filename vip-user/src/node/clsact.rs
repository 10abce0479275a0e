//! TC filters on kernels without tcx (before 6.6). They are in the clsact qdisc under a fixed priority.
//! Each instance has its own handles, so that a restart finds and replaces its own filters.
//!
//! The kernel runs the filters of a priority in turn, the newest first (`cls_bpf_change`), until one
//! decides. If another program attaches a filter in front of ours, ours is not changed in place. A new
//! one is attached, and then the old one is removed.

use super::{
    bpf::errno,
    netlink::{Netlink, NetlinkError},
    pins::LinkKind,
};
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{self, TcAttribute, TcFilterBpfOption, TcMessage, TcOption},
};

/// The priority that runs before all others.
pub const PRIORITY: u16 = 1;
/// The first handle of the instance `default`.
const DEFAULT_HANDLE: u16 = 0x7868;

/// The handles of an instance among the filters of that priority: one is in use, the other is free for
/// the successor. Two names can give the same handles: see [`twin`].
pub fn handles(instance: &str) -> [u16; 2] {
    // FNV-1a, folded. The numbers must stay the same when a library changes its version.
    let hash = instance
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let even = ((hash ^ hash >> 16) as u16) & !1;
    let first = if instance == "default" { DEFAULT_HANDLE } else { even.max(2) };
    [first, first + 1]
}

/// Another instance of this host that has the same handles, if there is one.
pub fn twin<'a>(instance: &str, others: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let same = |other: &&str| *other != instance && handles(other) == handles(instance);
    others.into_iter().find(same)
}

/// Attaches a filter before all others of its priority, and removes our earlier one.
pub fn attach(
    classifier: &mut SchedClassifier,
    interface: &str,
    kind: LinkKind,
    instance: &str,
) -> Result<(), ProgramError> {
    // The qdisc may exist already. If it is missing, attaching fails.
    let _ = qdisc_add_clsact(interface);
    let mut at = |handle| {
        let handle = TcHandle::new(0, handle);
        let options = NlOptions { priority: PRIORITY, handle, ..NlOptions::default() };
        let options = TcAttachOptions::Netlink(options);
        classifier.attach_with_options(interface, direction(kind), options)
    };
    let is_taken = |error: &ProgramError| errno(error) == Some(libc::EEXIST);
    let [one, other] = handles(instance);
    let (attached, old) = match at(one) {
        Err(error) if is_taken(&error) => match at(other) {
            // An earlier process ended between the two steps. The filter that stays guards in the
            // meantime.
            Err(error) if is_taken(&error) => {
                remove(interface, kind, one);
                (at(one), other)
            }
            attached => (attached, one),
        },
        attached => (attached, other),
    };
    // The filter must outlive the process; dropping the link would remove it.
    std::mem::forget(classifier.take_link(attached?)?);
    remove(interface, kind, old);
    Ok(())
}

/// Removes the filters of an instance, if there are any.
pub fn detach(interface: &str, kind: LinkKind, instance: &str) {
    for handle in handles(instance) {
        remove(interface, kind, handle);
    }
}

/// A filter of our priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its handle.
    pub handle: u32,
    /// The id of its program; `None` if it is not a BPF filter.
    pub program: Option<u32>,
}

impl Filter {
    fn of(message: &TcMessage) -> Self {
        let options = message.attributes.iter().filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        let program = options.flatten().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        });
        Self { handle: u32::from(message.header.handle), program }
    }
}

impl Netlink {
    /// The filters of our priority in the clsact qdisc of an interface, in the order in which they run.
    pub async fn first_filters(&self, ifindex: u32, egress: bool) -> Result<Vec<Filter>, NetlinkError> {
        let filters = match self.filters(ifindex, egress).await {
            // Without the qdisc there are no filters, and the kernel returns an error.
            Err(NetlinkError::Refused { .. }) => return Ok(Vec::new()),
            filters => filters?,
        };
        // Filters in other chains run only if a filter of the first chain refers to them.
        let first_chain = |filter: &TcMessage| {
            !filter.attributes.iter().any(|one| matches!(one, TcAttribute::Chain(chain) if *chain != 0))
        };
        let ours = |filter: &&TcMessage| {
            filter.header.info >> 16 == u32::from(PRIORITY) && first_chain(filter)
        };
        // The kernel also sends one message without a handle for each priority.
        let filters = filters.iter().filter(ours).map(Filter::of);
        Ok(filters.filter(|filter| filter.handle != 0).collect())
    }

    /// Removes a clsact qdisc that has no filters. Returns whether it was removed.
    pub async fn remove_empty_clsact(&self, ifindex: u32) -> bool {
        for egress in [true, false] {
            if self.filters(ifindex, egress).await.is_ok_and(|filters| !filters.is_empty()) {
                return false;
            }
        }
        let mut message = TcMessage::default();
        message.header.index = ifindex.cast_signed();
        message.header.parent = tc::TcHandle::CLSACT;
        let message = RouteNetlinkMessage::DelQueueDiscipline(message);
        self.requests.change("remove a clsact qdisc", message, 0).await.is_ok()
    }

    async fn filters(&self, ifindex: u32, egress: bool) -> Result<Vec<TcMessage>, NetlinkError> {
        let mut message = TcMessage::default();
        message.header.index = ifindex.cast_signed();
        let minor = if egress { tc::TcHandle::MIN_EGRESS } else { tc::TcHandle::MIN_INGRESS };
        message.header.parent = tc::TcHandle { major: 0xffff, minor };
        let pick = |found| match found {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
            _ => None,
        };
        let message = RouteNetlinkMessage::GetTrafficFilter(message);
        self.requests.dump("list filters", message, pick).await
    }
}

fn remove(interface: &str, kind: LinkKind, handle: u16) {
    let handle = TcHandle::new(0, handle);
    // Dropping such a link removes its filter.
    drop(SchedClassifierLink::attached(interface, direction(kind), PRIORITY, handle, None));
}

fn direction(kind: LinkKind) -> TcAttachType {
    if kind.is_guard() { TcAttachType::Egress } else { TcAttachType::Ingress }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_handles_of_their_own() {
        assert_eq!(handles("default"), [0x7868, 0x7869], "0x7869 was everybody's in versions before");
        assert_ne!(handles("default"), handles("lab"));
        let names: Vec<String> = (0..100_000).map(|n| format!("i{n}")).collect();
        for name in &names {
            let [one, other] = handles(name);
            assert!(one > 0 && one % 2 == 0 && other == one + 1, "{name}");
        }
        let names = names.iter().map(String::as_str);
        let twin = twin("i0", names.clone()).expect("one of so many");
        assert_eq!(handles(twin), handles("i0"));
        assert_eq!(super::twin("i0", ["i0", "i1"]), None);
    }
}
