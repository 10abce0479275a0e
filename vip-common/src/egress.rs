//! Outgoing frames. A claim of a VIP without a live fence, or on the wrong interface, is dropped,
//! whichever program sent it. A claim is a frame that makes receivers update a neighbour cache.

use crate::{
    abi::Ip,
    counter::Counter,
    env::{Env, Frame, Verdict},
    layer3::{Layer3, is_tag, layer3, vid},
    standing::{Standing, standing},
    wire::{
        Arp, ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6, IP6_LEN, Ip6, NEIGHBOUR_ADVERTISEMENT,
        NEIGHBOUR_LEN, NEIGHBOUR_SOLICITATION, NEXT_ICMPV6, Neighbour, OPTION_SLLAO, OPTION_TLLAO,
        REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, SOURCE_AT, VlanTag, is_extension,
    },
};
use bytemuck::Pod;
use core::mem::offset_of;

/// Extension headers that are skipped (hop-by-hop, routing, destination options). Senders of
/// neighbour discovery use none; more of them are treated as an attempt to hide a claim.
const MAX_EXTENSION_HEADERS: usize = 4;
/// Options that are read. A message with more counts as one with a link-layer option.
const MAX_OPTIONS: usize = 8;

/// What a frame claims.
struct Claimed {
    what: What,
    /// Zero if no address is claimed. It is not part of `what`, because without CAP_PERFMON the
    /// verifier refuses to read a variant that was not written.
    ip: Ip,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    /// The frame updates its receivers' entry for the address.
    Address,
    /// The frame may hide a claim: behind too many headers, or in bytes that the kernel cannot
    /// read.
    Hidden,
}

impl Claimed {
    const NOTHING: Self = Self { what: What::Nothing, ip: Ip::UNSPECIFIED };
    const HIDDEN: Self = Self { what: What::Hidden, ip: Ip::UNSPECIFIED };

    #[inline(always)]
    const fn address(ip: Ip) -> Self {
        Self { what: What::Address, ip }
    }
}

/// Decides about an outgoing frame: [`Verdict::Pass`] or [`Verdict::Drop`].
#[inline(always)]
pub fn egress<F: Frame, E: Env>(frame: &F, env: &E) -> Verdict {
    let Some(l3) = layer3(frame) else {
        return if frame.size() < ETH_LEN { Verdict::Pass } else { stop_hidden(env) };
    };
    let claimed = match l3.ethertype {
        ETHERTYPE_ARP => arp(frame, l3),
        ETHERTYPE_IPV6 => icmp6(frame, env, l3),
        ethertype if is_tag(ethertype) => third_tag(frame, l3),
        _ => Claimed::NOTHING,
    };
    match claimed.what {
        What::Nothing => Verdict::Pass,
        What::Hidden => stop_hidden(env),
        What::Address => claim(env, l3, &claimed.ip),
    }
}

/// A third VLAN tag. Linux strips any number of priority tags, in any position, so it still reads a
/// frame whose three tags name fewer than three VLANs. Three VLANs belong to another tenant.
#[inline(always)]
fn third_tag<F: Frame>(frame: &F, l3: Layer3) -> Claimed {
    match frame.get::<VlanTag>(l3.offset) {
        Some(tag) if l3.inner_vid != 0 && vid(tag) != 0 => Claimed::NOTHING,
        _ => Claimed::HIDDEN,
    }
}

/// Drops a frame that may hide a claim: fail closed.
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
        // A VLAN that is not listed belongs to another tenant. If an untagged frame's interface is
        // not listed, this guard lacks its record: fail closed.
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

/// Any ARP operation whose sender is the VIP is a claim: RFC 826 makes receivers merge the sender
/// of requests too. The rest of the message may be missing: a NIC pads a truncated frame to 60
/// bytes with zeros, and receivers accept it as complete.
#[inline(always)]
fn arp<F: Frame>(frame: &F, l3: Layer3) -> Claimed {
    let sender = l3.get(frame, offset_of!(Arp, spa)).map(Ip::v4);
    sender.map_or(Claimed::HIDDEN, Claimed::address)
}

/// Reads a header at `offset`. A frame that is too short claims nothing. A frame that is long
/// enough, but cannot be read, counts as hidden.
#[inline(always)]
fn read<T: Pod, F: Frame>(frame: &F, offset: usize) -> Result<T, Claimed> {
    frame.get(offset).ok_or_else(|| missing(frame, offset + size_of::<T>()))
}

#[inline(always)]
fn missing<F: Frame>(frame: &F, end: usize) -> Claimed {
    if frame.size() < end { Claimed::NOTHING } else { Claimed::HIDDEN }
}

#[inline(always)]
fn icmp6<F: Frame, E: Env>(frame: &F, env: &E, l3: Layer3) -> Claimed {
    let at = offset_of!(Ip6, next_header);
    let Some([next_header, _hop_limit]) = l3.get::<[u8; 2], _>(frame, at) else {
        return missing(frame, l3.offset + IP6_LEN);
    };
    if next_header != NEXT_ICMPV6 && !is_extension(next_header) {
        return Claimed::NOTHING;
    }
    let claimed = behind_extensions(frame, l3.offset + IP6_LEN, next_header)
        .and_then(|icmp| message(frame, env, l3, icmp));
    claimed.unwrap_or_else(|outcome| outcome)
}

#[inline(always)]
fn message<F: Frame, E: Env>(frame: &F, env: &E, l3: Layer3, icmp: usize) -> Result<Claimed, Claimed> {
    let target_at = icmp + offset_of!(Neighbour, target);
    let source = Ip::v6(read(frame, l3.offset + SOURCE_AT)?);
    let [icmp_type, _code]: [u8; 2] = read(frame, icmp)?;
    let (named, options) = match icmp_type {
        NEIGHBOUR_ADVERTISEMENT => return Ok(Claimed::address(Ip::v6(read(frame, target_at)?))),
        // Duplicate address detection precedes a claim. It would also make a holder whose address
        // is still tentative give it up.
        NEIGHBOUR_SOLICITATION if source == Ip::UNSPECIFIED => {
            return Ok(Claimed::address(Ip::v6(read(frame, target_at)?)));
        }
        NEIGHBOUR_SOLICITATION => (source, NEIGHBOUR_LEN),
        ROUTER_SOLICITATION => (source, 8),
        ROUTER_ADVERTISEMENT => (source, 16),
        // A router names the target's link-layer address from its own cache (RFC 4861 section 4.5),
        // and hosts accept it (section 8.3). It may be that of a former owner.
        REDIRECT => {
            let target = Ip::v6(read(frame, target_at)?);
            (if env.vip(&target).is_some() { target } else { source }, 40)
        }
        _ => return Ok(Claimed::NOTHING),
    };
    by_option(frame, named, icmp + options)
}

/// The offset of the ICMPv6 header behind extension headers. `Err` is the outcome if there is none:
/// nothing is claimed, or too many headers hide it.
#[inline(always)]
fn behind_extensions<F: Frame>(frame: &F, start: usize, first: u8) -> Result<usize, Claimed> {
    let mut offset = start;
    let mut next_header = first;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(next_header) {
            break;
        }
        let header: [u8; 2] = read(frame, offset)?;
        next_header = header[0];
        offset += (header[1] as usize + 1) * 8;
    }
    if is_extension(next_header) {
        return Err(Claimed::HIDDEN);
    }
    if next_header == NEXT_ICMPV6 { Ok(offset) } else { Err(Claimed::NOTHING) }
}

/// A message claims `named` if it carries a link-layer option. After [`MAX_OPTIONS`] other options,
/// the message counts as one that carries it.
#[inline(always)]
fn by_option<F: Frame>(frame: &F, named: Ip, options: usize) -> Result<Claimed, Claimed> {
    let mut offset = options;
    for _ in 0..MAX_OPTIONS {
        let header: [u8; 2] = read(frame, offset)?;
        // Its length does not matter: receivers ought to discard a message with an option of length
        // 0, but the guard does not rely on that.
        if header[0] == OPTION_SLLAO || header[0] == OPTION_TLLAO {
            return Ok(Claimed::address(named));
        }
        if header[1] == 0 {
            return Ok(Claimed::NOTHING);
        }
        offset += header[1] as usize * 8;
    }
    Ok(Claimed::address(named))
}
