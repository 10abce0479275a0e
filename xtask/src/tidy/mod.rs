//! Rules of this repository that no other tool checks.

mod imports;

use crate::shell::output;
use anyhow::{Context as _, bail};
use std::fs;

/// The most lines of a source file.
const MAX_LINES: usize = 600;
/// The highest median of lines of all source files.
const MEDIAN_LINES: usize = 130;
/// The most lines of `vip-ebpf`, without its bench.
const MAX_EBPF_LINES: usize = 580;
/// Forbidden words, split so that this file does not contain them.
const FORBIDDEN: [&str; 4] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
    concat!("FIX", "ME"),
];

/// Checks all rules and reports every violation.
pub fn tidy() -> anyhow::Result<()> {
    let files = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])
        .context("cannot list the files of the repository")?;
    let mut problems = Vec::new();
    let (mut sizes, mut ebpf_lines, mut sources) = (Vec::new(), 0, Vec::new());
    for path in files.lines() {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let lines = text.lines().count();
        if path.ends_with(".rs") {
            sizes.push(lines);
            if path.starts_with("vip-ebpf/") && !path.ends_with("bench.rs") {
                ebpf_lines += lines;
            }
            if lines > MAX_LINES {
                problems.push(format!("{path}: {lines} lines, at most {MAX_LINES}"));
            }
            for word in FORBIDDEN.iter().filter(|word| text.contains(**word)) {
                problems.push(format!("{path}: contains {word}"));
            }
        }
        if path.starts_with("vip-user/src/") {
            sources.push((path, text.clone()));
        }
        if path.ends_with("Cargo.toml")
            && path != "Cargo.toml"
            && !text.contains("[lints]\nworkspace = true")
        {
            problems.push(format!("{path}: lacks `[lints] workspace = true`"));
        }
        if path.ends_with(".md") {
            problems.extend(dead_links(path, &text));
        }
        if path.starts_with("deploy/") && path.ends_with(".yaml") {
            problems.extend(unfit_mounts(path, &text));
        }
    }
    problems.extend(imports::problems(sources.iter().map(|(path, text)| (*path, text.as_str()))));
    sizes.sort_unstable();
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or(0);
    if median > MEDIAN_LINES {
        problems.push(format!(
            "median of {} source files: {median} lines, at most {MEDIAN_LINES}",
            sizes.len()
        ));
    }
    if ebpf_lines > MAX_EBPF_LINES {
        problems.push(format!("vip-ebpf: {ebpf_lines} lines, at most {MAX_EBPF_LINES}"));
    }
    if problems.is_empty() {
        println!("tidy: {} source files, median {median} lines, vip-ebpf {ebpf_lines}", sizes.len());
        return Ok(());
    }
    bail!("tidy:\n  {}", problems.join("\n  "))
}

/// Mounts that fail later. A container keeps the inode of a single mounted file, so it never sees a
/// token or a configuration that is renamed into its place. AppArmor's default profiles refuse
/// writes in /sys.
fn unfit_mounts(path: &str, text: &str) -> Vec<String> {
    const UNFIT: [(&str, &str); 3] = [
        ("type: File", "mounts a single file: mount its directory"),
        ("subPath", "mounts a part of a volume, which is never renewed: mount its directory"),
        ("mountPath: /sys", "mounts below /sys, where AppArmor's default profiles refuse writes"),
    ];
    let lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default());
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    let found = |line: &str| UNFIT.into_iter().find(|(word, _)| line.contains(word));
    lines.filter_map(|line| Some(format!("{path}: `{}` {}", line.trim(), found(line)?.1))).collect()
}

/// Links from a document to files that do not exist.
fn dead_links(path: &str, text: &str) -> Vec<String> {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !fs::exists(format!("./{dir}/{target}")).unwrap_or(false))
        .map(|target| format!("{path}: link to {target}, which does not exist"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_a_single_file_is_found() {
        for (line, found) in [
            ("      hostPath: {path: /etc/kubernetes/xvip.conf, type: File}", true),
            ("      hostPath: {path: /etc/kubernetes/xvip.conf, type: FileOrCreate}", true),
            ("        - {name: config, mountPath: /etc/xvip/xvip.yaml, subPath: xvip.yaml}", true),
            ("        - {name: bpf, mountPath: /sys/fs/bpf}", true),
            ("      hostPath: {path: /etc/xvip, type: Directory} # no type: File", false),
            ("# of a single file (type: File) a container keeps the old one", false),
            ("        - {name: bpf, mountPath: /run/xvip/bpf}", false),
        ] {
            assert_eq!(unfit_mounts("deploy/x.yaml", line).len(), usize::from(found), "{line}");
        }
    }
}
