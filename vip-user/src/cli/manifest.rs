//! `xvip manifest` and `xvip kubeadm`: print manifests, as kube-vip's commands of these names do.

use super::kube_vip;
use crate::{
    adapter::{
        Adapted, Input,
        flags::{self, Own},
        manifest::{self, Credentials, Wanted},
        report::Refusal,
        rights::Lacks,
    },
    escape::{self, printable},
    node::host,
};
use clap::ValueEnum;
use serde_json::Value;
use std::{ffi::OsString, fs, process::ExitCode};

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A static pod.
    Pod,
    /// A DaemonSet.
    Daemonset,
    /// A service account with its role.
    Rbac,
}

/// For which step of kubeadm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// The first node of the control plane.
    Init,
    /// Another one.
    Join,
}

pub(super) const OWN: [Own; 8] = [
    Own { name: "perfmon", takes_value: false },
    Own { name: "first", takes_value: false },
    Own { name: "inCluster", takes_value: false },
    Own { name: "image", takes_value: true },
    Own { name: "taint", takes_value: false },
    Own { name: "role", takes_value: false },
    Own { name: "rolebinding", takes_value: false },
    Own { name: "config", takes_value: true },
];

/// The image of this version, as `deploy/` names it.
const IMAGE: &str = concat!("xvip:", env!("CARGO_PKG_VERSION"));
const TAG: &str = env!("CARGO_PKG_VERSION");
/// The credentials that kubeadm gives a node that joins.
const JOINED: &str = "/etc/kubernetes/admin.conf";

/// Prints a manifest. Exit code 78 if xvip would refuse to run with it.
pub fn manifest(kind: Kind, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let input = input(arguments);
    let wanted = wanted(kind, &input);
    let refused = objections(kind, &input);
    if !refused.is_empty() {
        return Ok(kube_vip::say(&kube_vip::objections(&refused, &Lacks::default())));
    }
    if kind != Kind::Rbac {
        tell(&input);
    }
    match kind {
        Kind::Pod => print(&[manifest::pod(&input, &wanted)]),
        Kind::Daemonset => print(&[manifest::daemonset(&input, &wanted)]),
        Kind::Rbac => {
            let (role, binding) = (input.flags.has("role"), input.flags.has("rolebinding"));
            print(&manifest::rbac(&input, role, binding))
        }
    }
}

/// Prints the static pod for a step of kubeadm.
pub fn kubeadm(step: Step, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let input = input(arguments);
    let mut refused = refused(&input);
    if !manifest::environment(&input).iter().any(|(name, _)| name == "vip_interface") {
        refused.push(missing("vip_interface", "kubeadm needs --interface", "set --interface"));
    }
    let credentials = input.flags.own("config").unwrap_or(JOINED);
    if step == Step::Join && !fs::exists(credentials).unwrap_or(false) {
        let why = format!("{credentials} does not exist: this node has not joined");
        refused.push(missing("config", &why, "run kubeadm join first, or set --config"));
    }
    if !refused.is_empty() {
        return Ok(kube_vip::say(&kube_vip::objections(&refused, &Lacks::default())));
    }
    tell(&input);
    print(&[manifest::pod(&input, &wanted(Kind::Pod, &input))])
}

fn input(arguments: &[OsString]) -> Input {
    let input = kube_vip::input(arguments, &OWN);
    Input { environment: manifest::of_the_shell(input.environment), ..input }
}

/// What xvip will read in the container.
fn read(input: &Input) -> Adapted {
    let flags = flags::parse(&manifest::arguments(input), &[]);
    kube_vip::adapted(&Input { environment: manifest::environment(input), flags, file: None })
}

/// The notes, on standard error: standard output is the manifest.
fn tell(input: &Input) {
    for note in read(input).notes {
        eprintln!("{} {}", note.class, printable(&note.to_string()));
    }
}

fn missing(name: &str, why: &str, instead: &str) -> Refusal {
    let (name, why, instead) = (name.to_owned(), why.to_owned(), instead.to_owned());
    Refusal { name, given: None, why, instead, waivable: false }
}

/// Why a manifest is not printed. Rights need no settings.
fn objections(kind: Kind, input: &Input) -> Vec<Refusal> {
    let mut found = if kind == Kind::Rbac { manifest::refused(input) } else { refused(input) };
    if kind != Kind::Pod && input.flags.has("first") {
        let why = "only the static pod of the first node needs other credentials";
        found.push(missing("first", why, "use it with `manifest pod`"));
    }
    found
}

/// What the generator cannot print, and what xvip would refuse to run.
fn refused(input: &Input) -> Vec<Refusal> {
    let mut refused = manifest::refused(input);
    refused.extend(read(input).refused);
    refused
}

fn wanted(kind: Kind, input: &Input) -> Wanted {
    let image = input.flags.own("image").map_or_else(|| IMAGE.to_owned(), tagged);
    let has = |name| input.flags.has(name);
    Wanted {
        image,
        credentials: match (has("inCluster"), has("first")) {
            (true, _) => Credentials::Account,
            (false, true) if kind == Kind::Pod => Credentials::First,
            _ => Credentials::Kubeconfig,
        },
        perfmon: has("perfmon") || host::is_linux_5(),
        taint: has("taint"),
    }
}

/// An image with a tag. A colon before the last slash belongs to the port of a registry.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.into() } else { format!("{image}:{TAG}") }
}

fn print(objects: &[Value]) -> anyhow::Result<ExitCode> {
    for object in objects {
        if objects.len() > 1 {
            println!("---");
        }
        // Unlike other texts it is read by a program, to which a backslash is a backslash.
        print!("{}", escape::json(&serde_norway::to_string(object)?));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_for_linux_5_are_asked_for_or_found() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let perfmon = |line: &str| wanted(Kind::Pod, &kube_vip::input(&words(line), &OWN)).perfmon;
        assert!(perfmon("--perfmon"));
        assert_eq!(perfmon("--arp"), host::is_linux_5());
    }

    #[test]
    fn an_image_without_a_tag_gets_that_of_this_version() {
        let own = |image: &str| format!("{image}:{TAG}");
        for image in ["xvip", "registry:5000/xvip", "a.example/b/xvip"] {
            assert_eq!(tagged(image), own(image));
        }
        for image in ["xvip:1", "registry:5000/xvip:1", "xvip@sha256:ab"] {
            assert_eq!(tagged(image), image);
        }
    }

    #[test]
    fn rights_are_printed_without_settings() {
        let names = |kind, words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let mut input = kube_vip::input(&words, &OWN);
            input.environment.clear();
            objections(kind, &input).into_iter().map(|refusal| refusal.name).collect::<Vec<_>>()
        };
        assert!(names(Kind::Rbac, &[]).is_empty());
        assert!(names(Kind::Rbac, &["--role", "--rolebinding"]).is_empty());
        assert_eq!(names(Kind::Rbac, &["--nonsense"]), ["--nonsense"]);
        assert_eq!(names(Kind::Rbac, &["--first"]), ["first"]);
        assert_eq!(names(Kind::Pod, &[]), ["vip_arp", "cp_enable"]);
    }

    #[test]
    fn flags_without_a_variable_are_not_lost() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let usual = "--arp --controlplane --address 192.0.2.10";
        let names = |line: &str| {
            let mut input = kube_vip::input(&words(line), &OWN);
            input.environment.clear();
            refused(&input).into_iter().map(|refusal| refusal.name).collect::<Vec<_>>()
        };
        assert!(names(usual).is_empty());
        assert!(names(&format!("{usual} --leaderElectionType kubernetes")).is_empty());
        assert_eq!(names(&format!("{usual} --leaderElectionType etcd")), ["leaderElectionType"]);
        assert_eq!(
            names(&format!("{usual} --services --config-file x")),
            ["config-file", "svc_enable"]
        );
    }
}
