//! `xvip manager`: runs with the settings of kube-vip.

use super::{
    dump,
    feeds::Stop,
    find::{self, Found},
    kube_vip::{self, CONFIG, words},
    run::{self, Before},
};
use crate::{
    adapter::{Adapted, flags::Own},
    escape::printable,
    log,
    node::{pins::PinsError, start::StartError},
};
use std::{ffi::OsString, process::ExitCode};

/// The subject of what is not certain about the Lease.
const LEASE: &str = "vip_leasename";
/// Says only whether this would run here.
pub(super) const CHECK: Own = Own { name: "check", takes_value: false };

/// Runs until SIGTERM or SIGINT. Exit code 78 if a setting is refused, or a right is missing.
pub async fn manager(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let input = kube_vip::input(arguments, &[CHECK]);
    let adapted = kube_vip::adapted(&input);
    let config = &adapted.config;
    let lacks = kube_vip::lacks(&config.pin_root, &config.instance);
    let objections = kube_vip::objections(&adapted.refused, &lacks);
    if input.flags.has(CHECK.name) {
        return Ok(check(&adapted, &objections).await);
    }
    if !objections.is_empty() {
        return Ok(kube_vip::refuse(&objections));
    }
    let _log = log::start(&config.log);
    tell(&adapted);
    let mut stop = Stop::new()?;
    // Nothing can be shown before the Lease is found, but the process must not end.
    let _asked = dump::catch()?;
    let found = match find::find(&adapted, &mut stop).await? {
        Found::Use(found) => found,
        Found::Refused(why) => return Ok(kube_vip::refuse(&[why])),
        Found::Stopped => return Ok(ExitCode::SUCCESS),
    };
    let problems = problems(&adapted, &found);
    let held = Box::pin(run::hold(adapted.config, Before { stop: Some(stop), problems })).await;
    match held.as_ref().err().and_then(|error| error.downcast_ref::<StartError>()) {
        Some(error) if is_refusal(error) => Ok(kube_vip::refuse(&[words(error)])),
        _ => held,
    }
}

/// What stays a problem while xvip runs: accepted losses, and what is not certain about the Lease.
fn problems(adapted: &Adapted, found: &[String]) -> Vec<(&'static str, String)> {
    let mut problems = kube_vip::losses(adapted);
    if !found.is_empty() {
        problems.push((LEASE, found.join("; ")));
    }
    problems
}

/// Whether the next start would find the same, until an operator changes something.
fn is_refusal(error: &StartError) -> bool {
    match error {
        StartError::Vip { .. } | StartError::Identity { .. } => true,
        StartError::Pins(error) => !matches!(error, PinsError::Io { .. }),
        _ => false,
    }
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

async fn check(adapted: &Adapted, objections: &[String]) -> ExitCode {
    for note in &adapted.notes {
        println!("{} {}", note.class, printable(&note.to_string()));
    }
    let lease = if objections.is_empty() { find::check(adapted).await } else { Ok(Vec::new()) };
    let refused = lease.as_ref().err();
    for line in objections.iter().chain(refused) {
        println!("{}", printable(line));
    }
    let Some(lease) = lease.ok().filter(|_| objections.is_empty()) else {
        println!("this would not run here");
        return ExitCode::from(CONFIG);
    };
    let vips: Vec<String> = adapted.config.addresses().iter().map(ToString::to_string).collect();
    let (vips, interfaces) = (vips.join(", "), adapted.config.interfaces.join(", "));
    let chosen = &adapted.search.chosen;
    for line in lease {
        println!("{}", printable(&line));
    }
    let words = format!("this would run here: {vips} on {interfaces} under the Lease {chosen}");
    println!("{}", printable(&words));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_search_found_stays_one_problem() {
        let adapted = kube_vip::adapted(&crate::adapter::Input::default());
        assert!(problems(&adapted, &[]).is_empty());
        let found = ["one".to_owned(), "two".to_owned()];
        assert_eq!(problems(&adapted, &found), [(LEASE, "one; two".to_owned())]);
    }

    #[test]
    fn a_host_that_refuses_is_told_from_one_that_is_busy() {
        let vip = StartError::Vip { vip: [192, 0, 2, 1].into(), what: "the gateway".into() };
        assert!(is_refusal(&vip));
        assert!(words(&vip).contains("the gateway"));
        assert!(is_refusal(&PinsError::Bpf { why: "seccomp".into() }.into()));
        let source = std::io::Error::from_raw_os_error(libc::EINTR);
        let failed = StartError::Host { what: "read the links", source };
        assert!(!is_refusal(&failed));
        assert!(words(&failed).starts_with("cannot read the links: "), "{}", words(&failed));
    }
}
