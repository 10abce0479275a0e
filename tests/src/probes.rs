//! What clients see. One namespace asks by ARP and neighbour solicitation; another sends ICMP
//! echoes through its own neighbour cache, as a user's traffic would.

use crate::{frames, netns::NetNs, packet_socket::PacketSocket};
use anyhow::Context as _;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use vip_user::clock;

/// Time between probes.
pub const EVERY: Duration = Duration::from_millis(5);

/// The record of one probe.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// When each probe left, by VIP.
    pub sent: BTreeMap<IpAddr, Vec<u64>>,
    /// When each answer arrived, and its MAC address (zero for ICMP), by VIP.
    pub answers: BTreeMap<IpAddr, Vec<(u64, [u8; 6])>>,
    /// When each unanswered echo left, by VIP and sequence number.
    pub open_echoes: BTreeMap<(IpAddr, u16), u64>,
}

impl Series {
    /// The longest time without an answer within a span, in milliseconds; the worst VIP.
    pub fn dark_ms(&self, from_ns: u64, to_ns: u64) -> f64 {
        let mut worst = 0.0_f64;
        for vip in self.sent.keys() {
            let mut last = from_ns;
            let answers = self.answers.get(vip).map(Vec::as_slice).unwrap_or_default();
            let inside = answers.iter().map(|(at, _)| *at).filter(|at| (from_ns..to_ns).contains(at));
            for at in inside.chain([to_ns]) {
                worst = worst.max(at.saturating_sub(last) as f64 / 1e6);
                last = at;
            }
        }
        worst
    }

    /// Echoes sent within a span: the number that was never answered, and the total. The last ones
    /// may still be in flight when listening ends.
    pub fn unanswered(&self, from_ns: u64, to_ns: u64) -> (usize, usize) {
        let decided = from_ns..to_ns.saturating_sub(200_000_000);
        let lost = self.open_echoes.values().filter(|at| decided.contains(at)).count();
        let all = self.sent.values().flatten();
        (lost, all.filter(|at| (from_ns..to_ns).contains(at)).count())
    }

    /// When those echoes were sent, in milliseconds since `from_ns`.
    pub fn unanswered_at(&self, from_ns: u64, to_ns: u64) -> Vec<u64> {
        let inside = self.open_echoes.values().filter(|at| (from_ns..to_ns).contains(at));
        let mut times: Vec<u64> = inside.map(|at| (at - from_ns) / 1_000_000).collect();
        times.sort_unstable();
        times
    }

    /// The number of questions sent within a span minus that of answers, and the number sent. An
    /// answer counts in the span in which it arrived.
    pub fn lost(&self, from_ns: u64, to_ns: u64) -> (usize, usize) {
        let inside = |at: &u64| (from_ns..to_ns).contains(at);
        let sent: usize = self.sent.values().flatten().filter(|at| inside(at)).count();
        let answered: usize = self.answers.values().flatten().filter(|(at, _)| inside(at)).count();
        (sent.saturating_sub(answered), sent)
    }

    /// The MAC address of the last answer after an instant.
    pub fn last_mac(&self, after_ns: u64) -> Option<[u8; 6]> {
        let last = self.answers.values().flatten().filter(|(at, _)| *at >= after_ns);
        last.max_by_key(|(at, _)| *at).map(|(_, mac)| *mac)
    }

    /// The first answer by another station than `mac`.
    pub fn first_other(&self, after_ns: u64, mac: [u8; 6]) -> Option<(u64, [u8; 6])> {
        let others = self.answers.values().flatten();
        others.filter(|(at, by)| *at >= after_ns && *by != mac).min_by_key(|(at, _)| *at).copied()
    }
}

/// A probe that runs until it is finished.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Series>>,
}

impl Probe {
    /// Stops it and returns its record.
    ///
    /// # Errors
    /// If probing failed.
    pub fn finish(self) -> anyhow::Result<Series> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?
    }

    /// Asks for every VIP by ARP and NS, on `eth0` of a namespace.
    pub fn ask(ns: &NetNs, mac: [u8; 6], v4: [u8; 4], v6: [u8; 16], vips: &[IpAddr]) -> Self {
        let (stop, vips) = (Arc::new(AtomicBool::new(false)), vips.to_vec());
        let stopped = Arc::clone(&stop);
        let thread = ns.spawn(move || {
            let socket = PacketSocket::open("eth0")?;
            let mut series = Series::default();
            let questions: Vec<(IpAddr, Vec<u8>)> = vips
                .iter()
                .map(|vip| match vip {
                    IpAddr::V4(ip) => (*vip, frames::arp_request(mac, v4, ip.octets())),
                    IpAddr::V6(ip) => (*vip, frames::solicitation(mac, v6, ip.octets())),
                })
                .collect();
            let mut next = clock::boot().0;
            while !stopped.load(Ordering::Relaxed) {
                let now = clock::boot().0;
                if now >= next {
                    for (vip, frame) in &questions {
                        if socket.send(frame).is_ok() {
                            series.sent.entry(*vip).or_default().push(now);
                        }
                    }
                    next = (next + EVERY.as_nanos() as u64).max(now);
                }
                if let Some(received) = socket.receive(Duration::from_millis(1))?
                    && let Some((vip, by)) = answer(&received.frame)
                    && vips.contains(&vip)
                {
                    series.answers.entry(vip).or_default().push((received.at_ns, by));
                }
            }
            Ok(series)
        });
        Self { stop, thread }
    }

    /// Sends echoes to every VIP through the namespace's own neighbour cache.
    pub fn echo(ns: &NetNs, vips: &[IpAddr]) -> Self {
        let (stop, vips) = (Arc::new(AtomicBool::new(false)), vips.to_vec());
        let stopped = Arc::clone(&stop);
        let thread = ns.spawn(move || {
            let sockets: Vec<(IpAddr, OwnedFd)> =
                vips.iter().map(|vip| Ok((*vip, icmp_socket(*vip)?))).collect::<anyhow::Result<_>>()?;
            let mut series = Series::default();
            let mut sequence: u16 = 0;
            let mut next = clock::boot().0;
            while !stopped.load(Ordering::Relaxed) {
                let now = clock::boot().0;
                if now >= next {
                    sequence = sequence.wrapping_add(1);
                    for (vip, socket) in &sockets {
                        // An unanswered address resolution is an error here; it counts as a lost
                        // echo.
                        let _ = send_echo(socket, *vip, sequence);
                        series.sent.entry(*vip).or_default().push(now);
                        series.open_echoes.insert((*vip, sequence), now);
                    }
                    next = (next + EVERY.as_nanos() as u64).max(now);
                }
                for (vip, socket) in &sockets {
                    while let Some(sequence) = receive_echo(socket, *vip) {
                        series.open_echoes.remove(&(*vip, sequence));
                        series.answers.entry(*vip).or_default().push((clock::boot().0, [0; 6]));
                    }
                }
                thread::sleep(Duration::from_micros(500));
            }
            Ok(series)
        });
        Self { stop, thread }
    }
}

/// The VIP and MAC of an ARP reply or advertisement.
fn answer(frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    match frame.get(12..14)? {
        [0x08, 0x06] if frame.get(20..22)? == [0, 2] => {
            let spa: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
            Some((IpAddr::from(spa), frame.get(22..28)?.try_into().ok()?))
        }
        [0x86, 0xdd] if *frame.get(20)? == 58 && *frame.get(54)? == 136 => {
            // Only a solicited advertisement answers a question.
            if frame.get(58)? & 0x40 == 0 {
                return None;
            }
            let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
            Some((IpAddr::from(target), frame.get(80..86)?.try_into().ok()?))
        }
        _ => None,
    }
}

fn icmp_socket(vip: IpAddr) -> anyhow::Result<OwnedFd> {
    let (family, protocol) = match vip {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: the call takes plain numbers.
    let fd = unsafe {
        libc::socket(family, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot open an ICMP socket");
    }
    // SAFETY: the descriptor is fresh and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const IDENTIFIER: [u8; 2] = *b"xv";

fn send_echo(socket: &OwnedFd, vip: IpAddr, sequence: u16) -> io::Result<()> {
    let kind = if vip.is_ipv4() { 8 } else { 128 };
    let [high, low] = sequence.to_be_bytes();
    let mut packet = [kind, 0, 0, 0, IDENTIFIER[0], IDENTIFIER[1], high, low];
    if vip.is_ipv4() {
        // The kernel fills in the checksum for ICMPv6 only.
        let sum: u32 =
            packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
    let (address, len) = socket_address(SocketAddr::new(vip, 0));
    // SAFETY: the pointers are to live values of the given sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            len,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The sequence number of a waiting echo reply of this VIP. Other packets are discarded.
fn receive_echo(socket: &OwnedFd, vip: IpAddr) -> Option<u16> {
    loop {
        let mut packet = [0_u8; 128];
        // SAFETY: all-zero is valid; the pointers are to live values of the given sizes.
        let (len, from) = unsafe {
            let mut from: libc::sockaddr_storage = std::mem::zeroed();
            let mut from_len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            let len = libc::recvfrom(
                socket.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut from_len,
            );
            (len, from)
        };
        if len < 0 {
            return None;
        }
        // A raw IPv4 socket shows the IP header, an ICMPv6 one does not.
        let (offset, reply) = if vip.is_ipv4() { (20, 0) } else { (0, 129) };
        let ours = packet[offset] == reply && packet[offset + 4..offset + 6] == IDENTIFIER;
        if ours && from_address(&from) == vip {
            return Some(u16::from_be_bytes([packet[offset + 6], packet[offset + 7]]));
        }
    }
}

fn socket_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is valid, and sockaddr_storage is large and aligned enough for both kinds.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        match address.ip() {
            IpAddr::V4(ip) => {
                let to = &mut *(&raw mut storage).cast::<libc::sockaddr_in>();
                to.sin_family = libc::AF_INET as u16;
                to.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
                (storage, size_of::<libc::sockaddr_in>() as u32)
            }
            IpAddr::V6(ip) => {
                let to = &mut *(&raw mut storage).cast::<libc::sockaddr_in6>();
                to.sin6_family = libc::AF_INET6 as u16;
                to.sin6_addr.s6_addr = ip.octets();
                (storage, size_of::<libc::sockaddr_in6>() as u32)
            }
        }
    }
}

fn from_address(storage: &libc::sockaddr_storage) -> IpAddr {
    // SAFETY: the kernel has filled in an address of the family that it names.
    unsafe {
        if i32::from(storage.ss_family) == libc::AF_INET {
            let from = &*(&raw const *storage).cast::<libc::sockaddr_in>();
            IpAddr::from(from.sin_addr.s_addr.to_ne_bytes())
        } else {
            let from = &*(&raw const *storage).cast::<libc::sockaddr_in6>();
            IpAddr::from(from.sin6_addr.s6_addr)
        }
    }
}
