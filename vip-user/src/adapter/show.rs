//! The names in force, as `xvip config show` prints them.

use super::{
    gather::Gathered,
    report::Source,
    table::{self, Class, WITHOUT},
};
use serde::Serialize;

/// One name.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Row {
    /// The name in the table, or as it was written.
    pub name: String,
    /// The value in force; secrets are masked.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
    /// What xvip does with it.
    pub class: Class,
    /// What it becomes here, or why it has no effect or is refused.
    pub why: String,
}

/// Every name that is set, and the supported ones that have a default.
pub(super) fn rows(gathered: &Gathered) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in table::all() {
        let given = gathered.values.get(name.id);
        let refusal = gathered.refused.iter().find(|refusal| refusal.name == name.id);
        let note = gathered.notes.iter().rfind(|note| note.name == name.id);
        let why = match (refusal, note) {
            (Some(refusal), _) => refusal.why.clone(),
            (None, Some(note)) => note.told.clone(),
            (None, None) => name.why.into(),
        };
        let class = match refusal {
            Some(refusal) if refusal.waivable => Class::Refused,
            Some(_) => Class::Never,
            // A refused name whose value asks for nothing.
            None if name.class > Class::NoEffect => Class::NoEffect,
            None => name.class,
        };
        let (value, source) = match given {
            Some(given) => (given.shown().to_owned(), given.source),
            None if refusal.is_some() || (class == Class::Supported && !name.default.is_empty()) => {
                (name.default.to_owned(), Source::Default)
            }
            None => continue,
        };
        rows.push(Row { name: name.id.into(), value, source, class, why });
    }
    let unknown = gathered.notes.iter().filter(|note| table::of_id(&note.name).is_none());
    rows.extend(unknown.filter_map(|note| {
        let given = note.given.as_ref()?;
        let (value, source) = (given.shown().to_owned(), given.source);
        Some(Row { name: note.name.clone(), value, source, class: note.class, why: note.told.clone() })
    }));
    if !gathered.without.is_empty() {
        rows.push(Row {
            name: WITHOUT.into(),
            value: gathered.without.join(","),
            source: Source::Environment,
            class: Class::Supported,
            why: "the losses that are accepted".into(),
        });
    }
    rows
}
