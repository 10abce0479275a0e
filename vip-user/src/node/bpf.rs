//! The few commands of bpf(2) that aya does not offer: opening and pinning objects of any type, and
//! looking at links without the right to open programs by id.

use super::confined::Confinement;
use crate::sources;
use aya::programs::{ProgramError, TcError};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_INFO: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

/// `enum bpf_attach_type` of `include/uapi/linux/bpf.h` (6.6).
const TCX_EGRESS: u32 = 47;
/// How many programs on one hook of one interface are read.
const MAX_QUERIED: usize = 64;

/// Why the kernel refused a command of bpf(2) for lack of rights, and what helps. `None` for other
/// errors.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let refused = sources::of(error).find_map(|error| {
        let error = error.downcast_ref::<io::Error>()?;
        (error.kind() == io::ErrorKind::PermissionDenied).then_some(error)
    })?;
    Some(Confinement::of_this_process().why_bpf_is_refused(refused))
}

/// The error number of a failed command, if it has one.
pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

/// Describes why a program could not be attached.
pub(super) fn describe(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => match error.io_error.raw_os_error() {
            Some(libc::EBUSY) => "another XDP program is attached there".into(),
            Some(libc::EOPNOTSUPP) => "the driver has no native XDP".into(),
            _ => error.io_error.to_string(),
        },
        other => other.to_string(),
    }
}

#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    _pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// What a link is attached to. This is the head of `struct bpf_link_info`, which is the same for XDP
/// and tcx.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    kind: u32,
    /// Id of the link.
    pub id: u32,
    /// Id of its program.
    pub program: u32,
    _pad: u32,
    /// The interface; 0 if it is gone or the link was detached.
    pub ifindex: u32,
    _rest: [u32; 27],
}

/// Opens a pinned object.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = call(OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an open object.
pub fn pin(path: &Path, object: BorrowedFd<'_>) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let fd = object.as_raw_fd().cast_unsigned();
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd, flags: 0 };
    call(OBJ_PIN, &mut attr).map(drop)
}

/// Reads what a pinned link is attached to.
pub fn link_info(path: &Path) -> io::Result<LinkInfo> {
    let link = get(path)?;
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        fd: link.as_raw_fd().cast_unsigned(),
        len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    call(OBJ_INFO, &mut attr)?;
    Ok(info)
}

/// Ids of the links at TC egress (tcx, kernel 6.6) and of their programs, in the order in which they
/// run. Link 0 is a program that was attached without a link. This needs no descriptor.
pub fn egress_links(ifindex: u32) -> io::Result<Vec<(u32, u32)>> {
    let (mut programs, mut links) = ([0_u32; MAX_QUERIED], [0_u32; MAX_QUERIED]);
    let mut attr = QueryAttr {
        ifindex,
        attach_type: TCX_EGRESS,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: programs.as_mut_ptr() as u64,
        count: MAX_QUERIED as u32,
        _pad: 0,
        prog_attach_flags: 0,
        link_ids: links.as_mut_ptr() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    call(PROG_QUERY, &mut attr)?;
    let found = links.into_iter().zip(programs);
    Ok(found.take(attr.count as usize).collect())
}

static CALLS: AtomicU64 = AtomicU64::new(0);

/// How often this process has called bpf(2) from here. Tests use it to measure the work of a look.
pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// One command. `T` must be the head of `union bpf_attr` for it.
pub(super) fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: every attribute structure of this file and of `raw_map` is the head of `union bpf_attr`
    // for its command. Its pointers are to buffers that live through the call and are as long as the
    // map says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
