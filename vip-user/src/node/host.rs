//! Facts that identify this host, and a few other calls to the system.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, net::UnixDatagram},
    },
};

/// The random id of this boot. `XVIP_BOOT_ID` replaces it in tests that simulate a reboot.
#[expect(clippy::disallowed_methods, reason = "the one place that reads this variable")]
pub fn boot_id() -> io::Result<String> {
    if let Ok(id) = std::env::var("XVIP_BOOT_ID") {
        return Ok(id);
    }
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The node name if the configuration has none: `NODE_NAME`, as set through the downward API, else the
/// host name.
#[expect(clippy::disallowed_methods, reason = "the one place that reads this variable")]
pub fn node_name() -> io::Result<String> {
    if let Ok(name) = std::env::var("NODE_NAME")
        && !name.is_empty()
    {
        return Ok(name);
    }
    host_name()
}

/// The host name, in lower case as in Kubernetes.
pub fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_ascii_lowercase())
}

/// Whether the kernel is Linux 5.x, which needs `CAP_PERFMON` to load the programs.
pub fn is_linux_5() -> bool {
    fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| release.starts_with("5."))
}

/// Whether this process and the first process that it sees are in different network namespaces. Without
/// the right to look, they count as being in the same one.
pub fn in_own_netns() -> bool {
    let of = |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).map(|file| file.ino());
    matches!((of("self"), of("1")), (Ok(own), Ok(first)) if own != first)
}

/// Lets this process open as many files as its hard limit allows, and returns that number. The usual
/// soft limit of 1024 exists for programs that call `select(2)`, which this one does not.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the call reads the value.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_max)
}

/// Whether tcx may be used. `XVIP_NO_TCX` simulates a kernel before 6.6 in tests.
pub fn tcx_allowed() -> bool {
    std::env::var_os("XVIP_NO_TCX").is_none()
}

/// The cookie of this network namespace (`SO_NETNS_COOKIE`), unique until the next boot. Before Linux
/// 5.14 it is the inode number of the namespace. Another namespace can get that number only after this
/// one is gone, and a host's namespace stays.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to a live u64 and its length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        return Ok(cookie);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOPROTOOPT) => Ok(fs::metadata("/proc/self/ns/net")?.ino()),
        _ => Err(os_error("cannot read SO_NETNS_COOKIE")),
    }
}

/// The name of an interface, or its index if it no longer exists.
pub fn interface_name(ifindex: u32) -> String {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call asks for.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) };
    let text = CStr::from_bytes_until_nul(&name).ok().and_then(|name| name.to_str().ok());
    text.filter(|_| !found.is_null()).map_or_else(|| format!("interface {ifindex}"), str::to_owned)
}

/// The index of the interface with this name, if there is one.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends in a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The last OS error, with the failed operation in front.
pub(super) fn os_error(what: &str) -> io::Error {
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
