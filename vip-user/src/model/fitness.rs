//! How well this node could serve the VIPs of a Lease. Fitness orders candidates, and moves a VIP away
//! from a node that cannot serve. Which node *may* answer is decided by the Lease alone.

use super::time::BootNs;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// How well a node could serve, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fitness {
    /// Nothing speaks against this node.
    #[default]
    Able,
    /// It can answer, but something speaks against it: for example a gateway or a kubelet that does not
    /// answer. Other nodes may be about to suffer the same. So VIPs leave such a node only after a
    /// while.
    Doubtful,
    /// It answers for some of the VIPs only, or its link has just come back. VIPs leave it at once.
    Impaired,
    /// It cannot answer: for example, its interface is missing, down or unguarded. It is the last
    /// choice.
    Unable,
    /// Its labels exclude it. It takes no Lease, and keeps one only until another node offers.
    Barred,
}

impl fmt::Display for Fitness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Able => "able",
            Self::Doubtful => "doubtful",
            Self::Impaired => "impaired",
            Self::Unable => "unable",
            Self::Barred => "barred",
        })
    }
}

/// A link that has come back is trusted only after it has been up for this long.
const PROBATION: Duration = Duration::from_secs(3);
/// Every further loss doubles the probation, up to this length.
const LONGEST_PROBATION: Duration = Duration::from_mins(1);
/// Attaching a native program resets some NICs. A loss of carrier within this time is excused.
const ATTACHING: Duration = Duration::from_secs(10);

/// Damps a flapping link: a loss counts at once, a return only after a probation.
#[derive(Clone, Debug, Default)]
pub struct Damper {
    usable: Option<bool>,
    /// The length of the present or next probation.
    probation: Duration,
    /// When the last probation ends.
    until: BootNs,
    /// Losses before this time are caused by our own attaching.
    excused: BootNs,
    /// The loss that has not ended.
    absent: Option<Absence>,
}

/// The present loss of a link that was up before.
#[derive(Clone, Copy, Debug)]
struct Absence {
    /// Whether it counts: it was not caused by our attaching, or has lasted too long for that.
    counts: bool,
}

impl Damper {
    /// Notes whether the links can be used now, and whether a program was just attached to one.
    pub fn observe(&mut self, now: BootNs, usable: bool, attached: bool) {
        if attached {
            self.excused = now.after(ATTACHING);
        }
        let excused = now < self.excused;
        // A link that is not up yet at the start has not been lost.
        if self.usable == Some(true) && !usable {
            self.absent = Some(Absence { counts: false });
        }
        if let Some(absence) = &mut self.absent
            && !usable
            && !absence.counts
            && !excused
        {
            absence.counts = true;
            let quiet = now >= self.until.after(self.probation);
            let longer = if quiet { PROBATION } else { (self.probation * 2).max(PROBATION) };
            self.probation = longer.min(LONGEST_PROBATION);
        }
        if usable && self.absent.take().is_some_and(|absence| absence.counts) {
            self.until = now.after(self.probation);
        }
        self.usable = Some(usable);
    }

    /// How well the links let this node serve. After a first short loss a holder stays able, because
    /// moving the VIP would be a second disturbance. From the second loss on it is impaired like any
    /// other node. A loss that our own attaching caused does not count for a holder.
    pub fn fitness(&self, now: BootNs, holds: bool) -> Fitness {
        let first = self.probation <= PROBATION;
        match self.usable {
            Some(true) if now >= self.until || (holds && first) => Fitness::Able,
            Some(true) => Fitness::Impaired,
            Some(false) if holds && self.absent.is_some_and(|absence| !absence.counts) => Fitness::Able,
            Some(false) | None => Fitness::Unable,
        }
    }

    /// When the fitness may change although nothing else happens.
    pub fn wake_at(&self, now: BootNs) -> Option<BootNs> {
        [self.until, self.excused].into_iter().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
