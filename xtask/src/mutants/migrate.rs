//! Mutations of the move from kube-vip.

use super::Mutation;

const DECISIONS: &[&str] = &["-p", "vip-user", "--lib", "decisions"];
const COURSES: &[&str] = &["-p", "vip-user", "--lib", "courses"];
const EDITING: &[&str] = &["-p", "vip-user", "--lib", "editing"];

pub(super) const MIGRATIONS: &[Mutation] = &[
    Mutation {
        rule: "the holder moves last",
        name: "a holder is moved while kube-vip runs elsewhere",
        file: "vip-user/src/migrate/apply.rs",
        from: "if !others.is_empty() {",
        to: "if others.len() > 9 {",
        tests: DECISIONS,
    },
    Mutation {
        rule: "a node that does not arrive goes back",
        name: "two stations may answer as long as they like",
        file: "vip-user/src/migrate/apply.rs",
        from: "if self.bad >= BAD_ROUNDS {",
        to: "if self.bad >= 99 {",
        tests: DECISIONS,
    },
    Mutation {
        rule: "an old kube-vip does not wait for xvip's fence",
        name: "its D is not compared",
        file: "vip-user/src/migrate/plan.rs",
        from: "pod.duration_s < ours && pod",
        to: "pod.duration_s > ours && pod",
        tests: DECISIONS,
    },
    Mutation {
        rule: "nothing of kube-vip is removed before all nodes are moved",
        name: "a pod of xvip that is not ready counts",
        file: "vip-user/src/migrate/finish.rs",
        from: "pod.program == Program::Xvip && pod.ready",
        to: "pod.program == Program::Xvip",
        tests: DECISIONS,
    },
    Mutation {
        rule: "the guard is gone before kube-vip returns",
        name: "nothing is cleaned up on the way back",
        file: "vip-user/src/migrate/rollback.rs",
        from: "steps.extend([Step::AwaitEnd, Step::CleanUp]);",
        to: "steps.extend([Step::AwaitEnd]);",
        tests: DECISIONS,
    },
    Mutation {
        rule: "a node is not without a manifest for nothing",
        name: "xvip's manifest is taken away although no xvip has run",
        file: "vip-user/src/migrate/rollback.rs",
        from: "if seen.without_xvip() {",
        to: "if seen.without_xvip() && seen.pins {",
        tests: DECISIONS,
    },
    Mutation {
        rule: "a healthy node is not judged with wrong credentials",
        name: "an apply goes on although the API does not answer",
        file: "vip-user/src/migrate/apply.rs",
        from: "return if problems.is_empty() { Ok",
        to: "return if problems.len() < 9 { Ok",
        tests: COURSES,
    },
    Mutation {
        rule: "the backup is kube-vip's",
        name: "a manifest that a tool has written again counts as moved",
        file: "vip-user/src/migrate/rollback.rs",
        from: "if moved == Some(text) || runs_xvip() == Some(true)",
        to: "if moved == Some(text) || runs_xvip() != Some(true)",
        tests: COURSES,
    },
    Mutation {
        rule: "a manifest keeps its comments",
        name: "a new value takes the rest of the line",
        file: "vip-user/src/migrate/edit.rs",
        from: "document.text[entry.line].replace_range(entry.value..end, &scalar(value));",
        to: "document.text[entry.line].replace_range(entry.value.., &scalar(value)); let _ = end;",
        tests: EDITING,
    },
];
