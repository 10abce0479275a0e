//! Ethernet, ARP and IPv6 neighbour discovery headers: byte arrays in structs of alignment 2.
//!
//! Every header of these protocols starts at an even offset, and so does packet memory. With
//! alignment 2 the BPF backend moves 16 bits at a time. With alignment 1 it moves single bytes, and
//! the copies of IPv6 addresses overflow the 512 bytes of BPF stack.

use bytemuck::{Pod, Zeroable};

/// EtherType of ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an IEEE 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of an IEEE 802.1ad service tag.
pub const ETHERTYPE_QINQ: u16 = 0x88a8;
/// IPv6 next header value of ICMPv6.
pub const NEXT_ICMPV6: u8 = 58;
/// ARP operation: request (RFC 826).
pub const ARP_REQUEST: u16 = 1;
/// ARP operation: reply (RFC 826).
pub const ARP_REPLY: u16 = 2;
/// ICMPv6 router solicitation (RFC 4861 section 4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 router advertisement (RFC 4861 section 4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 neighbour solicitation (RFC 4861 section 4.3).
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 neighbour advertisement (RFC 4861 section 4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// ICMPv6 redirect (RFC 4861 section 4.5).
pub const REDIRECT: u8 = 137;
/// ND option: source link-layer address (RFC 4861 section 4.6.1).
pub const OPTION_SLLAO: u8 = 1;
/// ND option: target link-layer address (RFC 4861 section 4.6.1).
pub const OPTION_TLLAO: u8 = 2;
/// NA flag: solicited.
pub const NA_SOLICITED: u8 = 0x40;
/// NA flag: override.
pub const NA_OVERRIDE: u8 = 0x20;

/// The Ethernet broadcast address.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// Ethernet address of the IPv6 all-nodes group.
pub const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// The IPv6 all-nodes group `ff02::1`.
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C, align(2))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        const _: () = assert!(align_of::<$name>() == 2);
    )*};
}

wire! {
    /// Ethernet header.
    pub struct Eth {
        /// Destination address.
        pub dst: [u8; 6],
        /// Source address.
        pub src: [u8; 6],
        /// EtherType, or that of the first tag.
        pub ethertype: [u8; 2],
    }

    /// The two addresses of an Ethernet header.
    pub struct Stations {
        /// Destination address.
        pub dst: [u8; 6],
        /// Source address.
        pub src: [u8; 6],
    }

    /// The part of a VLAN tag after its own EtherType.
    pub struct VlanTag {
        /// Priority, drop eligibility and VLAN id.
        pub tci: [u8; 2],
        /// EtherType of what follows.
        pub ethertype: [u8; 2],
    }

    /// ARP for IPv4 over Ethernet (RFC 826).
    pub struct Arp {
        /// Hardware type; 1 is Ethernet.
        pub hrd: [u8; 2],
        /// Protocol type; 0x0800 is IPv4.
        pub pro: [u8; 2],
        /// Length of hardware addresses: 6.
        pub hln: u8,
        /// Length of protocol addresses: 4.
        pub pln: u8,
        /// Operation: [`ARP_REQUEST`], [`ARP_REPLY`] or another one.
        pub op: [u8; 2],
        /// Sender hardware address.
        pub sha: [u8; 6],
        /// Sender protocol address.
        pub spa: [u8; 4],
        /// Target hardware address.
        pub tha: [u8; 6],
        /// Target protocol address.
        pub tpa: [u8; 4],
    }

    /// Fixed IPv6 header.
    pub struct Ip6 {
        /// Version, traffic class and flow label.
        pub version_class_flow: [u8; 4],
        /// Length of what follows this header.
        pub payload_len: [u8; 2],
        /// Protocol number of the header that follows.
        pub next_header: u8,
        /// Hop limit; 255 proves that no router forwarded the packet.
        pub hop_limit: u8,
        /// Source address.
        pub src: [u8; 16],
        /// Destination address.
        pub dst: [u8; 16],
    }

    /// The two addresses of an IPv6 header: its share of the pseudo header that checksums cover.
    pub struct Addresses {
        /// Source address.
        pub src: [u8; 16],
        /// Destination address.
        pub dst: [u8; 16],
    }

    /// Fixed part of a neighbour solicitation or advertisement.
    pub struct Neighbour {
        /// ICMPv6 type.
        pub icmp_type: u8,
        /// ICMPv6 code, always 0.
        pub code: u8,
        /// Checksum over the pseudo header and the message.
        pub checksum: [u8; 2],
        /// Flags of an advertisement (first byte), else reserved.
        pub flags: [u8; 4],
        /// The address asked for or advertised.
        pub target: [u8; 16],
    }

    /// One neighbour discovery option of a single unit (eight bytes).
    pub struct NdOption {
        /// Option type.
        pub kind: u8,
        /// Length in units of eight bytes, this header included; 0 is malformed.
        pub units: u8,
        /// The link-layer address, where the option carries one.
        pub addr: [u8; 6],
    }
}

impl Ip6 {
    /// The addresses, as the pseudo header of a checksum covers them.
    #[inline(always)]
    pub const fn addresses(&self) -> Addresses {
        Addresses { src: self.src, dst: self.dst }
    }
}

/// Offset of the network header of an untagged frame.
pub const ETH_LEN: usize = size_of::<Eth>();
/// Length of the fixed IPv6 header.
pub const IP6_LEN: usize = size_of::<Ip6>();
/// Length of the fixed part of NS and NA.
pub const NEIGHBOUR_LEN: usize = size_of::<Neighbour>();
/// Length of a link-layer address option.
pub const OPTION_LEN: usize = size_of::<NdOption>();

/// Offset of the source address from the network header.
pub const SOURCE_AT: usize = core::mem::offset_of!(Ip6, src);
/// Offset of a neighbour message's target from the network header, without extension headers.
pub const TARGET_AT: usize = IP6_LEN + core::mem::offset_of!(Neighbour, target);

/// IPv6 extension headers that may precede ICMPv6: hop-by-hop options, routing, destination
/// options.
#[inline(always)]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 60)
}

/// Whether an address is multicast or broadcast, and so never that of one station.
#[inline(always)]
pub const fn is_group_mac(mac: &[u8; 6]) -> bool {
    mac[0] & 1 == 1
}

/// Whether a single station can have this address: neither a group nor all zeros.
#[inline(always)]
pub fn is_station_mac(mac: &[u8; 6]) -> bool {
    !is_group_mac(mac) && *mac != [0; 6]
}

/// Whether an address is IPv4 multicast, class E or limited broadcast, and so never that of a
/// sender.
#[inline(always)]
pub const fn is_group_v4(ip: &[u8; 4]) -> bool {
    ip[0] >= 224
}

/// The solicited-node multicast group of an address (RFC 4291 section 2.7.1).
#[inline(always)]
pub const fn solicited_node(ip: &[u8; 16]) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ip[13], ip[14], ip[15]]
}

/// Ethernet address of the solicited-node group of an address (RFC 2464 section 7).
#[inline(always)]
pub const fn solicited_node_mac(ip: &[u8; 16]) -> [u8; 6] {
    [0x33, 0x33, 0xff, ip[13], ip[14], ip[15]]
}
