//! Asks the LAN which stations answer for an address, with ARP requests and neighbour solicitations
//! from this host's own addresses, and collects the replies.

use super::{
    announce::{Announcer, probe, question},
    host::os_error,
    reports::when_readable,
};
use crate::model::selection::Device;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    task::yield_now,
    time::{Instant, sleep_until},
};
use vip_common::{
    mac::Mac,
    wire::{
        Arp, BROADCAST, ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6, IP6_LEN, NEIGHBOUR_ADVERTISEMENT,
        NEXT_ICMPV6, Neighbour,
    },
};

/// One reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The address that the station answers for.
    pub ip: IpAddr,
    /// The MAC address that the reply names.
    pub mac: Mac,
    /// The interface on which the reply arrived.
    pub ifindex: u32,
}

/// How many frames are read before other tasks get a turn. Other stations may send faster than we read.
const FRAMES_IN_ONE_GO: usize = 64;
/// At most this many answers are kept.
const MOST_ANSWERS: usize = 4_096;

/// Sends questions, and receives the answers on every interface.
#[derive(Debug)]
pub struct Asker {
    sender: Announcer,
    arp: AsyncFd<OwnedFd>,
    nd: AsyncFd<OwnedFd>,
}

impl Asker {
    /// Opens the sockets. Needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            sender: Announcer::open()?,
            arp: listen(ETHERTYPE_ARP, &TO_THIS_HOST)?,
            nd: listen(ETHERTYPE_IPV6, &ADVERTISEMENTS)?,
        })
    }

    /// Asks for an address on one interface. The sender is an address of that interface if it has one,
    /// because some hosts answer only their own subnet. Returns whether a question could be sent.
    pub fn ask(&self, device: &Device, ip: IpAddr) -> io::Result<bool> {
        let Some(mac) = device.mac else { return Ok(false) };
        let own = device.subnets.iter().map(|(address, _)| *address).find(|address| match address {
            IpAddr::V4(_) => ip.is_ipv4(),
            IpAddr::V6(v6) => ip.is_ipv6() && v6.is_unicast_link_local(),
        });
        let own = own.or_else(|| {
            let mut all = device.subnets.iter().map(|(address, _)| *address);
            all.find(|address| address.is_ipv4() == ip.is_ipv4() && *address != ip)
        });
        let frame = match (ip, own) {
            (IpAddr::V4(_), Some(own)) => question(own, mac, (ip, Mac(BROADCAST))),
            (IpAddr::V4(_), None) => probe(ip, mac, None),
            (IpAddr::V6(_), Some(IpAddr::V6(own))) => probe(ip, mac, Some(own.octets())),
            // A solicitation without a source would be a claim, not a question.
            (IpAddr::V6(_), _) => None,
        };
        let Some(frame) = frame else { return Ok(false) };
        self.sender.send(device.ifindex, &frame)?;
        Ok(true)
    }

    /// The answers for these addresses that arrive within `limit`.
    pub async fn hear(
        &self,
        asked: &BTreeSet<IpAddr>,
        limit: Duration,
    ) -> io::Result<BTreeSet<Answer>> {
        let end = Instant::now() + limit;
        let mut answers = BTreeSet::new();
        while Instant::now() < end {
            let ready = tokio::select! {
                ready = self.arp.readable() => ready,
                ready = self.nd.readable() => ready,
                () = sleep_until(end) => break,
            };
            let mut ready = ready?;
            for _ in 0..FRAMES_IN_ONE_GO {
                match receive(ready.get_inner())? {
                    Received::Nothing => {
                        ready.clear_ready();
                        break;
                    }
                    Received::ToOthers => {}
                    Received::Frame(frame, ifindex) => {
                        let told = answer(&frame, ifindex).filter(|told| asked.contains(&told.ip));
                        if let Some(told) = told.filter(|_| answers.len() < MOST_ANSWERS) {
                            answers.insert(told);
                        }
                    }
                }
            }
            yield_now().await;
        }
        Ok(answers)
    }
}

/// The offset at which the kernel gives a filter the packet type (`SKF_AD_OFF + SKF_AD_PKTTYPE`).
const PACKET_TYPE: u32 = 0xffff_f004;

/// Classic BPF: accepts only frames that were sent to this host alone, so that broadcasts stay in the
/// kernel.
const TO_THIS_HOST: [libc::sock_filter; 4] = [
    libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: PACKET_TYPE },
    libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::PACKET_HOST as u32 },
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
];

/// Classic BPF: accepts only neighbour advertisements, so that the traffic of a busy host stays in the
/// kernel.
const ADVERTISEMENTS: [libc::sock_filter; 6] = [
    libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: ETH_LEN as u32 + 6 },
    libc::sock_filter { code: 0x15, jt: 0, jf: 3, k: NEXT_ICMPV6 as u32 },
    libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: (ETH_LEN + IP6_LEN) as u32 },
    libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: NEIGHBOUR_ADVERTISEMENT as u32 },
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
];

fn listen(ethertype: u16, filter: &[libc::sock_filter]) -> io::Result<AsyncFd<OwnedFd>> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes plain numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(os_error("cannot open a packet socket (CAP_NET_RAW is needed)"));
    }
    // SAFETY: the descriptor is fresh and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if !filter.is_empty() {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the pointers are to live values of the given sizes; the kernel copies the filter.
        let result = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(os_error("cannot attach a socket filter"));
        }
    }
    // SAFETY: an all-zero sockaddr_ll is valid.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    from.sll_family = libc::AF_PACKET as u16;
    from.sll_protocol = ethertype.to_be();
    // SAFETY: the pointer is to a live value of the given size.
    let result = unsafe {
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::bind(fd, (&raw const from).cast(), size)
    };
    if result < 0 {
        return Err(os_error("cannot listen on a packet socket"));
    }
    when_readable(socket)
}

/// Reads the next frame, if it was sent to this host alone: only that can be a reply to our question.
/// An announcement to all stations answers nothing, and during a handover would look like a second
/// owner.
fn receive(socket: &OwnedFd) -> io::Result<Received> {
    let mut frame = vec![0; 256];
    // SAFETY: an all-zero sockaddr_ll is valid.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointers are to live buffers of the given sizes.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            frame.as_mut_ptr().cast(),
            frame.len(),
            0,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    if received < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            // A socket reports once that an interface went down.
            _ if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(Received::Nothing),
            _ => Err(error),
        };
    }
    if from.sll_pkttype != libc::PACKET_HOST {
        return Ok(Received::ToOthers);
    }
    frame.truncate(received as usize);
    Ok(Received::Frame(frame, from.sll_ifindex.cast_unsigned()))
}

/// What one read of a socket has brought.
enum Received {
    /// A frame to this host alone, and the interface on which it arrived.
    Frame(Vec<u8>, u32),
    /// A frame that was not sent to this host alone.
    ToOthers,
    /// No frame for now.
    Nothing,
}

/// The answer that a frame contains: the sender of any ARP message, or the target of an advertisement.
fn answer(frame: &[u8], ifindex: u32) -> Option<Answer> {
    let source: Mac = frame.get(6..12)?.try_into().ok()?;
    let body = frame.get(ETH_LEN..)?;
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    if ethertype == ETHERTYPE_ARP {
        let arp: Arp = bytemuck::pod_read_unaligned(body.get(..size_of::<Arp>())?);
        let ip = IpAddr::from(Ipv4Addr::from(arp.spa));
        return Some(Answer { ip, mac: Mac(arp.sha), ifindex });
    }
    let icmp = body.get(IP6_LEN..)?;
    let message: Neighbour = bytemuck::pod_read_unaligned(icmp.get(..size_of::<Neighbour>())?);
    if message.icmp_type != NEIGHBOUR_ADVERTISEMENT {
        return None;
    }
    let option = icmp.get(size_of::<Neighbour>()..).unwrap_or_default();
    let told = match option {
        [2, 1, mac @ ..] => mac.get(..6).and_then(|mac| mac.try_into().ok()),
        _ => None,
    };
    let ip = IpAddr::from(Ipv6Addr::from(message.target));
    Some(Answer { ip, mac: told.unwrap_or(source), ifindex })
}
