//! The settings in force, and where each comes from.

use super::Config;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One setting, as `xvip config show` prints it.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Setting {
    /// The path of the field, with dots: `lease.name`.
    pub field: String,
    /// Its value in force.
    pub value: Value,
    /// `file`, `default`, or the values from which it was computed.
    pub source: String,
}

impl Config {
    /// Every setting. `text` is the text of the file; `node` is the node's name according to the
    /// host.
    pub fn settings(&self, text: &str, node: &str) -> Vec<Setting> {
        let written: Value = serde_norway::from_str(text).unwrap_or_default();
        let (mut in_file, mut all) = (BTreeMap::new(), BTreeMap::new());
        flatten("", &written, &mut in_file);
        flatten("", &serde_json::to_value(self).unwrap_or_default(), &mut all);
        let timing = self.timing();
        let grace = timing.foreign_wait(timing.duration_s).as_secs();
        let server_name = "tls-server-name of the kubeconfig, else kubernetes";
        let computed: [(&str, Value, &str); 6] = [
            ("node", node.into(), "NODE_NAME, else the host name"),
            (
                "lease.renew_ms",
                (timing.renew_every.as_millis() as u64).into(),
                "lease.duration_s / 5, at least 500, at most half of the fence",
            ),
            (
                "lease.margin_ms",
                (timing.margin.as_millis() as u64).into(),
                "50, or 0.002 of lease.duration_s",
            ),
            ("api.tls_server_name", Value::Null, server_name),
            (
                "lease.foreign_port",
                self.visit_port().into(),
                "the port of the first loopback URL in api.endpoints, else of the first",
            ),
            ("lease.foreign_grace_s", grace.into(), "2 * lease.duration_s + 10"),
        ];
        let setting = |(field, value): (String, Value)| {
            if in_file.contains_key(&field) {
                return Setting { field, value, source: "file".into() };
            }
            match computed.iter().find(|(name, ..)| *name == field) {
                Some((_, value, from)) => {
                    Setting { field, value: value.clone(), source: format!("computed: {from}") }
                }
                None => Setting { field, value, source: "default".into() },
            }
        };
        all.into_iter().map(setting).collect()
    }
}

/// Nested objects as dotted fields. Lists are values.
fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let Some(fields) = value.as_object().filter(|fields| !fields.is_empty() || prefix.is_empty())
    else {
        into.insert(prefix.into(), value.clone());
        return;
    };
    for (name, value) in fields {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        flatten(&name, value, into);
    }
}
