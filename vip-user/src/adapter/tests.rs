//! The adapter as a whole: classes, precedence, and each rule of its own.

mod classes;
mod fixtures;
mod generated;
mod rules;
mod sources;

use super::{Adapted, Input, World, adapt, flags, table};
use std::net::IpAddr;

/// A host with these files, and one name that resolves.
#[derive(Default)]
struct Host {
    files: Vec<&'static str>,
    namespace: Option<&'static str>,
}

impl World for Host {
    fn is_file(&self, path: &str) -> bool {
        self.files.contains(&path)
    }

    fn service_namespace(&self) -> Option<String> {
        self.namespace.map(Into::into)
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        if name == "vip.example" { vec!["192.0.2.7".parse().unwrap()] } else { Vec::new() }
    }
}

/// What every working manifest sets.
const BASE: [(&str, &str); 4] =
    [("vip_arp", "true"), ("cp_enable", "true"), ("address", "192.0.2.10"), ("vip_interface", "eth0")];

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// These variables, and those of [`BASE`] that are not among them.
fn with(more: &[(&str, &str)]) -> Adapted {
    on(&Host::default(), more)
}

fn on(host: &Host, more: &[(&str, &str)]) -> Adapted {
    let base = BASE.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
    let all: Vec<(&str, &str)> = base.chain(more.iter().copied()).collect();
    bare(host, &all)
}

/// Exactly these variables.
fn bare(host: &Host, variables: &[(&str, &str)]) -> Adapted {
    adapt(&Input { environment: owned(variables), ..Input::default() }, host)
}

fn refused(adapted: &Adapted) -> Vec<&str> {
    adapted.refused.iter().map(|refusal| refusal.name.as_str()).collect()
}

/// The only refusal, as it is shown.
fn only(adapted: &Adapted) -> String {
    assert_eq!(adapted.refused.len(), 1, "{:?}", adapted.refused);
    adapted.refused[0].to_string()
}

fn told<'a>(adapted: &'a Adapted, name: &str) -> Vec<&'a str> {
    let notes = adapted.notes.iter().filter(|note| note.name == name);
    notes.map(|note| note.told.as_str()).collect()
}
