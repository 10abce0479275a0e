//! Failures that concern single VIPs. A harm to a VIP makes this node a worse choice for the Lease of
//! that VIP, and for no other Lease.

use super::{fitness::Fitness, schedule::RETRY, time::BootNs};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// What can go wrong for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Its entry could not be written, so the kernel does not answer for it.
    Entry,
    /// Its address could not be added, so the kernel does not answer for it.
    Address,
    /// Its solicited-node group could not be joined: a switch may keep questions away.
    Group,
    /// The fence of its Lease could not be raised.
    Fence,
    /// It could not be announced.
    Announcement,
}

/// A failure may be short. It counts only if the next attempt fails too.
const COUNTS_AFTER: Duration = RETRY;
/// A node that has lost the VIP makes no further attempts, so it cannot learn that the harm is over. If
/// it forgot at once, it would offer at once, and the VIP would move back and forth.
const REMEMBERED: Duration = Duration::from_mins(1);

/// How many VIPs one problem names.
const MAX_NAMED: usize = 8;

#[derive(Debug)]
struct Failure {
    why: String,
    first: BootNs,
    last: BootNs,
}

/// The known harms of all VIPs.
#[derive(Debug, Default)]
pub struct Harms {
    failures: BTreeMap<(IpAddr, Harm), Failure>,
    /// VIPs that the host could not carry if it had to, and why.
    foretold: BTreeMap<IpAddr, String>,
}

impl Harms {
    /// An attempt has failed for a VIP.
    pub fn failed(&mut self, vip: IpAddr, harm: Harm, why: String, now: BootNs) {
        let known = self.failures.get(&(vip, harm)).map(|known| known.first);
        let failure = Failure { why, first: known.unwrap_or(now), last: now };
        self.failures.insert((vip, harm), failure);
    }

    /// An attempt has succeeded for a VIP. Returns whether a failure was known.
    pub fn worked(&mut self, vip: IpAddr, harm: Harm) -> bool {
        self.failures.remove(&(vip, harm)).is_some()
    }

    /// Sets the VIPs that the host could not carry if it had to, and why.
    pub fn foretell(&mut self, refused: BTreeMap<IpAddr, String>) {
        self.foretold = refused;
    }

    /// Forgets old failures. Returns whether there were any.
    pub fn forget(&mut self, now: BootNs) -> bool {
        let known = self.failures.len();
        self.failures.retain(|_, failure| now < failure.last.after(REMEMBERED));
        self.failures.len() < known
    }

    /// How well a node with these harms serves a Lease's VIPs, and what keeps it from serving better.
    pub fn weigh(&self, vips: &[IpAddr]) -> (Fitness, Option<String>) {
        let mut reasons = Vec::new();
        let mut dark = 0;
        for vip in vips {
            let of_vip = self.failures.range((*vip, Harm::Entry)..=(*vip, Harm::Announcement));
            let counting =
                of_vip.filter(|(_, failure)| failure.last >= failure.first.after(COUNTS_AFTER));
            let found: Vec<_> = counting.map(|((_, harm), failure)| (*harm, &failure.why)).collect();
            let silences = |harm: &Harm| matches!(harm, Harm::Entry | Harm::Address | Harm::Fence);
            let silent = found.iter().any(|(harm, _)| silences(harm));
            let foretold = self.foretold.get(vip);
            dark += usize::from(silent || foretold.is_some());
            let why = foretold.or(found.first().map(|(_, why)| *why));
            reasons.extend(why.map(|why| (*vip, why.as_str())));
        }
        let fitness = match reasons.len() {
            0 => Fitness::Able,
            _ if dark == vips.len() => Fitness::Unable,
            _ => Fitness::Impaired,
        };
        (fitness, in_words(reasons.into_iter()))
    }
}

/// What has failed, in words: the first VIPs, each with its reason, and how many more there are. `None`
/// if nothing has failed.
pub(super) fn in_words<'a>(
    mut failures: impl ExactSizeIterator<Item = (IpAddr, &'a str)>,
) -> Option<String> {
    let first = failures.by_ref().take(MAX_NAMED).map(|(vip, why)| format!("{vip}: {why}"));
    let mut words: Vec<String> = first.collect();
    match failures.len() {
        0 => {}
        more => words.push(format!("and {more} more VIPs")),
    }
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests;
