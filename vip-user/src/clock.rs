//! The clocks on which decisions depend. Other clocks only measure requests and date Events.

use crate::model::time::{BootNs, Now};

/// `CLOCK_BOOTTIME`, the clock that `bpf_ktime_get_boot_ns` reads too.
pub fn boot() -> BootNs {
    BootNs(read(libc::CLOCK_BOOTTIME))
}

/// Both clocks at once.
pub fn now() -> Now {
    Now { boot: boot(), wall_us: (read(libc::CLOCK_REALTIME) / 1_000) as i64 }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec. The call cannot fail for these two clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
