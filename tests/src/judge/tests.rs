use super::*;

fn claims(sequence: &[(u64, usize)]) -> Vec<Claim> {
    let vip = IpAddr::from([192, 0, 2, 10]);
    sequence.iter().map(|(ms, node)| Claim { at_ns: ms * 1_000_000, node: *node, vip }).collect()
}

#[test]
fn a_handover_is_not_two_owners() {
    assert_eq!(two_owner_ms(&claims(&[(0, 0), (5, 0), (10, 1), (15, 1)])), 0.0);
}

#[test]
fn interleaved_claims_are_two_owners() {
    assert_eq!(two_owner_ms(&claims(&[(0, 0), (5, 1), (10, 0), (15, 1), (20, 1)])), 10.0);
}

#[test]
fn a_vip_that_comes_back_later_is_not_two_owners() {
    let back = claims(&[(0, 0), (5, 0), (10, 1), (15, 1), (20, 0), (25, 0)]);
    assert_eq!(two_owner_ms_between(&back, &[18_000_000]), 0.0);
    let late = claims(&[(0, 0), (10, 1), (20, 0), (21, 1), (25, 0)]);
    assert_eq!(two_owner_ms_between(&late, &[18_000_000]), 4.0);
}

#[test]
fn a_late_claim_of_the_old_owner_is_seen() {
    assert_eq!(two_owner_ms(&claims(&[(0, 0), (5, 1), (7, 1), (1005, 0)])), 1000.0);
}
