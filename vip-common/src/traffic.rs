//! IP packets to a VIP that this host does not hold.

use crate::{
    abi::Ip,
    counter::Counter,
    env::{Env, Frame, Verdict},
    layer3::Layer3,
    standing::{reject, silence},
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip6},
};
use core::mem::offset_of;

/// Drops packets to a VIP that this node does not hold, as RFC 9568 section 6.4.2 requires of a
/// backup. A client that still sends to this node gets no answer from it.
#[inline(always)]
pub(crate) fn traffic<F: Frame, E: Env>(frame: &F, env: &E, l3: Layer3) -> Verdict {
    let destination = match l3.ethertype {
        ETHERTYPE_IPV4 => l3.get(frame, 16).map(Ip::v4),
        ETHERTYPE_IPV6 => l3.get(frame, offset_of!(Ip6, dst)).map(Ip::v6),
        _ => None,
    };
    let Some(vip) = destination.and_then(|ip| env.vip(&ip)) else {
        return Verdict::Pass;
    };
    let guarded = env.iface(l3.outer_vid, l3.inner_vid).is_some_and(|iface| vip.guarded_on(iface.bit));
    if !guarded || silence(env, &vip).is_none() {
        return Verdict::Pass;
    }
    reject(env, Counter::TrafficDropped)
}
