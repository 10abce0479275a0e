//! Frames that arrive: questions about VIPs are answered, dropped or passed; claims by others are
//! counted, reported and passed. Two settings drop more: traffic to a VIP that is not held, and claims
//! that contradict the Lease.

use crate::{
    arp::arp,
    env::{Env, Frame, Verdict},
    layer3::layer3,
    nd::icmp6,
    traffic::traffic,
    wire::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
};

/// Decides about a frame that has arrived. With [`Verdict::Reply`] the frame has become the answer.
#[inline(always)]
pub fn ingress<F: Frame, E: Env>(frame: &mut F, env: &E) -> Verdict {
    let Some(l3) = layer3(frame) else {
        return Verdict::Pass;
    };
    // `?` on a verdict is the control flow: whoever knows the outcome returns it.
    let outcome = match l3.ethertype {
        ETHERTYPE_ARP => arp(frame, env, l3),
        ETHERTYPE_IPV6 => icmp6(frame, env, l3),
        _ => Err(Verdict::Pass),
    };
    match outcome {
        Ok(answered) => {
            env.count(answered);
            Verdict::Reply
        }
        Err(Verdict::Pass) if env.drops_on_loss() => traffic(frame, env, l3),
        Err(verdict) => verdict,
    }
}
