use super::*;

#[test]
fn a_bound_is_a_small_part_of_the_fence() {
    for duration_s in 1..=600 {
        let timing = Timing::of(duration_s);
        let hold = timing.hold(duration_s);
        assert!(bound(&timing) * 10 <= hold, "{duration_s} s: {:?}", bound(&timing));
    }
}

#[test]
fn another_thread_reads_the_step_and_its_beginning() {
    let pulse = Pulse::default();
    for step in Activity::ALL {
        let since = BootNs(86_400_000_000_000 * 365 + 7_000_000);
        pulse.set(step, since);
        assert_eq!(pulse.get(), (step, since));
    }
}

#[test]
fn a_loop_hangs_when_its_step_does_not_end() {
    let (since, limit) = (BootNs(5_000_000_000), Duration::from_millis(500));
    let at = |ms| hangs(since.after(Duration::from_millis(ms)), (Activity::Silence, since), limit);
    assert_eq!(at(0), None);
    assert_eq!(at(500), None);
    assert_eq!(at(1_300).as_deref(), Some("the loop has been in step \"silence\" for 1.3s"));
    // The loop waits for something that is due later, so it does not hang.
    assert_eq!(hangs(BootNs(0), (Activity::Wait, since), limit), None);
}

fn watchdog() -> Watchdog {
    Watchdog::new(&Timing::of(2), Metrics::default())
}

#[tokio::test]
async fn what_waits_for_too_long_is_cut_off_and_gets_longer_the_next_time() {
    let mut watchdog = watchdog();
    watchdog.turn();
    let first = watchdog.bound_of(Activity::Read);
    let never = std::future::pending::<()>();
    let cut = watchdog.run(Activity::Read, never).await;
    assert!(matches!(cut, Err(HostError::CutOff { step: "read", took }) if took >= first), "{cut:?}");
    assert!(!watchdog.has_time(), "the rest of the host's work waits for the next turn");
    assert_eq!(watchdog.bound_of(Activity::Read), first * 2);
    assert_eq!(watchdog.bound_of(Activity::Interfaces), first, "each step has its own");
    watchdog.turn();
    assert!(watchdog.run(Activity::Read, async { 7 }).await.is_ok_and(|done| done == 7));
    assert_eq!(watchdog.bound_of(Activity::Read), first);
}

#[test]
fn a_step_that_could_not_be_cut_off_is_named_afterwards() {
    let mut watchdog = watchdog();
    let now = clock::boot();
    let before = |bounds: u32| BootNs(now.0 - (watchdog.bound * bounds).as_nanos() as u64);
    let (short, long) = (before(2), before(4));
    watchdog.ended(Activity::Change, short);
    assert_eq!(watchdog.problem(), None);
    watchdog.ended(Activity::Change, long);
    assert!(watchdog.problem().unwrap().contains("\"change\""));
}

/// A clear begins with the store of the fence, which must happen however little time is left.
#[tokio::test]
async fn a_step_is_begun_even_without_time() {
    let mut watchdog = watchdog();
    watchdog.turn = BootNs(1);
    assert!(watchdog.bound_of(Activity::Silence).is_zero());
    let mut begun = false;
    let work = async {
        begun = true;
        std::future::pending::<()>().await;
    };
    assert!(watchdog.run(Activity::Silence, work).await.is_err());
    assert!(begun);
}
