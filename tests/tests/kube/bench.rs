//! The failover bench runs once. It is the test build, so its numbers do not count.

use super::trial;
use libtest_mimic::Trial;
use std::{env, fs, process::Command};

pub fn trials() -> Vec<Trial> {
    vec![trial("bench::each_fault_is_measured_once", each_fault_is_measured_once)]
}

fn each_fault_is_measured_once() {
    let results = env::temp_dir().join(format!("xvip-bench-{}", std::process::id()));
    fs::create_dir_all(&results).unwrap();
    let runs = results.join("failover.jsonl");
    let bench = Command::new(env!("CARGO_BIN_EXE_xvip-bench-failover"))
        .args(["--runs", "1", "--results"])
        .arg(&runs)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&bench.stdout);
    let why = String::from_utf8_lossy(&bench.stderr);
    assert!(bench.status.success(), "{told}\n{why}");
    let written = fs::read_to_string(&runs).unwrap();
    assert_eq!(written.lines().count(), 6, "{written}");
    for page in ["failover.md", "failover.svg"] {
        assert!(fs::metadata(results.join(page)).unwrap().len() > 500, "{page}");
    }
    fs::remove_dir_all(results).unwrap();
}
