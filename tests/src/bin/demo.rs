//! The demo: three nodes, five faults, one table.

use clap::Parser;
use std::{process::ExitCode, time::Duration};
use vip_tests::{
    faults::{Fault, SLACK_MS, inject},
    lab::{Lab, Options},
    verdict::verdict,
};
use vip_user::config::Config;

/// Runs the lab and prints what happened.
#[derive(Debug, Parser)]
struct Args {
    /// Only faults whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let options = Options::default();
    println!("building a lab: {} nodes, an API and two clients as network namespaces", options.nodes);
    let mut lab = Lab::new(&options)?;
    let vips: Vec<String> = Lab::vips().iter().map(ToString::to_string).collect();
    println!(
        "starting xvip on every node: VIPs {}, one Lease of {} s",
        vips.join(" and "),
        options.duration_s
    );
    lab.start()?;
    let timing = Config::load(&lab.dir().join("node1.yaml"))?.timing();
    let owner = lab.wait_for_owner(Duration::from_secs(20))?;
    println!(
        "{} has asked for the addresses, created the Lease and owns the VIPs\n",
        lab.nodes[owner].name
    );
    let mut outcomes = Vec::new();
    let chosen = Fault::ALL.into_iter().filter(|fault| fault.name().contains(&args.only));
    for (number, fault) in chosen.enumerate() {
        println!("fault {}: {} …", number + 1, fault.name());
        let outcome = inject(&mut lab, &timing, fault)?;
        println!(
            "  {} took over from {} after {:.0} ms; two owners for {:.0} ms in {} claims",
            outcome.owners.1, outcome.owners.0, outcome.after_ms, outcome.two_owner_ms, outcome.claims
        );
        outcomes.push(outcome);
    }
    println!(
        "\nD = {} s, ρ = {} %, margin = {} ms, slack = {SLACK_MS} ms",
        timing.duration_s,
        timing.clock_error_percent,
        timing.margin.as_millis()
    );
    println!(
        "asked: an ARP request and an NS every 5 ms; felt: an echo every 5 ms through a client's own cache\n"
    );
    let kept = verdict(&outcomes);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
