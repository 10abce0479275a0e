//! Hands Leases over because root asks for it.

use super::Controller;
use crate::{
    clock,
    handover::{Reply, Wish},
    model::{
        agent,
        lease::{
            election::Input,
            offers::{Heir, handover_lasts},
        },
    },
    node::dataplane::Dataplane,
};

impl<D: Dataplane> Controller<D> {
    /// Offers one Lease, or all that this node holds, to a node, or to any. The elections do the rest.
    pub(super) async fn hand_over(&mut self, wish: Wish) -> Reply {
        let Wish { lease, to, .. } = wish;
        let heir = to.map_or(Heir::Anyone, Heir::Node);
        if let Heir::Node(node) = &heir {
            if node.is_empty() || node.len() > 253 || node == "*" {
                return Reply::Refused(format!("{node:?} is no name of a node"));
            }
            if *node == self.setup.policy.me.node {
                return Reply::Refused(format!("{node} is this node"));
            }
        }
        let now = clock::boot();
        let mut chosen = Vec::new();
        for (slot, group) in self.agent.groups() {
            let name = self.setup.api.named(group.lease()).full_name();
            let is_meant = lease.as_ref().is_none_or(|lease| *lease == name || lease == group.lease());
            if is_meant && group.election().ownership(now).is_ours() {
                chosen.push((slot, name));
            }
        }
        if chosen.is_empty() {
            let what = lease.map_or("no Lease".into(), |lease| format!("no Lease {lease:?}"));
            return Reply::Refused(format!("this node holds {what}; ask the node that does"));
        }
        for (slot, _) in &chosen {
            let input = Input::HandOver(heir.clone());
            self.carry_out(agent::Event::Election(*slot, input)).await;
        }
        let lasts_ms = handover_lasts(&self.setup.policy.timing).as_millis() as u64;
        Reply::Offered { leases: chosen.into_iter().map(|(_, name)| name).collect(), lasts_ms }
    }
}
