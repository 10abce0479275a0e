//! `xvip config`: what a configuration file says, or kube-vip's settings, without touching the host.

use super::{
    ConfigCommand, Output, find, kube_vip, print_json,
    table::{self, Cell},
};
use crate::{
    adapter::{Adapted, rights::Lacks, show::Row},
    config::{Config, show::Setting},
    escape::printable,
    node::host,
};
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Runs a subcommand of `xvip config`.
pub fn config(what: ConfigCommand) -> anyhow::Result<ExitCode> {
    match what {
        ConfigCommand::Check { file: Some(file), .. } => check(&file),
        ConfigCommand::Check { file: None, flags } => Ok(check_kube_vip(&flags)),
        ConfigCommand::Show { file: Some(file), pin_root, output, .. } => show(&file, pin_root, output),
        ConfigCommand::Show { file: None, flags, pin_root, output } => {
            show_kube_vip(&flags, pin_root, output)
        }
    }
}

/// Says whether the file is valid; a refusal names the field, the value and what is allowed.
fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let vips: Vec<String> = config.addresses().iter().map(ToString::to_string).collect();
    let words =
        format!("{} is valid: {} on {}", path.display(), vips.join(", "), config.interfaces.join(", "));
    println!("{}", printable(&words));
    Ok(ExitCode::SUCCESS)
}

/// Prints every setting in force, and where it comes from.
fn show(path: &Path, pin_root: Option<PathBuf>, output: Output) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(path)?;
    let text = std::fs::read_to_string(path).context("cannot read the configuration again")?;
    let node = match &config.node {
        Some(node) => node.clone(),
        None => host::node_name().context("cannot read the host name")?,
    };
    let replaced = pin_root.map(|pin_root| config.pin_root = pin_root).is_some();
    let mut settings = config.settings(&text, &node);
    if replaced && let Some(setting) = settings.iter_mut().find(|setting| setting.field == "pin_root") {
        setting.source = "--pin-root, or XVIP_PIN_ROOT".into();
    }
    match output {
        Output::Json => print_json(&settings)?,
        Output::Table => print_settings(settings),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_settings(settings: Vec<Setting>) {
    let rows = settings
        .into_iter()
        .map(|setting| [setting.field, setting.value.to_string(), setting.source])
        .map(|cells| cells.map(Cell::from).into());
    table::print(&["FIELD", "VALUE", "SOURCE"], &rows.collect::<Vec<_>>());
}

/// What kube-vip's settings become, as `-o json` prints it.
#[derive(Serialize)]
struct Shown {
    names: Vec<Row>,
    settings: Vec<Setting>,
    refused: Vec<String>,
    /// What is known of the Lease without asking the API.
    lease: String,
}

/// Says whether kube-vip's settings are valid; every refusal names its setting.
fn check_kube_vip(flags: &[OsString]) -> ExitCode {
    let adapted = kube_vip::adapted(&kube_vip::input(flags, &[]));
    if !adapted.refused.is_empty() {
        return kube_vip::say(&kube_vip::objections(&adapted.refused, &Lacks::default()));
    }
    let vips: Vec<String> = adapted.config.addresses().iter().map(ToString::to_string).collect();
    let on = adapted.config.interfaces.join(", ");
    let words = format!("the settings of kube-vip are valid: {} on {on}", vips.join(", "));
    println!("{}", printable(&words));
    ExitCode::SUCCESS
}

/// Prints every name of kube-vip that is in force, and every setting that follows.
fn show_kube_vip(
    flags: &[OsString],
    pin_root: Option<PathBuf>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let mut adapted = kube_vip::adapted(&kube_vip::input(flags, &[]));
    adapted.config.pin_root = pin_root.unwrap_or(adapted.config.pin_root);
    let (settings, lease) = (settings(&adapted)?, find::known_here(&adapted));
    let refused: Vec<String> = adapted.refused.iter().map(ToString::to_string).collect();
    match output {
        Output::Json => print_json(&Shown { names: adapted.rows, settings, refused, lease })?,
        Output::Table => {
            let rows = adapted.rows.into_iter().map(|row| {
                [row.name, row.value, row.source.to_string(), row.class.to_string(), row.why]
                    .map(Cell::from)
                    .into()
            });
            table::print(&["NAME", "VALUE", "SOURCE", "CLASS", "HERE"], &rows.collect::<Vec<_>>());
            println!();
            print_settings(settings);
            println!("\n{}", printable(&lease));
            for line in refused {
                println!("{}", printable(&line));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings. Those that differ from xvip's own defaults come from kube-vip's.
fn settings(adapted: &Adapted) -> anyhow::Result<Vec<Setting>> {
    let node = match &adapted.config.node {
        Some(node) => node.clone(),
        None => host::node_name().context("cannot read the host name")?,
    };
    let (mut own, usual) =
        (serde_json::to_value(&adapted.config)?, serde_json::to_value(Config::default())?);
    keep_differences(&mut own, &usual);
    let mut settings = adapted.config.settings(&own.to_string(), &node);
    for setting in settings.iter_mut().filter(|setting| setting.source == "file") {
        setting.source = "kube-vip's settings".into();
    }
    Ok(settings)
}

/// Removes from `own` what is the same in `usual`.
fn keep_differences(own: &mut Value, usual: &Value) {
    let Some(fields) = own.as_object_mut() else { return };
    fields.retain(|name, value| {
        if value.is_object() {
            keep_differences(value, &usual[name]);
            return value.as_object().is_some_and(|fields| !fields.is_empty());
        }
        *value != usual[name]
    });
}
