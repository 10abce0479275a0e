//! What this node cannot do for single VIPs. One VIP's harm makes it doubtful for the Lease of that
//! VIP, and touches no other Lease.

use super::{fitness::Fitness, schedule::RETRY, time::BootNs};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// What can go wrong for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Its entry could not be written: it is not answered for.
    Entry,
    /// Its address could not be added: it is not answered for either.
    Address,
    /// The group in which it is asked for could not be joined: a switch may keep questions away.
    Group,
    /// The fence of its Lease could not be raised.
    Fence,
    /// It could not be announced.
    Announcement,
}

/// A failure can be a moment's. What still fails when the host was tried again counts.
const COUNTS_AFTER: Duration = RETRY;
/// A node that has lost the VIP does not try any more, so nothing tells it that the harm is over.
/// Without a memory it would offer itself at once, and the VIP would go back and forth.
const REMEMBERED: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Failure {
    why: String,
    first: BootNs,
    last: BootNs,
}

/// All harms.
#[derive(Debug, Default)]
pub struct Harms {
    failures: BTreeMap<(IpAddr, Harm), Failure>,
    /// What the host could not carry if it were to, and why.
    foretold: BTreeMap<IpAddr, String>,
}

impl Harms {
    /// This has failed for a VIP.
    pub fn failed(&mut self, vip: IpAddr, harm: Harm, why: String, now: BootNs) {
        let known = self.failures.get(&(vip, harm)).map(|known| known.first);
        let failure = Failure { why, first: known.unwrap_or(now), last: now };
        self.failures.insert((vip, harm), failure);
    }

    /// This works for a VIP. Says whether it had failed.
    pub fn worked(&mut self, vip: IpAddr, harm: Harm) -> bool {
        self.failures.remove(&(vip, harm)).is_some()
    }

    /// What the host could not carry if it were to, by VIP, and why.
    pub fn foretell(&mut self, refused: BTreeMap<IpAddr, String>) {
        self.foretold = refused;
    }

    /// Forgets what was long ago; says whether there was anything.
    pub fn forget(&mut self, now: BootNs) -> bool {
        let known = self.failures.len();
        self.failures.retain(|_, failure| now < failure.last.after(REMEMBERED));
        self.failures.len() < known
    }

    /// How well a node with these harms serves a Lease's VIPs, and why not better.
    pub fn weigh(&self, vips: &[IpAddr]) -> (Fitness, Option<String>) {
        let mut reasons = Vec::new();
        let mut dark = 0;
        for vip in vips {
            let of_vip = self.failures.iter().filter(|((of, _), _)| of == vip);
            let counting =
                of_vip.filter(|(_, failure)| failure.last >= failure.first.after(COUNTS_AFTER));
            let found: Vec<_> = counting.map(|((_, harm), failure)| (*harm, &failure.why)).collect();
            let silences = |harm: &Harm| matches!(harm, Harm::Entry | Harm::Address | Harm::Fence);
            let silent = found.iter().any(|(harm, _)| silences(harm));
            let foretold = self.foretold.get(vip);
            dark += usize::from(silent || foretold.is_some());
            let why = foretold.or(found.first().map(|(_, why)| *why));
            reasons.extend(why.map(|why| format!("{vip}: {why}")));
        }
        let fitness = match reasons.len() {
            0 => Fitness::Able,
            _ if dark == vips.len() => Fitness::Unable,
            _ => Fitness::Doubtful,
        };
        (fitness, (!reasons.is_empty()).then(|| reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests;
