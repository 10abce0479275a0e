use super::*;

const fn at(ms: u64) -> BootNs {
    BootNs((100_000 + ms) * 1_000_000)
}

#[test]
fn a_loss_counts_at_once_and_a_return_after_its_probation() {
    let mut damper = Damper::default();
    damper.observe(at(0), true, false);
    assert_eq!(damper.fitness(at(0), false), Fitness::Able, "nothing speaks against a first sight");
    damper.observe(at(10), false, false);
    assert_eq!(damper.fitness(at(10), false), Fitness::Unable);
    damper.observe(at(20), true, false);
    assert_eq!(damper.fitness(at(20), false), Fitness::Doubtful);
    assert_eq!(damper.fitness(at(20), true), Fitness::Able, "it costs a holder nothing");
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
    assert_eq!(damper.fitness(at(now + 59_999), false), Fitness::Doubtful);
    assert_eq!(damper.fitness(at(now + 59_999), true), Fitness::Doubtful, "a holder as well");
    assert_eq!(damper.fitness(at(now + 60_000), false), Fitness::Able, "but not for ever");
    // After a quiet time the first loss is a first one again.
    damper.observe(at(now + 200_000), false, false);
    damper.observe(at(now + 200_010), true, false);
    assert_eq!(damper.fitness(at(now + 203_010), false), Fitness::Able);
}

#[test]
fn a_carrier_that_our_own_attach_takes_away_is_not_lost() {
    let mut damper = Damper::default();
    damper.observe(at(0), true, true);
    damper.observe(at(1_000), false, false);
    assert_eq!(damper.fitness(at(1_000), true), Fitness::Able, "a holder sits it out");
    assert_eq!(damper.fitness(at(1_000), false), Fitness::Unable, "a candidate takes nothing now");
    damper.observe(at(3_000), true, false);
    assert_eq!(damper.fitness(at(3_000), false), Fitness::Able, "and its return is none either");
    damper.observe(at(4_000), false, false);
    damper.observe(at(10_000), false, false);
    assert_eq!(damper.fitness(at(10_000), true), Fitness::Unable, "unless it stays away");
    damper.observe(at(11_000), true, false);
    assert_eq!(damper.fitness(at(11_000), false), Fitness::Doubtful);
}
