//! Runs a program under a seccomp filter that refuses bpf(2), as the default profiles of CRI-O and
//! podman do to a process without CAP_SYS_ADMIN.

use anyhow::{Context as _, bail};
use std::{io, os::unix::process::CommandExt as _, process::Command};

/// A seccomp filter is classic BPF: here one load, one comparison, two returns.
const fn step(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else { bail!("usage: xvip-without-bpf PROGRAM ARGUMENT…") };
    let mut filter = [
        // The number of the system call is the first field of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the pointers are to a live program of the kernel's types; prctl copies it.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
    };
    if !set {
        return Err(io::Error::last_os_error()).context("cannot set the filter");
    }
    Err(Command::new(program).args(arguments).exec()).context("cannot run the program")
}
