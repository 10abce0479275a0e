use super::*;
use std::time::Duration;

#[test]
fn one_look_that_is_cut_off_says_nothing_and_the_second_counts() {
    let cut = HostError::CutOff { step: "read", took: Duration::from_secs(1) };
    let once = Look::Good.after(&cut);
    assert!(!once.is_bad());
    assert!(once.after(&cut).is_bad());
    assert!(Look::Never.after(&cut).is_bad(), "nothing was ever known");
    assert!(Look::Good.after(&HostError::StillQueued).is_bad());
}
