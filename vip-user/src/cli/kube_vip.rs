//! Reads what kube-vip would read: variables, flags, a file. Says what xvip makes of it.

use crate::{
    adapter::{
        Adapted, Input, World, adapt,
        flags::{self, Own},
        report::Refusal,
        rights::{Forbidden, Lacks, Profile},
        table,
    },
    escape::printable,
    node::{
        confined::Confinement,
        host,
        pins::{Pins, PinsError},
    },
};
use std::{
    error::Error,
    ffi::OsString,
    fs,
    io::Write as _,
    net::{IpAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// `EX_CONFIG` of sysexits.h: the settings or the rights do not let xvip run here.
pub(super) const CONFIG: u8 = 78;
/// Where a kubelet looks for the last words of a container, and how many it takes.
const LAST_WORDS: &str = "/dev/termination-log";
const LAST_WORDS_LEN: usize = 4_096;
/// Where the namespace of a pod's service account is.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// This host.
pub(super) struct Host;

impl World for Host {
    fn is_file(&self, path: &str) -> bool {
        // A mount makes an empty file where there was none.
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
    }

    fn service_namespace(&self) -> Option<String> {
        fs::read_to_string(NAMESPACE).ok().map(|text| text.trim().to_owned())
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        let found = (name, 0).to_socket_addrs().into_iter().flatten();
        let mut found: Vec<IpAddr> = found.map(|socket| socket.ip()).collect();
        found.sort();
        found.dedup();
        found
    }
}

/// What the operator has written down. `arguments` is the command line after the subcommand.
pub(super) fn input(arguments: &[OsString], own: &[Own]) -> Input {
    let text = |text: &OsString| text.to_string_lossy().into_owned();
    let flags = flags::parse(&arguments.iter().map(text).collect::<Vec<_>>(), own);
    let read =
        |path: &String| (path.clone(), fs::read_to_string(path).map_err(|error| error.to_string()));
    let file = flags.config_file.as_ref().map(read);
    let variables = std::env::vars_os();
    let environment = variables.map(|(name, value)| (text(&name), text(&value))).collect();
    Input { environment, flags, file }
}

/// What xvip makes of it on this host.
pub(super) fn adapted(input: &Input) -> Adapted {
    let mut adapted = adapt(input, &Host);
    let pin_root = input.environment.iter().find(|(name, _)| name == super::PIN_ROOT);
    if let Some((_, path)) = pin_root.filter(|(_, path)| !path.is_empty()) {
        adapted.config.pin_root = PathBuf::from(path);
    }
    adapted
}

/// Which rights this process lacks to run with these pins.
pub(super) fn lacks(pin_root: &Path, instance: &str) -> Lacks {
    let perfmon = host::is_linux_5();
    let why = || {
        format!(
            "{} is not on a BPF file system: without one the guard would end with this process",
            pin_root.display()
        )
    };
    let (confinement, pins) = (Confinement::of_this_process(), Pins::new(pin_root, instance));
    let capabilities = confinement.lacks(perfmon);
    let pin_root = pins.check_bpffs().err().map(|_| why());
    // Without both, bpf(2) and the pins are refused anyway.
    let has_both = capabilities.is_empty() && pin_root.is_none();
    let refused = if has_both { pins.check_allowed().err() } else { None };
    let forbidden =
        refused.map(|error| Forbidden { by: profile(&error, &confinement), why: words(&error) });
    Lacks { capabilities, pin_root, perfmon, forbidden }
}

/// Which profile of the runtime refuses this, if a line of a manifest can lift it.
fn profile(error: &PinsError, confinement: &Confinement) -> Option<Profile> {
    match error {
        PinsError::Bpf { .. } if confinement.has_filter() => Some(Profile::Seccomp),
        PinsError::Refused { .. } if confinement.has_selinux_type() => Some(Profile::Selinux),
        _ => None,
    }
}

/// The lines that say why xvip does not run: every refusal, then what is lacking and the lines of a
/// manifest that add it.
pub(super) fn objections(refused: &[Refusal], lacks: &Lacks) -> Vec<String> {
    let mut lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
    lines.extend(lacks.reasons());
    if !lacks.lines().is_empty() {
        lines.push("add to the container and to the pod (docs/from-kube-vip.md):".into());
        lines.extend(lacks.lines().into_iter().map(|line| format!("  {line}")));
    }
    lines
}

/// Says on standard error and to the kubelet why xvip does not run. Only for `manager`: another command
/// in its container must not replace its last words.
pub(super) fn refuse(lines: &[String]) -> ExitCode {
    leave(Path::new(LAST_WORDS), &text(lines));
    say(lines)
}

/// Says on standard error why nothing is done.
pub(super) fn say(lines: &[String]) -> ExitCode {
    eprint!("{}", text(lines));
    ExitCode::from(CONFIG)
}

fn text(lines: &[String]) -> String {
    let said: Vec<String> = lines.iter().map(|line| format!("xvip: {}", printable(line))).collect();
    said.join("\n") + "\n"
}

/// Writes as much as the kubelet takes. Only a container has the file; it is never created.
fn leave(path: &Path, text: &str) {
    if let Ok(mut file) = fs::OpenOptions::new().write(true).open(path) {
        let end = text.floor_char_boundary(LAST_WORDS_LEN);
        let _ = file.write_all(&text.as_bytes()[..end]);
    }
}

/// An error with its causes.
pub(super) fn words(error: &dyn Error) -> String {
    let (mut words, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// The accepted losses, as problems that last.
pub(super) fn losses(adapted: &Adapted) -> Vec<(&'static str, String)> {
    let loss = |lost: &Refusal| {
        let id = table::of_id(&lost.name).map_or(table::WITHOUT, |name| name.id);
        (id, format!("{} (accepted by {})", lost.why, table::WITHOUT))
    };
    adapted.without.iter().map(loss).collect()
}

#[cfg(test)]
mod tests;
