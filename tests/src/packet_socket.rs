//! Raw frames with the kernel's timestamps.

use anyhow::bail;
use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};
use vip_user::clock;

const ETH_P_ALL: u16 = 3;
/// `sll_pkttype` of frames that this host has sent.
const OUTGOING: u8 = 4;

/// A packet socket on one interface of the calling thread's namespace.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    realtime_to_boot: i128,
}

/// A frame that was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// When the kernel received it, in `CLOCK_BOOTTIME` nanoseconds.
    pub at_ns: u64,
    /// The frame from the Ethernet header on.
    pub frame: Vec<u8>,
}

impl PacketSocket {
    /// Opens it.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW` or the interface.
    pub fn open(interface: &str) -> anyhow::Result<Self> {
        // Protocol 0 until the socket is bound. Otherwise it would queue frames of every interface,
        // and the judge would blame the wrong node. SAFETY: the call takes plain numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            bail!("cannot open a packet socket: {}", io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: the pointer is to a live string.
        let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if ifindex == 0 {
            bail!("interface {interface} does not exist");
        }
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETH_P_ALL.to_be();
        address.sll_ifindex = ifindex.cast_signed();
        let on: libc::c_int = 1;
        let buffer: libc::c_int = 8 << 20;
        // SAFETY: all pointers are to live values of the given sizes.
        let bound = unsafe {
            let set = |name, value: &libc::c_int| {
                let len = size_of::<libc::c_int>() as libc::socklen_t;
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    name,
                    (&raw const *value).cast(),
                    len,
                )
            };
            set(libc::SO_TIMESTAMPNS, &on);
            set(libc::SO_RCVBUFFORCE, &buffer);
            let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len)
        };
        if bound != 0 {
            bail!("cannot bind to {interface}: {}", io::Error::last_os_error());
        }
        let now = clock::now();
        let realtime_to_boot = i128::from(now.boot.0) - i128::from(now.wall_us) * 1_000;
        Ok(Self { fd, realtime_to_boot })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer is to a live buffer of that length.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next received frame, or `None` after `wait`. Frames that this host has sent are left
    /// out.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`.
    pub fn receive(&self, wait: Duration) -> io::Result<Option<Received>> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one live pollfd.
        if unsafe { libc::poll(&raw mut poll, 1, wait.as_millis() as libc::c_int) } <= 0 {
            return Ok(None);
        }
        let mut frame = vec![0_u8; 2048];
        let mut control = [0_u64; 16];
        // SAFETY: all-zero values are valid; the pointers are to live buffers of the given lengths.
        let (len, from, msg) = unsafe {
            let mut from: libc::sockaddr_ll = std::mem::zeroed();
            let mut iov = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
            let mut msg: libc::msghdr = std::mem::zeroed();
            msg.msg_name = (&raw mut from).cast();
            msg.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            msg.msg_iov = &raw mut iov;
            msg.msg_iovlen = 1;
            msg.msg_control = control.as_mut_ptr().cast();
            msg.msg_controllen = size_of_val(&control);
            (libc::recvmsg(self.fd.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT), from, msg)
        };
        if len < 0 {
            let error = io::Error::last_os_error();
            // The interface went down: a fault may do that, so it is no error.
            let passing =
                [io::ErrorKind::WouldBlock, io::ErrorKind::NetworkDown].contains(&error.kind());
            return if passing { Ok(None) } else { Err(error) };
        }
        if from.sll_pkttype == OUTGOING {
            return Ok(None);
        }
        frame.truncate(len as usize);
        let mut at_ns = clock::boot().0;
        // SAFETY: the kernel has filled in the control buffer, which is still alive.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const msg);
            if !header.is_null() && (*header).cmsg_type == libc::SO_TIMESTAMPNS {
                let time = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                let realtime = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
                at_ns = (realtime + self.realtime_to_boot).max(0) as u64;
            }
        }
        Ok(Some(Received { at_ns, frame }))
    }
}
