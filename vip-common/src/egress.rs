//! Frames that would leave: a claim of a VIP without a live fence, or on the wrong interface, ends
//! here, whoever sent it. A claim is a frame that makes receivers update a neighbour cache.

use crate::{
    abi::Ip,
    counter::Counter,
    env::{Env, Frame, Verdict},
    standing::{Layer3, Standing, layer3, standing},
    wire::{
        Arp, ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, IP6_LEN, Ip6,
        NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_LEN, NEIGHBOUR_SOLICITATION, NEXT_ICMPV6, Neighbour,
        OPTION_SLLAO, OPTION_TLLAO, REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, VlanTag,
    },
};

/// Extension headers that are looked behind (hop-by-hop, routing, destination options). Senders of
/// neighbour discovery use none; more than this in front of ICMPv6 is treated as an attempt to hide.
const MAX_EXTENSION_HEADERS: usize = 4;
/// Options that are looked at before a link-layer option is taken for granted.
const MAX_OPTIONS: usize = 8;

/// What a frame claims.
enum Claimed {
    Nothing,
    /// The frame updates its receivers' entry for this address.
    Address(Ip),
    /// The frame hides what it carries: behind more headers than are looked at, or in pieces that
    /// cannot be joined.
    Hidden,
}

/// Decides about a frame that is about to leave: [`Verdict::Pass`] or [`Verdict::Drop`].
#[inline(always)]
pub fn egress<F: Frame, E: Env>(frame: &mut F, env: &E) -> Verdict {
    if !frame.linearize(ETH_LEN + 2 * size_of::<VlanTag>()) {
        return stop_hidden(env);
    }
    let Some(l3) = layer3(frame) else {
        return Verdict::Pass;
    };
    let claimed = match l3.ethertype {
        ETHERTYPE_ARP => Some(arp(frame, l3)),
        ETHERTYPE_IPV6 => icmp6(frame, l3),
        // Linux strips any number of priority tags, so a receiver would see through a third one.
        ETHERTYPE_VLAN | ETHERTYPE_QINQ if l3.outer_vid == 0 => Some(Claimed::Hidden),
        _ => None,
    };
    match claimed {
        None | Some(Claimed::Nothing) => Verdict::Pass,
        Some(Claimed::Hidden) => stop_hidden(env),
        Some(Claimed::Address(ip)) => claim(env, l3, &ip),
    }
}

/// What cannot be read may be a claim: fail closed.
#[inline(always)]
fn stop_hidden<E: Env>(env: &E) -> Verdict {
    env.count(Counter::ClaimHidden);
    Verdict::Drop
}

#[inline(always)]
fn claim<E: Env>(env: &E, l3: Layer3, ip: &Ip) -> Verdict {
    let Some(vip) = env.vip(ip) else {
        return Verdict::Pass;
    };
    let Some(iface) = env.iface(l3.outer_vid, l3.inner_vid) else {
        // A VLAN that is not listed is another tenant's. An untagged frame on an interface that is
        // not listed is a guard without its record: fail closed.
        if l3.outer_vid != 0 {
            return Verdict::Pass;
        }
        env.count(Counter::ClaimWrongInterface);
        return Verdict::Drop;
    };
    match standing(env, &vip, &iface) {
        Standing::Owner => {
            env.count(Counter::ClaimSent);
            Verdict::Pass
        }
        Standing::Silent(why) => {
            env.count(why.claim());
            Verdict::Drop
        }
        Standing::Elsewhere => Verdict::Pass,
    }
}

/// Any ARP operation whose sender is the VIP is a claim: RFC 826 makes receivers merge the sender of
/// requests too. The rest of the message need not be there: a NIC fills a frame that was cut short up
/// to 60 bytes with zeros, and receivers take it for whole.
#[inline(always)]
fn arp<F: Frame>(frame: &mut F, l3: Layer3) -> Claimed {
    if !frame.linearize(l3.offset + size_of::<Arp>()) {
        return Claimed::Hidden;
    }
    let sender = l3.offset + core::mem::offset_of!(Arp, spa);
    frame.get::<[u8; 4]>(sender).map_or(Claimed::Hidden, |spa| Claimed::Address(Ip::v4(*spa)))
}

#[inline(always)]
fn icmp6<F: Frame>(frame: &mut F, l3: Layer3) -> Option<Claimed> {
    if !frame.linearize(l3.offset + IP6_LEN) {
        return Some(Claimed::Hidden);
    }
    let ip6 = frame.get::<Ip6>(l3.offset)?;
    let source = Ip::v6(ip6.src);
    let next_header = ip6.next_header;
    if next_header != NEXT_ICMPV6 && !is_extension(next_header) {
        return None;
    }
    if !frame.linearize(usize::MAX) {
        return Some(Claimed::Hidden);
    }
    let icmp = match behind_extensions(frame, l3.offset + IP6_LEN, next_header) {
        Ok(icmp) => icmp,
        Err(outcome) => return Some(outcome),
    };
    let [icmp_type, _code] = *frame.get::<[u8; 2]>(icmp)?;
    match icmp_type {
        NEIGHBOUR_ADVERTISEMENT => Some(Claimed::Address(Ip::v6(frame.get::<Neighbour>(icmp)?.target))),
        // Duplicate address detection: it would make a holder that has the address tentative give
        // it up, and it precedes a claim.
        NEIGHBOUR_SOLICITATION if source == Ip::UNSPECIFIED => {
            Some(Claimed::Address(Ip::v6(frame.get::<Neighbour>(icmp)?.target)))
        }
        NEIGHBOUR_SOLICITATION => Some(from_source(frame, source, icmp + NEIGHBOUR_LEN)),
        ROUTER_SOLICITATION => Some(from_source(frame, source, icmp + 8)),
        ROUTER_ADVERTISEMENT => Some(from_source(frame, source, icmp + 16)),
        REDIRECT => Some(from_source(frame, source, icmp + 40)),
        _ => Some(Claimed::Nothing),
    }
}

#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 60)
}

/// Finds the ICMPv6 header behind extension headers. `Err` is the outcome where there is none to
/// look at: nothing is claimed, or more headers stand before it than are looked at.
#[inline(always)]
fn behind_extensions<F: Frame>(frame: &F, start: usize, first: u8) -> Result<usize, Claimed> {
    let mut offset = start;
    let mut next_header = first;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(next_header) {
            break;
        }
        let header = frame.get::<[u8; 2]>(offset).ok_or(Claimed::Nothing)?;
        next_header = header[0];
        offset += (header[1] as usize + 1) * 8;
    }
    if is_extension(next_header) {
        return Err(Claimed::Hidden);
    }
    if next_header == NEXT_ICMPV6 { Ok(offset) } else { Err(Claimed::Nothing) }
}

/// Such a message claims its source address if it carries a link-layer option. Where that cannot be
/// told within a few options it counts as carried.
#[inline(always)]
fn from_source<F: Frame>(frame: &F, source: Ip, options: usize) -> Claimed {
    let mut offset = options;
    for _ in 0..MAX_OPTIONS {
        let Some(header) = frame.get::<[u8; 2]>(offset) else {
            return Claimed::Nothing;
        };
        // Whatever its length: receivers ought to discard a message with an option of length 0, but
        // the guard does not depend on it.
        if header[0] == OPTION_SLLAO || header[0] == OPTION_TLLAO {
            return Claimed::Address(source);
        }
        if header[1] == 0 {
            return Claimed::Nothing;
        }
        offset += header[1] as usize * 8;
    }
    Claimed::Address(source)
}
