//! Two hosts with one node name: each takes the other's tenure for its own past, and neither can say
//! who holds a VIP.

use super::Controller;
use crate::{model::record::Record, node::dataplane::Dataplane};

/// So many renewals by another process are no late requests of an earlier process of ours.
const ENOUGH: u32 = 2;

/// The renewals of a tenure that names our node and was not begun by this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Namesake {
    /// `process` of the tenure, and its last `renewTime`.
    seen: Option<(String, Option<i64>)>,
    renewals: u32,
}

impl Namesake {
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

impl<D: Dataplane> Controller<D> {
    /// Says when another process renews a Lease under our node name. A tenure of ours is never taken
    /// for one.
    pub(super) fn look_for_namesake(&mut self, slot: u32, record: Option<&Record>) {
        let me = &self.setup.me;
        let Some(leased) = self.leases.get_mut(&slot) else { return };
        let follows = leased.is_candidate();
        let other = record.filter(|_| follows).and_then(Record::tenure).map(|tenure| tenure.note);
        let Some(other) = other.filter(|note| note.holder == me.node && note.process != me.process)
        else {
            // A single Lease that somebody else holds does not disprove what another one shows.
            let told = leased.namesake.renewals >= ENOUGH;
            leased.namesake = Namesake::default();
            return if told {
                self.problem("node name", None);
            };
        };
        if !leased.namesake.lives(&other.process, record.and_then(|record| record.renew_us)) {
            return;
        }
        let place = if other.boot_id == me.boot_id {
            "another process of this host".to_owned()
        } else {
            format!("another host (boot id {:?})", other.boot_id)
        };
        let (node, lease) = (me.node.clone(), leased.api.full_name());
        let why = format!(
            "{place} holds {lease} under the node name {node:?}, which must be unique: set `node`"
        );
        self.problem("node name", Some(why));
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
