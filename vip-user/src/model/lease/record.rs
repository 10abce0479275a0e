//! What xvip reads of a Lease, and what it writes into one.

use super::{
    naming::{Guarded, Marks, Names},
    offers::{Offer, Preference},
};
use crate::model::fitness::Fitness;
use serde::{Deserialize, Serialize};
use vip_common::mac::Mac;

/// `metadata.resourceVersion`. The API server's versions are decimal numbers that grow with every
/// write, and may be compared (KEP-5504). A version that is not a number never counts as newer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub String);

impl Version {
    /// Whether both versions are numbers and this one is the later.
    pub fn newer_than(&self, other: &Self) -> bool {
        matches!((self.0.parse::<u64>(), other.0.parse::<u64>()), (Ok(a), Ok(b)) if a > b)
    }
}

/// What identifies a tenure within its Lease, as the annotation `xvip.io/tenure` states it. It repeats
/// fields of the spec, because other programs (client-go) write the spec and leave annotations as they
/// are. A note that does not match the spec therefore belongs to no holder. See
/// [`Record::noted_renew_us`] for the field that changes with every renewal.
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
    /// Boot id of the host of that process.
    pub boot_id: String,
}

/// One unbroken hold of one Lease object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// `metadata.uid` of the Lease: a re-created Lease starts a new tenure.
    pub uid: String,
    /// Everything that identifies the tenure within this Lease.
    pub note: TenureNote,
}

impl Tenure {
    /// Whether this tenure began before `other`, in the same Lease.
    pub fn is_before(&self, other: &Self) -> bool {
        self.uid == other.uid && self.note.transitions < other.note.transitions
    }

    /// Whether an offer was made to this tenure.
    pub fn is_addressed_by(&self, offer: &Offer) -> bool {
        offer.transitions == self.note.transitions && offer.acquire_us == self.note.acquire_us
    }
}

/// A Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// `spec.holderIdentity`; empty if the Lease has no holder.
    pub holder: String,
    /// `spec.leaseDurationSeconds`; 0 if it is missing or not positive.
    pub duration_s: u32,
    /// `spec.leaseTransitions`; 0 if it is missing.
    pub transitions: i64,
    /// `spec.acquireTime` in microseconds since 1970.
    pub acquire_us: Option<i64>,
    /// `spec.renewTime` in microseconds since 1970.
    pub renew_us: Option<i64>,
    /// The annotation `xvip.io/tenure`, if it could be read.
    pub note: Option<TenureNote>,
    /// `renewTime` as the annotation `xvip.io/tenure` repeats it. `None` if an older xvip wrote the
    /// annotation, which did not repeat it.
    pub noted_renew_us: Option<i64>,
    /// The annotation `xvip.io/released`, if it could be read.
    pub released: Option<TenureNote>,
    /// The annotation `xvip.io/fitness`: how well the holder says that it serves.
    pub fitness: Fitness,
    /// The annotation `xvip.io/offer`, if it could be read.
    pub offer: Option<Offer>,
    /// The annotation `xvip.io/preference`, if it could be read.
    pub preference: Option<Preference>,
    /// The annotation `xvip.io/macs`: the MAC addresses with which the holder answers.
    pub macs: Vec<Mac>,
    /// The annotation `xvip.io/vips`, if it could be read.
    pub guarded: Option<Guarded>,
}

impl Record {
    /// The tenure, if the annotation and the spec agree. Otherwise the holder is a foreign program,
    /// even under our own node name. A client-go program of that name renews a tenure of ours and
    /// changes nothing but `renewTime` (and D).
    pub fn tenure(&self) -> Option<Tenure> {
        let note = self.note.as_ref()?;
        let agrees = note.holder == self.holder && self.repeats(note) && self.was_renewed_by_us();
        agrees.then(|| Tenure { uid: self.uid.clone(), note: note.clone() })
    }

    /// Whether the record is the release of `tenure`: the holder is empty, and the annotation
    /// `xvip.io/released` names that tenure. client-go also empties the holder, before it stops
    /// answering, and administrators blank it by hand. Neither counts.
    pub fn releases(&self, tenure: &Tenure) -> bool {
        self.holder.is_empty()
            && self.uid == tenure.uid
            && self.released.as_ref() == Some(&tenure.note)
            && self.repeats(&tenure.note)
    }

    /// Whether no node has held the Lease since it was created.
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

    pub(super) fn repeats(&self, note: &TenureNote) -> bool {
        note.transitions == self.transitions && Some(note.acquire_us) == self.acquire_us
    }
}

impl Record {
    /// A Lease without a holder, for models and tests that act as an API server.
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
            preference: None,
            macs: Vec::new(),
            guarded: None,
        }
    }
}

/// A write of the whole Lease, by PUT (POST if it creates the Lease), never by PATCH.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseWrite {
    /// The number of the attempt; its result carries the same number.
    pub id: u64,
    /// The version that must still be current; `None` creates the Lease.
    pub base: Option<Version>,
    /// The tenure that this write confirms or releases.
    pub note: TenureNote,
    /// `spec.leaseDurationSeconds`.
    pub duration_s: u32,
    /// `spec.renewTime`. It differs in every write, because the API server answers a byte-identical PUT
    /// with 200 and stores nothing.
    pub renew_us: i64,
    /// Whether this write gives the Lease up.
    pub release: bool,
    /// How well the holder serves, as it says.
    pub fitness: Fitness,
    /// Where the VIPs should be; `None` leaves the annotation out.
    pub preference: Option<Preference>,
    /// The MAC addresses with which the holder answers.
    pub macs: Vec<Mac>,
    /// What the Lease says of its VIPs; `None` leaves the annotation out.
    pub vips: Option<Marks>,
    /// Number of attempts whose answers are still outstanding. This one must not queue behind them.
    pub in_flight: usize,
}

impl LeaseWrite {
    /// The annotation `xvip.io/vips` of this write.
    pub fn guarded(&self) -> Option<Guarded> {
        let vips = self.vips.as_ref()?;
        Some(Guarded::of(self.note.transitions, self.note.acquire_us, vips))
    }

    /// The record that an API server stores for this write, for models and tests that act as one. For a
    /// real server, `cluster/lease.rs` sends the write and reads the answer.
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
            preference: self.preference.clone(),
            macs: self.macs.clone(),
            guarded: self.guarded(),
        }
    }
}

impl Record {
    /// Which VIPs the record names.
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
