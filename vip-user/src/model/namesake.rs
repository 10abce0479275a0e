//! Two hosts with one node name. Each takes the other's tenure for its own past, so neither can tell
//! which of them holds a VIP.

use super::lease::{election::Identity, record::Record};

/// After this many renewals, the other process must be alive. Fewer may be late requests of an earlier
/// process of this node.
const ENOUGH: u32 = 2;

/// Counts the renewals of a tenure that names our node but was begun by another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namesake {
    /// `process` of that tenure, and its last `renewTime`.
    seen: Option<(String, Option<i64>)>,
    renewals: u32,
}

/// What a record reveals about other users of our node name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Nothing,
    /// A process that was reported earlier does not renew any more.
    Over,
    /// Another process of this host renews under our node name.
    SameHost,
    /// A process with this boot id renews under our node name.
    OtherBoot(String),
}

impl Namesake {
    /// Examines a record of a Lease. `waits` says whether this node waits for the Lease, because a
    /// holder would find its own tenure.
    pub fn look(&mut self, me: &Identity, waits: bool, record: Option<&Record>) -> Look {
        let other = record.filter(|_| waits).and_then(Record::tenure).map(|tenure| tenure.note);
        let Some(other) = other.filter(|note| note.holder == me.node && note.process != me.process)
        else {
            // One Lease with another holder does not refute what another Lease shows.
            let told = self.renewals >= ENOUGH;
            *self = Self::default();
            return if told { Look::Over } else { Look::Nothing };
        };
        if !self.lives(&other.process, record.and_then(|record| record.renew_us)) {
            return Look::Nothing;
        }
        if other.boot_id == me.boot_id { Look::SameHost } else { Look::OtherBoot(other.boot_id) }
    }

    /// Notes a tenure under our node name. Returns whether its process is known to be alive.
    fn lives(&mut self, process: &str, renewed: Option<i64>) -> bool {
        match &mut self.seen {
            Some((known, last)) if known == process => {
                self.renewals += u32::from(*last != renewed);
                *last = renewed;
            }
            _ => *self = Self { seen: Some((process.into(), renewed)), renewals: 0 },
        }
        self.renewals >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_when_it_renews_again_and_again() {
        let mut namesake = Namesake::default();
        assert!(!namesake.lives("p", Some(1)), "it may be an earlier process of this node");
        assert!(!namesake.lives("p", Some(2)), "it may be a late request of that process");
        assert!(!namesake.lives("p", Some(2)), "only a label was edited");
        assert!(namesake.lives("p", Some(3)));
        assert!(!namesake.lives("q", Some(4)), "another process begins");
    }
}
