//! `xvip manager`: runs with the settings of kube-vip.

use super::{
    feeds::Stop,
    find::{self, Found},
    kube_vip::{self, CONFIG},
    run::{self, Before},
};
use crate::{
    adapter::{Adapted, flags::Own},
    escape::printable,
    log,
};
use std::{ffi::OsString, process::ExitCode};

/// Says only whether this would run here.
const CHECK: Own = Own { name: "check", takes_value: false };

/// Runs until SIGTERM or SIGINT. Exit code 78 if a setting is refused, or a right is missing.
pub async fn manager(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let input = kube_vip::input(arguments, &[CHECK]);
    let mut adapted = kube_vip::adapted(&input);
    let config = &adapted.config;
    let lacks = kube_vip::lacks(&config.pin_root, &config.instance);
    let objections = kube_vip::objections(&adapted.refused, &lacks);
    if input.flags.has(CHECK.name) {
        return Ok(check(&adapted, &objections));
    }
    if !objections.is_empty() {
        return Ok(kube_vip::refuse(&objections));
    }
    let _log = log::start(&config.log);
    tell(&adapted);
    let mut stop = Stop::new()?;
    match find::find(&adapted, &mut stop).await? {
        Found::Use(lease) => adapted.use_lease(&lease),
        Found::Refused(why) => return Ok(kube_vip::refuse(&[why])),
        Found::Stopped => return Ok(ExitCode::SUCCESS),
    }
    let problems = kube_vip::losses(&adapted);
    Box::pin(run::hold(adapted.config, Before { stop: Some(stop), problems })).await
}

/// One line for each thing that an operator should know.
fn tell(adapted: &Adapted) {
    for note in &adapted.notes {
        tracing::info!(class = %note.class, "{note}");
    }
    for lost in &adapted.without {
        tracing::warn!(name = lost.name, "this loss is accepted: {}", lost.why);
    }
}

fn check(adapted: &Adapted, objections: &[String]) -> ExitCode {
    for note in &adapted.notes {
        println!("{} {}", note.class, printable(&note.to_string()));
    }
    for line in objections {
        println!("{}", printable(line));
    }
    if !objections.is_empty() {
        println!("this would not run here");
        return ExitCode::from(CONFIG);
    }
    let vips: Vec<String> = adapted.config.addresses().iter().map(ToString::to_string).collect();
    let (vips, interfaces) = (vips.join(", "), adapted.config.interfaces.join(", "));
    let lease = &adapted.search.chosen;
    println!(
        "{}",
        printable(&format!("this would run here: {vips} on {interfaces} under the Lease {lease}"))
    );
    ExitCode::SUCCESS
}
