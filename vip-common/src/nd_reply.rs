//! Neighbour solicitations for a VIP and the advertisement that answers them (RFC 4861).

use crate::{
    abi::{Ip, Vip},
    checksum::Sum,
    counter::Counter,
    env::{Env, Frame, Verdict},
    ingress::drop_question,
    standing::{Layer3, Standing, standing},
    wire::{
        ALL_NODES, ALL_NODES_MAC, Addresses, Eth, IP6_LEN, Ip6, NA_OVERRIDE, NA_SOLICITED,
        NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_LEN, NEXT_ICMPV6, NdOption, Neighbour, OPTION_LEN,
        OPTION_SLLAO, OPTION_TLLAO, Stations, TARGET_AT, is_station_mac, solicited_node,
        solicited_node_mac,
    },
};

/// Options beyond this many units of eight bytes are not looked at; such a solicitation is treated as
/// malformed. Linux sends two (link-layer address and nonce); 32 leaves room for secure discovery's.
const MAX_OPTION_UNITS: usize = 32;
/// Secure discovery sends five options.
const MAX_OPTIONS: usize = 8;
/// Length of the answer from the network header on: IPv6, advertisement, one link-layer option.
const ANSWER_LEN: usize = IP6_LEN + NEIGHBOUR_LEN + OPTION_LEN;

/// What the answer needs from the question.
struct Solicitation {
    source: [u8; 16],
    target: [u8; 16],
    /// The source link-layer address option, else the Ethernet source.
    sender: [u8; 6],
}

#[inline(always)]
pub(crate) fn solicitation<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    l3: Layer3,
    vip: &Vip,
) -> Result<Counter, Verdict> {
    let target = l3.get(frame, TARGET_AT).ok_or(Verdict::Pass)?;
    let iface = env.iface(l3.outer_vid, l3.inner_vid).ok_or(Verdict::Pass)?;
    let eth = frame.fixed::<Eth>(0).ok_or(Verdict::Pass)?;
    if eth.dst != iface.mac && eth.dst != solicited_node_mac(&target) {
        return Err(Verdict::Pass);
    }
    match standing(env, vip, &iface) {
        Standing::Owner => {}
        Standing::Silent(why) => return Err(drop_question(env, why.question())),
        Standing::Elsewhere => return Err(Verdict::Pass),
    }
    let Some(question) = validate(frame, l3) else {
        return Err(drop_question(env, Counter::QuestionMalformed));
    };
    if !is_station_mac(&question.sender) || question.source[0] == 0xff {
        return Err(drop_question(env, Counter::QuestionBadSender));
    }
    if !frame.resize(l3.offset + ANSWER_LEN) {
        return Err(drop_question(env, Counter::QuestionResizeFailed));
    }
    answer(frame, l3, &question, iface.mac).ok_or(Verdict::Drop)?;
    Ok(Counter::NdAnswered)
}

/// The checks of RFC 4861 section 7.1.1. The checksum is among them because XDP runs before the stack
/// has verified it.
#[inline(always)]
fn validate<F: Frame>(frame: &F, l3: Layer3) -> Option<Solicitation> {
    let ip6: Ip6 = l3.get(frame, 0)?;
    let ns: Neighbour = l3.get(frame, IP6_LEN)?;
    let payload = u16::from_be_bytes(ip6.payload_len) as usize;
    if ip6.version_class_flow[0] >> 4 != 6 || ip6.hop_limit != 255 || ns.code != 0 {
        return None;
    }
    if payload < NEIGHBOUR_LEN || !payload.is_multiple_of(OPTION_LEN) || ns.target[0] == 0xff {
        return None;
    }
    let units = (payload - NEIGHBOUR_LEN) / OPTION_LEN;
    if units > MAX_OPTION_UNITS {
        return None;
    }
    let mut sum = Sum::default();
    sum.add(bytemuck::cast_ref::<Addresses, [u16; 16]>(&ip6.addresses()));
    sum.add_number(payload as u16);
    sum.add_number(u16::from(NEXT_ICMPV6));
    sum.add(bytemuck::cast_ref::<Neighbour, [u16; NEIGHBOUR_LEN / 2]>(&ns));
    let target = ns.target;
    let options = l3.offset + IP6_LEN + NEIGHBOUR_LEN;
    for unit in 0..MAX_OPTION_UNITS {
        if unit >= units {
            break;
        }
        let option: NdOption = frame.get(options + unit * OPTION_LEN)?;
        sum.add(bytemuck::cast_ref::<NdOption, [u16; OPTION_LEN / 2]>(&option));
    }
    if sum.fold() != 0xffff {
        return None;
    }
    let sllao = source_option(frame, options, units).ok()?;
    let probe = ip6.src == Ip::UNSPECIFIED.octets;
    if probe && (sllao.is_some() || ip6.dst != solicited_node(&target)) {
        return None;
    }
    let sender = match sllao {
        Some(addr) => addr,
        None => frame.fixed::<Eth>(0)?.src,
    };
    Some(Solicitation { source: ip6.src, target, sender })
}

/// Options that do not fill their message exactly, or too many of them.
struct Malformed;

/// The source link-layer address option, if there is one.
#[inline(always)]
fn source_option<F: Frame>(
    frame: &F,
    options: usize,
    units: usize,
) -> Result<Option<[u8; 6]>, Malformed> {
    let (mut found, mut unit) = (None, 0);
    for _ in 0..MAX_OPTIONS {
        if unit >= units {
            break;
        }
        let option: NdOption = frame.get(options + unit * OPTION_LEN).ok_or(Malformed)?;
        if option.units == 0 {
            return Err(Malformed);
        }
        if option.kind == OPTION_SLLAO {
            found = Some(option.addr);
        }
        unit += option.units as usize;
    }
    if unit == units { Ok(found) } else { Err(Malformed) }
}

/// Writes the advertisement of RFC 4861 section 7.2.4: override set, router clear, the link-layer
/// option always there. Duplicate address detection asks from `::` and is answered to all nodes with
/// the solicited flag clear.
#[inline(always)]
fn answer<F: Frame>(frame: &mut F, l3: Layer3, question: &Solicitation, mac: [u8; 6]) -> Option<()> {
    let probe = question.source == Ip::UNSPECIFIED.octets;
    let (dst, dst_mac, flags) = if probe {
        (ALL_NODES, ALL_NODES_MAC, NA_OVERRIDE)
    } else {
        (question.source, question.sender, NA_OVERRIDE | NA_SOLICITED)
    };
    let payload = (NEIGHBOUR_LEN + OPTION_LEN) as u16;
    let ip6 = Ip6 {
        version_class_flow: [0x60, 0, 0, 0],
        payload_len: payload.to_be_bytes(),
        next_header: NEXT_ICMPV6,
        hop_limit: 255,
        src: question.target,
        dst,
    };
    let mut na = Neighbour {
        icmp_type: NEIGHBOUR_ADVERTISEMENT,
        code: 0,
        checksum: [0; 2],
        flags: [flags, 0, 0, 0],
        target: question.target,
    };
    let option = NdOption { kind: OPTION_TLLAO, units: 1, addr: mac };
    let mut sum = Sum::default();
    sum.add(bytemuck::cast_ref::<Addresses, [u16; 16]>(&ip6.addresses()));
    sum.add_number(payload);
    sum.add_number(u16::from(NEXT_ICMPV6));
    sum.add(bytemuck::cast_ref::<Neighbour, [u16; NEIGHBOUR_LEN / 2]>(&na));
    sum.add(bytemuck::cast_ref::<NdOption, [u16; OPTION_LEN / 2]>(&option));
    na.checksum = (!sum.fold()).to_ne_bytes();

    let icmp = l3.offset + IP6_LEN;
    frame.set(0, &Stations { dst: dst_mac, src: mac })?;
    frame.set(l3.offset, &ip6)?;
    frame.set(icmp, &na)?;
    frame.set(icmp + NEIGHBOUR_LEN, &option)
}
