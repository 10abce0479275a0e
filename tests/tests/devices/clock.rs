//! Wall clocks that jump, and clocks that run as fast or slow as `adjtimex` allows. A guest has its
//! own clock; on a host this test fails.

use super::LONG;
use std::{path::Path, thread::sleep, time::Duration};
use vip_tests::{
    judge::{Judge, two_owner_ms},
    lab::{Lab, Options, eventually},
};

/// Moves the time of day.
fn step(seconds: i64) {
    // SAFETY: the pointer is to a live value of the type that the calls expect.
    unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now), 0);
        now.tv_sec += seconds;
        assert_eq!(libc::clock_settime(libc::CLOCK_REALTIME, &raw const now), 0);
    }
}

/// Sets how many microseconds count per tick of 10 000. All clocks but the raw one follow,
/// CLOCK_BOOTTIME too.
fn slew(tick: i64) {
    // SAFETY: all-zero is valid, and the pointer is to a live value.
    let state = unsafe {
        let mut change: libc::timex = std::mem::zeroed();
        change.modes = libc::ADJ_TICK;
        change.tick = tick;
        libc::adjtimex(&raw mut change)
    };
    assert!(state >= 0, "adjtimex: {}", std::io::Error::last_os_error());
}

#[test]
fn steps_and_slews_of_the_clock_move_nothing() {
    assert!(Path::new("/t/verifier").exists(), "this sets the clock: only in a guest");
    let options = Options { nodes: 2, duration_s: 10, ..Options::default() };
    let mut lab = Lab::new(&options).unwrap();
    lab.start().unwrap();
    let owner = lab.wait_for_owner(LONG).unwrap();
    let judge = Judge::listen(&lab.bridge, lab.ports(), &Lab::vips());
    for seconds in [3_600, -7_200, 3_600] {
        step(seconds);
        sleep(Duration::from_secs(4));
    }
    for tick in [11_000, 9_000, 10_000] {
        slew(tick);
        sleep(Duration::from_secs(8));
    }
    assert!(lab.nodes[owner].owns(), "it is still the owner: {}", lab.nodes[owner].log());
    let claims = judge.finish().unwrap();
    assert!(!claims.is_empty() && claims.iter().all(|claim| claim.node == owner), "{claims:?}");

    // The clock goes back a day while the owner dies. The taker waits only for its own timer.
    let judge = Judge::listen(&lab.bridge, lab.ports(), &Lab::vips());
    step(-86_400);
    lab.nodes[owner].kill();
    assert!(eventually(LONG, || lab.nodes[1 - owner].owns()), "{}", lab.nodes[1 - owner].log());
    assert_eq!(two_owner_ms(&judge.finish().unwrap()), 0.0);
}
