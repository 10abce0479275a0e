//! The kernel hooks at which xvip can answer questions.

use serde::{Deserialize, Serialize};

/// The hook at which a program answers.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// XDP in the driver: before the kernel has done any work for a frame.
    Native,
    /// The same rules at TC ingress. It exists on every device, and sees the VLAN tag that a NIC has
    /// removed.
    Tc,
    /// XDP on a frame for which the kernel has already allocated a buffer.
    Generic,
}

/// Hooks in the order in which they are tried; written as a list, as one word, or as `auto`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Hooks(pub Vec<Hook>);

impl Default for Hooks {
    fn default() -> Self {
        Self(vec![Hook::Native, Hook::Tc, Hook::Generic])
    }
}

impl From<Hook> for Hooks {
    fn from(hook: Hook) -> Self {
        Self(vec![hook])
    }
}

impl Hooks {
    /// The hooks that see a frame's VLAN tag although the NIC has removed it.
    #[must_use]
    pub fn that_know_tags(&self) -> Self {
        Self(self.0.iter().copied().filter(|hook| *hook == Hook::Tc).collect())
    }
}
