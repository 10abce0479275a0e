//! Claims of a VIP by other stations.

use crate::{
    abi::{Ip, MAX_STATIONS},
    counter::Counter,
    env::{Env, Frame, Verdict},
    layer3::Layer3,
    standing::reject,
    wire::Eth,
};

/// Counts and reports a frame by which another station claims a managed VIP. Such frames pass,
/// because this host may need them to reach the API. With `guard_neighbours`, and only while this
/// node's view of the Lease is fresh, a claim by a station outside the cluster is dropped.
#[inline(always)]
pub(crate) fn report<F: Frame, E: Env>(
    frame: &F,
    env: &E,
    l3: Layer3,
    ip: Ip,
    mac: [u8; 6],
) -> Verdict {
    let Some(vip) = env.vip(&ip) else { return Verdict::Pass };
    let Some(iface) = env.iface(l3.outer_vid, l3.inner_vid) else { return Verdict::Pass };
    let Some(eth) = frame.fixed::<Eth>(0) else { return Verdict::Pass };
    if !vip.guarded_on(iface.bit) || mac == iface.mac || eth.src == iface.mac {
        return Verdict::Pass;
    }
    env.count(Counter::ForeignClaim);
    env.claim(ip, mac);
    if contradicts(env, vip.slot, mac) {
        return reject(env, Counter::ForeignClaimDropped);
    }
    Verdict::Pass
}

#[inline(always)]
fn contradicts<E: Env>(env: &E, slot: u32, mac: [u8; 6]) -> bool {
    let strange = env.holder(slot, |holder| {
        if holder.until_ns == 0 || env.now() >= holder.until_ns {
            return false;
        }
        let mut known = false;
        let mut i = 0;
        while i < MAX_STATIONS {
            known |= holder.stations[i] == mac;
            i += 1;
        }
        !known
    });
    strange.unwrap_or(false)
}
