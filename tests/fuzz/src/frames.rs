//! Any bytes as an incoming and an outgoing frame. Nothing panics. The judge's own parser also
//! reads frames that leave, and must find no claim that this host may not make.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use vip_common::env::Verdict;
use vip_tests::{
    judge::claimed,
    packets::{
        Kind,
        host::{Hook, run},
    },
};

fuzz_target!(|bytes: &[u8]| {
    let (verdict, after, counted) = run(Hook::Ingress, bytes);
    match verdict {
        Verdict::Pass | Verdict::Drop => assert_eq!(after, bytes, "changed without being answered"),
        Verdict::Reply => assert!(owned(claimed(&after)), "an answer for a VIP that is not held"),
    }
    assert!(verdict != Verdict::Drop || !counted.is_empty(), "dropped without a reason");
    let (verdict, after, _) = run(Hook::Egress, bytes);
    assert_eq!(after, bytes, "the guard changes nothing");
    if verdict == Verdict::Pass {
        // The judge reads only the first byte of an option. Receivers ignore an option that ends
        // there.
        let whole = bytes.split_last().and_then(|(_, rest)| claimed(rest));
        assert!(!forbidden(whole), "a claim that must not leave has left");
    }
});

/// Behind VLAN tags the judge's parser finds no claim.
fn owned(claim: Option<IpAddr>) -> bool {
    claim.is_none_or(|ip| ip == IpAddr::from(Kind::Held.v4()) || ip == IpAddr::from(Kind::Held.v6()))
}

fn forbidden(claim: Option<IpAddr>) -> bool {
    let silent = [Kind::Expired, Kind::NotHeld, Kind::Stale];
    silent
        .iter()
        .any(|kind| claim == Some(IpAddr::from(kind.v4())) || claim == Some(IpAddr::from(kind.v6())))
}
