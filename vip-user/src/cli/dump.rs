//! SIGUSR1 writes what `xvip status -o json` prints into the log, as kube-vip writes its own state.

use super::status;
use crate::{log::STATE, node::pins::Pins, state::DaemonState};
use anyhow::Context as _;
use serde_json::Value;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Lines of one dump. The log has room for a few thousand, and most of them are VIPs.
const MOST: usize = 500;

/// Catches SIGUSR1. From here on it no longer ends the process.
pub(super) fn catch() -> anyhow::Result<Signal> {
    signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")
}

/// Writes the state whenever it is asked for.
pub(super) async fn follow(mut asked: Signal, pins: Pins, latest: watch::Receiver<DaemonState>) {
    while asked.recv().await.is_some() {
        let (pins, state) = (pins.clone(), latest.borrow().clone());
        // Reading all maps takes a while.
        let _ = tokio::task::spawn_blocking(move || write(&pins, state)).await;
    }
}

fn write(pins: &Pins, state: DaemonState) {
    let instance = pins.instance().to_owned();
    let status = match status::read(pins, &instance, Some(state.clone())) {
        Ok(status) => serde_json::to_value(status),
        // Nothing is pinned yet.
        Err(_) => {
            serde_json::to_value(status::Status { instance, daemon: Some(state), ..Default::default() })
        }
    };
    let lines = lines(&status.unwrap_or_default());
    let left = lines.len().saturating_sub(MOST);
    for (part, value) in lines.into_iter().take(MOST) {
        tracing::info!(target: STATE, "state: {part} {value}");
    }
    if left > 0 {
        tracing::info!(target: STATE, "state: {left} more lines: `xvip status` shows them");
    }
}

/// One line for each item, because the log cuts long ones.
fn lines(status: &Value) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for (name, value) in status.as_object().into_iter().flatten() {
        match value {
            Value::Object(fields) if name == "daemon" => {
                for (field, value) in fields {
                    add(&mut lines, &format!("{name}.{field}"), value);
                }
            }
            value => add(&mut lines, name, value),
        }
    }
    // VIPs may be many.
    lines.sort_by_key(|(name, _)| name == "vips");
    lines
}

fn add(lines: &mut Vec<(String, String)>, name: &str, value: &Value) {
    match value {
        Value::Array(items) => {
            lines.extend(items.iter().map(|item| (name.to_owned(), item.to_string())));
        }
        value => lines.push((name.to_owned(), value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_item_has_a_line_and_vips_come_last() {
        let status = json!({
            "vips": [{"address": "192.0.2.1"}, {"address": "192.0.2.2"}],
            "node": "node1", "counters": {"replies": 3}, "interfaces": [],
            "daemon": {"leases": [{"slot": 0}, {"slot": 1}], "pid": 7, "problems": {"API": "hangs"}},
        });
        let found: Vec<String> =
            lines(&status).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        let wanted = [
            r#"counters {"replies":3}"#,
            r#"daemon.leases {"slot":0}"#,
            r#"daemon.leases {"slot":1}"#,
            "daemon.pid 7",
            r#"daemon.problems {"API":"hangs"}"#,
            r#"node "node1""#,
            r#"vips {"address":"192.0.2.1"}"#,
            r#"vips {"address":"192.0.2.2"}"#,
        ];
        assert_eq!(found, wanted);
    }
}
