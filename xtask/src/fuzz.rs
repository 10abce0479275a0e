//! Coverage-guided fuzzing: libFuzzer's loop around xvip's crates, on a stable compiler.

use crate::{shell::run_command, test::PACKAGES};
use anyhow::Context as _;
use std::{fs, path::Path, process::Command};

/// Targets, with the longest useful input in bytes. Each has a seed corpus in `tests/fuzz/corpus`.
const TARGETS: [(&str, u32); 3] = [("frames", 256), ("lease", 2_000), ("config", 600)];

/// Runs every target for some seconds. With unchanged code the same seed gives the same inputs, so
/// CI does not fail by chance; another seed explores. libFuzzer stores new inputs in
/// `target/fuzz-corpus`. `keep` puts a small corpus with the same coverage into
/// `tests/fuzz/corpus`, to be committed.
pub fn fuzz(seconds: u32, seed: u32, only: &str, keep: bool) -> anyhow::Result<()> {
    let wrapper = fs::canonicalize("tests/fuzz/rustc-with-coverage").context("coverage wrapper")?;
    let mut cargo = Command::new("cargo");
    let programs = TARGETS.iter().flat_map(|(target, _)| ["--bin".into(), format!("fuzz-{target}")]);
    cargo.args(["build", "--quiet", "--locked", "-p", "vip-fuzz"]).args(PACKAGES);
    cargo.args(programs);
    run_command(cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper))?;
    if seconds == 0 {
        return Ok(());
    }
    for (target, max_len) in TARGETS.into_iter().filter(|(target, _)| target.contains(only)) {
        let (seeds, learnt) =
            (format!("tests/fuzz/corpus/{target}"), format!("target/fuzz-corpus/{target}"));
        fs::create_dir_all(&learnt)?;
        fs::create_dir_all("target/fuzz-crashes")?;
        println!("fuzzing {target} for {seconds} s from {} seeds", count(Path::new(&seeds)));
        let binary = format!("target/debug/fuzz-{target}");
        run_command(
            Command::new(&binary)
                .args([&learnt, &seeds])
                .args([
                    format!("-max_total_time={seconds}"),
                    format!("-seed={seed}"),
                    format!("-max_len={max_len}"),
                ])
                .args([
                    "-timeout=10",
                    "-print_final_stats=1",
                    "-verbosity=0",
                    "-artifact_prefix=target/fuzz-crashes/",
                ]),
        )
        .with_context(|| format!("{target} has failed; the input is in target/fuzz-crashes"))?;
        println!("  nothing found; {} inputs of different coverage", count(Path::new(&learnt)));
        if keep {
            run_command(Command::new(&binary).args([
                "-set_cover_merge=1",
                "-verbosity=0",
                &seeds,
                &learnt,
            ]))?;
        }
    }
    Ok(())
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}
