use super::*;

#[test]
fn every_rung_runs() {
    let stages = stages();
    for rung in Rung::value_variants() {
        let passes =
            stages.iter().flatten().flatten().chain(&background()).cloned().collect::<Vec<_>>();
        assert!(passes.iter().any(|pass| pass.rung == *rung), "{rung:?}");
        assert!(!only(*rung, "").is_empty(), "{rung:?}");
    }
}

/// A suite that no pass names would not run.
#[test]
fn every_suite_of_the_kube_rung_runs() {
    let main = include_str!("../../../../tests/tests/kube.rs");
    let suites =
        main.lines().filter_map(|line| line.split_once("::trials(")?.0.split(['(', ' ']).next_back());
    let passes = stages().concat().concat();
    let mut found = 0;
    for suite in suites {
        found += 1;
        let part = format!("{suite}::");
        assert!(passes.iter().any(|pass| pass.rung == Rung::Kube && pass.part == part), "{suite}");
    }
    assert!(found >= 5, "{found} suites found");
}
