//! kube-vip on a host of its own, and the LAN that it answers on. It takes the Lease as client-go does,
//! and ends in one of several ways. Nodes of xvip hear it only if they ask.

use super::{Happening, Ms, World};
use vip_common::abi::Claim;
use vip_user::model::{agent::Event, lease::record::Record};

/// kube-vip on a host where xvip does not run.
#[derive(Clone, Copy)]
pub(super) struct Outsider {
    /// Number of its renewals; 0: it has ended. A renewal with another number is of no use any more.
    renewal: u64,
    /// Whether its requests to the API are lost.
    cut_off: bool,
    /// Until when the kernel of its host answers.
    answers_until: Ms,
    /// Whether its host accepts connections. If not, xvip may take over once this time has come.
    serves: bool,
    /// Until when no node of xvip may answer beside it.
    counts_until: Ms,
}

impl Outsider {
    const NAME: &str = "kube-vip";
    const DURATION_S: u32 = 5;
    /// If its requests are lost, it answers until its renew deadline and its release time-outs are
    /// over.
    const ANSWERS_MS: Ms = 18_000;
    /// It removes a label of its node after the release, and then the address.
    const STOPS_MS: Ms = 9_900;
    /// What xvip waits after the last renewal for a host that answers and does not serve, less what its
    /// clock may be fast.
    const IGNORED_MS: Ms = 45_000;
    /// The longest time between two renewals.
    const LONGEST_PAUSE_MS: Ms = 2_200;
    const MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
}

impl World {
    /// The program takes the Lease if it may: xvip has released it, or it has expired.
    pub(super) fn outsider_takes(&mut self) {
        let Some(lease) = &self.lease else { return };
        let released = lease.holder.is_empty() && lease.released.is_some();
        let live = |index: usize| self.clock(index).boot < self.nodes[index].kernel.deadline;
        let quiet = self.now > self.changed_at + 3_400;
        let expired = quiet && !(0..self.nodes.len()).any(live);
        let busy = self.outsider.is_some() || self.client_go.is_some();
        if busy || !(released || expired) {
            return;
        }
        self.outsiders += 1;
        let answers_until = self.now + Outsider::ANSWERS_MS;
        let (renewal, serves) = (self.outsiders, true);
        let counts_until = Ms::MAX;
        self.outsider = Some(Outsider { renewal, cut_off: false, answers_until, serves, counts_until });
        self.outsider_writes(true);
        self.judge_outsider();
        self.push(self.now + 1_000, Happening::Outsider(self.outsiders));
    }

    fn outsider_writes(&mut self, takes: bool) {
        let now_us = self.clock(0).wall_us;
        self.edit(|lease| {
            if takes {
                lease.transitions += 1;
                lease.acquire_us = Some(now_us);
            }
            lease.holder = Outsider::NAME.into();
            lease.duration_s = Outsider::DURATION_S;
            lease.renew_us = Some(now_us);
        });
    }

    /// Its retry period is over.
    pub(super) fn outsider_renews(&mut self, renewal: u64) {
        let Some(mut outsider) = self.outsider.filter(|outsider| outsider.renewal == renewal) else {
            return;
        };
        let holder = self.lease.as_ref().map(|lease| lease.holder.clone());
        let lost =
            holder.as_deref().is_none_or(|holder| holder != Outsider::NAME && !holder.is_empty());
        if lost || (outsider.cut_off && self.now >= outsider.answers_until) {
            self.outsider = None;
            return;
        }
        if !outsider.cut_off {
            self.outsider_writes(holder.as_deref() == Some(""));
            outsider.answers_until = self.now + Outsider::ANSWERS_MS;
        }
        self.outsider = Some(outsider);
        let pause = self.rng.u64(1_000..Outsider::LONGEST_PAUSE_MS);
        self.push(self.now + pause, Happening::Outsider(renewal));
    }

    /// Ends in one of the ways that its users know.
    pub(super) fn outsider_ends(&mut self) {
        let alive = |outsider: &Outsider| outsider.renewal != 0 && !outsider.cut_off;
        let Some(mut outsider) = self.outsider.filter(alive) else { return };
        let way = self.rng.u32(0..4);
        self.note(|| format!("kube-vip ends in way {way}"));
        let now_us = self.clock(0).wall_us;
        let holds = self.lease.as_ref().is_some_and(|lease| lease.holder == Outsider::NAME);
        match way {
            // It is stopped: first it releases the Lease, then it removes its address.
            0 if holds => {
                self.edit(|lease| {
                    *lease = Record {
                        holder: String::new(),
                        duration_s: 1,
                        acquire_us: Some(now_us),
                        renew_us: Some(now_us),
                        ..lease.clone()
                    };
                });
                outsider.renewal = 0;
                outsider.answers_until = self.now + self.rng.u64(0..Outsider::STOPS_MS);
            }
            // It is killed. Its address stays until somebody removes it.
            1 => {
                outsider.renewal = 0;
                outsider.answers_until = self.now + self.rng.u64(1_000..120_000);
                outsider.serves = self.rng.bool();
                if !outsider.serves {
                    outsider.counts_until =
                        self.now - Outsider::LONGEST_PAUSE_MS + Outsider::IGNORED_MS;
                }
            }
            2 => outsider.cut_off = true,
            // An administrator blanks the Lease. It takes the Lease again soon.
            _ => {
                if holds {
                    self.edit(|lease| lease.holder.clear());
                }
            }
        }
        self.outsider = Some(outsider);
    }

    /// The faults end. A host that answers and does not serve goes on: that is no fault that ends.
    pub(super) fn only_a_proxy_stays(&mut self) {
        let answers = self.outsider_answers();
        let is_proxy = |outsider: &Outsider| outsider.renewal == 0 && !outsider.serves && answers;
        self.outsider = self.outsider.filter(is_proxy);
        if let Some(outsider) = &mut self.outsider {
            outsider.answers_until = Ms::MAX;
        }
    }

    /// Forgets a host that answers no more.
    pub(super) fn outsider_is_gone(&mut self) {
        if self
            .outsider
            .is_some_and(|outsider| outsider.renewal == 0 && self.now >= outsider.answers_until)
        {
            self.outsider = None;
        }
    }

    pub(super) fn outsider_answers(&self) -> bool {
        self.outsider.is_some_and(|outsider| self.now < outsider.answers_until)
    }

    pub(super) fn outsider_serves(&self) -> bool {
        self.outsider_answers() && self.outsider.is_some_and(|outsider| outsider.serves)
    }

    /// Whether no node of xvip may answer beside it.
    pub(super) fn outsider_counts(&self) -> bool {
        self.outsider_answers()
            && self.outsider.is_some_and(|outsider| self.now < outsider.counts_until)
    }

    /// Called when the program begins to answer.
    fn judge_outsider(&mut self) {
        if let Some(index) = (0..self.nodes.len()).find(|index| self.answers(*index, self.now)) {
            self.crime = Some(format!("kube-vip and node {index} both answer at {} ms", self.now));
        }
    }

    /// A node asks the LAN. Stations that are not xvip answer.
    pub(super) fn asked_on_lan(&mut self, index: usize) {
        let rollback = self
            .client_go
            .is_some_and(|program| program.node != index && self.now < program.answers_until);
        if !self.outsider_answers() && !rollback {
            return;
        }
        let (ip, mac, at_ns) = (super::kernel::vip(), Outsider::MAC, self.clock(index).boot.0);
        let claim = Claim { at_ns, ip, ifindex: 2, mac, _reserved: [0; 6] };
        let process = self.nodes[index].process;
        let at = self.now + self.rng.u64(1..200);
        self.push(at, Happening::Event(index, process, Event::Claim(claim)));
    }
}
