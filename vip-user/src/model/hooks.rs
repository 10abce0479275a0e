//! The hooks at which questions may be answered, in the order in which they are tried.

use serde::{Deserialize, Serialize};

/// Where a program answers.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// XDP in the driver: before the kernel has spent anything on a frame.
    Native,
    /// The same decision at TC ingress: on every device, and it knows the VLAN tag that a NIC took off.
    Tc,
    /// XDP on a frame that the kernel has taken in already.
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
    /// Those at which a frame's VLAN tag is known although the NIC has taken it off.
    #[must_use]
    pub fn that_know_tags(&self) -> Self {
        Self(self.0.iter().copied().filter(|hook| *hook == Hook::Tc).collect())
    }
}
