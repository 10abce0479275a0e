//! Prints how much of each program the kernel's verifier looked at. `cargo xtask vm` runs this on
//! every kernel that it boots.
#![expect(clippy::print_stdout, reason = "this is a command line")]

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    // Programs with debug messages are only for debugging, with all rights.
    let debug = std::env::args().nth(1).is_some_and(|argument| argument == "--debug");
    let verdicts = vip_tests::verifier::verdicts(debug)?;
    println!("the verifier of kernel {}:", release.trim());
    for (name, verdict) in &verdicts {
        match verdict {
            Ok(counts) => println!("  {name:<24} {counts}"),
            Err(why) => println!("  {name:<24} REFUSED: {why}"),
        }
    }
    let accepted = verdicts.iter().all(|(_, verdict)| verdict.is_ok());
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
