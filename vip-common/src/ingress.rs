//! Frames that arrive: questions about VIPs are answered, dropped or passed; claims by others are
//! counted, reported and passed. Two settings drop more: traffic to a VIP that is not held, and claims
//! that contradict the Lease.

use crate::{
    abi::{Iface, Ip, MAX_STATIONS},
    counter::Counter,
    env::{Env, Frame, Verdict},
    nd_reply,
    standing::{Layer3, Standing, layer3, silence, standing},
    wire::{
        ARP_REPLY, ARP_REQUEST, Arp, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Eth,
        IP6_LEN, Ip6, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEXT_ICMPV6, REDIRECT,
        ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, SOURCE_AT, Stations, TARGET_AT, is_group_v4,
        is_station_mac,
    },
};
use core::mem::offset_of;

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

/// A node that does not hold a VIP takes no packet to it in, as RFC 9568 section 6.4.2 asks of a
/// backup: whoever still sends here gets no answer from a host that may not give one.
#[inline(always)]
fn traffic<F: Frame, E: Env>(frame: &F, env: &E, l3: Layer3) -> Verdict {
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
    drop_question(env, Counter::TrafficDropped)
}

/// Counts the reason and drops.
#[inline(always)]
pub(crate) fn drop_question<E: Env>(env: &E, reason: Counter) -> Verdict {
    env.count(reason);
    Verdict::Drop
}

#[inline(always)]
fn arp<F: Frame, E: Env>(frame: &mut F, env: &E, l3: Layer3) -> Result<Counter, Verdict> {
    // A frame too short to name a target cannot ask for a VIP, and the stack ignores it too.
    let request = l3.get::<Arp, _>(frame, 0).ok_or(Verdict::Pass)?;
    let ip = Ip::v4(request.tpa);
    let asks = request.op == ARP_REQUEST.to_be_bytes() && request.spa != request.tpa;
    let Some(vip) = (if asks { env.vip(&ip) } else { None }) else {
        // Whatever is no question for a VIP may be a claim of one: RFC 826 makes receivers merge the
        // sender of requests too. A question from one VIP for another is answered, not counted: a
        // second look-up would cost every answer a fifth.
        return Err(report_claim(frame, env, l3, Ip::v4(request.spa), request.sha));
    };
    let iface = env.iface(l3.outer_vid, l3.inner_vid).ok_or(Verdict::Pass)?;
    let eth = frame.fixed::<Eth>(0).ok_or(Verdict::Pass)?;
    if eth.dst != iface.mac && eth.dst != BROADCAST {
        return Err(Verdict::Pass);
    }
    match standing(env, &vip, &iface) {
        Standing::Owner => {}
        Standing::Silent(why) => return Err(drop_question(env, why.question())),
        Standing::Elsewhere => return Err(Verdict::Pass),
    }
    if request.hrd != [0, 1] || request.pro != [8, 0] || request.hln != 6 || request.pln != 4 {
        return Err(drop_question(env, Counter::QuestionMalformed));
    }
    if !is_station_mac(&request.sha) || is_group_v4(&request.spa) {
        return Err(drop_question(env, Counter::QuestionBadSender));
    }
    answer_arp(frame, l3, &request, &iface).ok_or(Verdict::Drop)?;
    Ok(Counter::ArpAnswered)
}

/// Turns the request into the reply of RFC 826. The Ethernet destination is the *ARP* sender: HSRP
/// and VRRP routers ask from another Ethernet source. The length stays, padding included. A probe
/// (RFC 5227, spa 0.0.0.0) is answered like any other question: that is how an address is defended.
#[inline(always)]
fn answer_arp<F: Frame>(frame: &mut F, l3: Layer3, request: &Arp, iface: &Iface) -> Option<()> {
    let reply = Arp {
        op: ARP_REPLY.to_be_bytes(),
        sha: iface.mac,
        spa: request.tpa,
        tha: request.sha,
        tpa: request.spa,
        ..*request
    };
    l3.set(frame, 0, &reply)?;
    frame.set_fixed(0, &Stations { dst: request.sha, src: iface.mac })
}

#[inline(always)]
fn icmp6<F: Frame, E: Env>(frame: &mut F, env: &E, l3: Layer3) -> Result<Counter, Verdict> {
    let [next_header, _hop_limit]: [u8; 2] =
        l3.get(frame, offset_of!(Ip6, next_header)).ok_or(Verdict::Pass)?;
    // Fragments and extension headers are left to the stack (RFC 6980); its answer meets the guard.
    if next_header != NEXT_ICMPV6 {
        return Err(Verdict::Pass);
    }
    let [icmp_type, _code]: [u8; 2] = l3.get(frame, IP6_LEN).ok_or(Verdict::Pass)?;
    let at = match icmp_type {
        NEIGHBOUR_SOLICITATION => {
            let target = l3.get(frame, TARGET_AT).map(Ip::v6).ok_or(Verdict::Pass)?;
            if let Some(vip) = env.vip(&target) {
                return nd_reply::solicitation(frame, env, l3, &vip);
            }
            SOURCE_AT
        }
        NEIGHBOUR_ADVERTISEMENT => TARGET_AT,
        ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT | REDIRECT => SOURCE_AT,
        _ => return Err(Verdict::Pass),
    };
    let claimed = frame.get(l3.offset + at).map(Ip::v6).ok_or(Verdict::Pass)?;
    if claimed != Ip::UNSPECIFIED {
        let sender = frame.fixed::<Eth>(0).ok_or(Verdict::Pass)?.src;
        return Err(report_claim(frame, env, l3, claimed, sender));
    }
    Err(Verdict::Pass)
}

/// Counts and reports a frame by which another station claims a VIP of ours. Such frames pass: this
/// host may need them to reach the API. Only where it is asked for, and only while this node's view of
/// the Lease is fresh, a claim by a station that is no node of the cluster is dropped.
#[inline(always)]
fn report_claim<F: Frame, E: Env>(frame: &F, env: &E, l3: Layer3, ip: Ip, mac: [u8; 6]) -> Verdict {
    let Some(vip) = env.vip(&ip) else { return Verdict::Pass };
    let Some(iface) = env.iface(l3.outer_vid, l3.inner_vid) else { return Verdict::Pass };
    let Some(eth) = frame.fixed::<Eth>(0) else { return Verdict::Pass };
    if !vip.guarded_on(iface.bit) || mac == iface.mac || eth.src == iface.mac {
        return Verdict::Pass;
    }
    env.count(Counter::ForeignClaim);
    env.claim(ip, mac);
    if contradicts(env, vip.slot, mac) {
        return drop_question(env, Counter::ForeignClaimDropped);
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
