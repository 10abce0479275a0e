//! Two hosts with one node name: each takes the other's tenure for its own past, and neither can say
//! who holds a VIP.

use super::{election::Identity, record::Record};

/// So many renewals by another process are no late requests of an earlier process of ours.
const ENOUGH: u32 = 2;

/// The renewals of a tenure that names our node and was not begun by this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namesake {
    /// `process` of the tenure, and its last `renewTime`.
    seen: Option<(String, Option<i64>)>,
    renewals: u32,
}

/// What a look at a Lease says of the node name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Nothing,
    /// The other process is not heard of any more.
    Over,
    /// Another process of this host renews under this name.
    SameHost,
    /// A process of another boot does.
    OtherBoot(String),
}

impl Namesake {
    /// Takes in what a Lease shows to a node that `waits` for it. A holder never takes its own tenure
    /// for another's.
    pub fn look(&mut self, me: &Identity, waits: bool, record: Option<&Record>) -> Look {
        let other = record.filter(|_| waits).and_then(Record::tenure).map(|tenure| tenure.note);
        let Some(other) = other.filter(|note| note.holder == me.node && note.process != me.process)
        else {
            // A single Lease that somebody else holds does not disprove what another one shows.
            let told = self.renewals >= ENOUGH;
            *self = Self::default();
            return if told { Look::Over } else { Look::Nothing };
        };
        if !self.lives(&other.process, record.and_then(|record| record.renew_us)) {
            return Look::Nothing;
        }
        if other.boot_id == me.boot_id { Look::SameHost } else { Look::OtherBoot(other.boot_id) }
    }

    /// Takes in a tenure under our node name; says whether its process is alive.
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
        assert!(!namesake.lives("p", Some(1)), "an earlier process of this node");
        assert!(!namesake.lives("p", Some(2)), "a late request of it");
        assert!(!namesake.lives("p", Some(2)), "a label was edited");
        assert!(namesake.lives("p", Some(3)));
        assert!(!namesake.lives("q", Some(4)), "another one begins");
    }
}
