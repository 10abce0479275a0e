//! ARP: questions for a VIP and the reply (RFC 826).

use crate::{
    abi::{Iface, Ip},
    claims,
    counter::Counter,
    env::{Env, Frame, Verdict},
    layer3::Layer3,
    standing::{Standing, reject, standing},
    wire::{ARP_REPLY, ARP_REQUEST, Arp, BROADCAST, Eth, Stations, is_group_v4, is_station_mac},
};

/// Turns a question for a VIP into its answer. Reports any other frame that claims a VIP.
#[inline(always)]
pub(crate) fn arp<F: Frame, E: Env>(frame: &mut F, env: &E, l3: Layer3) -> Result<Counter, Verdict> {
    // A frame too short to name a target cannot ask for a VIP, and the stack ignores it too.
    let request = l3.get::<Arp, _>(frame, 0).ok_or(Verdict::Pass)?;
    let ip = Ip::v4(request.tpa);
    let asks = request.op == ARP_REQUEST.to_be_bytes() && request.spa != request.tpa;
    let Some(vip) = (if asks { env.vip(&ip) } else { None }) else {
        // Any other frame may claim a VIP: RFC 826 makes receivers merge the sender of requests
        // too. A question from one VIP for another is answered and not counted as a claim, because
        // a second look-up would make every answer a fifth slower.
        return Err(claims::report(frame, env, l3, Ip::v4(request.spa), request.sha));
    };
    let iface = env.iface(l3.outer_vid, l3.inner_vid).ok_or(Verdict::Pass)?;
    let eth = frame.fixed::<Eth>(0).ok_or(Verdict::Pass)?;
    if eth.dst != iface.mac && eth.dst != BROADCAST {
        return Err(Verdict::Pass);
    }
    match standing(env, &vip, &iface) {
        Standing::Owner => {}
        Standing::Silent(why) => return Err(reject(env, why.question())),
        Standing::Elsewhere => return Err(Verdict::Pass),
    }
    if request.hrd != [0, 1] || request.pro != [8, 0] || request.hln != 6 || request.pln != 4 {
        return Err(reject(env, Counter::QuestionMalformed));
    }
    if !is_station_mac(&request.sha) || is_group_v4(&request.spa) {
        return Err(reject(env, Counter::QuestionBadSender));
    }
    if answer(frame, l3, &request, &iface).is_none() {
        return Err(reject(env, Counter::QuestionResizeFailed));
    }
    Ok(Counter::ArpAnswered)
}

/// Turns the request into the reply of RFC 826. The Ethernet destination is the *ARP* sender: HSRP
/// and VRRP routers ask from another Ethernet source. The length stays, padding included. A probe
/// (RFC 5227, spa 0.0.0.0) is answered like any other question: the answer defends the address.
#[inline(always)]
fn answer<F: Frame>(frame: &mut F, l3: Layer3, request: &Arp, iface: &Iface) -> Option<()> {
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
