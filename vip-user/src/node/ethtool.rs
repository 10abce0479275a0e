//! What a NIC does to frames before any program sees them.

use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

/// `ETHTOOL_GFLAGS` of `linux/ethtool.h`: the old feature flags, from before features had names.
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`.
const RXVLAN: u32 = 1 << 8;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the NIC removes VLAN tags from frames (rxvlan). If that cannot be read, the answer is yes,
/// which costs speed but is still correct.
pub fn strips_tags(interface: &str) -> bool {
    flags(interface).map_or(true, |flags| flags & RXVLAN != 0)
}

fn flags(interface: &str) -> io::Result<u32> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut value = Value { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IF_NAMESIZE - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request points to a live ethtool_value, which is what this command reads and writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
