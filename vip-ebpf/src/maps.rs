//! The maps, typed by BTF so that `bpftool map dump` names every field.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf},
    helpers::{bpf_ktime_get_boot_ns, bpf_map_lookup_elem},
    macros::btf_map,
};
use bytemuck::Pod;
use core::{arch::asm, mem::MaybeUninit};
use vip_common::{
    abi::{
        CLAIM_INTERVAL_NS, CLAIM_RING_BYTES, Claim, Claimant, FAST_IFINDEX, Fence, Holder, HostAddr,
        Identity, Iface, Ip, MAX_ADDRS, MAX_IFACES, MAX_SLOTS, MAX_VIPS, Port, TenureRecord, Vip,
    },
    counter::Counter,
    env::{Env, Fences},
};

/// `BPF_F_NO_PREALLOC`: most hosts hold only a few VIPs.
const NO_PREALLOC: usize = 1;

#[btf_map]
static VIPS: HashMap<Ip, Vip, { MAX_VIPS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static FENCES: Array<Fence, { MAX_SLOTS as usize }> = Array::new();
#[btf_map]
static IFACES: HashMap<Port, Iface, { MAX_IFACES as usize }> = HashMap::new();
/// The untagged entries of `IFACES` with a small interface index.
#[btf_map]
static IFACES_BY_INDEX: Array<Iface, { FAST_IFINDEX as usize }> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static CLAIMS: RingBuf<Claim, { CLAIM_RING_BYTES as usize }> = RingBuf::new();
/// The stations that may claim the VIPs of a slot; empty unless `guard_neighbours` is set.
#[btf_map]
static HOLDERS: Array<Holder, { MAX_SLOTS as usize }> = Array::new();
#[btf_map]
static CLAIM_SEEN: LruHashMap<Claimant, u64, 1024> = LruHashMap::new();

// The programs do not use the maps below. They are here so that one object describes all pins.
#[btf_map]
static TENURES: Array<TenureRecord, { MAX_SLOTS as usize }> = Array::new();
#[btf_map]
static IDENTITY: Array<Identity, 1> = Array::new();
#[btf_map]
static ADDRS: HashMap<HostAddr, u32, { MAX_ADDRS as usize }, NO_PREALLOC> = HashMap::new();
/// The grace period between silence and release. An update of a map of maps makes the syscall wait
/// until no program runs that has seen an older state (`maybe_wait_bpf_programs`).
#[btf_map]
static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// Per-CPU words that the answering programs pass to helpers; the last one counts the programs in
/// [`alone`]. Not the stack: without CAP_PERFMON, before Linux 6.8 (commit ab125ed3ec1c), the verifier
/// refuses to store under eight bytes where a register was kept.
#[btf_map]
static SCRATCH: PerCpuArray<[u64; SCRATCH_WORDS + 1], 1> = PerCpuArray::new();
const SCRATCH_WORDS: usize = 8;

/// Runs `work`, which uses [`SCRATCH`]; `busy` if another program of this CPU uses it. On PREEMPT_RT
/// (since Linux 6.18 without PREEMPT_RT_NEEDS_BH_LOCK) one program may interrupt another and overwrite
/// what that passes to a helper. Each adds itself to the count, so the second reads at least 2.
#[inline(always)]
pub(crate) fn alone<R>(busy: R, work: impl FnOnce() -> R) -> R {
    let Some(words) = element::<_, [u64; SCRATCH_WORDS + 1]>(&raw const SCRATCH, 0) else {
        return busy;
    };
    // SAFETY: the pointer is into the element.
    let users = unsafe { &raw mut (*words)[SCRATCH_WORDS] };
    add(users, 1);
    // SAFETY: the word lives as long as the map. Other programs change it, so the read is volatile.
    let outcome = if unsafe { core::ptr::read_volatile(users) } == 1 { work() } else { busy };
    add(users, 1_u64.wrapping_neg());
    outcome
}

/// Adds in one instruction, which nothing on this CPU interrupts; the compiler moves no memory access
/// over it. Returning the old value would need Linux 5.12. `core` has no atomics for this target.
#[inline(always)]
fn add(place: *mut u64, number: u64) {
    // SAFETY: callers have a pointer to an aligned word of a map.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) place, in(reg) number, options(nostack)) }
}

/// Space for one value until the next one is placed; to be used only inside [`alone`].
#[inline(always)]
pub(crate) fn scratch<T: Pod>() -> Option<*mut T> {
    const { assert!(size_of::<T>() <= size_of::<[u64; SCRATCH_WORDS]>()) };
    element(&raw const SCRATCH, 0)
}

/// Copies a value to where a helper may read it.
#[inline(always)]
pub(crate) fn placed<T: Pod>(value: T) -> Option<&'static T> {
    let place = scratch::<T>()?;
    // SAFETY: the place is this CPU's, large enough and aligned for anything.
    unsafe {
        *place = value;
        Some(&*place)
    }
}

/// An element of an array whose values begin with a `T`. The key has eight bytes: see [`SCRATCH`].
#[inline(always)]
fn element<M, T>(array: *const M, index: u32) -> Option<*mut T> {
    const { assert!(cfg!(target_endian = "little")) };
    let key = u64::from(index);
    // SAFETY: only four bytes of the key are read, and the value lives as long as the map.
    let value = unsafe { bpf_map_lookup_elem(array.cast_mut().cast(), (&raw const key).cast()) };
    if value.is_null() { None } else { Some(value.cast()) }
}

/// 1: traffic to a VIP that is not held is dropped. It is set before loading, so the verifier knows the
/// value and leaves out the other branch.
#[unsafe(no_mangle)]
static DROP_ON_LOSS: u8 = 0;

#[inline(always)]
pub(crate) fn drops_on_loss() -> bool {
    // SAFETY: a plain read that the compiler must not fold: the loader changes the value.
    unsafe { core::ptr::read_volatile(&raw const DROP_ON_LOSS) != 0 }
}

/// The kernel's maps and clock, for frames of one interface.
pub(crate) struct Kernel<const GUARD: bool> {
    pub(crate) ifindex: u32,
}

impl<const GUARD: bool> Kernel<GUARD> {
    /// Puts a key where a helper can read it. In the guard that is the stack, in words of eight bytes.
    #[inline(always)]
    fn key<T: Pod, const N: usize>(key: T, words: &mut MaybeUninit<[u64; N]>) -> Option<&T> {
        const { assert!(size_of::<T>() == size_of::<[u64; N]>()) };
        if !GUARD {
            return placed(key);
        }
        let at = words.as_mut_ptr().cast::<u64>();
        // SAFETY: both have the same size, any bytes are valid for both, and all of them are written.
        unsafe {
            let from: [u64; N] = core::mem::transmute_copy(&key);
            let mut i = 0;
            while i < N {
                core::ptr::write_volatile(at.add(i), from[i]);
                i += 1;
            }
            Some(&*at.cast())
        }
    }
}

impl<const GUARD: bool> Fences for Kernel<GUARD> {
    #[inline(always)]
    fn fence(&self, slot: u32) -> Option<Fence> {
        let fence: *mut Fence = element(&raw const FENCES, slot)?;
        // SAFETY: the pointer is into the array. Volatile: user space stores words while programs run.
        unsafe {
            Some(Fence::new(
                core::ptr::read_volatile(&raw const (*fence).deadline_ns),
                core::ptr::read_volatile(&raw const (*fence).generation),
            ))
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper reads a clock.
        unsafe { bpf_ktime_get_boot_ns() }
    }
}

impl<const GUARD: bool> Env for Kernel<GUARD> {
    #[inline(always)]
    fn vip(&self, ip: &Ip) -> Option<Vip> {
        let mut words = MaybeUninit::<[u64; 2]>::uninit();
        let key = Self::key(*ip, &mut words)?;
        // SAFETY: the value is copied out at once; user space replaces entries as a whole.
        unsafe { VIPS.get(key).copied() }
    }

    #[inline(always)]
    fn iface(&self, outer_vid: u16, inner_vid: u16) -> Option<Iface> {
        if outer_vid == 0 && self.ifindex < FAST_IFINDEX {
            let iface: *mut Iface = element(&raw const IFACES_BY_INDEX, self.ifindex)?;
            // SAFETY: as in `vip`.
            return Some(unsafe { *iface }).filter(|iface| iface.known == 1);
        }
        let mut words = MaybeUninit::<[u64; 1]>::uninit();
        let port = Self::key(Port { ifindex: self.ifindex, outer_vid, inner_vid }, &mut words)?;
        // SAFETY: as in `vip`.
        unsafe { IFACES.get(port).copied() }
    }

    #[inline(always)]
    fn drops_on_loss(&self) -> bool {
        drops_on_loss()
    }

    #[inline(always)]
    fn holder<R>(&self, slot: u32, look: impl FnOnce(&Holder) -> R) -> Option<R> {
        // SAFETY: the pointer is into the array, which accepts any bytes.
        element(&raw const HOLDERS, slot).map(|holder| look(unsafe { &*holder }))
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(value) = element::<_, u64>(&raw const COUNTERS, counter as u32) {
            // SAFETY: the pointer is to this CPU's copy.
            unsafe { *value += 1 };
        }
    }

    #[inline(always)]
    fn claim(&self, ip: Ip, mac: [u8; 6]) {
        let at_ns = self.now();
        let Some(claimant) = placed(Claimant { ip, mac, _reserved: [0; 2] }) else { return };
        // SAFETY: the value is copied out at once.
        let last = unsafe { CLAIM_SEEN.get(claimant).copied() }.unwrap_or(0);
        if last != 0 && at_ns.wrapping_sub(last) < CLAIM_INTERVAL_NS {
            return;
        }
        let _ = CLAIM_SEEN.insert(claimant, at_ns, 0);
        let claim = placed(Claim { at_ns, ip, ifindex: self.ifindex, mac, _reserved: [0; 6] });
        if claim.is_none_or(|claim| CLAIMS.output(claim, 0).is_err()) {
            self.count(Counter::ClaimEventLost);
        }
    }
}
