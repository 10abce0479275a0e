//! Packet fixtures: a small set of VIPs, and a table of frames with the expected result of each.
//! The same table runs on the host and in the kernel.

pub mod claims;
pub mod host;
pub mod questions;
pub mod strict;

use vip_common::{
    abi::{Fence, Holder, Iface, Ip, MAX_STATIONS, Port, Vip},
    counter::Counter,
    env::Verdict,
};

/// MAC address of the interface.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of the asking host.
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
/// Address of the asking host.
pub const PEER4: [u8; 4] = [192, 0, 2, 77];
/// Address of the asking host.
pub const PEER6: [u8; 16] = v6(0x77);
/// Interface index of test runs: the kernel uses `lo`.
pub const IFINDEX: u32 = 1;

/// An IPv6 address of the fixtures.
pub const fn v6(host: u8) -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

/// The state of a VIP of the fixtures. The value is the last byte of its two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Held, live fence.
    Held = 10,
    /// The fence has run out.
    Expired = 11,
    /// No fence.
    NotHeld = 12,
    /// Published under an earlier tenure than that of the fence.
    Stale = 13,
    /// Only guarded on this interface.
    GuardedOnly = 14,
    /// Answered on an interface that is down.
    Down = 15,
    /// Neither answered nor guarded on this interface.
    Elsewhere = 16,
    /// On VLAN 100, and on VLAN 200 inside 100.
    Tagged = 17,
    /// Not held; only [`FRIEND`] may claim it.
    Ruled = 18,
    /// No VIP at all.
    Unknown = 99,
}

impl Kind {
    /// All kinds that are in the map.
    pub const MANAGED: [Self; 8] = [
        Self::Held,
        Self::Expired,
        Self::NotHeld,
        Self::Stale,
        Self::GuardedOnly,
        Self::Down,
        Self::Elsewhere,
        Self::Tagged,
    ];

    /// Its IPv4 address.
    pub const fn v4(self) -> [u8; 4] {
        [192, 0, 2, self as u8]
    }

    /// Its IPv6 address.
    pub const fn v6(self) -> [u8; 16] {
        v6(self as u8)
    }

    /// The counter of a dropped question for it; `None` if it is answered or passed.
    pub const fn question_silence(self) -> Option<Counter> {
        match self {
            Self::Expired => Some(Counter::QuestionExpired),
            Self::NotHeld => Some(Counter::QuestionNotHeld),
            Self::Stale => Some(Counter::QuestionStale),
            Self::GuardedOnly => Some(Counter::QuestionWrongInterface),
            Self::Down => Some(Counter::QuestionInterfaceDown),
            _ => None,
        }
    }

    /// The counter of a dropped claim of it; `None` if claims pass.
    pub const fn claim_silence(self) -> Option<Counter> {
        match self {
            Self::Expired => Some(Counter::ClaimExpired),
            Self::NotHeld => Some(Counter::ClaimNotHeld),
            Self::Stale => Some(Counter::ClaimStale),
            Self::GuardedOnly => Some(Counter::ClaimWrongInterface),
            Self::Down => Some(Counter::ClaimInterfaceDown),
            _ => None,
        }
    }

    /// The VLAN tags of questions for this kind. `Down` is on VLAN 300, which is down.
    pub const fn tags(self) -> &'static [(u16, u16)] {
        match self {
            Self::Down => &[(0x8100, 300)],
            Self::Tagged => &[(0x8100, 100)],
            _ => &[],
        }
    }

    fn vip(self) -> Vip {
        let (slot, generation, answer, guard) = match self {
            Self::Expired => (1, 5, 1, 1),
            Self::NotHeld => (2, 5, 1, 1),
            Self::Stale => (0, 4, 1, 1),
            Self::GuardedOnly => (0, 5, 1 << 9, 1 << 9 | 1),
            Self::Down => (0, 5, 1 << 3, 1 << 3),
            Self::Elsewhere => (0, 5, 1 << 9, 1 << 9),
            Self::Tagged => (0, 5, 1 << 1 | 1 << 2, 1 << 1 | 1 << 2),
            Self::Ruled => (3, 0, 1, 1),
            Self::Held | Self::Unknown => (0, 5, 1, 1),
        };
        Vip::new(slot, generation, answer, guard)
    }
}

/// All entries of `VIPS`.
pub fn vips() -> Vec<(Ip, Vip)> {
    let both = |kind: Kind| [(Ip::v4(kind.v4()), kind.vip()), (Ip::v6(kind.v6()), kind.vip())];
    Kind::MANAGED.into_iter().chain([Kind::Ruled]).flat_map(both).collect()
}

/// A station that may claim [`Kind::Ruled`].
pub const FRIEND: [u8; 6] = [2, 0, 0, 0, 0, 0x78];

/// All entries of `HOLDERS`.
pub fn holders() -> Vec<(u32, Holder)> {
    let mut stations = [[0; 6]; MAX_STATIONS];
    stations[3] = FRIEND;
    // The view of slot 1 is stale, because the clock of host tests is fixed at 1000.
    [(3, u64::MAX), (1, 1_000)].map(|(slot, until_ns)| (slot, Holder { until_ns, stations })).into()
}

/// All fences. The clock of host tests is fixed at 1000.
pub fn fences() -> Vec<(u32, Fence)> {
    vec![(0, Fence::new(u64::MAX, 5)), (1, Fence::new(1_000, 5)), (2, Fence::new(0, 5))]
}

/// All entries of `IFACES`.
pub fn ifaces() -> Vec<(Port, Iface)> {
    let port = |outer_vid, inner_vid| Port { ifindex: IFINDEX, outer_vid, inner_vid };
    let iface = |bit, up| Iface { mac: MAC, bit, up, known: 1, alias: 0, _reserved: [0; 6] };
    vec![
        (port(0, 0), iface(0, 1)),
        (port(100, 0), iface(1, 1)),
        (port(100, 200), iface(2, 1)),
        (port(300, 0), iface(3, 0)),
    ]
}

/// A frame and its expected result.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the case shows.
    pub name: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// The expected verdict.
    pub verdict: Verdict,
    /// The frame afterwards, if it becomes the answer.
    pub after: Option<Vec<u8>>,
    /// The counters that must be raised.
    pub counted: Vec<Counter>,
}

impl Case {
    /// A frame that passes untouched and uncounted.
    pub fn passes(name: impl Into<String>, frame: Vec<u8>) -> Self {
        let name = name.into();
        Self { name, frame, verdict: Verdict::Pass, after: None, counted: Vec::new() }
    }

    /// A frame that passes and is counted as a claim by another station.
    pub fn foreign_claim(name: impl Into<String>, frame: Vec<u8>) -> Self {
        Self { counted: vec![Counter::ForeignClaim], ..Self::passes(name, frame) }
    }

    /// A frame that passes as a claim by this node.
    pub fn claim_sent(name: impl Into<String>, frame: Vec<u8>) -> Self {
        Self { counted: vec![Counter::ClaimSent], ..Self::passes(name, frame) }
    }

    /// A frame that is dropped for a reason.
    pub fn dropped(name: impl Into<String>, frame: Vec<u8>, why: Counter) -> Self {
        Self { verdict: Verdict::Drop, counted: vec![why], ..Self::passes(name, frame) }
    }

    /// A frame that becomes the answer `after`.
    pub fn answered(name: impl Into<String>, frame: Vec<u8>, after: Vec<u8>, by: Counter) -> Self {
        Self {
            verdict: Verdict::Reply,
            after: Some(after),
            counted: vec![by],
            ..Self::passes(name, frame)
        }
    }
}
