use super::*;

const IP: Ip = Ip::v4([192, 0, 2, 10]);
const ADDR: HostAddr = HostAddr { ip: IP, ifindex: 1 };
const SPEC: AddrSpec = AddrSpec::Vip { valid_s: 27 };

fn vip(generation: u64) -> Vip {
    Vip::new(0, generation, 1, 1)
}

fn wants(generation: Option<u64>, addr: bool) -> Desired {
    Desired {
        vips: generation.map(|generation| (IP, vip(generation))).into_iter().collect(),
        addrs: addr.then_some((ADDR, SPEC)).into_iter().collect(),
        ..Desired::default()
    }
}

fn has(generation: Option<u64>, left: Option<u32>) -> Actual {
    Actual {
        vips: generation.map(|generation| (IP, vip(generation))).into_iter().collect(),
        addrs: left.map(|left| (ADDR, left)).into_iter().collect(),
        owned: left.map(|_| ADDR).into_iter().collect(),
        ..Actual::default()
    }
}

#[test]
fn the_address_is_there_before_the_entry_answers() {
    let actions = plan(&wants(Some(7), true), &has(Some(0), None));
    assert_eq!(actions, [Action::AddAddr(ADDR, SPEC), Action::Publish(IP, vip(7))]);
}

/// In the simulation, a node was once paused between the two. Its fence ran out, and another node
/// answered too.
#[test]
fn a_silent_entry_stands_before_an_address_comes() {
    let actions = plan(&wants(Some(7), true), &has(None, None));
    let silent = Action::Publish(IP, vip(0));
    assert_eq!(actions, [silent, Action::AddAddr(ADDR, SPEC), Action::Publish(IP, vip(7))]);
}

#[test]
fn an_interface_is_guarded_before_an_address_comes_to_it() {
    let mut want = wants(Some(7), true);
    want.vips.insert(IP, Vip::new(0, 7, 2, 3));
    let actions = plan(&want, &has(Some(6), None));
    let wider = Action::Publish(IP, Vip::new(0, 6, 1, 3));
    let last = Action::Publish(IP, Vip::new(0, 7, 2, 3));
    assert_eq!(actions, [wider, Action::AddAddr(ADDR, SPEC), last]);
}

#[test]
fn silence_comes_before_the_address_goes() {
    let actions = plan(&wants(Some(0), false), &has(Some(7), Some(20)));
    assert_eq!(actions, [Action::Publish(IP, vip(0)), Action::DelAddr(ADDR)]);
}

#[test]
fn leaving_removes_the_address_and_then_the_entry() {
    let actions = plan(&wants(None, false), &has(Some(0), Some(9)));
    assert_eq!(actions, [Action::DelAddr(ADDR), Action::Withdraw(IP)]);
}

/// The VIP was given up, or has left the configuration, while `kube-ipvs0` carries it.
#[test]
fn the_guard_stays_while_another_interface_carries_the_address() {
    for generation in [0, 7] {
        let mut have = has(Some(generation), None);
        have.addrs.insert(HostAddr { ip: IP, ifindex: 9 }, u32::MAX);
        let silent = (generation != 0).then_some(Action::Publish(IP, vip(0)));
        let actions = plan(&wants(None, false), &have);
        assert_eq!(actions, Vec::from_iter(silent), "generation {generation}");
        if silent.is_some() {
            have.vips.insert(IP, vip(0));
            assert_eq!(plan(&wants(None, false), &have), []);
        }
    }
}

/// Removing the address may fail, and then the entry stays. So the entry must be silent first.
#[test]
fn what_is_not_wanted_any_more_is_silent_before_its_address_goes() {
    let actions = plan(&wants(None, false), &has(Some(7), Some(9)));
    assert_eq!(actions, [Action::Publish(IP, vip(0)), Action::DelAddr(ADDR), Action::Withdraw(IP)]);
    let actions = plan(&wants(None, false), &has(Some(7), None));
    assert_eq!(actions, [Action::Publish(IP, vip(0)), Action::Withdraw(IP)]);
}

/// Another station may use a VIP that was never admitted to its Lease. This host's own traffic must
/// reach that station.
#[test]
fn an_address_that_lingers_stays_and_comes_nowhere() {
    let mut want = wants(Some(0), false);
    want.lingering.insert(ADDR, SPEC);
    assert_eq!(plan(&want, &has(Some(0), None)), []);
    assert_eq!(plan(&want, &has(Some(0), Some(20))), []);
    let refreshed = plan(&want, &has(Some(0), Some(2)));
    assert_eq!(
        refreshed,
        [Action::AddAddr(ADDR, SPEC)],
        "it must be refreshed as long as it is desired"
    );
}

/// kube-vip on this host has the Lease, and the address on its interface. Our own address is removed
/// first.
#[test]
fn another_program_of_this_host_that_holds_the_address_is_not_guarded() {
    let want = Desired { passing: BTreeSet::from([IP]), ..Desired::default() };
    for ours in [false, true] {
        let mut have = has(Some(0), ours.then_some(9));
        have.addrs.insert(HostAddr { ip: IP, ifindex: 2 }, u32::MAX);
        let ours = ours.then_some(Action::DelAddr(ADDR));
        let wanted: Vec<Action> = ours.into_iter().chain([Action::Withdraw(IP)]).collect();
        assert_eq!(plan(&want, &have), wanted);
    }
}

#[test]
fn a_reached_state_needs_nothing() {
    assert_eq!(plan(&wants(Some(7), true), &has(Some(7), Some(20))), []);
}

#[test]
fn an_address_without_its_route_is_put_back() {
    let mut have = has(Some(7), Some(20));
    have.unrouted.insert(ADDR);
    let actions = plan(&wants(Some(7), true), &have);
    assert_eq!(actions, [Action::DelAddr(ADDR), Action::AddAddr(ADDR, SPEC)]);
    assert_eq!(plan(&wants(Some(0), false), &have)[1..], [Action::DelAddr(ADDR)]);
}

#[test]
fn a_lifetime_that_has_shrunk_is_refreshed() {
    let actions = plan(&wants(Some(7), true), &has(Some(7), Some(16)));
    assert_eq!(actions, [Action::AddAddr(ADDR, SPEC)]);
}

#[test]
fn nothing_is_touched_before_the_api_has_spoken() {
    let mut want = wants(None, false);
    want.untouched.insert(IP, 0);
    assert_eq!(plan(&want, &has(Some(7), Some(20))), []);
}

#[test]
fn a_foreign_address_is_never_removed() {
    let mut have = has(None, Some(9));
    have.owned.clear();
    assert_eq!(plan(&wants(None, false), &have), []);
}

/// An entry that names another slot would become active with the fence of that slot.
#[test]
fn an_entry_of_another_lease_is_silenced_though_nothing_was_read() {
    let mut want = Desired::default();
    want.untouched.insert(IP, 1);
    let mut have = Actual::default();
    have.vips.insert(IP, Vip::new(1, 4, 1, 1));
    assert_eq!(plan(&want, &have), []);
    have.vips.insert(IP, Vip::new(0, 4, 1, 1));
    let silent = Action::Publish(IP, Vip::new(0, 0, 1, 1));
    assert_eq!(plan(&want, &have), [silent, Action::Withdraw(IP)]);
}
