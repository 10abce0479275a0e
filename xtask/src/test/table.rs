//! The results of all passes, as a table.

use super::{
    Count,
    again::Failures,
    rung::{Pass, Rung},
};
use std::time::Duration;

/// The result of a pass.
#[derive(Clone, Debug)]
pub struct Played {
    pub name: String,
    pub rung: Rung,
    pub count: Count,
    /// Whether it ran to its end, so that all failures are counted.
    pub whole: bool,
    pub failures: Failures,
    pub took: Duration,
}

/// The name of a pass: its rung, and its part if there are several.
pub fn name(pass: &Pass) -> String {
    let rung = format!("{:?}", pass.rung).to_lowercase();
    match pass.part.trim_end_matches("::") {
        "" => rung,
        part => format!("{rung} {part}"),
    }
}

/// Prints the table and returns the sum. A pass that ended early without a failure counts as one.
pub fn print(played: &[Played]) -> Count {
    println!("\n{:16} {:>7} {:>7} {:>8}", "pass", "passed", "failed", "seconds");
    let mut total = Count::default();
    for Played { name, count, whole, failures, took, .. } in played {
        println!("{name:16} {:>7} {:>7} {:>8}", count.passed, count.failed, took.as_secs());
        if count.failed > 0 {
            failures.names().iter().for_each(|test| println!("  failed: {test}"));
        }
        total += *count;
        if !whole && count.failed == 0 {
            println!("{name} did not run to its end");
            total.failed += 1;
        }
    }
    total
}
