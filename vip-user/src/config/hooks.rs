//! The hooks of a configuration file: one word, or a list.

use crate::model::hooks::{Hook, Hooks};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use std::fmt;

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
