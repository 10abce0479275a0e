mod host;

use super::*;
use crate::model::{
    changes::Failed,
    desired::{Link, LinkRole},
    effects::FenceChange,
    lease::{
        election::{AdoptedFence, Written},
        record::{LeaseWrite, Record, Tenure, TenureNote},
    },
    news::Why,
    plan::{Action, Actual},
    slots::SlotState,
    turn::Step,
};
use std::{collections::VecDeque, net::IpAddr};
use vip_common::{
    abi::{HostAddr, Ip, Port},
    mac::Mac,
};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn at(ms: u64) -> Now {
    Now { boot: BootNs(1_000_000_000_000 + ms * 1_000_000), wall_us: 1_700_000_000_000_000 }
}

fn me() -> Identity {
    Identity { node: "a".into(), process: "p".into(), boot_id: "b".into() }
}

fn agent(slots: impl IntoIterator<Item = (u32, SlotState)>) -> Agent {
    let policy = Policy {
        me: me(),
        timing: Timing::of(3),
        refresh: Duration::ZERO,
        conflict: ConflictPolicy::Report,
        foreign_conflict: ForeignConflict::Wait,
        guard_neighbours: false,
        placement: Placement::Loopback,
        asks_first: false,
    };
    Agent::new(policy, Slots::found(slots))
}

fn vip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn spec(lease: &str, vips: &[u8]) -> GroupSpec {
    let vips = vips.iter().map(|last| vip(*last)).collect();
    GroupSpec { lease: lease.into(), vips, ..GroupSpec::default() }
}

fn free() -> [(u32, SlotState); 2] {
    [(0, SlotState::default()), (1, SlotState::default())]
}

fn tenure(uid: &str) -> Tenure {
    let me = me();
    let (holder, process, boot_id) = (me.node, me.process, me.boot_id);
    let note = TenureNote { holder, transitions: 1, acquire_us: 1, process, boot_id };
    Tenure { uid: uid.into(), note }
}

fn adopted(lease: &str, until: BootNs) -> SlotState {
    let served = BTreeSet::from([vip(10)]);
    let fence = AdoptedFence { tenure: tenure("u"), until, duration_s: 3, served };
    SlotState { lease: lease.into(), generation: 4, adopted: Some(fence) }
}

fn links(vips: &[u8]) -> Links {
    let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
    let link = Link { port, bit: 0, role: LinkRole::Answer, mac: MAC, up: true, guarded: true };
    let answer = vips.iter().map(|last| (vip(*last), 1)).collect();
    Links { links: vec![link], answer, ..Links::default() }
}

/// A host on which everything works unless `fails` says otherwise, and the API of one or two Leases.
struct World {
    agent: Agent,
    actual: Actual,
    now: u64,
    /// The writes of each slot. The API stores them at once.
    written: BTreeMap<u32, Vec<LeaseWrite>>,
    version: u64,
    silenced: Vec<Vec<u32>>,
    raised: Vec<u32>,
    changes: Vec<Action>,
    reads: u32,
    /// The slots whose VIPs were announced.
    announced: Vec<u32>,
    announced_vips: Vec<IpAddr>,
    fails: Option<fn(&Action) -> bool>,
    /// A turn has time for one change only.
    slow: bool,
}

impl World {
    fn new(agent: Agent) -> Self {
        Self {
            agent,
            actual: Actual::default(),
            now: 0,
            written: BTreeMap::new(),
            version: 10,
            silenced: Vec::new(),
            raised: Vec::new(),
            changes: Vec::new(),
            reads: 0,
            announced: Vec::new(),
            announced_vips: Vec::new(),
            fails: None,
            slow: false,
        }
    }

    fn take_in(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut turn = self.agent.step(at(self.now), event);
            while let Some(step) = turn.next(self.agent.is_reconciled()) {
                match step {
                    Step::Fence(slot, FenceChange::Raise { new, .. }) => {
                        self.raised.push(slot);
                        self.agent.raised(at(self.now).boot, slot, new, Ok(()));
                    }
                    Step::Silence(groups) => {
                        let slots: Vec<u32> = groups.iter().map(|(slot, _)| *slot).collect();
                        events.extend(slots.iter().map(|slot| Event::Silenced(*slot, true)));
                        self.silenced.push(slots);
                    }
                    Step::Host => self.work(),
                    Step::Send(slot, Outgoing::Write(write)) => {
                        self.version += 1;
                        let record = write.stored(format!("uid-{slot}"), self.version);
                        let (id, outcome) = (write.id, Written::Stored(record));
                        events.push_back(Event::Election(slot, Input::Written { id, outcome }));
                        self.written.entry(slot).or_default().push(write);
                    }
                    Step::Send(slot, Outgoing::List(number)) => {
                        let listed = Input::Listed(number, Ok(Vec::new()));
                        events.push_back(Event::Election(slot, listed));
                    }
                    Step::KeepBack(slot, id) => {
                        let input = Input::Written { id, outcome: Written::KeptBack };
                        events.push_back(Event::Election(slot, input));
                    }
                    Step::Fence(..) | Step::Stations(..) | Step::Send(..) | Step::News(_) => {}
                }
            }
        }
    }

    fn work(&mut self) {
        let now = at(self.now).boot;
        self.agent.begin_on_host(now);
        while let Some(work) = self.agent.next_on_host(now) {
            match work {
                Work::Interfaces => {
                    self.agent.looked(now, Ok(links(&[10, 20])));
                }
                Work::Read => {
                    self.reads += 1;
                    self.agent.read(now, Ok(self.actual.clone()));
                }
                Work::Change(action) if self.fails.is_some_and(|fails| fails(&action)) => {
                    let failed = Failed { why: "no".into(), blind: false, cut_off: false };
                    self.agent.changed(now, action, Err(failed));
                }
                Work::Change(action) => {
                    self.changes.push(action);
                    self.actual.take_in(action);
                    self.agent.changed(now, action, Ok(()));
                    if self.slow {
                        return self.agent.interrupt_host(now);
                    }
                }
            }
        }
    }

    /// The first piece of work on the host; the rest is put off.
    fn piece(&mut self, elapsed: u64) -> Option<Work> {
        let now = at(self.now + elapsed).boot;
        self.agent.begin_on_host(now);
        let work = self.agent.next_on_host(now);
        match work {
            Some(Work::Read) => self.agent.read(now, Ok(self.actual.clone())),
            Some(Work::Change(action)) => {
                self.actual.take_in(action);
                self.agent.changed(now, action, Ok(()));
            }
            _ => {}
        }
        self.agent.interrupt_host(now);
        work
    }

    /// Another start has left an address.
    fn leave(&mut self, addr: HostAddr) {
        self.actual.owned.insert(addr);
        self.actual.addrs.insert(addr, 30);
    }

    /// Does everything that is due until `end` (in milliseconds).
    fn run_until(&mut self, end: u64) {
        loop {
            self.take_in(Event::Tick);
            if self.agent.host_is_due(at(self.now).boot) {
                self.work();
            }
            self.take_in(Event::Tick);
            while let Some(frames) = self.agent.next_frames(at(self.now).boot) {
                self.announced.push(frames.slot);
                self.announced_vips.extend(&frames.vips);
                self.agent.announced(at(self.now).boot, &frames, Ok(BTreeMap::new()));
            }
            while let Some((slot, vips)) = self.agent.next_probe(at(self.now)) {
                self.agent.probed(at(self.now), slot, &vips, Ok(BTreeMap::new()));
            }
            if self.now >= end {
                return;
            }
            let wake =
                self.agent.wake_at().map_or(u64::MAX, |wake| wake.0.saturating_sub(at(0).boot.0));
            self.now = (wake.div_ceil(1_000_000)).clamp(self.now + 1, end);
        }
    }

    fn seen(&mut self, slot: u32, record: Record) {
        let source = Source::Quorum(at(self.now).boot);
        self.take_in(Event::Seen(slot, source, Some(record)));
    }

    /// The last write of a slot.
    fn last(&self, slot: u32) -> &LeaseWrite {
        self.written.get(&slot).and_then(|writes| writes.last()).expect("nothing was written")
    }

    /// Takes the Lease of a slot that has no holder.
    fn take(&mut self, slot: u32) {
        self.seen(slot, Record::unheld(format!("uid-{slot}"), 1, 3));
        self.run_until(self.now + 4_000);
        assert!(self.agent.group(slot).unwrap().serves(at(self.now).boot), "slot {slot}");
    }

    fn generation(&self, last: u8) -> Option<u64> {
        self.actual.vips.get(&Ip::from(vip(last))).map(|vip| vip.generation)
    }
}

#[test]
fn a_group_that_comes_is_served_and_one_that_goes_leaves_nothing_behind() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.take(0);
    assert_eq!(world.generation(10), Some(1));
    world.take_in(Event::Wanted(vec![spec("one", &[10]), spec("two", &[20])]));
    world.take(1);
    assert_eq!((world.generation(10), world.generation(20)), (Some(1), Some(1)));

    world.take_in(Event::Wanted(vec![spec("two", &[20])]));
    assert_eq!(world.silenced, [vec![0]]);
    assert!(world.last(0).release && !world.last(1).release);
    world.run_until(world.now + 5_000);
    assert_eq!(world.generation(10), None);
    assert!(world.agent.group(0).is_none() && world.agent.group(1).is_some());

    // The slot is given to another group, with a generation that no entry has had.
    let serial = world.agent.group(1).unwrap().serial();
    world.take_in(Event::Wanted(vec![spec("two", &[20]), spec("three", &[10])]));
    assert_eq!(world.agent.group(0).unwrap().lease(), "three");
    assert!(world.agent.group(0).unwrap().serial() > serial);
    world.take(0);
    assert_eq!(world.generation(10), Some(2));
}

#[test]
fn what_nobody_has_asked_for_yet_is_left_as_it_is() {
    let slots =
        [(0, adopted("here", BootNs(u64::MAX / 2))), (1, adopted("gone", BootNs(u64::MAX / 2)))];
    let mut world = World::new(agent(slots));
    world.take_in(Event::Facts(NodeFacts::default()));
    world.take_in(Event::HostChanged);
    assert_eq!(world.silenced, [[0; 0]; 0]);
    let mut turn = world.agent.step(at(0), Event::Wanted(vec![spec("here", &[10])]));
    assert_eq!(turn.next(false), Some(Step::Silence(vec![(1, Why::Unwanted)])));
    // The attempt is repeated until the kernel is known to be silent.
    world.take_in(Event::Silenced(1, false));
    world.run_until(100);
    assert_eq!(world.silenced, [[1]]);
    world.take_in(Event::Wanted(vec![spec("here", &[10]), spec("new", &[20])]));
    assert_eq!(world.agent.group(1).unwrap().lease(), "new");
}

#[test]
fn groups_that_stop_are_silenced_at_once() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10]), spec("two", &[20])]));
    world.take(0);
    world.take(1);
    world.take_in(Event::Stop);
    assert_eq!(world.silenced, [[0, 1]]);
    assert!(world.last(0).release && world.last(1).release);
    world.run_until(world.now + 5_000);
    assert!(world.agent.has_stopped(at(world.now).boot));
    assert!(world.actual.vips.is_empty() && world.actual.addrs.is_empty());
}

#[test]
fn announcements_leave_at_a_pace() {
    let many: Vec<IpAddr> =
        (0..1_000u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
    let mut world = World::new(agent(free()));
    let spec = GroupSpec { lease: "one".into(), vips: many.clone(), ..GroupSpec::default() };
    world.take_in(Event::Wanted(vec![spec]));
    let links = Links { answer: many.iter().map(|vip| (*vip, 1)).collect(), ..links(&[]) };
    world.agent.looked(at(world.now).boot, Ok(links));
    world.seen(0, Record::unheld("uid-0".into(), 1, 3));
    let since = world.now;
    while world.raised.is_empty() {
        world.take_in(Event::Tick);
        world.now += 50;
        assert!(world.now < since + 6_000);
    }
    let (mut vips, mut now) = (BTreeSet::new(), at(world.now).boot);
    world.agent.step(Now { boot: now, wall_us: 0 }, Event::Tick);
    let start = now;
    while vips.len() < many.len() {
        match world.agent.next_frames(now) {
            Some(frames) => {
                assert!(frames.vips.len() <= 128 && !frames.asks);
                vips.extend(frames.vips);
            }
            None => now = now.after(Duration::from_millis(1)),
        }
    }
    let took = start.until(now);
    assert!((35..=60).contains(&took.as_millis()), "{took:?} for a thousand VIPs");
}

/// Another Lease may admit a VIP as soon as this one no longer names it.
#[test]
fn a_lease_names_a_vip_until_this_host_does_not_answer_for_it() {
    let mut world = World::new(agent(free()));
    world.agent.policy.asks_first = true;
    world.take_in(Event::Wanted(vec![spec("one", &[10, 20])]));
    let election = |world: &World| world.agent.group(0).unwrap().election().clone();
    world.take(0);
    world.run_until(world.now + 8_000);
    assert_eq!((world.generation(10), world.generation(20)), (Some(1), Some(1)));

    let of_20 = |action: &Action| match action {
        Action::Publish(ip, _) | Action::Withdraw(ip) => *ip == Ip::from(vip(20)),
        _ => false,
    };
    world.fails = Some(of_20);
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    assert!(!election(&world).admits(vip(20)));
    world.run_until(world.now + 2_000);
    assert_eq!(world.generation(20), Some(1), "the entry cannot be changed");
    let names = |write: &LeaseWrite| write.vips.as_ref().unwrap().contains_key(&vip(20));
    assert!(names(world.last(0)), "{:?}", world.last(0));
    world.fails = None;
    world.run_until(world.now + 3_000);
    assert_eq!(world.generation(20), None);
    assert!(!names(world.last(0)), "{:?}", world.last(0));
}

/// Another program held the Lease last. Its kernel may still answer, and this node would not hear it.
#[test]
fn a_node_that_hears_nobody_takes_no_lease_from_another_program() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.run_until(1_000);
    let nobody = "nobody on the LAN answers".to_owned();
    world.take_in(Event::Lan(Some(nobody)));
    let mut foreign = Record::unheld("uid-0".into(), 1, 3);
    (foreign.holder, foreign.acquire_us) = ("kube-vip-node".into(), Some(1));
    world.seen(0, foreign);
    world.run_until(100_000);
    assert!(!world.written.contains_key(&0), "{:?}", world.written);
    world.take_in(Event::Lan(None));
    world.run_until(104_000);
    assert!(world.written.contains_key(&0), "the LAN answers again, and no station has the VIP");
}

/// Refreshes of other groups are slow. A take-over must not wait for them.
#[test]
fn a_burst_comes_before_what_refreshes() {
    let many: Vec<IpAddr> =
        (0..1_000u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
    let mut world = World::new(agent(free()));
    world.agent.policy.refresh = Duration::from_secs(3);
    let large = GroupSpec { lease: "large".into(), vips: many.clone(), ..GroupSpec::default() };
    world.take_in(Event::Wanted(vec![large, spec("small", &[10])]));
    let mut links = links(&[10]);
    links.answer.extend(many.iter().map(|vip| (*vip, 1)));
    world.agent.looked(at(world.now).boot, Ok(links));
    let slot = |world: &World, lease: &str| {
        world.agent.groups().find(|(_, group)| group.lease() == lease).unwrap().0
    };
    let (large, small) = (slot(&world, "large"), slot(&world, "small"));
    world.take(large);
    world.run_until(world.now + 7_000);
    world.seen(small, Record::unheld("uid-s".into(), 1, 3));
    let raised = |world: &World| world.raised.contains(&small);
    while !raised(&world) {
        world.run_until(world.now + 100);
    }
    // The small group must have sent its first round by now.
    let announced = world.announced.iter().filter(|slot| **slot == small).count();
    assert!(announced >= 1, "the first round still waits behind refreshes");
}

#[test]
fn a_group_that_is_wanted_again_while_it_is_given_up_begins_again() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.take(0);
    let serial = world.agent.group(0).unwrap().serial();
    world.take_in(Event::Wanted(Vec::new()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.run_until(world.now + 10_000);
    let again = world.agent.groups().next().unwrap().1;
    assert!(again.serial() > serial && again.lease() == "one");
}

#[test]
fn slots_of_groups_that_are_gone_serve_those_that_have_come() {
    let state = |lease: &str| SlotState { lease: lease.into(), ..SlotState::default() };
    let mut world = World::new(agent([(0, state("old")), (1, adopted("older", BootNs(u64::MAX / 2)))]));
    let wanted = vec![spec("new", &[10]), spec("newer", &[20])];
    world.take_in(Event::Wanted(wanted));
    let leases = |world: &World| {
        world.agent.groups().map(|(_, group)| group.lease().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(leases(&world), ["new", "newer"], "the second one begins once its slot is silent");
}

/// Its slot would be given to another Lease, whose fence would make the remaining entries active again.
#[test]
fn a_group_is_not_forgotten_while_its_entries_stand() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.take(0);
    world.fails = Some(|action| matches!(action, Action::Publish(..) | Action::Withdraw(_)));
    world.take_in(Event::Wanted(Vec::new()));
    world.run_until(world.now + 10_000);
    assert_eq!(world.generation(10), Some(1));
    assert!(world.agent.group(0).is_some());
    world.fails = None;
    world.run_until(world.now + 3_000);
    assert_eq!(world.generation(10), None);
    assert!(world.agent.group(0).is_none());
}
