use super::*;

const fn at(ms: u64) -> BootNs {
    BootNs((100_000 + ms) * 1_000_000)
}

#[test]
fn a_loss_counts_at_once_and_a_return_after_its_probation() {
    let mut damper = Damper::default();
    damper.observe(at(0), true, false);
    assert_eq!(
        damper.fitness(at(0), false),
        Fitness::Able,
        "a link that was never lost counts as good"
    );
    damper.observe(at(10), false, false);
    assert_eq!(damper.fitness(at(10), false), Fitness::Unable);
    damper.observe(at(20), true, false);
    assert_eq!(damper.fitness(at(20), false), Fitness::Impaired);
    assert_eq!(damper.fitness(at(20), true), Fitness::Able, "a first loss must cost a holder nothing");
    assert_eq!(damper.wake_at(at(20)), Some(at(3_020)));
    assert_eq!(damper.fitness(at(3_020), false), Fitness::Able);
}

#[test]
fn a_flapping_link_waits_longer_each_time() {
    let mut damper = Damper::default();
    let mut now = 0;
    for _ in 0..20 {
        damper.observe(at(now), true, false);
        damper.observe(at(now + 50), false, false);
        now += 100;
    }
    damper.observe(at(now), true, false);
    assert_eq!(damper.fitness(at(now + 59_999), false), Fitness::Impaired);
    assert_eq!(damper.fitness(at(now + 59_999), true), Fitness::Impaired, "a holder is doubtful too");
    assert_eq!(damper.fitness(at(now + 60_000), false), Fitness::Able, "the probation has a limit");
    // After a quiet time, the next loss counts as a first one again.
    damper.observe(at(now + 200_000), false, false);
    damper.observe(at(now + 200_010), true, false);
    assert_eq!(damper.fitness(at(now + 203_010), false), Fitness::Able);
}

#[test]
fn a_carrier_that_our_own_attach_takes_away_is_not_lost() {
    let mut damper = Damper::default();
    damper.observe(at(0), true, true);
    damper.observe(at(1_000), false, false);
    assert_eq!(damper.fitness(at(1_000), true), Fitness::Able, "a holder waits for the carrier");
    assert_eq!(damper.fitness(at(1_000), false), Fitness::Unable, "a candidate takes no Lease now");
    damper.observe(at(3_000), true, false);
    assert_eq!(damper.fitness(at(3_000), false), Fitness::Able, "its return needs no probation");
    damper.observe(at(4_000), false, false);
    damper.observe(at(10_000), false, false);
    assert_eq!(damper.fitness(at(10_000), true), Fitness::Unable, "it has stayed away too long");
    damper.observe(at(11_000), true, false);
    assert_eq!(damper.fitness(at(11_000), false), Fitness::Impaired);
}
