//! Present problems, by subject. They are for people; nothing is decided by their text.

use crate::model::time::BootNs;
use std::{collections::BTreeMap, time::Duration};

/// A new reason of a known problem is logged at most once in this time.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What to log about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The problem is new.
    New,
    /// Its reason is not the one that was logged.
    Changed,
    /// The problem is over.
    Over,
}

#[derive(Debug)]
struct Problem {
    why: String,
    /// The reason that was logged last, with its numbers replaced.
    logged: String,
    logged_at: BootNs,
}

/// All problems.
#[derive(Debug, Default)]
pub(super) struct Problems(BTreeMap<String, Problem>);

impl Problems {
    /// Sets the reason of a problem; `None` ends the problem. Returns what to log.
    pub(super) fn set(&mut self, subject: &str, why: Option<String>, now: BootNs) -> Option<Line> {
        let Some(why) = why else { return self.0.remove(subject).map(|_| Line::Over) };
        let kind = without_numbers(&why);
        match self.0.get_mut(subject) {
            None => {
                let problem = Problem { why, logged: kind, logged_at: now };
                self.0.insert(subject.into(), problem);
                Some(Line::New)
            }
            Some(known) => {
                known.why = why;
                if known.logged == kind || now < known.logged_at.after(SAY_EVERY) {
                    return None;
                }
                (known.logged, known.logged_at) = (kind, now);
                Some(Line::Changed)
            }
        }
    }

    /// Whether there is a problem of this subject.
    pub(super) fn contains(&self, subject: &str) -> bool {
        self.0.contains_key(subject)
    }

    /// Forgets the problems of a Lease that is no longer served.
    pub(super) fn remove_of(&mut self, lease: &str) {
        self.0.retain(|subject, _| subject.rsplit(' ').next() != Some(lease));
    }

    /// The subjects with their present reasons.
    pub(super) fn iter(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(subject, problem)| (subject.clone(), problem.why.clone()))
    }
}

/// Replaces the numbers in a reason. Ports, times and counters change with every attempt, so reasons
/// that differ only in them are the same.
fn without_numbers(text: &str) -> String {
    let mut kind = String::with_capacity(text.len());
    for character in text.chars() {
        if !character.is_ascii_digit() {
            kind.push(character);
        } else if !kind.ends_with('#') {
            kind.push('#');
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> BootNs {
        BootNs(ms * 1_000_000)
    }

    fn set(problems: &mut Problems, why: &str, ms: u64) -> Option<Line> {
        problems.set("API", Some(why.into()), at(ms))
    }

    #[test]
    fn another_reason_is_logged_and_the_present_one_is_shown() {
        let mut problems = Problems::default();
        assert_eq!(set(&mut problems, "connection refused", 0), Some(Line::New));
        assert_eq!(set(&mut problems, "connection refused", 9_000), None);
        assert_eq!(set(&mut problems, "forbidden", 10_000), Some(Line::Changed));
        let shown: Vec<_> = problems.iter().collect();
        assert_eq!(shown, [("API".to_owned(), "forbidden".to_owned())]);
        assert_eq!(problems.set("API", None, at(11_000)), Some(Line::Over));
        assert_eq!(problems.set("API", None, at(12_000)), None);
    }

    #[test]
    fn numbers_that_change_fill_no_log() {
        let mut problems = Problems::default();
        assert_eq!(set(&mut problems, "from port 40001: timed out", 0), Some(Line::New));
        let lines = (1..100).filter_map(|n| {
            set(&mut problems, &format!("from port {}: timed out", 40_001 + n * 7), n * 10_000)
        });
        assert_eq!(lines.count(), 0);
    }

    #[test]
    fn two_reasons_that_take_turns_are_logged_once_in_five_seconds() {
        let mut problems = Problems::default();
        assert_eq!(set(&mut problems, "refused", 0), Some(Line::New));
        let lines = (1..=200).filter_map(|n| {
            let why = if n % 2 == 0 { "refused" } else { "forbidden" };
            set(&mut problems, why, n * 100)
        });
        assert!((2..=4).contains(&lines.count()));
        // A change that came too early is logged when the time is over.
        let mut problems = Problems::default();
        assert_eq!(set(&mut problems, "refused", 0), Some(Line::New));
        assert_eq!(set(&mut problems, "forbidden", 100), None);
        assert_eq!(set(&mut problems, "forbidden", 5_000), Some(Line::Changed));
    }
}
