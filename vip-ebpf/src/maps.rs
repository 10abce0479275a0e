//! The maps, typed by BTF so that `bpftool map dump` names every field.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_boot_ns,
    macros::btf_map,
};
use vip_common::{
    abi::{
        CLAIM_INTERVAL_NS, CLAIM_RING_BYTES, Claim, Claimant, FAST_IFINDEX, Fence, Holder, HostAddr,
        Identity, Iface, Ip, MAX_ADDRS, MAX_IFACES, MAX_SLOTS, MAX_VIPS, Port, TenureRecord, Vip,
    },
    counter::Counter,
    env::Env,
};

/// Entries are allocated on demand: most hosts hold a handful of VIPs.
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
/// Who may claim the VIPs of a slot; empty unless `guard_neighbours` is set.
#[btf_map]
static HOLDERS: Array<Holder, { MAX_SLOTS as usize }> = Array::new();
#[btf_map]
static CLAIM_SEEN: LruHashMap<Claimant, u64, 1024> = LruHashMap::new();

// The maps below are read and written by user space only; they are declared here so that one object
// describes the whole pin directory.
#[btf_map]
static TENURES: Array<TenureRecord, { MAX_SLOTS as usize }> = Array::new();
#[btf_map]
static IDENTITY: Array<Identity, 1> = Array::new();
#[btf_map]
static ADDRS: HashMap<HostAddr, u32, { MAX_ADDRS as usize }, NO_PREALLOC> = HashMap::new();
/// An update of a map of maps makes the syscall wait until no program runs that has seen an older
/// state (`maybe_wait_bpf_programs`): the grace period between silence and release.
#[btf_map]
static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// 1: traffic to a VIP that is not held is dropped. Set before loading; the verifier then knows the value and
/// leaves the other branch out.
#[unsafe(no_mangle)]
static DROP_ON_LOSS: u8 = 0;

/// The kernel's maps and clock, as seen from one interface.
pub(crate) struct Kernel {
    pub(crate) ifindex: u32,
}

impl Env for Kernel {
    #[inline(always)]
    fn vip(&self, ip: &Ip) -> Option<Vip> {
        // SAFETY: the value is copied out at once; user space replaces entries and never changes
        // them in place.
        unsafe { VIPS.get(ip).copied() }
    }

    #[inline(always)]
    fn fence(&self, slot: u32) -> Option<Fence> {
        let fence = FENCES.get_ptr(slot)?;
        // SAFETY: the pointer is into the array. Both reads are volatile, each of one aligned word,
        // because user space stores while programs run.
        unsafe {
            Some(Fence::new(
                core::ptr::read_volatile(&raw const (*fence).deadline_ns),
                core::ptr::read_volatile(&raw const (*fence).generation),
            ))
        }
    }

    #[inline(always)]
    fn iface(&self, outer_vid: u16, inner_vid: u16) -> Option<Iface> {
        if outer_vid == 0 && self.ifindex < FAST_IFINDEX {
            return IFACES_BY_INDEX.get(self.ifindex).copied().filter(|iface| iface.known == 1);
        }
        // SAFETY: as in `vip`.
        unsafe { IFACES.get(Port { ifindex: self.ifindex, outer_vid, inner_vid }).copied() }
    }

    #[inline(always)]
    fn drops_on_loss(&self) -> bool {
        // SAFETY: a plain read that the compiler must not fold: the loader changes the value.
        unsafe { core::ptr::read_volatile(&raw const DROP_ON_LOSS) != 0 }
    }

    #[inline(always)]
    fn holder<R>(&self, slot: u32, look: impl FnOnce(&Holder) -> R) -> Option<R> {
        HOLDERS.get(slot).map(look)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper reads a clock.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: the pointer is to this CPU's copy.
            unsafe { *value += 1 };
        }
    }

    #[inline(always)]
    fn claim(&self, ip: Ip, mac: [u8; 6]) {
        let at_ns = self.now();
        let claimant = Claimant { ip, mac, _reserved: [0; 2] };
        // SAFETY: the value is copied out at once.
        let last = unsafe { CLAIM_SEEN.get(claimant).copied() }.unwrap_or(0);
        if last != 0 && at_ns.wrapping_sub(last) < CLAIM_INTERVAL_NS {
            return;
        }
        let _ = CLAIM_SEEN.insert(claimant, at_ns, 0);
        let claim = Claim { at_ns, ip, ifindex: self.ifindex, mac, _reserved: [0; 6] };
        if CLAIMS.output(claim, 0).is_err() {
            self.count(Counter::ClaimEventLost);
        }
    }
}
