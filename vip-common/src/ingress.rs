//! Incoming frames. Questions for VIPs are answered, dropped or passed. Claims by others are
//! counted, reported and passed. Two settings drop more: `on_loss: drop` drops traffic to a VIP
//! that is not held, `guard_neighbours` drops claims that contradict the Lease.

use crate::{
    arp::arp,
    env::{Env, Frame, Verdict},
    layer3::layer3,
    nd::icmp6,
    traffic::traffic,
    wire::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
};

/// Decides about an incoming frame. With [`Verdict::Reply`] the frame has become the answer.
#[inline(always)]
pub fn ingress<F: Frame, E: Env>(frame: &mut F, env: &E) -> Verdict {
    let Some(l3) = layer3(frame) else {
        return Verdict::Pass;
    };
    // `?` on a verdict is the control flow: a step that knows the outcome returns it as `Err`.
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
