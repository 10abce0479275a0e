//! Announcements and address probes are raw frames through a packet socket, so that the egress guard
//! sees every one of them. `PACKET_QDISC_BYPASS` is never set, because it would bypass the guard.

use super::{host::os_error, netlink::Neighbour};
use bytemuck::bytes_of;
use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};
use vip_common::{
    abi::TC_PRIO_CONTROL,
    mac::Mac,
    nd::headers,
    wire::{
        ALL_NODES, ALL_NODES_MAC, ARP_REPLY, ARP_REQUEST, Arp, BROADCAST, ETHERTYPE_ARP,
        ETHERTYPE_IPV6, Eth, NA_OVERRIDE, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION,
        Neighbour as NdMessage, OPTION_SLLAO, OPTION_TLLAO, solicited_node, solicited_node_mac,
    },
};

/// Length of the shortest Ethernet frame without its checksum.
const MIN_FRAME: usize = 60;

/// Sends raw frames through a packet socket.
#[derive(Debug)]
pub struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    /// Opens the packet socket; it receives nothing (protocol 0). Needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes plain numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(os_error("cannot open a packet socket (CAP_NET_RAW is needed)"));
        }
        // SAFETY: the descriptor is fresh and has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { socket })
    }

    /// The same for claims, with a priority: frames that already wait in an interface's queue do not
    /// delay them beyond the margin of the fence. Needs `CAP_NET_ADMIN` as well.
    pub fn open_for_claims() -> io::Result<Self> {
        let announcer = Self::open()?;
        let priority = TC_PRIO_CONTROL.cast_signed();
        // SAFETY: the pointer is to a live value of the given size.
        let set = unsafe {
            libc::setsockopt(
                announcer.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PRIORITY,
                (&raw const priority).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if set == 0 {
            Ok(announcer)
        } else {
            Err(os_error("cannot set the priority of a packet socket (CAP_NET_ADMIN is needed)"))
        }
    }

    /// Sends one frame. ENOBUFS shows that the guard has dropped it.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = ifindex.cast_signed();
        to.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
        to.sll_halen = 6;
        to.sll_addr[..6].copy_from_slice(&frame[..6]);
        // SAFETY: both pointers are to live values of the given sizes.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(os_error("cannot send an announcement")) } else { Ok(()) }
    }

    /// How many bytes of this socket's frames are still in a queue of the host (SIOCOUTQ).
    pub fn queued(&self) -> io::Result<usize> {
        let mut queued: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (TIOCOUTQ) stores one int.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
        if result < 0 { Err(os_error("cannot read SIOCOUTQ")) } else { Ok(queued.max(0) as usize) }
    }
}

/// The frames of one announcement. For IPv4 the request form comes first (RFC 5227 section 2.3). The
/// reply form has tha = sha, the only one that Linux accepts as gratuitous (`arp_is_garp`). For IPv6 it
/// is an unsolicited advertisement (RFC 4861 section 7.2.6).
pub fn announcement(vip: IpAddr, Mac(mac): Mac) -> Vec<Vec<u8>> {
    match vip {
        IpAddr::V4(v4) => {
            let vip = v4.octets();
            vec![
                arp(ARP_REQUEST, BROADCAST, mac, vip, [0; 6], vip),
                arp(ARP_REPLY, BROADCAST, mac, vip, mac, vip),
            ]
        }
        IpAddr::V6(v6) => {
            let header = NdMessage {
                icmp_type: NEIGHBOUR_ADVERTISEMENT,
                code: 0,
                checksum: [0; 2],
                flags: [NA_OVERRIDE, 0, 0, 0],
                target: v6.octets(),
            };
            vec![nd(ALL_NODES_MAC, mac, v6.octets(), ALL_NODES, header, OPTION_TLLAO)]
        }
    }
}

/// A question from the VIP to a known neighbour, unicast if its link-layer address is known. RFC 826
/// makes the receiver update its entry for the sender, even if it ignores gratuitous frames. `None` if
/// the families differ.
pub fn question(vip: IpAddr, Mac(mac): Mac, (ip, Mac(to)): Neighbour) -> Option<Vec<u8>> {
    match (vip, ip) {
        (IpAddr::V4(vip), IpAddr::V4(ip)) => {
            Some(arp(ARP_REQUEST, to, mac, vip.octets(), [0; 6], ip.octets()))
        }
        (IpAddr::V6(vip), IpAddr::V6(ip)) => {
            let header = solicitation(ip.octets());
            Some(nd(to, mac, vip.octets(), ip.octets(), header, OPTION_SLLAO))
        }
        _ => None,
    }
}

/// Asks whether an address is in use. For IPv4 this is the probe of RFC 5227. For IPv6 it is an
/// ordinary solicitation from `source`, an address of the interface: one from `::` would be a claim,
/// which the guard stops.
pub fn probe(vip: IpAddr, Mac(mac): Mac, source: Option<[u8; 16]>) -> Option<Vec<u8>> {
    match vip {
        IpAddr::V4(v4) => Some(arp(ARP_REQUEST, BROADCAST, mac, [0; 4], [0; 6], v4.octets())),
        IpAddr::V6(v6) => {
            let target = v6.octets();
            let (to, group) = (solicited_node_mac(&target), solicited_node(&target));
            Some(nd(to, mac, source?, group, solicitation(target), OPTION_SLLAO))
        }
    }
}

fn solicitation(target: [u8; 16]) -> NdMessage {
    NdMessage { icmp_type: NEIGHBOUR_SOLICITATION, code: 0, checksum: [0; 2], flags: [0; 4], target }
}

fn arp(op: u16, to: [u8; 6], mac: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4]) -> Vec<u8> {
    let eth = Eth { dst: to, src: mac, ethertype: ETHERTYPE_ARP.to_be_bytes() };
    let arp =
        Arp { hrd: [0, 1], pro: [8, 0], hln: 6, pln: 4, op: op.to_be_bytes(), sha: mac, spa, tha, tpa };
    let mut frame = [bytes_of(&eth), bytes_of(&arp)].concat();
    frame.resize(MIN_FRAME, 0);
    frame
}

fn nd(
    to: [u8; 6],
    mac: [u8; 6],
    src: [u8; 16],
    dst: [u8; 16],
    message: NdMessage,
    option: u8,
) -> Vec<u8> {
    let eth = Eth { dst: to, src: mac, ethertype: ETHERTYPE_IPV6.to_be_bytes() };
    let (ip6, message, option) = headers(src, dst, message, option, mac);
    [bytes_of(&eth), bytes_of(&ip6), bytes_of(&message), bytes_of(&option)].concat()
}
