//! Mutations: the code is broken in the ways that would matter, one at a time, and a named test must
//! fail. A test that stays green with the rule taken out proves nothing.

use crate::shell::{output, succeeds};
use anyhow::{Context as _, bail, ensure};
use std::fs;

/// One way to break the code.
struct Mutation {
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// Arguments of `cargo test` that must fail.
    tests: &'static [&'static str],
}

const ELECTION: &[&str] = &["-p", "vip-user", "--lib", "election_tests"];
const SIMULATION: &[&str] = &["-p", "vip-user", "--test", "simulation"];
const PACKETS: &[&str] = &["-p", "vip-tests", "--test", "packets"];

const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "fence check out of XDP",
        file: "vip-common/src/ingress.rs",
        from: "match standing(env, &vip, &iface) {\n        Standing::Owner => {}\n        Standing::Silent(why) => return Err(drop_question(env, why.question())),",
        to: "match standing(env, &vip, &iface) {\n        Standing::Owner | Standing::Silent(_) => {}",
        tests: &["-p", "vip-tests", "--test", "packets", "questions_on_the_host"],
    },
    Mutation {
        name: "fence check out of TC egress",
        file: "vip-common/src/egress.rs",
        from: "            env.count(why.claim());\n            Verdict::Drop",
        to: "            env.count(why.claim());\n            Verdict::Pass",
        tests: &["-p", "vip-tests", "--test", "packets", "claims_on_the_host"],
    },
    Mutation {
        name: "a frame that cannot be read passes egress",
        file: "vip-common/src/egress.rs",
        from: "env.count(Counter::ClaimHidden);\n    Verdict::Drop",
        to: "env.count(Counter::ClaimHidden);\n    Verdict::Pass",
        tests: &["-p", "vip-tests", "--test", "packets", "a_claim_that_cannot_be_read_is_stopped"],
    },
    Mutation {
        name: "deadline not compared",
        file: "vip-common/src/standing.rs",
        from: "if env.now() >= fence.deadline_ns {",
        to: "if false {",
        tests: PACKETS,
    },
    Mutation {
        name: "slot generation not compared",
        file: "vip-common/src/standing.rs",
        from: "if fence.generation != vip.generation {",
        to: "if false {",
        tests: PACKETS,
    },
    Mutation {
        name: "fence counted from the reply (table)",
        file: "vip-user/src/model/holding.rs",
        from: "let deadline = self.timing.fence(attempt.sent, holding.duration_s);",
        to: "let deadline = self.timing.fence(now.boot, holding.duration_s);",
        tests: ELECTION,
    },
    Mutation {
        name: "fence counted from the reply (simulation)",
        file: "vip-user/src/model/holding.rs",
        from: "let deadline = self.timing.fence(attempt.sent, holding.duration_s);",
        to: "let deadline = self.timing.fence(now.boot, holding.duration_s);",
        tests: SIMULATION,
    },
    Mutation {
        name: "release before silence (table)",
        file: "vip-user/src/model/leaving.rs",
        from: "holding.next_write = self.leave_until;",
        to: "holding.next_write = now.boot;\n                holding.silent = true;",
        tests: ELECTION,
    },
    Mutation {
        name: "renewTime left constant",
        file: "vip-user/src/model/election.rs",
        from: "previous.map_or(now.wall_us, |previous| now.wall_us.max(previous.saturating_add(1)))",
        to: "previous.unwrap_or(now.wall_us)",
        tests: ELECTION,
    },
    Mutation {
        name: "release accepted without its tenure (table)",
        file: "vip-user/src/model/record.rs",
        from: "            && self.released.as_ref() == Some(&tenure.note)\n",
        to: "",
        tests: ELECTION,
    },
    Mutation {
        name: "release accepted without its tenure (simulation)",
        file: "vip-user/src/model/record.rs",
        from: "            && self.released.as_ref() == Some(&tenure.note)\n            && self.repeats(&tenure.note)\n",
        to: "",
        tests: SIMULATION,
    },
    Mutation {
        name: "taker does not wait for the clock error",
        file: "vip-user/src/model/timing.rs",
        from: "let percent = 100 + u64::from(self.clock_error_percent);",
        to: "let percent = 100 - u64::from(self.clock_error_percent);",
        tests: SIMULATION,
    },
    Mutation {
        name: "a deleted Lease is created at once",
        file: "vip-user/src/model/waiting.rs",
        from: "None => self.timing.wait(self.timing.duration_s),\n            Some(record) if record.holder",
        to: "None => std::time::Duration::ZERO,\n            Some(record) if record.holder",
        tests: ELECTION,
    },
    Mutation {
        name: "deposed only at the deadline",
        file: "vip-user/src/model/holding.rs",
        from: "out.push(Effect::ClearFence(Why::Deposed));",
        to: "",
        tests: ELECTION,
    },
    Mutation {
        name: "a tenure without its fence is adopted",
        file: "vip-user/src/model/holding.rs",
        from: "if now.boot >= until {",
        to: "if false {",
        tests: ELECTION,
    },
];

/// Plays every mutation; restores the file each time.
pub fn mutants(filter: &str) -> anyhow::Result<()> {
    let dirty = output("git", &["status", "--porcelain", "--", "vip-common", "vip-user"]);
    ensure!(dirty.as_deref() == Some(""), "commit your changes first: mutations edit the sources");
    let mut survivors = Vec::new();
    for mutation in MUTATIONS.iter().filter(|mutation| mutation.name.contains(filter)) {
        let original = fs::read_to_string(mutation.file).context(mutation.file)?;
        ensure!(
            original.matches(mutation.from).count() == 1,
            "{}: the text to change is not exactly once in {}",
            mutation.name,
            mutation.file
        );
        fs::write(mutation.file, original.replace(mutation.from, mutation.to))?;
        let args = [&["test", "--quiet", "--locked"], mutation.tests].concat();
        // A mutation that does not compile would look like one that was caught.
        let builds = succeeds("cargo", &[&args[..], &["--no-run"]].concat());
        let survived = builds && succeeds("cargo", &args);
        fs::write(mutation.file, original)?;
        ensure!(builds, "{}: the mutated code does not compile", mutation.name);
        let word = if survived { "SURVIVED" } else { "caught" };
        println!("{word:8}  {}  by {}", mutation.name, mutation.tests.join(" "));
        if survived {
            survivors.push(mutation.name);
        }
    }
    if survivors.is_empty() { Ok(()) } else { bail!("not noticed: {}", survivors.join(", ")) }
}
