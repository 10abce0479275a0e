//! `xvip config`: what a configuration file says, without touching the host.

use super::{Output, table};
use crate::{config::Config, node::host};
use anyhow::Context as _;
use std::{path::Path, process::ExitCode};

/// Says whether the file is valid; a refusal names the field, the value and what is allowed.
pub fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let vips: Vec<String> = config.addresses().iter().map(ToString::to_string).collect();
    println!("{} is valid: {} on {}", path.display(), vips.join(", "), config.interfaces.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Prints every setting that is in force, and where it comes from.
pub fn show(path: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let text = std::fs::read_to_string(path).context("cannot read the configuration again")?;
    let node = match &config.node {
        Some(node) => node.clone(),
        None => host::node_name().context("cannot read the host name")?,
    };
    let settings = config.settings(&text, &node);
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&settings)?),
        Output::Table => {
            let rows = settings
                .into_iter()
                .map(|setting| vec![setting.field, setting.value.to_string(), setting.source]);
            table::print(&["FIELD", "VALUE", "SOURCE"], &rows.collect::<Vec<_>>());
        }
    }
    Ok(ExitCode::SUCCESS)
}
