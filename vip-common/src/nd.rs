//! Neighbour discovery: solicitations for a VIP and the advertisement that answers them (RFC 4861).

use crate::{
    abi::{Ip, Vip},
    checksum::Sum,
    claims,
    counter::Counter,
    env::{Env, Frame, Verdict},
    layer3::Layer3,
    standing::{Standing, reject, standing},
    wire::{
        ALL_NODES, ALL_NODES_MAC, Addresses, Eth, IP6_LEN, Ip6, NA_OVERRIDE, NA_SOLICITED,
        NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_LEN, NEIGHBOUR_SOLICITATION, NEXT_ICMPV6, NdOption,
        Neighbour, OPTION_LEN, OPTION_SLLAO, OPTION_TLLAO, REDIRECT, ROUTER_ADVERTISEMENT,
        ROUTER_SOLICITATION, SOURCE_AT, Stations, TARGET_AT, is_station_mac, solicited_node,
        solicited_node_mac,
    },
};
use core::mem::offset_of;

/// A solicitation with options of more than this many units of eight bytes counts as malformed.
/// Linux sends two (link-layer address and nonce).
const MAX_OPTION_UNITS: usize = 8;
/// Length of the answer from the network header on: IPv6, advertisement, one link-layer option.
const ANSWER_LEN: usize = IP6_LEN + NEIGHBOUR_LEN + OPTION_LEN;

/// What the answer needs from the question.
struct Solicitation {
    source: [u8; 16],
    target: [u8; 16],
    /// The source link-layer address option, else the Ethernet source.
    sender: [u8; 6],
}

/// Turns a solicitation for a VIP into its answer. Reports any other frame that claims a VIP.
#[inline(always)]
pub(crate) fn icmp6<F: Frame, E: Env>(frame: &mut F, env: &E, l3: Layer3) -> Result<Counter, Verdict> {
    let [next_header, _hop_limit]: [u8; 2] =
        l3.get(frame, offset_of!(Ip6, next_header)).ok_or(Verdict::Pass)?;
    // Fragments and extension headers are left to the stack (RFC 6980). The stack's answer passes
    // through the guard.
    if next_header != NEXT_ICMPV6 {
        return Err(Verdict::Pass);
    }
    let [icmp_type, _code]: [u8; 2] = l3.get(frame, IP6_LEN).ok_or(Verdict::Pass)?;
    let at = match icmp_type {
        NEIGHBOUR_SOLICITATION => {
            let target = l3.get(frame, TARGET_AT).map(Ip::v6).ok_or(Verdict::Pass)?;
            if let Some(vip) = env.vip(&target) {
                return solicitation(frame, env, l3, &vip);
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
        return Err(claims::report(frame, env, l3, claimed, sender));
    }
    Err(Verdict::Pass)
}

#[inline(always)]
fn solicitation<F: Frame, E: Env>(
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
        Standing::Silent(why) => return Err(reject(env, why.question())),
        Standing::Elsewhere => return Err(Verdict::Pass),
    }
    let Some(question) = validate(frame, l3) else {
        return Err(reject(env, Counter::QuestionMalformed));
    };
    if !is_station_mac(&question.sender) || question.source[0] == 0xff {
        return Err(reject(env, Counter::QuestionBadSender));
    }
    let resized = frame.resize(l3.offset + ANSWER_LEN);
    if !resized || answer(frame, l3, &question, iface.mac).is_none() {
        return Err(reject(env, Counter::QuestionResizeFailed));
    }
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
    let source = SourceOption { is_given: false, number: 0 };
    let mut options = Options { l3, units, sum, next: 0, source };
    // Unrolled by hand: without CAP_PERFMON the verifier also follows a speculative path that does
    // not leave a loop in time.
    options.look(frame, 0)?;
    options.look(frame, 1)?;
    options.look(frame, 2)?;
    options.look(frame, 3)?;
    options.look(frame, 4)?;
    options.look(frame, 5)?;
    options.look(frame, 6)?;
    options.look(frame, 7)?;
    if options.next != units || options.sum.fold() != 0xffff {
        return None;
    }
    let source = options.source;
    let probe = ip6.src == Ip::UNSPECIFIED.octets;
    if probe && (source.is_given || ip6.dst != solicited_node(&ns.target)) {
        return None;
    }
    let sender = if source.is_given { source.address() } else { frame.fixed::<Eth>(0)?.src };
    Some(Solicitation { source: ip6.src, target: ns.target, sender })
}

/// The options of a solicitation, looked at one unit after the other.
struct Options {
    l3: Layer3,
    units: usize,
    sum: Sum,
    /// The unit that the next option begins with.
    next: usize,
    source: SourceOption,
}

impl Options {
    /// Reads one unit; `None` if an option is malformed or the frame is too short.
    #[inline(always)]
    fn look<F: Frame>(&mut self, frame: &F, unit: usize) -> Option<()> {
        const { assert!(MAX_OPTION_UNITS == 8) };
        if unit >= self.units {
            return Some(());
        }
        let words: [u16; OPTION_LEN / 2] =
            self.l3.get(frame, IP6_LEN + NEIGHBOUR_LEN + unit * OPTION_LEN)?;
        self.sum.add(&words);
        if unit != self.next {
            return Some(());
        }
        let word = bytemuck::cast::<_, u64>(words).to_le();
        let (kind, length) = (word as u8, (word >> 8) as u8);
        if length == 0 {
            return None;
        }
        if kind == OPTION_SLLAO {
            self.source = SourceOption { is_given: true, number: word >> 16 };
        }
        self.next = unit + length as usize;
        Some(())
    }
}

/// The source link-layer address option. A flag and a number, not an `Option` of an array: the verifier
/// follows speculative paths too, and on one of them the array of an empty `Option` is read.
struct SourceOption {
    is_given: bool,
    /// The six bytes of the address, the first of them lowest.
    number: u64,
}

impl SourceOption {
    #[inline(always)]
    fn address(&self) -> [u8; 6] {
        let [address @ .., _, _] = self.number.to_le_bytes();
        address
    }
}

/// Writes the advertisement of RFC 4861 section 7.2.4: override set, router clear, the link-layer
/// option always present. Duplicate address detection asks from `::`; its answer goes to all nodes,
/// with the solicited flag clear.
#[inline(always)]
fn answer<F: Frame>(frame: &mut F, l3: Layer3, question: &Solicitation, mac: [u8; 6]) -> Option<()> {
    let probe = question.source == Ip::UNSPECIFIED.octets;
    let (dst, dst_mac, flags) = if probe {
        (ALL_NODES, ALL_NODES_MAC, NA_OVERRIDE)
    } else {
        (question.source, question.sender, NA_OVERRIDE | NA_SOLICITED)
    };
    let na = Neighbour {
        icmp_type: NEIGHBOUR_ADVERTISEMENT,
        code: 0,
        checksum: [0; 2],
        flags: [flags, 0, 0, 0],
        target: question.target,
    };
    let (ip6, na, option) = headers(question.target, dst, na, OPTION_TLLAO, mac);
    frame.set_fixed(0, &Stations { dst: dst_mac, src: mac })?;
    l3.set(frame, 0, &ip6)?;
    l3.set(frame, IP6_LEN, &na)?;
    l3.set(frame, IP6_LEN + NEIGHBOUR_LEN, &option)
}

/// The headers of a message with one link-layer option, with lengths and checksum.
#[inline(always)]
pub fn headers(
    src: [u8; 16],
    dst: [u8; 16],
    mut message: Neighbour,
    option: u8,
    mac: [u8; 6],
) -> (Ip6, Neighbour, NdOption) {
    let payload = (NEIGHBOUR_LEN + OPTION_LEN) as u16;
    let ip6 = Ip6 {
        version_class_flow: [0x60, 0, 0, 0],
        payload_len: payload.to_be_bytes(),
        next_header: NEXT_ICMPV6,
        hop_limit: 255,
        src,
        dst,
    };
    let option = NdOption { kind: option, units: 1, addr: mac };
    let mut sum = Sum::default();
    sum.add(bytemuck::cast_ref::<Addresses, [u16; 16]>(&ip6.addresses()));
    sum.add_number(payload);
    sum.add_number(u16::from(NEXT_ICMPV6));
    sum.add(bytemuck::cast_ref::<Neighbour, [u16; NEIGHBOUR_LEN / 2]>(&message));
    sum.add(bytemuck::cast_ref::<NdOption, [u16; OPTION_LEN / 2]>(&option));
    message.checksum = (!sum.fold()).to_ne_bytes();
    (ip6, message, option)
}
