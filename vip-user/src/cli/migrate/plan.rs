//! `xvip migrate plan`.

use super::{
    args,
    gather::{self, Request},
    show,
};
use crate::{
    cli::{
        Output, print_json,
        table::{self, Cell},
    },
    migrate::{
        facts::Facts,
        plan::{self, Plan, Turn},
    },
    node::host::is_linux_5,
};
use std::process::ExitCode;

/// The image that the steps of a DaemonSet name if none was given.
const IMAGE: &str = concat!("xvip:", env!("CARGO_PKG_VERSION"));

/// Exit code 0: this node may be moved when it is its turn. 1: something stands against it.
pub(super) async fn plan(args: &args::Plan) -> anyhow::Result<ExitCode> {
    let (node, image) = (args.node.as_deref(), args.image.as_deref());
    let request = Request { common: &args.common, node, image, goes_on: None };
    let facts = gather::gather(request).await?.facts;
    let plan = plan::plan(&facts);
    let steps = plan
        .daemonset
        .as_ref()
        .map(|name| plan::of_daemonset(name, &plan.rows, (image.unwrap_or(IMAGE), is_linux_5())));
    match args.output {
        Output::Json => {
            let steps = steps.iter().flatten();
            let steps =
                steps.map(|(what, command)| serde_json::json!({"what": what, "command": command}));
            print_json(&serde_json::json!({
                "plan": plan, "facts": facts, "steps": steps.collect::<Vec<_>>(),
            }))?;
        }
        Output::Table => print(&facts, &plan, steps.as_deref()),
    }
    Ok(ExitCode::from(u8::from(!plan.problems.is_empty())))
}

fn print(facts: &Facts, plan: &Plan, steps: Option<&[(String, String)]>) {
    let rows: Vec<Vec<Cell>> = plan
        .rows
        .iter()
        .map(|row| {
            let turn = match row.turn {
                Turn::Done => Cell::green("done"),
                Turn::Now => "follower".into(),
                Turn::Last => "holder, last".into(),
                Turn::Nothing => "nothing to move".into(),
            };
            let program = row.program.map_or_else(String::new, |program| program.to_string());
            let duration = row.duration_s.map_or_else(String::new, |duration| format!("{duration} s"));
            let ready = if row.ready { Cell::green("yes") } else { Cell::red("no") };
            vec![
                row.node.as_str().into(),
                turn,
                program.into(),
                row.image.as_str().into(),
                duration.into(),
                ready,
            ]
        })
        .collect();
    table::print(&["NODE", "TURN", "RUNS", "IMAGE", "D", "READY"], &rows);
    println!();
    if let Some(lease) = facts.known_lease() {
        let holder = if lease.holder.is_empty() { "nobody" } else { lease.holder.as_str() };
        let fresh = if lease.fresh { "renewed" } else { "not renewed" };
        show::say(&format!("lease     {}, held by {holder}, {fresh}", lease.name));
    }
    for vip in facts.vips.as_ref().map(Vec::as_slice).unwrap_or_default() {
        let stations = if vip.stations.is_empty() { "nobody".into() } else { vip.stations.join(", ") };
        show::say(&format!("vip       {}: {stations}", vip.vip));
    }
    for manifest in &facts.manifests {
        show::say(&format!(
            "manifest  {}, pod {}/{}",
            manifest.path, manifest.namespace, manifest.name
        ));
        for change in &manifest.changes {
            show::say(&format!("  change  {change}"));
        }
    }
    for note in &plan.notes {
        show::say(&format!("note      {note}"));
    }
    println!();
    if let Some(steps) = steps {
        show::say("kube-vip runs as a DaemonSet. Run these commands, one after the other:");
        let rows: Vec<Vec<Cell>> = steps
            .iter()
            .map(|(what, command)| vec![what.as_str().into(), command.as_str().into()])
            .collect();
        table::print(&["STEP", "COMMAND"], &rows);
        println!();
    }
    if !show::problems(&plan.problems) {
        show::say("nothing stands against it");
    }
}
