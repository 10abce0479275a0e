//! The one rule: may this host speak for an address here and now?

use crate::{
    abi::{Iface, Vip},
    counter::Counter,
    env::{Env, Frame},
    wire::{
        ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Eth, Ip6, NEXT_ICMPV6,
        VlanTag, is_extension,
    },
};
use bytemuck::Pod;
use core::mem::offset_of;

/// This host's standing for one VIP on one interface at this instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may answer and announce.
    Owner,
    /// The VIP is managed here, but this host must not speak for it.
    Silent(Silence),
    /// The VIP is not managed on this interface or VLAN: the same address there is another tenant's.
    Elsewhere,
}

/// Why a host must not speak for a managed VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// No fence, or none that was ever raised.
    NotHeld,
    /// The fence has run out.
    Expired,
    /// The entry was published under another tenure than the fence's.
    StaleGeneration,
    /// The VIP is only guarded on this interface.
    WrongInterface,
    /// The interface is down.
    InterfaceDown,
}

impl Silence {
    /// The counter of a question that met this silence.
    #[inline(always)]
    pub const fn question(self) -> Counter {
        match self {
            Self::NotHeld => Counter::QuestionNotHeld,
            Self::Expired => Counter::QuestionExpired,
            Self::StaleGeneration => Counter::QuestionStale,
            Self::WrongInterface => Counter::QuestionWrongInterface,
            Self::InterfaceDown => Counter::QuestionInterfaceDown,
        }
    }

    /// The counter of a claim that met this silence.
    #[inline(always)]
    pub const fn claim(self) -> Counter {
        match self {
            Self::NotHeld => Counter::ClaimNotHeld,
            Self::Expired => Counter::ClaimExpired,
            Self::StaleGeneration => Counter::ClaimStale,
            Self::WrongInterface => Counter::ClaimWrongInterface,
            Self::InterfaceDown => Counter::ClaimInterfaceDown,
        }
    }
}

/// Decides the standing. The clock is read last and only where the answer depends on it: it is the
/// dearest step of all.
#[inline(always)]
pub fn standing<E: Env>(env: &E, vip: &Vip, iface: &Iface) -> Standing {
    if !vip.guarded_on(iface.bit) && !vip.answers_on(iface.bit) {
        return Standing::Elsewhere;
    }
    if !vip.answers_on(iface.bit) {
        return Standing::Silent(Silence::WrongInterface);
    }
    if iface.up == 0 {
        return Standing::Silent(Silence::InterfaceDown);
    }
    match silence(env, vip) {
        Some(why) => Standing::Silent(why),
        None => Standing::Owner,
    }
}

/// Why this host does not hold a VIP, on whichever interface; `None` if it does.
#[inline(always)]
pub fn silence<E: Env>(env: &E, vip: &Vip) -> Option<Silence> {
    let Some(fence) = env.fence(vip.slot) else {
        return Some(Silence::NotHeld);
    };
    if fence.deadline_ns == 0 || vip.generation == 0 {
        return Some(Silence::NotHeld);
    }
    if fence.generation != vip.generation {
        return Some(Silence::StaleGeneration);
    }
    if env.now() >= fence.deadline_ns {
        return Some(Silence::Expired);
    }
    None
}

/// Where the network header starts and under which VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer3 {
    /// EtherType of the network header.
    pub ethertype: u16,
    /// Offset of the network header.
    pub offset: usize,
    /// VLAN id of the outer tag, 0 without one (or for a priority tag).
    pub outer_vid: u16,
    /// VLAN id of the inner tag, 0 without one, [`TOO_DEEP`] in a third VLAN.
    pub inner_vid: u16,
}

/// No VLAN has this number, so no interface is in it.
const TOO_DEEP: u16 = 0xffff;

impl Layer3 {
    /// Goes behind a tag. A priority tag (VLAN id 0) names no VLAN, wherever it stands.
    #[inline(always)]
    fn enter(&mut self, tag: VlanTag) {
        match (vid(tag), self.outer_vid, self.inner_vid) {
            (0, ..) => {}
            (vid, 0, _) => self.outer_vid = vid,
            (vid, _, 0) => self.inner_vid = vid,
            _ => self.inner_vid = TOO_DEEP,
        }
        self.ethertype = u16::from_be_bytes(tag.ethertype);
        self.offset += size_of::<VlanTag>();
    }

    /// What lies at a constant distance behind the start of the network header. Without a tag, as in
    /// most frames, its place in the frame is a constant too.
    #[inline(always)]
    pub fn get<T: Pod, F: Frame>(self, frame: &F, within: usize) -> Option<T> {
        if self.offset == ETH_LEN {
            frame.fixed(ETH_LEN + within)
        } else {
            frame.get(self.offset + within)
        }
    }

    /// Writes there.
    #[inline(always)]
    pub fn set<T: Pod, F: Frame>(self, frame: &mut F, within: usize, value: &T) -> Option<()> {
        if self.offset == ETH_LEN {
            frame.set_fixed(ETH_LEN + within, value)
        } else {
            frame.set(self.offset + within, value)
        }
    }
}

/// Whether a frame is untagged and neither ARP nor neighbour discovery, as most are. The programs ask
/// this first. [`crate::egress`] passes such a frame, and so does [`crate::ingress`] unless it drops
/// traffic.
#[inline(always)]
pub fn is_traffic<F: Frame>(frame: &F) -> bool {
    let Some(eth) = frame.fixed::<Eth>(0) else { return false };
    match u16::from_be_bytes(eth.ethertype) {
        ETHERTYPE_ARP | ETHERTYPE_VLAN | ETHERTYPE_QINQ => false,
        ETHERTYPE_IPV6 => {
            let next_header = frame.fixed::<[u8; 2]>(ETH_LEN + offset_of!(Ip6, next_header));
            next_header.is_some_and(|[next, _]| next != NEXT_ICMPV6 && !is_extension(next))
        }
        _ => true,
    }
}

/// Finds the network header behind at most two VLAN tags. A tag that the stack keeps beside the frame
/// is the outermost.
#[inline(always)]
pub fn layer3<F: Frame>(frame: &F) -> Option<Layer3> {
    let ethertype = u16::from_be_bytes(frame.fixed::<Eth>(0)?.ethertype);
    let outer_vid = frame.offloaded_vid();
    let mut l3 = Layer3 { ethertype, offset: ETH_LEN, outer_vid, inner_vid: 0 };
    if !is_tag(ethertype) {
        return Some(l3);
    }
    l3.enter(frame.fixed::<VlanTag>(ETH_LEN)?);
    if is_tag(l3.ethertype) {
        l3.enter(frame.fixed::<VlanTag>(ETH_LEN + size_of::<VlanTag>())?);
    }
    Some(l3)
}

#[inline(always)]
pub(crate) const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ
}

#[inline(always)]
pub(crate) const fn vid(tag: VlanTag) -> u16 {
    u16::from_be_bytes(tag.tci) & 0x0fff
}
