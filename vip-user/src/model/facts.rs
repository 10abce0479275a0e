//! What the API knows of this node.

use std::collections::BTreeMap;

/// What the API knows of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`: somebody wants it empty (`kubectl cordon`, `kubectl drain`).
    pub cordoned: bool,
}
