//! Joins many rounds into spans in which nothing changed.

use super::verdict::{Owners, Verdict};
use serde::Serialize;
use std::{fmt::Write as _, net::IpAddr, time::Duration};

/// One round.
#[derive(Clone, Debug)]
pub struct Round {
    /// Time since the start.
    pub at: Duration,
    /// The verdict on each VIP.
    pub verdicts: Vec<Verdict>,
    /// Whether each VIP served a user; `None` if that was not tried.
    pub served: Vec<Option<bool>>,
}

/// A span in which nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// When it began, milliseconds since the start.
    pub from_ms: u64,
    /// When it ended.
    pub to_ms: u64,
    /// How many owners there were.
    pub owners: Owners,
    /// The names of the owners.
    pub names: Vec<String>,
    /// Whether a user was served; `None` if that was not tried.
    pub served: Option<bool>,
}

/// One VIP over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// The VIP.
    pub vip: IpAddr,
    /// The spans, without gaps.
    pub spans: Vec<Span>,
    /// The share of time with exactly one owner, in percent.
    pub one_owner_percent: f64,
    /// The longest time without an owner, in milliseconds.
    pub longest_dark_ms: u64,
    /// The total time with more than one owner, in milliseconds.
    pub two_owners_ms: u64,
    /// The share of time in which a user was served, in percent; `None` if that was not tried.
    pub served_percent: Option<f64>,
}

impl Timeline {
    /// Joins the rounds of the VIP at `index`. A round lasts until the next one, the last round
    /// until `end`. `None` without rounds, or without that VIP.
    pub fn new(index: usize, rounds: &[Round], end: Duration) -> Option<Self> {
        let vip = rounds.first()?.verdicts.get(index)?.vip;
        let mut spans: Vec<Span> = Vec::new();
        let ends = rounds.iter().skip(1).map(|round| round.at).chain([end]);
        for (round, end) in rounds.iter().zip(ends) {
            let verdict = round.verdicts.get(index)?;
            let mut names: Vec<String> =
                verdict.stations.iter().map(|station| station.owner().to_owned()).collect();
            names.dedup();
            let span = Span {
                from_ms: round.at.as_millis() as u64,
                to_ms: end.as_millis() as u64,
                owners: verdict.owners,
                names,
                served: round.served.get(index).copied().flatten(),
            };
            match spans.last_mut() {
                Some(last) if last.is_like(&span) => last.to_ms = span.to_ms,
                _ => spans.push(span),
            }
        }
        let all = spans.iter().map(Span::ms).sum::<u64>().max(1) as f64;
        let time = |wanted: &dyn Fn(&Span) -> bool| -> u64 {
            spans.iter().filter(|span| wanted(span)).map(Span::ms).sum()
        };
        let asked = spans.iter().any(|span| span.served.is_some());
        let dark = spans.iter().filter(|span| span.owners == Owners::Nobody).map(Span::ms);
        Some(Self {
            vip,
            one_owner_percent: time(&|span| span.owners == Owners::One) as f64 / all * 100.0,
            longest_dark_ms: dark.max().unwrap_or(0),
            two_owners_ms: time(&|span| span.owners == Owners::Two),
            served_percent: asked.then(|| time(&|span| span.served == Some(true)) as f64 / all * 100.0),
            spans,
        })
    }

    /// A bar of `width` characters: a letter for each owner, `.` for no owner, `!` for two.
    pub fn bar(&self, width: usize) -> String {
        let end = self.spans.last().map_or(0, |span| span.to_ms).max(1);
        let letters = self.letters();
        let mut bar = String::new();
        for cell in 0..width as u64 {
            let (from, to) = (end * cell / width as u64, end * (cell + 1) / width as u64);
            let here =
                self.spans.iter().filter(|span| span.from_ms < to.max(from + 1) && span.to_ms > from);
            // A cell shows its worst span, however short that was.
            let worst = here.max_by_key(|span| span.owners);
            bar.push(worst.map_or(' ', |span| match span.owners {
                Owners::One => {
                    letters.iter().find(|(name, _)| *name == span.names[0]).map_or('?', |(_, l)| *l)
                }
                Owners::Nobody => '.',
                Owners::Two => '!',
            }));
        }
        bar
    }

    /// The owners in order of appearance, each with its letter.
    pub fn letters(&self) -> Vec<(String, char)> {
        let mut names: Vec<&String> = Vec::new();
        for name in self.spans.iter().filter(|span| span.owners == Owners::One).flat_map(|s| &s.names) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.into_iter().cloned().zip(('A'..='Z').cycle()).collect()
    }

    /// The summary in words.
    pub fn words(&self) -> String {
        let mut text = format!(
            "{}: one owner {:.2} % of the time, dark for {} ms at most, two owners for {} ms",
            self.vip, self.one_owner_percent, self.longest_dark_ms, self.two_owners_ms
        );
        if let Some(served) = self.served_percent {
            let _ = write!(text, ", served {served:.2} %");
        }
        text
    }
}

impl Span {
    fn ms(&self) -> u64 {
        self.to_ms.saturating_sub(self.from_ms)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.owners == other.owners && self.names == other.names && self.served == other.served
    }
}

#[cfg(test)]
mod tests;
