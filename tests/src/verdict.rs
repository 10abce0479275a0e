//! The table at the end of the demo.

use crate::faults::{Outcome, SLACK_MS};
use vip_user::{
    cli::table::{green, print, red},
    model::timing::Timing,
};

/// The settings from which the bounds are computed, as text.
pub fn settings(timing: &Timing) -> String {
    format!(
        "D = {} s, ρ = {} %, margin = {} ms, slack = {SLACK_MS} ms",
        timing.duration_s,
        timing.clock_error_percent,
        timing.margin.as_millis()
    )
}

/// Prints the table and the verdict. Returns whether every fault kept the promise.
pub fn verdict(outcomes: &[Outcome]) -> bool {
    let header = [
        "fault",
        "dark, asked",
        "dark, felt",
        "echoes lost/sent",
        "two owners",
        "took over",
        "after",
        "bound",
        "machine stood",
    ];
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .map(|outcome| {
            vec![
                outcome.fault.name().to_owned(),
                format!("{:.0} ms", outcome.dark_asked_ms),
                format!("{:.0} ms", outcome.dark_felt_ms),
                format!("{}/{}", outcome.echoes.0, outcome.echoes.1),
                format!("{:.0} ms", outcome.two_owner_ms),
                format!("{} -> {}", outcome.owners.0, outcome.owners.1),
                if outcome.after_ms.is_nan() {
                    "-".into()
                } else {
                    format!("{:.0} ms", outcome.after_ms)
                },
                format!("{} = {:.0} ms", outcome.bound.0, outcome.bound.1),
                format!("{:.0} ms", outcome.stalled_ms),
            ]
        })
        .collect();
    print(&header, &rows);
    let kept = outcomes.iter().all(Outcome::kept);
    let claims: usize = outcomes.iter().map(|outcome| outcome.claims).sum();
    println!();
    if kept {
        println!(
            "{}",
            green(&format!("PASSED: no instant with two owners in {claims} claims on the wire"))
        );
    } else {
        for outcome in outcomes.iter().filter(|outcome| !outcome.kept()) {
            println!("{}", red(&format!("FAILED: {}: {outcome:?}", outcome.fault.name())));
        }
    }
    kept
}
