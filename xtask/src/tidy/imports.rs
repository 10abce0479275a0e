//! Which part of `vip-user` may import which. Also refuses circular imports between files. Only
//! `use` paths that begin with `crate` or `super` are read. A `mod.rs` and the files below it count
//! as one.

use std::collections::{BTreeMap, BTreeSet};

/// The directory of the crate.
const ROOT: &str = "vip-user/src/";

/// A part (a folder or a file below [`ROOT`]) and the parts that it may import. A part imports only
/// parts further down.
const MAY_NAME: &[(&str, &str)] = &[
    (
        "cli",
        "adapter admin clock cluster config controller escape handover log metrics migrate model \
         node observers probe state",
    ),
    ("migrate", "adapter"),
    ("adapter", "config model"),
    ("log", "config escape"),
    ("observers", "admin controller escape guests handover node state"),
    ("admin", "clock controller escape guests state"),
    ("guests", "controller"),
    ("controller", "clock cluster handover metrics model node notice sources state"),
    ("cluster", "clock metrics model server_url sources"),
    ("node", "clock metrics model sources state"),
    ("config", "model server_url"),
    ("handover", ""),
    ("probe", "escape"),
    ("notice", "model"),
    ("state", "model"),
    ("metrics", "model"),
    ("clock", "model"),
    ("escape", ""),
    ("server_url", ""),
    ("sources", ""),
    ("model", ""),
];

/// The states of an election. Only its own folder names them; all others read its `Ownership`.
const STATES: [&str; 6] = ["state", "holding", "waiting", "leaving", "reading", "retry"];

/// Whether a module names a state of the election from outside.
fn names_a_state(from: &Module, to: &Module) -> bool {
    let in_folder = |module: &Module| module.starts_with(&["model".to_owned(), "lease".to_owned()]);
    let is_state = to.last().is_some_and(|name| STATES.contains(&name.as_str()));
    in_folder(to) && is_state && !in_folder(from)
}

/// The path of a module from the root of the crate.
type Module = Vec<String>;

/// Forbidden imports of the sources. `files`: paths and contents.
pub(super) fn problems<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let code: BTreeMap<Module, &str> = files
        .into_iter()
        .filter(|(path, _)| !path.ends_with("tests.rs"))
        .filter_map(|(path, text)| Some((module(path)?, text)))
        .collect();
    let edges: BTreeMap<&Module, BTreeSet<&Module>> = code
        .iter()
        .map(|(module, text)| {
            (module, named(module, text).filter_map(|path| file_of(&code, path)).collect())
        })
        .collect();
    let mut problems = Vec::new();
    for (from, all) in &edges {
        for to in all {
            let (Some(part), Some(other)) = (from.first(), to.first()) else { continue };
            let may = MAY_NAME.iter().find(|(name, _)| name == part).map_or("", |(_, may)| may);
            let is_allowed = part == other || may.split(' ').any(|may| may == other);
            if !is_allowed || names_a_state(from, to) {
                problems.push(format!("{} names {}", from.join("::"), to.join("::")));
            }
        }
    }
    problems.extend(circle(&edges).map(|circle| format!("these files name each other: {circle}")));
    problems
}

fn module(path: &str) -> Option<Module> {
    let path = path.strip_prefix(ROOT)?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    Some(if matches!(path, "lib" | "main") {
        Vec::new()
    } else {
        path.split('/').map(Into::into).collect()
    })
}

/// The file that contains a path: its module, or an enclosing one.
fn file_of<'a>(code: &'a BTreeMap<Module, &str>, mut path: Module) -> Option<&'a Module> {
    loop {
        if let Some((module, _)) = code.get_key_value(&path) {
            return Some(module);
        }
        path.pop()?;
    }
}

/// The paths in the `use` lines of a file, from the root of the crate.
fn named(module: &Module, text: &str) -> impl Iterator<Item = Module> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.split("\nuse ").skip(1).chain(text.split("\npub use ").skip(1));
    let trees = lines.filter_map(|rest| rest.split(';').next());
    let paths: Vec<Module> =
        trees.flat_map(|tree| expand(&tree.replace(char::is_whitespace, ""))).collect();
    paths.into_iter().filter_map(move |path| {
        let ups = path.iter().take_while(|segment| *segment == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" => {
                let around = module.len().checked_sub(ups)?;
                Some([&module[..around], &path[ups..]].concat())
            }
            _ => None,
        }
    })
}

/// The paths of a tree of imports without whitespace: `a::{b,c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<Module> {
    let Some((before, inside)) = tree.split_once('{') else {
        return vec![tree.split("::").map(Into::into).collect()];
    };
    let prefix: Module =
        before.split("::").filter(|segment| !segment.is_empty()).map(Into::into).collect();
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for character in inside.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        match parts.last_mut() {
            Some(part) if character != ',' || depth > 0 => part.push(character),
            _ => parts.push(String::new()),
        }
    }
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(part)).map(|path| [prefix.clone(), path].concat()).collect()
}

/// Files with circular imports, if there are any. Repeatedly removes files that import no remaining
/// file, and files that no remaining file imports; the rest is circular.
fn circle(edges: &BTreeMap<&Module, BTreeSet<&Module>>) -> Option<String> {
    let mut left: BTreeSet<&Module> =
        edges.keys().copied().filter(|module| !module.is_empty()).collect();
    loop {
        let names = |from: &Module, to: &Module| from != to && edges[from].contains(to);
        let in_circle = |module: &&Module| {
            left.iter().any(|other| names(module, other))
                && left.iter().any(|other| names(other, module))
        };
        let kept: BTreeSet<&Module> = left.iter().copied().filter(|module| in_circle(module)).collect();
        if kept.len() == left.len() {
            break;
        }
        left = kept;
    }
    let names: Vec<String> = left.iter().map(|module| module.join("::")).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Vec<String> {
        problems(files.iter().copied())
    }

    #[test]
    fn the_states_of_an_election_stay_in_its_folder() {
        let state = ("vip-user/src/model/lease/state.rs", "");
        let names = "\nuse super::lease::state::State;\n";
        let within = ("vip-user/src/model/lease/election.rs", "\nuse super::state::State;\n");
        assert_eq!(of(&[state, within]), [""; 0]);
        let desired = ("vip-user/src/model/desired.rs", names);
        assert_eq!(of(&[state, desired]), ["model::desired names model::lease::state"]);
    }

    #[test]
    fn a_part_names_only_what_it_may() {
        let node = ("vip-user/src/node/mod.rs", "");
        let cluster = "//! Reads.\n\nuse crate::{\n    model::time::BootNs,\n    node::Pins,\n};\n";
        let model = ("vip-user/src/model/time.rs", "\nuse std::time::Duration;\n");
        assert_eq!(
            of(&[node, model, ("vip-user/src/cluster/watch.rs", cluster)]),
            ["cluster::watch names node"]
        );
        let may = "\nuse crate::model::time::BootNs;\n";
        assert_eq!(of(&[node, model, ("vip-user/src/cluster/watch.rs", may)]), [""; 0]);
    }

    #[test]
    fn a_circle_of_files_is_found() {
        let files = |last: &'static str| {
            [
                ("vip-user/src/model/a.rs", "\nuse super::b::B;\n"),
                ("vip-user/src/model/b.rs", "\nuse super::{\n    c::{C, D},\n};\n"),
                ("vip-user/src/model/c.rs", last),
                ("vip-user/src/model/d.rs", "\nuse super::a::A;\n"),
            ]
        };
        assert_eq!(of(&files("")), [""; 0]);
        let found = of(&files("\nuse crate::model::a::A;\n"));
        assert_eq!(found, ["these files name each other: model::a, model::b, model::c"]);
        let by_tests = "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n";
        assert_eq!(of(&files(by_tests)), [""; 0]);
    }
}
