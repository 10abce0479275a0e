//! What the API knows about this node.

use std::collections::BTreeMap;

/// What the API knows about a node, from its `Node` object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`: an administrator wants the node empty (`kubectl cordon`, `kubectl drain`).
    pub cordoned: bool,
}
