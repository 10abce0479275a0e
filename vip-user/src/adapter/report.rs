//! What the adapter says about a setting: a note, or a refusal.

use super::table::{self, Class, Kind, Name};
use serde::Serialize;
use std::fmt;

/// Where a value comes from. The first one that has a value wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A variable of the environment.
    Environment,
    /// A flag on the command line.
    Flag,
    /// The file that `--config-file` names.
    File,
    /// Nobody has set it.
    Default,
}

/// Shown instead of a secret.
pub const MASK: &str = "********";

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Environment => "environment",
            Self::Flag => "flag",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// A value as it was given. Text from outside: escape it before it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The name as it was written.
    pub spelled: String,
    /// The value.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
    /// Whether the value must not be shown.
    pub secret: bool,
}

impl Given {
    /// The value, or a mask.
    pub fn shown(&self) -> &str {
        if self.secret && !self.value.is_empty() { MASK } else { &self.value }
    }

    /// Whether the value of this name must not be shown.
    pub fn is_secret(name: Option<&Name>, spelled: &str) -> bool {
        let lower = table::plain(spelled);
        let looks = ["pass", "secret", "token", "peers", "key"].iter().any(|word| lower.contains(word))
            || lower.starts_with("bgppeer");
        name.map_or(looks, |name| name.kind == Kind::Secret)
    }
}

/// Something that the operator should know, and that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The name in the table, or as it was written.
    pub name: String,
    /// What xvip does with the name.
    pub class: Class,
    /// The value as it was given; `None` if nobody has set it.
    pub given: Option<Given>,
    /// What is told.
    pub told: String,
}

/// Why xvip does not run with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name in the table, or as it was written.
    pub name: String,
    /// The value as it was given; `None` if nobody has set it.
    pub given: Option<Given>,
    /// Why.
    pub why: String,
    /// What to set instead.
    pub instead: String,
    /// Whether `xvip_without` accepts the loss.
    pub waivable: bool,
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        said(formatter, &self.name, self.given.as_ref())?;
        write!(formatter, ": {}", self.told)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        said(formatter, &self.name, self.given.as_ref())?;
        write!(formatter, " is refused: {}", self.why)?;
        if !self.instead.is_empty() {
            write!(formatter, "; {}", self.instead)?;
        }
        if self.waivable {
            write!(formatter, ". To run without it, add {} to xvip_without", self.name)?;
        }
        Ok(())
    }
}

fn said(formatter: &mut fmt::Formatter<'_>, name: &str, given: Option<&Given>) -> fmt::Result {
    match given {
        None => write!(formatter, "{name} (not set)"),
        Some(given) => {
            let Given { spelled, source, .. } = given;
            let dashes = if *source == Source::Flag { "--" } else { "" };
            write!(formatter, "{dashes}{spelled}=\"{}\" ({source}", given.shown())?;
            if *source == Source::Flag && spelled != name {
                write!(formatter, ", the flag of {name}")?;
            }
            write!(formatter, ")")
        }
    }
}
