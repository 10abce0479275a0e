use super::*;
use crate::{judge::Claim, probes::Series, stalls::Stalls};
use std::net::IpAddr;

#[test]
fn a_page_needs_nothing_from_elsewhere_and_shows_every_row() {
    let timing = Timing::of(3);
    let vip = IpAddr::from([192, 0, 2, 10]);
    let claim = |ms: u64, node| Claim { at_ns: ms * 1_000_000, node, vip };
    let recording = Recording {
        claims: vec![claim(0, 0), claim(10, 0), claim(2_000, 1)],
        asked: Series::default(),
        echoes: Series::default(),
        stalls: Stalls::default(),
    };
    let outcome = Outcome {
        fault: Fault::Kill,
        dark_asked_ms: 0.0,
        dark_felt_ms: 0.0,
        echoes: (0, 0),
        two_owner_ms: 0.0,
        owners: ("node1".into(), "node2".into()),
        after_ms: 0.0,
        bound: ("x", 1.0),
        stalled_ms: 0.0,
        claims: 3,
        span: (500_000_000, 3_000_000_000),
        healed: None,
    };
    let nodes = [("node1".to_owned(), [0; 6]), ("node2".to_owned(), [1; 6])];
    let page = page(&timing, &nodes, &[(outcome, recording)]);
    assert!(!page.contains("http") && !page.contains("<script"), "self-contained");
    assert_eq!(page.matches("<rect class=\"n0\"").count(), 1, "two claims 10 ms apart are one bar");
    assert_eq!(page.matches("<rect class=\"n1\"").count(), 1);
    assert!(page.contains("a user's pings") && page.contains("kept"));
}
