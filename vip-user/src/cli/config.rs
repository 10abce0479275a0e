//! `xvip config`: what a configuration file says, without touching the host.

use super::{
    Output, print_json,
    table::{self, Cell},
};
use crate::{config::Config, escape::printable, node::host};
use anyhow::Context as _;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Says whether the file is valid; a refusal names the field, the value and what is allowed.
pub fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let vips: Vec<String> = config.addresses().iter().map(ToString::to_string).collect();
    let words =
        format!("{} is valid: {} on {}", path.display(), vips.join(", "), config.interfaces.join(", "));
    println!("{}", printable(&words));
    Ok(ExitCode::SUCCESS)
}

/// Prints every setting in force, and where it comes from.
pub fn show(path: &Path, pin_root: Option<PathBuf>, output: Output) -> anyhow::Result<ExitCode> {
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
        Output::Table => {
            let rows = settings
                .into_iter()
                .map(|setting| [setting.field, setting.value.to_string(), setting.source])
                .map(|cells| cells.map(Cell::from).into());
            table::print(&["FIELD", "VALUE", "SOURCE"], &rows.collect::<Vec<_>>());
        }
    }
    Ok(ExitCode::SUCCESS)
}
