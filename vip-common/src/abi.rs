//! Layout of the pinned maps. `bpftool`, other versions of xvip and the programs in the kernel all
//! read them. Any change of a layout bumps [`ABI_VERSION`], which is part of the pin path, so that
//! a map is replaced and never reinterpreted.
//!
//! Layouts only grow at their end, and keys never change. Zero in a field means "not set". So any
//! version can take over from any other, newer or older, by copying the fields that both know.
//!
//! The feature `abi-next` makes the layouts of a future version: tests upgrade to it under load,
//! and downgrade again.

use bytemuck::{Pod, Zeroable};

/// Version of all layouts in this file; part of the pin path.
pub const ABI_VERSION: u32 = if cfg!(feature = "abi-next") { 3 } else { 2 };
/// Priority of xvip's frames in the queues of the host (linux/pkt_sched.h). A frame is queued after
/// it passed the guard, and must leave within the margin of its fence. Without this priority, an
/// unprivileged process could fill the queue in front of it and delay it for any time.
pub const TC_PRIO_CONTROL: u32 = 7;
/// The highest priority that a process without rights may use. `pfifo_fast` and `prio` put it into
/// one band with [`TC_PRIO_CONTROL`]. The guard lowers it, so that only root can use that band.
pub const TC_PRIO_INTERACTIVE: u32 = 6;
/// Capacity of the `VIPS` map.
pub const MAX_VIPS: u32 = 16_384;
/// Capacity of the `FENCES`, `TENURES` and `HOLDERS` maps: one slot per Lease.
pub const MAX_SLOTS: u32 = 1_024;
/// Capacity of the `IFACES` map. [`Vip::answer`] has 64 bits, so all interfaces that are only
/// guarded share one.
pub const MAX_IFACES: u32 = 1_024;
/// Interfaces with a smaller index are also in the array `IFACES_BY_INDEX`: an array look-up costs a
/// fraction of a hash look-up, and every answer needs one.
pub const FAST_IFINDEX: u32 = 4_096;
/// MAC addresses in a [`Holder`].
pub const MAX_STATIONS: usize = 16;
/// Capacity of the `ADDRS` map.
pub const MAX_ADDRS: u32 = 65_536;
/// Size of the `CLAIMS` ring buffer, in bytes.
pub const CLAIM_RING_BYTES: u32 = 64 * 1024;
/// In nanoseconds: at most one claim event per address and MAC in this time.
pub const CLAIM_INTERVAL_NS: u64 = 1_000_000_000;

macro_rules! pod {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        pub struct $name {
            $($(#[$fmeta])* pub $field: $ty,)*
        }

        // SAFETY: bytemuck's derive has proved at compile time that the type has no padding and
        // accepts every bit pattern, which is all that aya asks for.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    )*};
}

pod! {
    /// An IP address; IPv4 as `::ffff:a.b.c.d`, so that one map and one rule serve both families.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct Ip {
        /// Network byte order.
        pub octets: [u8; 16],
    }

    /// Value of `VIPS`: where an address may be answered and which fence decides until when.
    #[derive(PartialOrd, Ord)]
    pub struct Vip {
        /// The slot of the Lease that guards this address.
        pub slot: u32,
        /// Always zero.
        pub _reserved: u32,
        /// The tenure under which this entry was published. The kernel answers for it only while
        /// `FENCES[slot]` has the same generation. 0: silent, as on every candidate.
        pub generation: u64,
        /// Bit [`Iface::bit`] is set for each interface on which questions are answered.
        pub answer: u64,
        /// Bit [`Iface::bit`] is set for each interface on which claims are guarded; includes
        /// `answer`.
        pub guard: u64,
        /// A field of a later version.
        #[cfg(feature = "abi-next")]
        pub _next: u64,
    }

    /// Value of `FENCES`: until when the holder of a slot may answer.
    #[derive(Default)]
    pub struct Fence {
        /// `CLOCK_BOOTTIME` in nanoseconds; at and after it the kernel is silent. 0: not held.
        pub deadline_ns: u64,
        /// Counts the tenures of this slot on this host, from 1; never reused.
        pub generation: u64,
        /// A field of a later version.
        #[cfg(feature = "abi-next")]
        pub _next: u64,
    }

    /// Key of `IFACES`: an interface and the VLAN tags inside the frame (0: none).
    #[derive(Hash, PartialOrd, Ord)]
    pub struct Port {
        /// Interface index.
        pub ifindex: u32,
        /// VLAN id of the outer tag.
        pub outer_vid: u16,
        /// VLAN id of the inner tag.
        pub inner_vid: u16,
    }

    /// Value of `IFACES`.
    #[derive(PartialOrd, Ord)]
    pub struct Iface {
        /// The MAC address that is put into answers.
        pub mac: [u8; 6],
        /// This interface's bit in [`Vip::answer`] and [`Vip::guard`].
        pub bit: u8,
        /// 1 while the interface is up and has carrier. While it is 0, nothing is answered on it.
        pub up: u8,
        /// 1 in an entry that was written; tells it from the zeros of an unused array slot.
        pub known: u8,
        /// 1 if the entry belongs to another interface: a member of a bond, or the port below a
        /// VLAN.
        pub alias: u8,
        /// Always zero.
        pub _reserved: [u8; 6],
    }

    /// Value of `TENURES`: the Lease record for which a slot's fence was raised. Only userspace
    /// reads it, after a restart, to tell its own live tenure from another holder's.
    pub struct TenureRecord {
        /// Equal to the generation of the slot's fence.
        pub generation: u64,
        /// `spec.leaseTransitions`.
        pub transitions: i64,
        /// `spec.acquireTime` in microseconds since 1970.
        pub acquire_us: i64,
        /// `spec.leaseDurationSeconds` of the last confirmed write.
        pub duration_s: u32,
        /// Always zero.
        pub _reserved: u32,
        /// `metadata.namespace`, zero-terminated.
        pub namespace: [u8; 64],
        /// `metadata.name`, zero-terminated; a DNS subdomain has at most 253 bytes.
        pub name: [u8; 256],
        /// `metadata.uid`, zero-terminated.
        pub uid: [u8; 64],
        /// Uuid of the process that began the tenure, zero-terminated.
        pub process: [u8; 40],
        /// Boot id of the host, zero-terminated.
        pub boot_id: [u8; 40],
        /// `spec.holderIdentity`, zero-terminated.
        pub holder: [u8; 256],
        /// A field of a later version.
        #[cfg(feature = "abi-next")]
        pub _next: u64,
    }

    /// Value of `HOLDERS`: the stations that may claim the VIPs of a slot while this node's view of
    /// the Lease is fresh.
    pub struct Holder {
        /// `CLOCK_BOOTTIME` in nanoseconds. From then on the view is stale and every station may
        /// claim. 0: no view.
        pub until_ns: u64,
        /// The MAC addresses of the holder and of every other known node; zeros after the last.
        pub stations: [[u8; 6]; MAX_STATIONS],
    }

    /// Value of `IDENTITY`: whose pin directory this is.
    pub struct Identity {
        /// [`ABI_VERSION`] of the writer.
        pub abi: u32,
        /// 1 once the record is complete.
        pub ready: u32,
        /// `SO_NETNS_COOKIE` (kernel 5.14) of the network namespace that the programs are in.
        pub netns_cookie: u64,
        /// Boot id of the host, zero-terminated.
        pub boot_id: [u8; 40],
        /// Node name, zero-terminated.
        pub node: [u8; 256],
        /// `net.ipv4.conf.all.arp_ignore` before xvip set it, plus one; 0: not set by xvip.
        pub arp_ignore_before: u32,
        /// `net.ipv4.conf.all.arp_announce` before xvip set it, plus one; 0: not set by xvip.
        pub arp_announce_before: u32,
        /// A field of a later version.
        #[cfg(feature = "abi-next")]
        pub _next: u64,
    }

    /// Key of `ADDRS`: an address or group that xvip put on an interface. The key is written before
    /// the address is added, so that a crash in between loses nothing.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct HostAddr {
        /// The address or multicast group.
        pub ip: Ip,
        /// The interface that carries it.
        pub ifindex: u32,
    }

    /// A claim of a VIP by another station, as sent through the `CLAIMS` ring buffer.
    pub struct Claim {
        /// When the frame arrived, in `CLOCK_BOOTTIME` nanoseconds.
        pub at_ns: u64,
        /// The claimed address.
        pub ip: Ip,
        /// The interface that it arrived on.
        pub ifindex: u32,
        /// MAC address of the claimant.
        pub mac: [u8; 6],
        /// Always zero.
        pub _reserved: [u8; 6],
    }

    /// Key of `CLAIM_SEEN`, which limits the rate of claim events.
    #[derive(Hash)]
    pub struct Claimant {
        /// The claimed address.
        pub ip: Ip,
        /// MAC address of the claimant.
        pub mac: [u8; 6],
        /// Always zero.
        pub _reserved: [u8; 2],
    }
}

// === impl Ip ===

impl Ip {
    /// `::`, the source address of a duplicate address detection probe.
    pub const UNSPECIFIED: Self = Self { octets: [0; 16] };

    /// An IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self { octets: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] }
    }

    /// An IPv6 address.
    #[inline(always)]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self { octets }
    }
}

impl From<core::net::IpAddr> for Ip {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Ip> for core::net::IpAddr {
    fn from(ip: Ip) -> Self {
        core::net::Ipv6Addr::from(ip.octets).to_canonical()
    }
}

// === impl Fence ===

impl Fence {
    /// A fence; the fields of a later version are zero.
    #[inline(always)]
    pub const fn new(deadline_ns: u64, generation: u64) -> Self {
        Self {
            deadline_ns,
            generation,
            #[cfg(feature = "abi-next")]
            _next: 0,
        }
    }
}

// === impl Vip ===

impl Vip {
    /// An entry; reserved fields and those of a later version are zero.
    pub const fn new(slot: u32, generation: u64, answer: u64, guard: u64) -> Self {
        Self {
            slot,
            _reserved: 0,
            generation,
            answer,
            guard,
            #[cfg(feature = "abi-next")]
            _next: 0,
        }
    }

    /// Whether the interface with this bit answers for the address.
    #[inline(always)]
    pub const fn answers_on(&self, bit: u8) -> bool {
        self.answer >> (bit & 63) & 1 == 1
    }

    /// Whether claims of the address are guarded on the interface with this bit.
    #[inline(always)]
    pub const fn guarded_on(&self, bit: u8) -> bool {
        self.guard >> (bit & 63) & 1 == 1
    }
}
