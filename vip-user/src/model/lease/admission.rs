//! Whether a VIP may be published under its Lease. The Lease says which node answers; the admission
//! says for which addresses. Two Leases never guard one VIP, and an address that a living host uses is
//! not taken. What was admitted once is remembered in the Lease, so a failover asks no one.
//!
//! A holder writes its claim into its own Lease. Only after the write was confirmed does it list the
//! Leases of the namespace. Each of two holders stores before it lists, so at least one of them sees
//! the other. If no other Lease and no station of the LAN contradicts a claim, the holder writes the
//! VIP as admitted. Only the confirmed write publishes it.
//!
//! A successor publishes the VIPs that it finds admitted, at any later time. So a Lease that no node
//! renews still names its VIPs, until a node strikes them out of that version. Either the successor's
//! write comes first, or the strike.

pub use super::{
    naming::{Guarded, Mark, Marks, Names},
    rivals::{Obstacle, Strike},
};
use super::{
    record::Record,
    rivals::{Against, Rank, Rivals},
    stranger::Lan,
};
use crate::model::{time::BootNs, timing::Timing};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use vip_common::mac::Mac;

/// How long the LAN is asked: three probes a second apart, and the ANNOUNCE_WAIT of RFC 5227 section
/// 1.1.
pub const PROBE_TIME: Duration = Duration::from_secs(4);
/// Probes that began longer ago prove nothing.
const PROBE_HOLDS: Duration = Duration::from_secs(12);
/// Pause before the LAN is asked again for an address that is in use.
const IN_USE_PAUSE: Duration = Duration::from_secs(5);
/// Pause between two lists of the Leases while there is an obstacle. It doubles each time, up to the
/// limit.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_LIMIT: Duration = Duration::from_secs(8);
/// A strike may be stored late. After this many in a row, a Lease that still names the VIP is reported.
const QUIET_STRIKES: u32 = 3;

/// How far the admission of one VIP has come. It counts only while this node holds the Lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    /// This node does not hold the Lease, or has not read what it says.
    #[default]
    Idle,
    /// Another Lease names the VIP, so this one does not claim it.
    Waiting,
    /// It is claimed, or will be. Lists from number `from` on began after the claim was stored.
    Claiming { from: Option<u64> },
    /// No other Lease names the VIP. The LAN has been `asked` at `since`, or will be asked then.
    Asking { since: BootNs, asked: bool },
    /// The VIP is free. The next write says that it is admitted.
    Admitting,
    /// The Lease says that the VIP is admitted.
    Admitted,
}

/// Whether a VIP is published although another Lease may have admitted it before this Lease named it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Unverified {
    #[default]
    No,
    /// Until this Lease names it, and a list that began after that shows no other Lease that does.
    UntilNamed,
    /// Until the list with this number, or a later one.
    UntilList(u64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Vip {
    stage: Stage,
    /// Whether the previous holder answered for this VIP without naming it in the Lease. It was then an
    /// earlier version of xvip.
    inherited: bool,
    unverified: Unverified,
    /// Whether the VIP is silent although the Lease still says that it is admitted.
    revoked: bool,
    /// Whether the VIP is no longer wanted under this Lease.
    dropped: bool,
    heard: Option<(BootNs, Mac)>,
    obstacle: Option<Obstacle>,
}

/// Something that the admission wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// List the Leases of the namespace from a quorum, and pass them to [`Admission::listed`] with this
    /// number.
    List(u64),
    /// Ask the LAN for [`Admission::asking`] (RFC 5227).
    Probe,
    /// Strike VIPs out of this version of another Lease, because its holder can no longer answer.
    Strike(Strike),
}

/// The VIPs of one Lease, and how far the admission of each has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Admission {
    lease: String,
    probe_time: Duration,
    vips: BTreeMap<IpAddr, Vip>,
    /// VIPs that an earlier process published under the fence that this one adopts.
    served: BTreeSet<IpAddr>,
    /// What the Lease says of the VIPs in the version that the next write replaces.
    base: Marks,
    /// What the last write says of the VIPs.
    written: Marks,
    rivals: Rivals,
    lists: u64,
    list_pending: bool,
    list_at: BootNs,
    pause: Duration,
    /// Consecutive lists after which something had to be struck out.
    strikes: u32,
    lan: Lan,
    /// Counts the changes of the set of admitted VIPs.
    changes: u64,
    /// Whether every VIP is admitted and the Lease says so, so that nothing is to be done.
    settled: bool,
    /// Whether an obstacle may have changed.
    obstacles_changed: bool,
    requests: Vec<Request>,
}

impl Admission {
    /// The admission of the VIPs of this Lease. An address counts as free if no station answers for it
    /// within `probe_time`.
    pub fn new(lease: &str, vips: &[IpAddr], probe_time: Duration) -> Self {
        Self {
            lease: lease.into(),
            probe_time,
            vips: vips.iter().map(|ip| (*ip, Vip::default())).collect(),
            served: BTreeSet::new(),
            base: Marks::new(),
            written: Marks::new(),
            rivals: Rivals::default(),
            lists: 0,
            list_pending: false,
            list_at: BootNs(0),
            pause: PAUSE,
            strikes: 0,
            lan: Lan::default(),
            changes: 0,
            settled: false,
            obstacles_changed: false,
            requests: Vec::new(),
        }
    }

    /// Whether the holder of the Lease may answer for this VIP.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.base.get(&ip) == Some(&Mark::Admitted)
            && self.vips.get(&ip).is_some_and(|vip| !vip.revoked && !vip.dropped)
    }

    /// Replaces the list of VIPs. A VIP that is no longer on it is silent at once. The Lease names it
    /// until [`forget`](Self::forget), so that no other Lease admits it while this host may answer.
    pub fn want(&mut self, vips: &[IpAddr]) {
        let before = self.admitted();
        for (ip, vip) in &mut self.vips {
            vip.dropped = !vips.contains(ip);
        }
        self.lan.keep(vips);
        for ip in vips {
            if self.vips.contains_key(ip) {
                continue;
            }
            // What the Lease said of this VIP earlier does not count. It is claimed like any new one.
            self.vips.insert(*ip, Vip { revoked: true, ..Vip::default() });
            self.lan.forget();
        }
        self.settled = false;
        self.changes += u64::from(self.admitted() != before);
    }

    /// The VIPs that are no longer wanted, but that the Lease still names.
    pub fn dropped(&self) -> Vec<IpAddr> {
        self.vips.iter().filter(|(_, vip)| vip.dropped).map(|(ip, _)| *ip).collect()
    }

    /// Forgets a VIP that is no longer wanted. The kernel of this host must not answer for it any more.
    pub fn forget(&mut self, ip: IpAddr) {
        if self.vips.get(&ip).is_some_and(|vip| vip.dropped) {
            self.vips.remove(&ip);
            self.base.remove(&ip);
            self.served.remove(&ip);
            self.settled = false;
        }
    }

    /// Grows whenever an answer of [`admits`](Self::admits) changes.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn admitted(&self) -> BTreeSet<IpAddr> {
        self.vips.keys().copied().filter(|ip| self.admits(*ip)).collect()
    }

    /// The VIPs for which the kernel may have an entry of this tenure, wanted or not.
    fn published(&self) -> BTreeSet<IpAddr> {
        let admitted =
            |(ip, vip): &(&IpAddr, &Vip)| self.base.get(ip) == Some(&Mark::Admitted) && !vip.revoked;
        self.vips.iter().filter(admitted).map(|(ip, _)| *ip).collect()
    }

    /// The VIPs for which the LAN is to be asked.
    pub fn asking(&self) -> Vec<IpAddr> {
        let asked = |vip: &Vip| {
            !vip.dropped && matches!(vip.stage, Stage::Asking { asked: true, .. } | Stage::Idle)
        };
        self.vips.iter().filter(|(_, vip)| asked(vip)).map(|(ip, _)| *ip).collect()
    }

    /// The obstacle of each VIP, if any may have changed since the last call.
    pub fn take_obstacles(&mut self) -> Option<Vec<(IpAddr, Option<Obstacle>)>> {
        let changed = std::mem::take(&mut self.obstacles_changed);
        let all = || self.vips.iter().map(|(ip, vip)| (*ip, vip.obstacle.clone())).collect();
        changed.then(all)
    }

    /// Notes whether there is nothing left to do.
    fn settle(&mut self) {
        let done = |vip: &Vip| {
            vip.stage == Stage::Admitted && vip.unverified == Unverified::No && !vip.revoked
        };
        self.settled = self.vips.values().all(done) && self.base == self.written;
    }

    /// What is to be done. Each request is returned once.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// The LAN is asked for all VIPs from now on, for this long, before the Lease is taken.
    pub(super) fn probing(&mut self, now: BootNs, time: Duration) {
        self.lan.ask(now, time);
    }

    /// Sets whether the LAN's answers do not count in the next tenure.
    pub(super) fn overrule(&mut self, overruled: bool) {
        self.lan.overrule(overruled.then(|| self.vips.keys().copied().collect()));
    }

    /// The marks of a take-over. VIPs that the previous holder had admitted are published at once.
    pub(super) fn take(&mut self, seen: &Record) -> Marks {
        // Nothing is known of a holder that is not xvip: its address may still be on its host. The same
        // applies if another program has renewed a tenure of xvip.
        let names = if seen.is_strangers() { Names::Nothing } else { seen.names() };
        self.settled = false;
        let mark = |ip: &IpAddr| match names {
            Names::Listed(guarded) => guarded.mark(*ip).unwrap_or(Mark::Claimed),
            Names::Unknown => Mark::Inherited,
            Names::Nothing => Mark::Claimed,
        };
        let kept = self.vips.iter().filter(|(_, vip)| !vip.dropped);
        self.written = kept.map(|(ip, _)| (*ip, mark(ip))).collect();
        for (ip, vip) in &mut self.vips {
            vip.unverified = Unverified::No;
            vip.inherited = self.written.get(ip) == Some(&Mark::Inherited);
        }
        self.written.clone()
    }

    /// An earlier process published these VIPs under a fence that is live.
    pub(super) fn adopt(&mut self, served: BTreeSet<IpAddr>) {
        self.served = served;
    }

    /// A holder with a live fence writes the Lease again. If this process has not read it, the VIPs for
    /// which the kernel answers count as admitted: no other node can have changed that.
    pub(super) fn reassert(&mut self) {
        if self.vips.values().any(|vip| vip.stage != Stage::Idle) {
            return;
        }
        for (ip, vip) in self.vips.iter_mut().filter(|(ip, _)| self.served.contains(ip)) {
            self.base.insert(*ip, Mark::Admitted);
            // While no process ran, another Lease may have admitted the VIP. The next list shows it.
            (vip.stage, vip.unverified) = (Stage::Admitted, Unverified::UntilNamed);
        }
        self.changes += 1;
    }

    /// This node has taken the Lease over.
    pub(super) fn took(&mut self, record: &Record) {
        for vip in self.vips.values_mut() {
            (vip.stage, vip.revoked, vip.obstacle) = (Stage::Idle, false, None);
        }
        self.base.clear();
        self.settled = false;
        (self.list_at, self.pause, self.strikes) = (BootNs(0), PAUSE, 0);
        self.stored(record, false);
    }

    /// The next write will replace `record`, which carries our tenure. Returns whether a VIP that may
    /// have an entry has lost its admission.
    pub(super) fn stored(&mut self, record: &Record, live: bool) -> bool {
        let first = self.vips.values().all(|vip| vip.stage == Stage::Idle);
        let marks: Marks = match record.names() {
            Names::Listed(guarded) => {
                let mark = |ip: &IpAddr| Some((*ip, guarded.mark(*ip)?));
                self.vips.keys().filter_map(mark).collect()
            }
            // An earlier version of xvip began this tenure of this node.
            Names::Unknown if first && live => {
                self.vips.values_mut().for_each(|vip| vip.unverified = Unverified::UntilNamed);
                self.vips.keys().map(|ip| (*ip, Mark::Admitted)).collect()
            }
            // The annotation was removed by hand. Under a live fence no other node can have struck
            // anything out.
            _ if live => return false,
            _ => Marks::new(),
        };
        if self.settled && self.base == marks {
            return false;
        }
        let (before, published) = (self.admitted(), self.published());
        let next_list = self.lists + 1;
        let is_named = matches!(record.names(), Names::Listed(_));
        self.base = marks;
        for (ip, vip) in &mut self.vips {
            let mark = self.base.get(ip);
            vip.revoked &= mark == Some(&Mark::Admitted);
            if first {
                vip.inherited = mark == Some(&Mark::Inherited);
            }
            if is_named && vip.unverified == Unverified::UntilNamed {
                vip.unverified = Unverified::UntilList(next_list);
            }
            vip.stage = match (vip.stage, mark) {
                (stage, Some(Mark::Admitted)) if vip.revoked => stage,
                (_, Some(Mark::Admitted)) => {
                    (vip.obstacle, vip.inherited) = (None, false);
                    Stage::Admitted
                }
                (Stage::Waiting, _) => Stage::Waiting,
                (Stage::Claiming { from: Some(from) }, Some(_)) => Stage::Claiming { from: Some(from) },
                (stage @ (Stage::Asking { .. } | Stage::Admitting), Some(_)) => stage,
                (_, Some(_)) => Stage::Claiming { from: Some(next_list) },
                (_, None) => Stage::Claiming { from: None },
            };
        }
        self.obstacles_changed = true;
        self.settle();
        let after = self.admitted();
        self.changes += u64::from(after != before);
        !published.is_subset(&self.published())
    }

    /// This node does not hold the Lease (any more).
    pub(super) fn lost(&mut self) {
        // Every renewal that a candidate sees gets here, but only lost admissions change the host.
        self.changes += u64::from(!self.admitted().is_empty());
        for vip in self.vips.values_mut() {
            let Vip { inherited, unverified, heard, dropped, .. } = *vip;
            *vip = Vip { inherited, unverified, dropped, heard, ..Vip::default() };
        }
        self.base.clear();
        (self.settled, self.obstacles_changed) = (false, true);
        self.requests.clear();
        self.lan = Lan::default();
    }

    /// The marks for the next write. A release makes no new claims.
    pub(super) fn write(&mut self, release: bool) -> Marks {
        if !self.settled {
            self.written = self.wanted(release);
        }
        self.written.clone()
    }

    fn wanted(&self, release: bool) -> Marks {
        let mark = |(ip, vip): (&IpAddr, &Vip)| {
            if vip.dropped {
                return self.base.get(ip).filter(|_| !release).map(|mark| (*ip, *mark));
            }
            let mark = match (vip.stage, self.base.get(ip)) {
                (_, Some(Mark::Admitted)) if !vip.revoked => Mark::Admitted,
                // The next holder needs to know which VIPs were inherited.
                _ if release => return vip.inherited.then_some((*ip, Mark::Inherited)),
                (Stage::Admitting, Some(Mark::Claimed | Mark::Inherited)) => Mark::Admitted,
                (Stage::Waiting, _) => return None,
                _ if vip.inherited => Mark::Inherited,
                _ => Mark::Claimed,
            };
            Some((*ip, mark))
        };
        self.vips.iter().filter_map(mark).collect()
    }

    /// Whether the next write would say something else than the last one.
    pub(super) fn has_news(&self) -> bool {
        !self.settled && self.wanted(false) != self.written
    }

    fn needs_list(&self) -> bool {
        let needs = |vip: &Vip| {
            let asks = matches!(vip.unverified, Unverified::UntilList(_))
                || matches!(vip.stage, Stage::Waiting | Stage::Claiming { from: Some(_) });
            asks && !vip.dropped
        };
        !self.settled && self.vips.values().any(needs)
    }

    /// Does what is due at this time, while the fence is live.
    pub(super) fn act(&mut self, now: BootNs) {
        if self.settled {
            return;
        }
        for vip in self.vips.values_mut().filter(|vip| !vip.dropped) {
            let Stage::Asking { since, asked } = vip.stage else { continue };
            if !asked && now >= since {
                // The fence may have run out in the meantime. The time for answers begins when the
                // question is sent.
                vip.stage = Stage::Asking { since: now, asked: true };
                if !self.requests.contains(&Request::Probe) {
                    self.requests.push(Request::Probe);
                }
            } else if asked && now >= since.after(self.probe_time) {
                vip.stage = Stage::Admitting;
            }
        }
        if self.needs_list() && !self.list_pending && now >= self.list_at {
            self.lists += 1;
            self.list_pending = true;
            self.requests.push(Request::List(self.lists));
        }
    }

    /// When [`act`](Self::act) has something to do. A list that is on its way needs no timer: its
    /// result or its failure always comes.
    pub(super) fn wake_at(&self) -> Option<BootNs> {
        if self.settled {
            return None;
        }
        let asked = |vip: &Vip| match vip.stage {
            Stage::Asking { since, asked: false } => Some(since),
            Stage::Asking { since, asked: true } => Some(since.after(self.probe_time)),
            _ => None,
        };
        let list = (self.needs_list() && !self.list_pending).then_some(self.list_at);
        self.vips.values().filter(|vip| !vip.dropped).filter_map(asked).chain(list).min()
    }

    /// Another station answers for an address. This does not matter here if this node may answer for
    /// it: then it is a conflict.
    pub(super) fn heard(&mut self, now: BootNs, ip: IpAddr, mac: Mac) {
        if self.admits(ip) {
            return;
        }
        let overruled = self.lan.overrules(ip);
        let Some(vip) = self.vips.get_mut(&ip) else { return };
        vip.heard = Some((now, mac));
        if !overruled && matches!(vip.stage, Stage::Asking { .. } | Stage::Admitting) {
            self.obstacles_changed = true;
            // The write that admits the VIP may be on its way.
            vip.revoked |= vip.stage == Stage::Admitting;
            vip.obstacle = Some(Obstacle::InUse(mac));
            vip.stage = Stage::Asking { since: now.after(IN_USE_PAUSE), asked: false };
        }
    }

    /// The LAN cannot be asked for an address: no interface is up, or the question came too late.
    pub(super) fn cannot_ask(&mut self, now: BootNs, ip: IpAddr) {
        self.lan.forget();
        if let Some(vip) = self.vips.get_mut(&ip)
            && matches!(vip.stage, Stage::Asking { .. })
        {
            vip.stage = Stage::Asking { since: now.after(PAUSE), asked: false };
        }
    }

    /// The Leases of the namespace, or why they could not be listed.
    pub(super) fn listed(
        &mut self,
        now: BootNs,
        timing: &Timing,
        list: u64,
        leases: Result<Vec<(String, Record)>, String>,
    ) {
        if list != self.lists {
            return;
        }
        (self.list_pending, self.obstacles_changed) = (false, true);
        self.list_at = now.after(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_LIMIT);
        match leases {
            Ok(leases) => self.rivals.learn(&self.lease, now, timing, leases),
            Err(why) => {
                for vip in self.vips.values_mut().filter(|vip| vip.stage != Stage::Admitted) {
                    vip.obstacle = Some(Obstacle::Unlisted(why.clone()));
                }
                return;
            }
        }
        let kept = self.vips.iter().filter(|(_, vip)| !vip.dropped);
        let ips: Vec<IpAddr> = kept.map(|(ip, _)| *ip).collect();
        let mut strikes = BTreeMap::new();
        for ip in ips {
            self.judge(now, list, ip, &mut strikes);
        }
        if strikes.is_empty() {
            self.strikes = 0;
        } else {
            let pause = now.after((PAUSE / 5 * (1 << self.strikes.min(8))).min(PAUSE_LIMIT));
            // A VIP that has just become free is claimed at once.
            self.list_at = if self.list_at <= now { self.list_at } else { pause };
            self.strikes = self.strikes.saturating_add(1);
        }
        self.requests.extend(strikes.into_values().map(Request::Strike));
        self.settle();
        // If no node renews a Lease, the next list comes as soon as its holder can no longer answer.
        if let Some(end) = self.rivals.next_end(now) {
            self.list_at = self.list_at.min(end.max(now.after(PAUSE)));
        }
    }

    /// Decides what the other Leases mean for one VIP.
    fn judge(&mut self, now: BootNs, list: u64, ip: IpAddr, strikes: &mut BTreeMap<String, Strike>) {
        let asking = self.begin_asking(now, ip);
        let Some(vip) = self.vips.get_mut(&ip) else { return };
        // If the previous holder answered for the VIP, Leases that do not say what they guard are no
        // obstacle. The LAN is asked then, because their configurations may have differed.
        let Against { strongest, dead, passed_over } =
            self.rivals.against(now, ip, &self.lease, vip.inherited, strikes);
        let highest = strongest.as_ref().map(|(rank, _)| *rank);
        let told = dead.clone().filter(|_| self.strikes >= QUIET_STRIKES);
        let (obstacle, dead) = (strongest.map(|(_, obstacle)| obstacle).or(told), dead.is_some());
        match vip.stage {
            Stage::Admitted => {
                let other_serves = highest == Some(Rank::Admitted);
                if vip.unverified != Unverified::No && other_serves {
                    (vip.revoked, vip.obstacle) = (true, obstacle);
                    self.changes += 1;
                    vip.stage = Stage::Waiting;
                }
                let tells = !dead && highest != Some(Rank::Unknown);
                if tells && matches!(vip.unverified, Unverified::UntilList(from) if list >= from) {
                    vip.unverified = Unverified::No;
                }
            }
            Stage::Claiming { from: Some(from) } if list >= from => {
                vip.obstacle = obstacle;
                let next = match highest {
                    None if dead => vip.stage,
                    None if vip.inherited && !passed_over => Stage::Admitting,
                    None => asking,
                    Some(Rank::LaterClaim) => vip.stage,
                    Some(_) => Stage::Waiting,
                };
                // Another Lease guards the VIP now, so it is no longer inherited.
                vip.inherited &= next != Stage::Waiting;
                vip.stage = next;
            }
            Stage::Waiting => {
                vip.obstacle = obstacle;
                if !dead && highest.is_none_or(|rank| rank == Rank::LaterClaim) {
                    vip.stage = Stage::Claiming { from: None };
                    (self.list_at, self.pause) = (now, PAUSE);
                }
            }
            _ => {}
        }
        let settled = self.vips.values().all(|vip| vip.obstacle.is_none());
        if settled {
            self.pause = PAUSE;
        }
    }

    /// The stage in which the LAN is asked. If it was already asked before the Lease was taken, that
    /// need not be repeated.
    fn begin_asking(&self, now: BootNs, ip: IpAddr) -> Stage {
        let heard = self.vips.get(&ip).and_then(|vip| vip.heard).map(|(at, _)| at);
        match self.lan {
            _ if self.lan.overrules(ip) => Stage::Admitting,
            Lan::Asked { since, time }
                if now < since.after(PROBE_HOLDS) && heard.is_none_or(|heard| heard < since) =>
            {
                if now >= since.after(time) {
                    Stage::Admitting
                } else {
                    Stage::Asking { since, asked: true }
                }
            }
            _ => Stage::Asking { since: now, asked: false },
        }
    }
}
