//! Work on the host: slices, failures, and what is announced.

use super::*;

#[test]
fn the_host_is_read_once_and_then_known() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.run_until(100);
    assert_eq!(world.reads, 1);
    world.take(0);
    let reads = world.reads;
    // What follows a take-over needs no further look at the host.
    world.run_until(world.now + 100);
    assert_eq!(world.reads, reads);
    let before = world.now;
    world.run_until(before + 10_000);
    assert!((2..=3).contains(&(world.reads - reads)), "{} reads in 10 s", world.reads - reads);
    // Another program has changed the host, and this must be undone.
    world.actual.vips.clear();
    world.take_in(Event::HostChanged);
    world.run_until(world.now + 1);
    assert!(world.generation(10).is_some());
}

/// A change that failed may have been made in part.
#[test]
fn after_a_change_that_has_failed_the_host_is_read_again() {
    let mut world = World::new(agent(free()));
    world.fails = Some(|action| matches!(action, Action::Publish(..)));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.seen(0, Record::unheld("uid-0".into(), 1, 3));
    world.run_until(200);
    let reads = world.reads;
    world.run_until(1_500);
    assert!(world.reads > reads);
    assert_eq!(world.generation(10), None);
    world.fails = None;
    world.run_until(3_500);
    assert_eq!(world.generation(10), Some(0));
}

/// Ten thousand changes must not delay a renewal. A plan continues where it was put off, unless
/// something has changed, or the plan is old.
#[test]
fn what_was_put_off_is_done_later() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10, 20, 30])]));
    world.seen(0, Record::unheld("uid-0".into(), 1, 3));
    world.run_until(1);
    let addr = |last| HostAddr { ip: Ip::v4([192, 0, 2, last]), ifindex: 1 };
    // Another start has left addresses; removing each is a change.
    for last in [40, 50, 60] {
        world.leave(addr(last));
    }
    let gone = |last| Some(Work::Change(Action::DelAddr(addr(last))));
    world.agent.host.read_again();
    assert_eq!(world.piece(0), Some(Work::Read));
    assert_eq!(world.piece(0), gone(40));
    assert_eq!(world.piece(900), gone(50));
    // A plan that is old is made again, for what the node knows by then.
    world.agent.changed(at(world.now).boot, Action::DelAddr(addr(60)), Ok(()));
    assert_eq!(world.piece(1_100), None);
    world.leave(addr(70));
    world.take_in(Event::HostChanged);
    assert_eq!(world.piece(1_100), Some(Work::Interfaces));
    world.work();
    assert_eq!(world.actual.owned, BTreeSet::new());
}

/// Hundreds of changes that fail must not keep what is behind them from being done. (`lo` without
/// IPv6: every IPv6 address is refused.)
#[test]
fn changes_that_fail_stop_nothing_behind_them() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.seen(0, Record::unheld("uid-0".into(), 1, 3));
    world.run_until(1);
    for last in 100..110 {
        world.leave(HostAddr { ip: Ip::v4([192, 0, 2, last]), ifindex: 1 });
    }
    world.agent.host.read_again();
    let (mut reads, mut tried) = (0, BTreeSet::new());
    // Each turn has time for one piece of work.
    for _ in 0..30 {
        let now = at(world.now).boot;
        world.agent.begin_on_host(now);
        match world.agent.next_on_host(now) {
            Some(Work::Read) => {
                reads += 1;
                world.agent.read(now, Ok(world.actual.clone()));
            }
            Some(Work::Change(action)) => {
                assert!(tried.insert(action), "{action:?} is tried again at once");
                let failed = Failed { why: "no".into(), blind: false, cut_off: false };
                world.agent.changed(now, action, Err(failed));
            }
            _ => {}
        }
        world.agent.interrupt_host(now);
        if !world.agent.host_is_due(now) {
            break;
        }
    }
    assert_eq!((reads, tried.len()), (1, 10));
    let soon = at(world.now + 1_100).boot;
    assert!(world.agent.host_is_due(soon) && !world.agent.host_is_due(at(world.now + 900).boot));
}

/// Without the interfaces every entry of the interface map would seem to be left over: a restarted
/// owner would go mute.
#[test]
fn nothing_is_planned_before_the_interfaces_are_known() {
    let mut world = World::new(agent(free()));
    let mut turn = world.agent.step(at(0), Event::Wanted(vec![spec("one", &[10])]));
    assert!(std::iter::from_fn(|| turn.next(false)).any(|step| step == Step::Host));
    for round in 0..4 {
        let now = at(round * 1_000).boot;
        world.agent.begin_on_host(now);
        assert_eq!(world.agent.next_on_host(now), Some(Work::Interfaces));
        let failed = Failed { why: "busy".into(), blind: true, cut_off: true };
        world.agent.looked(now, Err(failed));
        // The look may have used up the turn.
        if round % 2 == 0 {
            world.agent.interrupt_host(now);
            world.agent.begin_on_host(now);
        }
        assert_eq!(world.agent.next_on_host(now), None);
        assert!(!world.agent.host_is_due(at(round * 1_000 + 900).boot));
        assert!(world.agent.host_is_due(at(round * 1_000 + 1_000).boot), "it is looked again");
    }
    assert!(!world.agent.is_reconciled());
}

/// A host that others change all the time must not be read all the time.
#[test]
fn between_two_reads_there_is_time_for_a_plan() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.run_until(1);
    world.leave(HostAddr { ip: Ip::v4([192, 0, 2, 40]), ifindex: 1 });
    let mut kinds = Vec::new();
    for _ in 0..4 {
        world.take_in(Event::HostChanged);
        let now = at(world.now).boot;
        world.agent.begin_on_host(now);
        match world.agent.next_on_host(now) {
            Some(Work::Interfaces) => {
                kinds.push("look");
                world.agent.looked(now, Ok(links(&[10, 20])));
            }
            Some(Work::Read) => {
                kinds.push("read");
                world.agent.read(now, Ok(world.actual.clone()));
            }
            Some(Work::Change(action)) => {
                kinds.push("change");
                world.agent.changed(now, action, Ok(()));
            }
            None => {}
        }
        world.agent.interrupt_host(now);
    }
    assert!(kinds.contains(&"change"), "{kinds:?}");
}

#[test]
fn a_read_that_has_failed_is_repeated_after_a_pause() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.run_until(1);
    world.agent.host.read_again();
    let now = at(world.now).boot;
    world.agent.begin_on_host(now);
    assert_eq!(world.agent.next_on_host(now), Some(Work::Read));
    let failed = Failed { why: "busy".into(), blind: true, cut_off: true };
    world.agent.read(now, Err(failed));
    world.agent.interrupt_host(now);
    assert!(!world.agent.host_is_due(at(world.now + 900).boot));
    assert!(world.agent.host_is_due(at(world.now + 1_000).boot));
}

/// The rest of a plan was made for a node that holds nothing. After it the host would be looked at only
/// when it is read again.
#[test]
fn a_take_over_does_not_wait_for_the_rest_of_a_plan() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10])]));
    world.seen(0, Record::unheld("uid-0".into(), 1, 3));
    world.run_until(100);
    world.slow = true;
    // A plan is always under way, and its end is far away.
    while world.raised.is_empty() && world.now < 20_000 {
        for last in 100..=200 {
            world.leave(HostAddr { ip: Ip::v4([192, 0, 2, last]), ifindex: 1 });
        }
        world.agent.host.read_again();
        while !matches!(world.piece(0), Some(Work::Change(_))) {}
        world.run_until(world.now + 1);
    }
    world.run_until(world.now + 10);
    assert_eq!((world.raised.len(), world.generation(10)), (1, Some(1)));
}

/// The guard stops announcements of a VIP that has no live entry, and a burst ends after seconds.
#[test]
fn a_vip_that_is_published_late_is_announced_then() {
    let mut world = World::new(agent(free()));
    world.take_in(Event::Wanted(vec![spec("one", &[10, 20])]));
    world.seen(0, Record::unheld("uid-0".into(), 1, 3));
    let ip = Ip::from(vip(20));
    world.fails = Some(|action| {
        let Action::Publish(ip, entry) = action else { return false };
        ip.octets[15] == 20 && entry.generation != 0
    });
    world.run_until(20_000);
    assert!(world.announced_vips.contains(&vip(10)) && !world.announced_vips.contains(&vip(20)));
    world.announced_vips.clear();
    world.fails = None;
    world.run_until(22_000);
    assert!(world.actual.vips[&ip].generation != 0);
    assert!(world.announced_vips.iter().filter(|announced| **announced == vip(20)).count() > 2);
}
