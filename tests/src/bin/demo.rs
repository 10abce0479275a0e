//! The demo: three nodes, eleven faults, one table, and a page of timelines.

use anyhow::Context as _;
use clap::Parser;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use vip_tests::{
    faults::{Fault, Outcome, inject, judged},
    lab::{Kube, Lab, Options},
    timeline::page,
    verdict::{settings, verdict},
};
use vip_user::config::Config;

/// Runs the lab and prints what happened.
#[derive(Debug, Parser)]
struct Args {
    /// Only faults whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Against a real kube-apiserver and etcd.
    #[arg(long)]
    kube: bool,
    /// Where the timelines are written.
    #[arg(long, default_value = "target/demo.html")]
    html: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let options =
        Options { kube: if args.kube { Kube::One } else { Kube::StandIn }, ..Options::default() };
    let api = if args.kube { "a real kube-apiserver with etcd" } else { "an API" };
    println!("building a lab: {} nodes, {api} and two clients as network namespaces", options.nodes);
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
    let mut results = Vec::new();
    let chosen: Vec<Fault> =
        Fault::ALL.into_iter().filter(|fault| fault.name().contains(&args.only)).collect();
    for (number, fault) in chosen.iter().enumerate() {
        println!("fault {} of {}: {} …", number + 1, chosen.len(), fault.name());
        let (outcome, recording) = judged(|| inject(&mut lab, &timing, *fault))?;
        let (before, after) = &outcome.owners;
        let moved = if before == after {
            format!("{before} keeps the VIPs")
        } else {
            format!("{after} took over from {before}")
        };
        println!(
            "  {moved}; dark for {:.0} ms of at most {:.0}; two owners for {:.0} ms in {} claims",
            outcome.dark_asked_ms, outcome.bound.1, outcome.two_owner_ms, outcome.claims
        );
        results.push((outcome, recording));
    }
    println!("\n{}", settings(&timing));
    println!(
        "asked: an ARP request and an NS every 5 ms; felt: an echo every 5 ms through a client's own cache\n"
    );
    let nodes: Vec<_> = lab.nodes.iter().map(|node| (node.name.clone(), node.mac)).collect();
    std::fs::write(&args.html, page(&timing, &nodes, &results))
        .with_context(|| format!("cannot write {}", args.html.display()))?;
    let outcomes: Vec<Outcome> = results.into_iter().map(|(outcome, _)| outcome).collect();
    let kept = verdict(&outcomes);
    println!("timelines: {}", args.html.display());
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
