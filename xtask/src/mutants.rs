//! Mutations: each breaks one rule in the code, and a named test must fail. A test that passes
//! without the rule proves nothing.

mod admission;
mod agent;
mod election;
mod frames;
mod host;
mod migrate;
mod place;
mod strangers;

use crate::{
    shell::{output, succeeds},
    test::{MODEL, PACKAGES},
};
use anyhow::{Context as _, anyhow, bail, ensure};
use place::place;
use std::fs;

/// One way to break the code.
struct Mutation {
    /// The broken rule of docs/safety.md.
    rule: &'static str,
    name: &'static str,
    file: &'static str,
    /// The tokens to change, once in the file: see [`place`].
    from: &'static str,
    to: &'static str,
    /// Arguments of `cargo test` (or, for [`LAB`], of `cargo xtask test`) that must fail.
    tests: &'static [&'static str],
}

const ELECTION: &[&str] = &["-p", "vip-user", "--lib", "election_tests"];
const SIMULATION: &[&str] = &["-p", "vip-user", "--test", "simulation"];
const EXHAUSTIVE: &[&str] = &["-p", "vip-user", "--test", "exhaustive"];
const RETRY: &[&str] = &["-p", "vip-user", "--lib", "retry_tests"];
const FOREIGN: &[&str] = &["-p", "vip-user", "--lib", "foreign_tests"];
const AGENT: &[&str] = &["-p", "vip-user", "--lib", "agent::tests"];
const PACKETS: &[&str] = &["-p", "vip-tests", "--test", "packets"];
const PLAN: &[&str] = &["-p", "vip-user", "--lib", "plan::tests"];
/// Labs run the binary, which `cargo test` does not build.
const LAB: &str = "lab";

fn all() -> impl Iterator<Item = &'static Mutation> {
    [
        frames::FRAMES,
        election::ELECTIONS,
        strangers::TAKEN_FROM_STRANGERS,
        agent::AGENTS,
        host::HOST,
        admission::ADMISSIONS,
        migrate::MIGRATIONS,
    ]
    .into_iter()
    .flatten()
}

/// Applies every mutation and runs its tests. Restores the file each time.
pub fn mutants(filter: &str) -> anyhow::Result<()> {
    let dirty = output("git", &["status", "--porcelain", "--", "vip-common", "vip-user"]);
    ensure!(dirty.as_deref() == Some(""), "commit your changes first: mutations edit the sources");
    let mut survivors = Vec::new();
    for mutation in all().filter(|mutation| mutation.name.contains(filter)) {
        let original = fs::read_to_string(mutation.file).context(mutation.file)?;
        let place = place(&original, mutation.from).map_err(|count| {
            anyhow!("{}: its place is {count} times in {}", mutation.name, mutation.file)
        })?;
        let mutated = [&original[..place.start], mutation.to, &original[place.end..]].concat();
        fs::write(mutation.file, mutated)?;
        // A mutation that does not compile must not count as caught.
        let (builds, survived) = play(mutation);
        fs::write(mutation.file, original)?;
        ensure!(builds, "{}: the mutated code does not compile", mutation.name);
        let word = if survived { "SURVIVED" } else { "caught" };
        println!("{word:8}  {}: {}, by {}", mutation.rule, mutation.name, mutation.tests.join(" "));
        if survived {
            survivors.push(mutation.name);
        }
    }
    if survivors.is_empty() { Ok(()) } else { bail!("not noticed: {}", survivors.join(", ")) }
}

/// Whether the mutated code builds, and whether its tests pass.
fn play(Mutation { file, tests, .. }: &Mutation) -> (bool, bool) {
    if let Some((&LAB, filter)) = tests.split_first() {
        let build = [&["build", "--quiet", "--locked"][..], &PACKAGES].concat();
        let builds = succeeds("cargo", &build);
        let run = [&["xtask", "test", "--only", LAB][..], filter].concat();
        return (builds, builds && succeeds("cargo", &run));
    }
    let (packages, tests) = tests.split_at(2);
    // The model is built alone; other tests use the packages that are already built.
    let of_model = file.starts_with("vip-user/src/model/") && packages == ["-p", "vip-user"];
    let packages = if of_model { &MODEL[..] } else { &PACKAGES };
    let args = [&["test", "--quiet", "--locked"], packages, tests].concat();
    let builds = succeeds("cargo", &[&args[..], &["--no-run"]].concat());
    (builds, builds && succeeds("cargo", &args))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mutation whose code has changed no longer mutates anything.
    #[test]
    fn every_planted_bug_still_has_its_place() {
        let mut lost = Vec::new();
        for Mutation { name, file, from, .. } in all() {
            let text = fs::read_to_string(format!("../{file}")).unwrap();
            if place(&text, from).is_err() {
                lost.push(format!("{name}: not exactly once in {file}"));
            }
        }
        assert!(lost.is_empty(), "{}", lost.join("\n"));
    }

    /// The table of planted bugs in the manual is this list.
    #[test]
    fn every_planted_bug_is_in_the_manual() {
        let manual = include_str!("../../docs/planted-bugs.md");
        for Mutation { rule, name, tests, .. } in all() {
            let found = tests.last().copied().unwrap_or_default();
            let row = format!("| {rule} | {name} | `{found}` |");
            assert!(manual.contains(&row), "docs/planted-bugs.md lacks {row}");
        }
        let rows = manual.lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(rows, all().count() + 1, "docs/planted-bugs.md has rows of no mutation");
    }
}
