//! What the node knows of its host, and what must be done there next.
//!
//! A plan of ten thousand changes must not delay a renewal, so it is carried out piece by piece. Every
//! prefix of a plan is safe. Between two looks at the host, a plan is based on the last look and on the
//! changes since.

use super::{Agent, weigh::Look};
use crate::model::{
    changes::{Changes, Failed, PutOff},
    desired::{Link, Links, VipSpec, desired},
    fitness::Fitness,
    group::Group,
    harm::Harm,
    news::{News, Of, Subject},
    ownership::Ownership,
    plan::{Action, Actual},
    schedule::RETRY,
    time::BootNs,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use vip_common::{abi::Ip, wire::solicited_node};

/// The kernel sends no event when a link is detached. So the guard is checked this often.
const INSPECT_EVERY: Duration = Duration::from_millis(500);
/// Time before a renewal in which no look at the host begins. A look at a busy host takes some tens of
/// milliseconds, and would make the renewal late.
const SOON: Duration = Duration::from_millis(100);
/// The host is read at least this often, because lifetimes of addresses run down and maps can be edited
/// by hand.
const READ_EVERY: Duration = Duration::from_secs(5);
/// A plan that is older than this is replaced: it rests on what the node knew when it was made.
const PLAN_LASTS: Duration = Duration::from_secs(1);

/// One thing to do on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Examine the interfaces and attach programs. Report with [`Agent::looked`].
    Interfaces,
    /// Read entries and addresses. Report with [`Agent::read`].
    Read,
    /// Make one change. Report with [`Agent::changed`].
    Change(Action),
}

/// The progress of the present work on the host.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Work has begun. Says whether the interfaces were examined since.
    Begun { looked: bool },
    /// A plan is being carried out. It was made at this time.
    Changing(Box<Changes>, BootNs),
    /// The next turn goes on with this, unless something else asks for work on the host before.
    PutOff(Box<Phase>),
}

/// How well the interfaces are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    /// No look has succeeded yet.
    Never,
    /// Links or addresses may have changed since the last look.
    Stale,
    /// Nothing has changed since the last look.
    Current,
}

/// What has happened to the known state of the host since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Picture {
    /// The host was just read, and no plan uses that yet. Until one does, no report of a change causes
    /// another look: a busy host would otherwise be read for ever.
    Fresh,
    /// A plan was made.
    Planned,
    /// A change has failed, and may have been made in whole or in part.
    Uncertain,
}

/// What the node knows of its host.
#[derive(Debug)]
pub(super) struct HostState {
    /// The outcome of the last look at the interfaces.
    interfaces: Look,
    /// The outcome of the last reading of entries and addresses.
    entries: Look,
    /// Whether no VIP's entry could be written.
    full: bool,
    links: Freshness,
    /// The state of the host as it was last read, with the changes since.
    known: Option<Actual>,
    /// When the host must be read again.
    pub(super) read_at: BootNs,
    picture: Picture,
    phase: Phase,
    put_off: PutOff,
    pub(super) reconciled: bool,
    /// When the host last reached its desired state, with nothing left to do.
    pub(super) settled_at: Option<BootNs>,
    reconcile_at: Option<BootNs>,
    inspect_at: BootNs,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            interfaces: Look::Never,
            entries: Look::Never,
            full: false,
            links: Freshness::Never,
            known: None,
            read_at: BootNs(0),
            picture: Picture::Planned,
            phase: Phase::Idle,
            put_off: PutOff::default(),
            reconciled: false,
            settled_at: None,
            reconcile_at: Some(BootNs(0)),
            inspect_at: BootNs(0),
        }
    }
}

impl HostState {
    /// What speaks against the host as a whole. The reported problems are for people; decisions use
    /// this.
    pub(super) fn fault(&self, served: impl FnOnce() -> bool) -> Option<&'static str> {
        let good = self.interfaces == Look::Good && self.entries == Look::Good;
        let served = !good && served();
        // The edge itself keeps the last look for a while.
        if self.interfaces.is_bad(false) {
            Some("the interfaces are not known")
        } else if self.entries.is_bad(served) {
            Some("the entries and addresses are not known")
        } else {
            self.full.then_some("no VIP could be published")
        }
    }

    /// When the host must be brought into its desired state.
    pub(super) fn due(&self) -> Option<BootNs> {
        self.reconcile_at
    }

    /// Links or addresses have changed. A plan that is being carried out may end first: it takes no
    /// longer than [`PLAN_LASTS`].
    pub(super) fn has_changed(&mut self, now: BootNs) {
        if self.links == Freshness::Current {
            self.links = Freshness::Stale;
        }
        self.read_at = BootNs(0);
        self.wake_at(now);
    }

    /// The state of the host, if it is known.
    pub(super) const fn known(&self) -> Option<&Actual> {
        self.known.as_ref()
    }

    /// The host must be read again before the next plan.
    pub(super) fn read_again(&mut self) {
        self.read_at = BootNs(0);
        if self.picture == Picture::Fresh {
            self.picture = Picture::Planned;
        }
    }

    /// The desired state of the host has changed, so an earlier plan is dropped.
    pub(super) fn is_due(&mut self, now: BootNs) {
        self.forget_plan();
        self.wake_at(now);
    }

    /// There is something to do on the host at this time.
    pub(super) fn wake_at(&mut self, at: BootNs) {
        self.reconcile_at = Some(self.reconcile_at.map_or(at, |known| known.min(at)));
    }

    /// The rest of a plan is not carried out.
    pub(super) fn forget_plan(&mut self) {
        if matches!(self.phase, Phase::PutOff(_)) {
            self.phase = Phase::Idle;
        }
    }

    /// What this turn begins with.
    fn first_phase(&mut self, now: BootNs) -> Phase {
        match std::mem::take(&mut self.phase) {
            Phase::PutOff(phase) => match *phase {
                Phase::Changing(changes, made) if now < made.after(PLAN_LASTS) => {
                    Phase::Changing(changes, made)
                }
                Phase::Begun { looked } => Phase::Begun { looked },
                _ => Phase::Begun { looked: false },
            },
            _ => Phase::Begun { looked: false },
        }
    }

    /// Whether the host must be read before a plan is made.
    fn must_be_read(&self, now: BootNs) -> bool {
        let is_old = match self.picture {
            Picture::Fresh => false,
            Picture::Planned => self.read_at <= now,
            Picture::Uncertain => true,
        };
        is_old || self.known.is_none()
    }
}

impl Agent {
    /// Whether an answering interface is up and guarded.
    pub(super) fn is_usable(&self) -> bool {
        self.links.links.iter().any(|link| link.answers() && link.up)
    }

    /// Whether the host must be brought into its desired state now. Nothing is changed before the
    /// wanted groups are known.
    pub fn host_is_due(&self, now: BootNs) -> bool {
        self.wanted.is_some() && self.host.reconcile_at.is_some_and(|at| at <= now)
    }

    /// When the guard must be checked.
    pub fn guard_due(&self) -> BootNs {
        self.precedence.wake_at(self.host.inspect_at)
    }

    /// Whether work on the host must wait, because an election has something to do soon. Work that an
    /// election asks for, or that has begun, does not wait. Call this once in every turn.
    pub fn makes_way(&mut self, now: BootNs) -> bool {
        let settled = self.host.reconciled && self.host.settled_at.is_some();
        let due = self.host.due().map_or(self.host.inspect_at, |at| at.min(self.host.inspect_at));
        if !settled || due > now {
            return self.precedence.puts_off(now, due, None);
        }
        let soon = now.after(SOON.min(self.policy.timing.renew_every / 4));
        let wakes = self.groups.values().filter_map(|group| group.election.wake_at(now));
        let next = wakes.filter(|at| *at > now && *at < soon).min();
        self.precedence.puts_off(now, due, next)
    }

    /// The result of checking the guard: whether it is in place, or why that could not be checked. In
    /// the second case the last result still counts.
    pub fn inspected(&mut self, now: BootNs, guarded: Result<bool, String>) {
        self.host.inspect_at = now.after(INSPECT_EVERY);
        if guarded == Ok(false) {
            self.host.has_changed(now);
        }
        self.tell("guard", Of::Node, guarded.err());
    }

    /// Work on the host begins, or goes on where it was put off. Take its pieces with
    /// [`next_on_host`](Self::next_on_host).
    pub fn begin_on_host(&mut self, now: BootNs) {
        self.host.settled_at = None;
        self.host.reconcile_at = None;
        self.host.phase = self.host.first_phase(now);
    }

    /// This turn has no time for work on the host.
    pub fn put_host_off(&mut self, now: BootNs) {
        self.host.settled_at = None;
        self.host.wake_at(now);
    }

    /// This turn has no time for the rest of the work on the host. If the work has just ended, nothing
    /// is put off.
    pub fn interrupt_host(&mut self, now: BootNs) {
        let phase = std::mem::take(&mut self.host.phase);
        if let Phase::Changing(changes, planned_at) = &phase {
            if let Some(why) = changes.problem() {
                self.note_harms(*planned_at, changes, true);
                self.tell("change of the host", Of::Node, Some(why));
            }
            self.forget_dropped(now);
        }
        if !matches!(phase, Phase::Idle) {
            self.host.wake_at(now);
            self.host.phase = Phase::PutOff(Box::new(phase));
        }
    }

    /// The next piece of work on the host. `None` if the work is done or must wait.
    pub fn next_on_host(&mut self, now: BootNs) -> Option<Work> {
        if let Phase::Begun { looked } = &mut self.host.phase {
            if self.host.links != Freshness::Current && !*looked && self.host.picture != Picture::Fresh
            {
                *looked = true;
                return Some(Work::Interfaces);
            }
            // Every entry of the interface map would seem to be left over.
            if self.host.links == Freshness::Never {
                self.host.phase = Phase::Idle;
                self.host.wake_at(now.after(RETRY));
                return None;
            }
            if self.host.must_be_read(now) {
                return Some(Work::Read);
            }
            self.host.picture = Picture::Planned;
            let changes = self.plan(now);
            self.host.phase = Phase::Changing(Box::new(changes), now);
        }
        let Phase::Changing(changes, planned_at) = &mut self.host.phase else { return None };
        if let Some(action) = changes.next(&self.host.put_off) {
            return Some(Work::Change(action));
        }
        let planned_at = *planned_at;
        if let Phase::Changing(changes, _) = std::mem::take(&mut self.host.phase) {
            self.end_of_changes(now, planned_at, &changes);
            self.burst_again(now);
        }
        None
    }

    /// Sets the VIPs that this host could not carry, each with the reason.
    pub fn foretell(&mut self, refused: BTreeMap<IpAddr, String>) {
        self.harms.foretell(refused);
        self.weighs_all = true;
    }

    /// The interfaces of the host, or why they are not known.
    pub fn looked(&mut self, now: BootNs, looked: Result<Links, Failed>) {
        self.weighs_all = true;
        match looked {
            Ok(links) => {
                self.tell("interfaces", Of::Node, None);
                self.host.links = Freshness::Current;
                self.host.interfaces = Look::Good;
                self.use_links(now, links);
            }
            Err(failed) => {
                self.host.interfaces = self.host.interfaces.after(&failed, now);
                self.host.wake_at(now.after(RETRY));
                self.tell("interfaces", Of::Node, Some(failed.why));
            }
        }
    }

    /// The entries and addresses of the host, or why they are not known.
    pub fn read(&mut self, now: BootNs, read: Result<Actual, Failed>) {
        match read {
            Ok(actual) => {
                self.weighs_all |= self.host.entries != Look::Good;
                self.host.entries = Look::Good;
                let old = self.host.known.replace(actual);
                self.host.read_at = now.after(READ_EVERY);
                self.host.picture = Picture::Fresh;
                self.note_published(now, old.as_ref());
                self.forget_dropped(now);
                self.tell("host", Of::Node, None);
            }
            Err(failed) => {
                self.weighs_all = true;
                self.host.entries = self.host.entries.after(&failed, now);
                self.host.phase = Phase::Idle;
                self.host.wake_at(now.after(RETRY));
                self.tell("host", Of::Node, Some(failed.why));
            }
        }
    }

    /// The outcome of a change.
    pub fn changed(&mut self, now: BootNs, action: Action, done: Result<(), Failed>) {
        let Err(failed) = done else { return self.take_in_change(now, action) };
        self.host.picture = Picture::Uncertain;
        if let Phase::Changing(changes, _) = &mut self.host.phase {
            changes.has_failed(now, action, failed, &mut self.host.put_off);
        }
    }

    fn take_in_change(&mut self, now: BootNs, action: Action) {
        let Some(known) = &mut self.host.known else { return };
        let late = known.publishes(&action);
        let up = known.brings_up(&action);
        known.take_in(action);
        if let Some((ip, slot)) = late {
            self.published(now, slot, ip);
        }
        if let Some(port) = up {
            self.came_up_late(now, port);
        }
    }

    /// A change that seemed to have failed may have published a VIP.
    fn note_published(&mut self, now: BootNs, old: Option<&Actual>) {
        let (Some(known), Some(old)) = (&self.host.known, old) else { return };
        let publish = |(ip, vip): (&Ip, &_)| old.publishes(&Action::Publish(*ip, *vip));
        let new: Vec<(IpAddr, u32)> = known.vips.iter().filter_map(publish).collect();
        for (ip, slot) in new {
            self.published(now, slot, ip);
        }
    }

    /// Whether the guard lets announcements of a VIP out: it has the entry that the present tenure of
    /// its group needs, and so have its interfaces.
    pub(super) fn is_published(&self, now: BootNs, group: &Group, vip: IpAddr) -> bool {
        let Ownership::Ours { generation, .. } = group.election.ownership(now) else { return false };
        let Some(known) = &self.host.known else { return false };
        let answer = self.links.answer.get(&vip).copied().unwrap_or(0);
        let entry = known.vips.get(&Ip::from(vip));
        let is_up = |link: &Link| known.ifaces.get(&link.port).is_some_and(|iface| iface.up == 1);
        entry.is_some_and(|entry| entry.generation == generation && answer & !entry.answer == 0)
            && (!self.links.of(vip).any(|link| link.up) || self.links.of(vip).any(is_up))
    }

    /// Plans the way to the desired state of the host.
    fn plan(&mut self, now: BootNs) -> Changes {
        let owner = |(slot, group): (&u32, &Group)| (*slot, group.election.ownership(now));
        let owners = self.groups.iter().map(owner).collect();
        let specs: Vec<VipSpec> = self.specs().collect();
        let policy = &self.policy;
        let want = desired(now, &owners, &policy.timing, &specs, &self.links.links, policy.placement);
        let HostState { known, put_off, .. } = &mut self.host;
        Changes::new(now, want, known.get_or_insert_default(), put_off)
    }

    /// What the plan must know of each VIP besides its owner.
    fn specs(&self) -> impl Iterator<Item = VipSpec> {
        self.groups.iter().flat_map(|(slot, group)| {
            group.spec.vips.iter().map(|ip| VipSpec {
                ip: *ip,
                slot: *slot,
                answer: self.links.answer.get(ip).copied().unwrap_or(0),
                yielded: self.is_yielded(*ip),
                admitted: group.election.admits(*ip),
            })
        })
    }

    /// Whether a VIP stays silent by policy, although its Lease may be held.
    pub(super) fn is_yielded(&self, vip: IpAddr) -> bool {
        self.conflicts.is_yielded(vip) || self.links.strays.contains(&vip)
    }

    /// A plan that was made at `planned_at` has ended.
    fn end_of_changes(&mut self, now: BootNs, planned_at: BootNs, changes: &Changes) {
        self.note_harms(planned_at, changes, false);
        // The first look at the interfaces also removes the programs of another version. Before that,
        // those programs may answer under fences that this process does not lower.
        self.host.reconciled |= !changes.entries_failed;
        if let Some(why) = changes.problem() {
            let has_news = self.host.read_at == BootNs(0);
            self.host.wake_at(if has_news { now } else { now.after(changes.pause()) });
            self.tell("change of the host", Of::Node, Some(why));
        } else {
            self.tell("change of the host", Of::Node, None);
            let is_current = self.host.links == Freshness::Current;
            self.host.settled_at = is_current.then_some(planned_at);
            let retry = (!is_current).then(|| now.after(RETRY));
            self.host.wake_at(retry.map_or(self.host.read_at, |retry| retry.min(self.host.read_at)));
        }
        for slot in self.slots_in_use() {
            self.schedule_linger_end(planned_at, slot);
        }
        self.forget_dropped(planned_at);
    }

    /// Forgets VIPs that are no longer wanted and for which this host no longer answers. Until then the
    /// Lease names them, so that no other Lease can admit them.
    fn forget_dropped(&mut self, now: BootNs) {
        // A change that seemed to have failed may have made this host answer.
        let is_certain = self.host.picture != Picture::Uncertain;
        let Some(known) = self.host.known.as_ref().filter(|_| is_certain) else { return };
        let answers =
            |ip: &IpAddr| known.vips.get(&Ip::from(*ip)).is_some_and(|vip| vip.generation != 0);
        for (slot, group) in &mut self.groups {
            let dropped = group.election.dropped();
            if dropped.is_empty() {
                continue;
            }
            for ip in dropped.into_iter().filter(|ip| !answers(ip)) {
                group.election.forget(ip);
                let subject = Subject { what: "VIP", of: Of::Vip(ip) };
                self.news.push(News::Problem(subject, None));
            }
            self.timers.set(*slot, group.wake_at(now));
        }
    }

    /// Notes which VIPs could not be brought into their desired state. An unfinished plan proves
    /// failures, but no successes.
    fn note_harms(&mut self, now: BootNs, changes: &Changes, unfinished: bool) {
        let want = &changes.want;
        let wanted: BTreeSet<Ip> = want.addrs.keys().map(|addr| addr.ip).collect();
        let mut touched = false;
        for vip in self.groups.values().flat_map(|group| group.spec.vips.iter().copied()) {
            let ip = Ip::from(vip);
            let address = |harm, ip| (harm, wanted.contains(&ip), changes.without_address.get(&ip));
            let entry = (Harm::Entry, want.vips.contains_key(&ip), changes.without_entry.get(&ip));
            let group = group(vip).map(|group| address(Harm::Group, group));
            for (harm, wanted, failed) in [entry, address(Harm::Address, ip)].into_iter().chain(group) {
                match failed {
                    Some(why) => {
                        self.harms.failed(vip, harm, why.clone(), now);
                        touched = true;
                    }
                    None if wanted && !unfinished => touched |= self.harms.worked(vip, harm),
                    None => {}
                }
            }
        }
        // If some VIPs find no room, that is their own harm. If none does, this host is no candidate.
        if !unfinished {
            let full = |ip: &Ip| changes.without_entry.contains_key(ip);
            let full = !want.vips.is_empty() && want.vips.keys().all(full);
            touched |= self.host.full != full;
            self.host.full = full;
        }
        self.weighs_all |= touched;
    }

    /// Schedules the removal of addresses that have stayed long enough for late traffic.
    pub(super) fn schedule_linger_end(&mut self, now: BootNs, slot: u32) {
        let Some(group) = self.groups.get(&slot) else { return };
        let end = match group.election.ownership(now) {
            Ownership::Ours { until, .. } if until <= now => until.after(self.policy.timing.linger),
            Ownership::Elsewhere { serve_until } | Ownership::Ending { serve_until } => serve_until,
            _ => return,
        };
        if end > now {
            self.host.wake_at(end);
        }
    }

    /// Notes the interfaces of the host. VIPs are announced on an interface that came up or has another
    /// MAC address, because neighbours and switches do not know it yet.
    fn use_links(&mut self, now: BootNs, links: Links) {
        let known = !self.links.links.is_empty();
        let old = std::mem::replace(&mut self.links, links);
        for group in self.groups.values_mut() {
            let came_up = group.spec.vips.iter().any(|vip| {
                self.links.of(*vip).any(|new| {
                    let old = old.of(*vip).find(|old| old.port == new.port);
                    new.up && old.is_none_or(|old| !old.up || old.mac != new.mac)
                })
            });
            if known && came_up && group.serves(now) {
                group.begin_burst(now);
            }
            group.use_links(&self.links);
            group.damper.observe(now, group.reach < Fitness::Unable, self.links.attached);
        }
        self.links.attached = false;
        for slot in self.slots_in_use() {
            self.set_timer(now, slot);
        }
        let unusable = (!self.is_usable()).then(|| "no answering interface is up and guarded".into());
        self.tell("link", Of::Node, unusable);
    }
}

/// The solicited-node group of an IPv6 address.
fn group(vip: IpAddr) -> Option<Ip> {
    match vip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(Ip::v6(solicited_node(&v6.octets()))),
    }
}
