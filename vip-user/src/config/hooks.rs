//! The hooks at which questions may be answered, in the order in which they are tried.

use super::{ConfigError, check::refuse};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use std::{collections::BTreeSet, fmt};

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

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let distinct: BTreeSet<Hook> = self.0.iter().copied().collect();
        if self.0.is_empty() || distinct.len() < self.0.len() {
            let written = serde_json::to_string(self).unwrap_or_default();
            return refuse("attach", written, "native, tc and generic, each at most once, or `auto`");
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Hooks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Hooks;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`auto`, `native`, `tc`, `generic`, or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Hooks, E> {
                if word == "auto" {
                    return Ok(Hooks::default());
                }
                let hook = Hook::deserialize(serde::de::value::StrDeserializer::<E>::new(word));
                let wrong =
                    || E::custom(format!("`attach`: {word:?} is none of auto, native, tc, generic"));
                hook.map(Hooks::from).map_err(|_| wrong())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Hooks, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Hooks)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
