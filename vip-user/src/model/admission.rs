//! Whether a VIP may be published under its Lease. The Lease says which node answers; this says for
//! which addresses. Two Leases never guard one VIP, and an address that a living host uses is not
//! taken. What was admitted once is remembered in the Lease, so a failover asks nobody.
//!
//! A holder writes its claim into its own Lease. Only after that was confirmed it lists the Leases
//! of the namespace. Each of two holders stores before it lists, so at least one of them sees the
//! other. A claim that stands alone, and that no station of the LAN contradicts, is written as
//! admitted; only the confirmed write publishes.
//!
//! A successor publishes what it finds admitted, at any later time. So a Lease that nobody renews
//! goes on naming its VIPs until somebody strikes them out of it, by its version: either the
//! successor's write comes first, or the strike.

pub use super::{
    naming::{Guarded, Mark, Marks, Names},
    rivals::{Obstacle, Strike},
};
use super::{
    record::Record,
    rivals::{Against, Rank, Rivals},
    time::BootNs,
    timing::Timing,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// How long the LAN is asked: three probes a second apart and the ANNOUNCE_WAIT of RFC 5227 section
/// 1.1.
pub const PROBE_TIME: Duration = Duration::from_secs(4);
/// Probes that began longer ago say nothing any more.
const PROBE_HOLDS: Duration = Duration::from_secs(12);
/// Pause before an address that is in use is asked for again.
const IN_USE_PAUSE: Duration = Duration::from_secs(5);
/// Pause between two lists of the Leases while something is in the way; doubled each time up to the
/// limit.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_LIMIT: Duration = Duration::from_secs(8);
/// So many strikes in a row are stored late perhaps; what is still named then is told.
const QUIET_STRIKES: u32 = 3;

/// How far the admission of one VIP has come. Counts only while this node holds the Lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    /// This process has not held the Lease.
    #[default]
    Idle,
    /// Another Lease names it: it is not claimed.
    Waiting,
    /// It is claimed, or is to be. Lists from this one on were begun after the claim was stored.
    Claiming { from: Option<u64> },
    /// No other Lease names it. The LAN is asked since then.
    Asking { since: BootNs, asked: bool },
    /// It is free; the next write says that it is admitted.
    Admitting,
    /// It is admitted.
    Admitted,
}

/// Whether a VIP is published though another Lease may have admitted it before this one said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Unverified {
    #[default]
    No,
    /// Until this Lease names it, and a list that was begun after that shows no other one.
    UntilNamed,
    /// Until this list, or a later one.
    UntilList(u64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Vip {
    stage: Stage,
    /// The holder before this one was a version of xvip that does not say what it guards, and answered
    /// for this VIP.
    inherited: bool,
    unverified: Unverified,
    /// Silent at once, though the Lease still says that it is admitted.
    revoked: bool,
    /// Nobody wants it under this Lease any more.
    dropped: bool,
    heard: Option<(BootNs, [u8; 6])>,
    obstacle: Option<Obstacle>,
}

/// What the admission wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// List the Leases of the namespace from a quorum, and bring them to [`Admission::listed`]
    /// under this number.
    List(u64),
    /// Ask the LAN for [`Admission::asking`] (RFC 5227).
    Probe,
    /// Strike VIPs out of this version of another Lease, whose holder cannot answer any more.
    Strike(Strike),
}

/// The VIPs of one Lease, and how far each has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Admission {
    lease: String,
    probe_time: Duration,
    vips: BTreeMap<IpAddr, Vip>,
    /// What a process before this one has published under the fence that this one adopts.
    served: BTreeSet<IpAddr>,
    /// What the version says that the next write replaces.
    base: Marks,
    /// What the last write says.
    written: Marks,
    rivals: Rivals,
    lists: u64,
    list_pending: bool,
    list_at: BootNs,
    pause: Duration,
    /// Lists in a row after which something had to be struck out.
    strikes: u32,
    probing_since: Option<BootNs>,
    /// Counts the changes of what is admitted.
    changes: u64,
    /// Every VIP is admitted, and the Lease says so: nothing is to be done.
    settled: bool,
    /// What stands in the way has changed.
    obstacles_changed: bool,
    requests: Vec<Request>,
}

impl Admission {
    /// For the VIPs of this Lease. An address counts as free when nobody has answered for
    /// `probe_time`.
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
            probing_since: None,
            changes: 0,
            settled: false,
            obstacles_changed: false,
            requests: Vec::new(),
        }
    }

    /// Whether the holder of the Lease answers for this VIP.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.base.get(&ip) == Some(&Mark::Admitted)
            && self.vips.get(&ip).is_some_and(|vip| !vip.revoked && !vip.dropped)
    }

    /// Guards these VIPs from now on. A VIP that is not among them is silent at once. The Lease still
    /// names it until [`forget`](Self::forget): no other Lease admits it while this host may answer.
    pub fn want(&mut self, vips: &[IpAddr]) {
        let before = self.admitted();
        for (ip, vip) in &mut self.vips {
            vip.dropped = !vips.contains(ip);
        }
        for ip in vips {
            if self.vips.contains_key(ip) {
                continue;
            }
            // What the Lease said of it before counts no longer: it is claimed like any that is new.
            self.vips.insert(*ip, Vip { revoked: true, ..Vip::default() });
            self.probing_since = None;
        }
        self.settled = false;
        self.changes += u64::from(self.admitted() != before);
    }

    /// The VIPs that are not wanted any more, and still named.
    pub fn dropped(&self) -> Vec<IpAddr> {
        self.vips.iter().filter(|(_, vip)| vip.dropped).map(|(ip, _)| *ip).collect()
    }

    /// The kernel of this host does not answer for a VIP that is not wanted any more.
    pub fn forget(&mut self, ip: IpAddr) {
        if self.vips.get(&ip).is_some_and(|vip| vip.dropped) {
            self.vips.remove(&ip);
            self.base.remove(&ip);
            self.served.remove(&ip);
            self.settled = false;
        }
    }

    /// Changes whenever another answer of [`admits`](Self::admits) does.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn admitted(&self) -> BTreeSet<IpAddr> {
        self.vips.keys().copied().filter(|ip| self.admits(*ip)).collect()
    }

    /// Those for which the kernel may have an entry of this tenure, wanted or not.
    fn published(&self) -> BTreeSet<IpAddr> {
        let admitted =
            |(ip, vip): &(&IpAddr, &Vip)| self.base.get(ip) == Some(&Mark::Admitted) && !vip.revoked;
        self.vips.iter().filter(admitted).map(|(ip, _)| *ip).collect()
    }

    /// The VIPs that the LAN is to be asked for.
    pub fn asking(&self) -> Vec<IpAddr> {
        let asked = |vip: &Vip| {
            !vip.dropped && matches!(vip.stage, Stage::Asking { asked: true, .. } | Stage::Idle)
        };
        self.vips.iter().filter(|(_, vip)| asked(vip)).map(|(ip, _)| *ip).collect()
    }

    /// What stands in the way of each VIP, if that has changed since this was last asked.
    pub fn take_obstacles(&mut self) -> Option<Vec<(IpAddr, Option<Obstacle>)>> {
        let changed = std::mem::take(&mut self.obstacles_changed);
        let all = || self.vips.iter().map(|(ip, vip)| (*ip, vip.obstacle.clone())).collect();
        changed.then(all)
    }

    /// Looks whether anything is left to be done.
    fn settle(&mut self) {
        let done = |vip: &Vip| {
            vip.stage == Stage::Admitted && vip.unverified == Unverified::No && !vip.revoked
        };
        self.settled = self.vips.values().all(done) && self.base == self.written;
    }

    /// What is to be done; each is returned once.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// The LAN is being asked for all VIPs while the Lease has never been held.
    pub(super) fn probing(&mut self, now: BootNs) {
        self.probing_since = Some(now);
    }

    /// The annotation of a take-over. What the holder before had admitted is published at once.
    pub(super) fn take(&mut self, seen: &Record) -> Marks {
        // Of a holder that is not xvip nothing is known: its address may still be on its host. That is
        // so too where another program under the same name has renewed a tenure of xvip.
        let foreign = !seen.was_renewed_by_us() || (!seen.holder.is_empty() && seen.tenure().is_none());
        let names = if foreign { Names::Nothing } else { seen.names() };
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

    /// A process before this one published these VIPs under a fence that is live.
    pub(super) fn adopt(&mut self, served: BTreeSet<IpAddr>) {
        self.served = served;
    }

    /// The Lease is written anew under a live fence. Where this process has not read it, what the
    /// kernel answers for is what it said: nobody else can have changed it.
    pub(super) fn reassert(&mut self) {
        if self.vips.values().any(|vip| vip.stage != Stage::Idle) {
            return;
        }
        for (ip, vip) in self.vips.iter_mut().filter(|(ip, _)| self.served.contains(ip)) {
            self.base.insert(*ip, Mark::Admitted);
            // While no process ran, another Lease may have admitted it: one look tells.
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

    /// The next write replaces this record, which carries our tenure. Says whether a VIP has lost
    /// its admission.
    pub(super) fn stored(&mut self, record: &Record, live: bool) -> bool {
        let first = self.vips.values().all(|vip| vip.stage == Stage::Idle);
        let marks: Marks = match record.names() {
            Names::Listed(guarded) => {
                let mark = |ip: &IpAddr| Some((*ip, guarded.mark(*ip)?));
                self.vips.keys().filter_map(mark).collect()
            }
            // A tenure of this node that a version before this one began.
            Names::Unknown if first && live => {
                self.vips.values_mut().for_each(|vip| vip.unverified = Unverified::UntilNamed);
                self.vips.keys().map(|ip| (*ip, Mark::Admitted)).collect()
            }
            // Somebody has removed the annotation. Nobody else can have struck anything out under a
            // live fence.
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

    /// This node does not hold the Lease any more.
    pub(super) fn lost(&mut self) {
        // A candidate sees every renewal of the holder: the host has nothing to follow then.
        self.changes += u64::from(!self.admitted().is_empty());
        for vip in self.vips.values_mut() {
            let Vip { inherited, unverified, heard, dropped, .. } = *vip;
            *vip = Vip { inherited, unverified, dropped, heard, ..Vip::default() };
        }
        self.base.clear();
        (self.settled, self.obstacles_changed) = (false, true);
        self.requests.clear();
        self.probing_since = None;
    }

    /// The annotation of the next write. A release promises nothing new.
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
                // The next holder goes on where this one was.
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

    /// Whether the Lease is to say something else than the last write did.
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

    /// What the passage of time asks for, while the fence lives.
    pub(super) fn act(&mut self, now: BootNs) {
        if self.settled {
            return;
        }
        for vip in self.vips.values_mut().filter(|vip| !vip.dropped) {
            let Stage::Asking { since, asked } = vip.stage else { continue };
            if !asked && now >= since {
                // The fence may have been over meanwhile: the time for answers begins with the
                // question.
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

    /// When [`act`](Self::act) has something to do. A list that was asked for comes back, or its
    /// failure does.
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

    /// Another station answers for an address. One that this node answers for by right is no
    /// concern of the admission.
    pub(super) fn heard(&mut self, now: BootNs, ip: IpAddr, mac: [u8; 6]) {
        if self.admits(ip) {
            return;
        }
        let Some(vip) = self.vips.get_mut(&ip) else { return };
        vip.heard = Some((now, mac));
        if matches!(vip.stage, Stage::Asking { .. } | Stage::Admitting) {
            self.obstacles_changed = true;
            // The write that says otherwise may be on its way.
            vip.revoked |= vip.stage == Stage::Admitting;
            vip.obstacle = Some(Obstacle::InUse(mac));
            vip.stage = Stage::Asking { since: now.after(IN_USE_PAUSE), asked: false };
        }
    }

    /// An address cannot be asked for: no interface that answers for it is up.
    pub(super) fn cannot_ask(&mut self, now: BootNs, ip: IpAddr) {
        self.probing_since = None;
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
            // One that has just become free is claimed at once.
            self.list_at = if self.list_at <= now { self.list_at } else { pause };
            self.strikes = self.strikes.saturating_add(1);
        }
        self.requests.extend(strikes.into_values().map(Request::Strike));
        self.settle();
        // A Lease that nobody renews is looked at again in the moment in which it is over.
        if let Some(end) = self.rivals.next_end(now) {
            self.list_at = self.list_at.min(end.max(now.after(PAUSE)));
        }
    }

    /// What the other Leases mean for one VIP.
    fn judge(&mut self, now: BootNs, list: u64, ip: IpAddr, strikes: &mut BTreeMap<String, Strike>) {
        let asking = self.begin_asking(now, ip);
        let Some(vip) = self.vips.get_mut(&ip) else { return };
        // Where the holder before answered for the VIP, versions that do not say what they guard are no
        // obstacle. The LAN is asked then: one of them may have had another configuration.
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
                // Another Lease guards it now, so this one does not go on with what was.
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

    /// The LAN is asked from now on. Probes while nobody had held the Lease yet save asking once
    /// more.
    fn begin_asking(&self, now: BootNs, ip: IpAddr) -> Stage {
        let heard = self.vips.get(&ip).and_then(|vip| vip.heard).map(|(at, _)| at);
        match self.probing_since {
            Some(since)
                if now < since.after(PROBE_HOLDS) && heard.is_none_or(|heard| heard < since) =>
            {
                Stage::Asking { since, asked: true }
            }
            _ => Stage::Asking { since: now, asked: false },
        }
    }
}
