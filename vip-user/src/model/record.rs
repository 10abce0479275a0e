//! What xvip sees of a Lease and what it writes.

use super::{
    fitness::Fitness,
    naming::{Guarded, Marks, Names},
};
use serde::{Deserialize, Serialize};

/// `metadata.resourceVersion`. The API server's versions are decimal numbers that grow with every
/// write, and may be compared (KEP-5504); one that is not a number is never newer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub String);

impl Version {
    /// Whether this version is known to be later than `other`.
    pub fn newer_than(&self, other: &Self) -> bool {
        matches!((self.0.parse::<u64>(), other.0.parse::<u64>()), (Ok(a), Ok(b)) if a > b)
    }
}

/// What identifies a tenure beside its Lease, as the annotation says it. It repeats fields of the
/// spec because other programs (client-go) write the spec and leave annotations as they are: a note
/// that does not match the spec belongs to nobody. See [`Record::noted_renew_us`] for the field that
/// changes with every renewal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenureNote {
    /// `spec.holderIdentity`: the node name.
    pub holder: String,
    /// `spec.leaseTransitions`.
    pub transitions: i64,
    /// `spec.acquireTime`, microseconds since 1970.
    pub acquire_us: i64,
    /// Uuid of the process that began the tenure.
    pub process: String,
    /// Boot id of its host.
    pub boot_id: String,
}

/// One unbroken hold of one Lease object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// `metadata.uid` of the Lease: a re-created Lease starts a new tenure.
    pub uid: String,
    /// The rest.
    pub note: TenureNote,
}

impl Tenure {
    /// Whether it began before the other one, in the same Lease.
    pub fn is_before(&self, other: &Self) -> bool {
        self.uid == other.uid && self.note.transitions < other.note.transitions
    }
}

/// A Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// `spec.holderIdentity`, empty if nobody holds it.
    pub holder: String,
    /// `spec.leaseDurationSeconds`; 0 where it is missing or not positive.
    pub duration_s: u32,
    /// `spec.leaseTransitions`, 0 where it is missing.
    pub transitions: i64,
    /// `spec.acquireTime` in microseconds since 1970.
    pub acquire_us: Option<i64>,
    /// `spec.renewTime` in microseconds since 1970.
    pub renew_us: Option<i64>,
    /// The annotation `xvip.io/tenure`, if it could be read.
    pub note: Option<TenureNote>,
    /// `renewTime` as the annotation `xvip.io/tenure` repeats it; `None`: an older xvip wrote it,
    /// and did not.
    pub noted_renew_us: Option<i64>,
    /// The annotation `xvip.io/released`, if it could be read.
    pub released: Option<TenureNote>,
    /// The annotation `xvip.io/fitness`: how well the holder serves, by its own word.
    pub fitness: Fitness,
    /// The annotation `xvip.io/offer`, if it could be read.
    pub offer: Option<Offer>,
    /// The annotation `xvip.io/macs`: the MAC addresses that the holder answers with.
    pub macs: Vec<[u8; 6]>,
    /// The annotation `xvip.io/vips`, if it could be read.
    pub guarded: Option<Guarded>,
}

impl Record {
    /// The tenure, if the annotation and the spec agree. Otherwise the holder is a stranger, even
    /// under our own node name: a client-go program of that name renews a tenure of ours and changes
    /// nothing but `renewTime` (and D).
    pub fn tenure(&self) -> Option<Tenure> {
        let note = self.note.as_ref()?;
        let agrees = note.holder == self.holder && self.repeats(note) && self.was_renewed_by_us();
        agrees.then(|| Tenure { uid: self.uid.clone(), note: note.clone() })
    }

    /// Whether the record is the release of `tenure`: nobody holds it, and the very write that
    /// emptied it names that tenure. client-go releases before it stops answering, and
    /// administrators blank the field by hand; neither counts.
    pub fn releases(&self, tenure: &Tenure) -> bool {
        self.holder.is_empty()
            && self.uid == tenure.uid
            && self.released.as_ref() == Some(&tenure.note)
            && self.repeats(&tenure.note)
    }

    /// Whether nobody has held the Lease since it was created.
    pub fn is_unheld(&self) -> bool {
        self.holder.is_empty()
            && self.acquire_us.is_none()
            && self.note.is_none()
            && self.released.is_none()
    }

    /// Whether two readings have the same spec. Labels and annotations may differ: editing them
    /// restarts no timer.
    pub fn same_spec(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.holder == other.holder
            && self.duration_s == other.duration_s
            && self.transitions == other.transitions
            && self.acquire_us == other.acquire_us
            && self.renew_us == other.renew_us
    }

    pub(super) fn was_renewed_by_us(&self) -> bool {
        self.noted_renew_us.is_none_or(|noted| Some(noted) == self.renew_us)
    }

    fn repeats(&self, note: &TenureNote) -> bool {
        note.transitions == self.transitions && Some(note.acquire_us) == self.acquire_us
    }
}

impl Record {
    /// A Lease without a holder, for models and tests that play an API server.
    pub fn unheld(uid: String, version: u64, duration_s: u32) -> Self {
        Self {
            uid,
            version: Version(version.to_string()),
            holder: String::new(),
            duration_s,
            transitions: 0,
            acquire_us: None,
            renew_us: None,
            note: None,
            noted_renew_us: None,
            released: None,
            fitness: Fitness::default(),
            offer: None,
            macs: Vec::new(),
            guarded: None,
        }
    }
}

/// A write of the whole Lease, always by PUT (or POST) and never by PATCH.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseWrite {
    /// Names the attempt in its result.
    pub id: u64,
    /// The version that must still be current; `None` creates the Lease.
    pub base: Option<Version>,
    /// The tenure that is written (or released).
    pub note: TenureNote,
    /// `spec.leaseDurationSeconds`.
    pub duration_s: u32,
    /// `spec.renewTime`: differs from the last one in every write, because the API server answers a
    /// byte-identical PUT with 200 and stores nothing.
    pub renew_us: i64,
    /// Whether this write gives the Lease up.
    pub release: bool,
    /// How well the holder serves.
    pub fitness: Fitness,
    /// The MAC addresses that the holder answers with.
    pub macs: Vec<[u8; 6]>,
    /// What is said of the VIPs; `None`: nothing.
    pub vips: Option<Marks>,
    /// Attempts that are still on their way; this one must not wait behind them.
    pub in_flight: usize,
}

impl LeaseWrite {
    /// The annotation `xvip.io/vips`.
    pub fn guarded(&self) -> Option<Guarded> {
        let vips = self.vips.as_ref()?;
        Some(Guarded::of(self.note.transitions, self.note.acquire_us, vips))
    }

    /// The record that an API server makes of this write, where models and tests play one. The real one
    /// is what `cluster/lease.rs` sends and reads back.
    pub fn stored(&self, uid: String, version: u64) -> Record {
        Record {
            uid,
            version: Version(version.to_string()),
            holder: if self.release { String::new() } else { self.note.holder.clone() },
            duration_s: self.duration_s,
            transitions: self.note.transitions,
            acquire_us: Some(self.note.acquire_us),
            renew_us: Some(self.renew_us),
            note: Some(self.note.clone()),
            noted_renew_us: Some(self.renew_us),
            released: self.release.then(|| self.note.clone()),
            fitness: self.fitness,
            offer: None,
            macs: self.macs.clone(),
            guarded: self.guarded(),
        }
    }
}

impl Record {
    /// Which VIPs it names.
    pub fn names(&self) -> Names<'_> {
        let repeats = |transitions, acquire_us| {
            self.transitions == transitions && self.acquire_us == Some(acquire_us)
        };
        match (&self.guarded, &self.note) {
            (Some(guarded), _) if repeats(guarded.transitions, guarded.acquire_us) => {
                Names::Listed(guarded)
            }
            (_, Some(note)) if repeats(note.transitions, note.acquire_us) => Names::Unknown,
            _ => Names::Nothing,
        }
    }
}

/// A candidate that could serve better than the holder says it can. It is written into the Lease as an
/// annotation, by CAS, and permits nothing. The holder decides: it becomes silent and gives the Lease
/// up, or it keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// The candidate's node name.
    pub node: String,
    /// How well it could serve.
    pub fitness: Fitness,
    /// `leaseTransitions` of the tenure that it was offered to.
    pub transitions: i64,
    /// `acquireTime` of that tenure, microseconds since 1970.
    pub acquire_us: i64,
}

impl Offer {
    /// Whether the offer was made to this tenure.
    pub fn is_for(&self, tenure: &Tenure) -> bool {
        self.transitions == tenure.note.transitions && self.acquire_us == tenure.note.acquire_us
    }
}

impl Record {
    /// The offer that a node of this fitness should make, if any.
    pub fn invites(&self, node: &str, fitness: Fitness) -> Option<Offer> {
        let tenure = self.tenure()?;
        let better = fitness < self.fitness && fitness < Fitness::Unable;
        let standing = self.offer.as_ref().filter(|offer| offer.is_for(&tenure));
        if !better || standing.is_some_and(|offer| offer.fitness <= fitness) {
            return None;
        }
        let (transitions, acquire_us) = (tenure.note.transitions, tenure.note.acquire_us);
        Some(Offer { node: node.into(), fitness, transitions, acquire_us })
    }
}
