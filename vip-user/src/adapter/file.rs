//! Reads the file of `--config-file`: JSON or YAML, with keys in any case.

use super::table;
use serde_json::Value;

/// A value of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, with dots.
    pub key: String,
    /// The value as text; lists have commas.
    pub value: String,
}

/// Keys that kube-vip itself does not take from its file, in the form in which they are compared. Their
/// flags have defaults, or it forgets them.
const DROPPED: [&str; 20] = [
    "port",
    "namespace",
    "leasename",
    "leaseduration",
    "renewdeadline",
    "retryperiod",
    "enableleaderelection",
    "leaderelectiontype",
    "k8sconfigfile",
    "kubernetesaddr",
    "prometheushttpserver",
    "allowinterfacenotup",
    "loseleadership",
    "arpbroadcastrate",
    "controlplanehealthcheck.periodseconds",
    "controlplanehealthcheck.timeoutseconds",
    "controlplanehealthcheck.failurethreshold",
    "enableservicesecurity",
    "enableupnp",
    "enableinternalsnat",
];

/// Whether kube-vip ignores this key of its file, though it counts here.
pub fn is_dropped_by_kube_vip(key: &str) -> bool {
    DROPPED.contains(&table::plain(key).as_str())
}

/// Reads the text of a file.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let value: Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    match &value {
        Value::Null => {}
        Value::Object(_) => flatten("", &value, &mut entries),
        _ => return Err("it has no keys".into()),
    }
    Ok(entries)
}

/// Nested objects as keys with dots. An object that is a value of its own stays one.
fn flatten(prefix: &str, value: &Value, into: &mut Vec<Entry>) {
    match value {
        Value::Object(fields) if table::of_key(prefix).is_none() => {
            for (key, value) in fields {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, into);
            }
        }
        other => into.push(Entry { key: prefix.into(), value: text(other) }),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_flattened() {
        let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
        let yaml = "EnableARP: true\nport: 6444\nbgpConfig: {as: 65001}\netcd: {endpoints: [a, b]}\n\
                    leaseAnnotations: {x: y}\naddress:\n";
        let wanted = [
            entry("EnableARP", "true"),
            entry("port", "6444"),
            entry("bgpConfig.as", "65001"),
            entry("etcd.endpoints", "a,b"),
            entry("leaseAnnotations", "{\"x\":\"y\"}"),
            entry("address", ""),
        ];
        let mut found = parse(yaml).unwrap();
        found.sort_by_key(|entry| wanted.iter().position(|wanted| wanted.key == entry.key));
        assert_eq!(found, wanted);
        assert_eq!(parse("{\"vip\": \"192.0.2.1\"}").unwrap(), [entry("vip", "192.0.2.1")]);
        assert_eq!(parse("").unwrap(), []);
        assert!(parse("- a\n").is_err());
        assert!(parse("a: [").is_err());
    }
}
