//! Finds the network header behind VLAN tags, and recognises ordinary traffic.

use crate::{
    env::Frame,
    wire::{
        ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Eth, Ip6, NEXT_ICMPV6,
        VlanTag, is_extension,
    },
};
use bytemuck::Pod;
use core::mem::offset_of;

/// Where the network header starts, and the VLAN tags in front of it.
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
    /// Moves past a tag. A priority tag (VLAN id 0) names no VLAN, in any position.
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

    /// Reads at a constant distance `within` the network header. Without a tag, as in most frames,
    /// its offset in the frame is a constant too.
    #[inline(always)]
    pub fn get<T: Pod, F: Frame>(self, frame: &F, within: usize) -> Option<T> {
        if self.offset == ETH_LEN {
            frame.fixed(ETH_LEN + within)
        } else {
            frame.get(self.offset + within)
        }
    }

    /// Writes at a constant distance `within` the network header.
    #[inline(always)]
    pub fn set<T: Pod, F: Frame>(self, frame: &mut F, within: usize, value: &T) -> Option<()> {
        if self.offset == ETH_LEN {
            frame.set_fixed(ETH_LEN + within, value)
        } else {
            frame.set(self.offset + within, value)
        }
    }
}

/// True for ordinary traffic: untagged, and neither ARP nor neighbour discovery. The programs test
/// this first. [`crate::egress`] passes such a frame, and so does [`crate::ingress`] unless it
/// drops traffic.
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

/// Finds the network header behind at most two VLAN tags. A tag that the stack keeps beside the
/// frame counts as the outermost.
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
