use super::*;
use crate::model::{lease::election::Source, time::BootNs};
use serde_json::json;
use std::collections::BTreeMap;

fn seen(labels: &[(&str, &str)]) -> Told<Lenient<Node>> {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    let node = json!({"metadata": {"name": "node1", "labels": labels}});
    let object = Some(serde_json::from_value(node).unwrap());
    Told::Seen(Sighted { key: "node1".into(), source: Source::Watch, object })
}

#[test]
fn only_changes_of_a_node_are_reported() {
    let facts = |labels: &[(&str, &str)]| -> Report {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Ok(NodeFacts { labels: labels.iter().map(text).collect(), cordoned: false })
    };
    let gone =
        || Told::Seen(Sighted { key: "node1".into(), source: Source::Quorum(BootNs(1)), object: None });
    let edge = [("role", "edge")];
    let mut changes = changes();
    for (told, report) in vec![
        (seen(&edge), Some(facts(&edge))),
        (seen(&edge), None),
        (Told::Broken("it ended".into()), None),
        (seen(&edge), None),
        (Told::Unreadable("HTTP 500".into()), Some(Err("HTTP 500".into()))),
        (Told::Unreadable("HTTP 500".into()), None),
        (Told::Unreadable("HTTP 403".into()), Some(Err("HTTP 403".into()))),
        (seen(&edge), Some(facts(&edge))),
        (gone(), Some(facts(&[]))),
        (gone(), None),
        (seen(&[]), None),
    ] {
        let what = format!("{told:?}");
        assert_eq!(changes(told), report, "{what}");
    }
}
