//! Mutations: the code is broken in the ways that would matter, one at a time, and a named test must
//! fail. A test that stays green with the rule taken out proves nothing.

use crate::shell::{output, succeeds};
use anyhow::{Context as _, bail, ensure};
use std::fs;

/// One way to break the code.
struct Mutation {
    /// The rule of docs/safety.md that it breaks.
    rule: &'static str,
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// Arguments of `cargo test` (or, for [`LAB`], of `cargo xtask test`) that must fail.
    tests: &'static [&'static str],
}

const ELECTION: &[&str] = &["-p", "vip-user", "--lib", "election_tests"];
const SIMULATION: &[&str] = &["-p", "vip-user", "--test", "simulation"];
const EXHAUSTIVE: &[&str] = &["-p", "vip-user", "--test", "exhaustive"];
const PACKETS: &[&str] = &["-p", "vip-tests", "--test", "packets"];
const PLAN: &[&str] = &["-p", "vip-user", "--lib", "plan::tests"];
/// The labs run the binary, which `cargo test` does not build.
const LAB: &str = "lab";

const MUTATIONS: &[Mutation] = &[
    Mutation {
        rule: "no fence, no answer",
        name: "fence check out of XDP",
        file: "vip-common/src/ingress.rs",
        from: "match standing(env, &vip, &iface) {\n        Standing::Owner => {}\n        Standing::Silent(why) => return Err(drop_question(env, why.question())),",
        to: "match standing(env, &vip, &iface) {\n        Standing::Owner | Standing::Silent(_) => {}",
        tests: &["-p", "vip-tests", "--test", "packets", "questions_on_the_host"],
    },
    Mutation {
        rule: "no fence, no claim",
        name: "fence check out of TC egress",
        file: "vip-common/src/egress.rs",
        from: "            env.count(why.claim());\n            Verdict::Drop",
        to: "            env.count(why.claim());\n            Verdict::Pass",
        tests: &["-p", "vip-tests", "--test", "packets", "claims_on_the_host"],
    },
    Mutation {
        rule: "no fence, no claim",
        name: "a frame that cannot be read passes egress",
        file: "vip-common/src/egress.rs",
        from: "env.count(Counter::ClaimHidden);\n    Verdict::Drop",
        to: "env.count(Counter::ClaimHidden);\n    Verdict::Pass",
        tests: &["-p", "vip-tests", "--test", "packets", "a_claim_that_cannot_be_read_is_stopped"],
    },
    Mutation {
        rule: "the deadline is the kernel's",
        name: "deadline not compared",
        file: "vip-common/src/standing.rs",
        from: "if env.now() >= fence.deadline_ns {",
        to: "if false {",
        tests: PACKETS,
    },
    Mutation {
        rule: "no fence, no answer",
        name: "slot generation not compared",
        file: "vip-common/src/standing.rs",
        from: "if fence.generation != vip.generation {",
        to: "if false {",
        tests: PACKETS,
    },
    Mutation {
        rule: "counted from before the request",
        name: "fence counted from the reply (table)",
        file: "vip-user/src/model/holding.rs",
        from: "let deadline = self.timing.fence(attempt.sent, holding.duration_s);",
        to: "let deadline = self.timing.fence(now.boot, holding.duration_s);",
        tests: ELECTION,
    },
    Mutation {
        rule: "counted from before the request",
        name: "fence counted from the reply (simulation)",
        file: "vip-user/src/model/holding.rs",
        from: "let deadline = self.timing.fence(attempt.sent, holding.duration_s);",
        to: "let deadline = self.timing.fence(now.boot, holding.duration_s);",
        tests: SIMULATION,
    },
    Mutation {
        rule: "silence before release",
        name: "release before silence (table)",
        file: "vip-user/src/model/leaving.rs",
        from: "State::Holding(mut holding) => {\n                holding.next_write = self.leave_until;",
        to: "State::Holding(mut holding) => {\n                holding.next_write = now.boot;\n                holding.silent = true;",
        tests: ELECTION,
    },
    Mutation {
        rule: "a confirmed write is a new version",
        name: "renewTime left constant",
        file: "vip-user/src/model/election.rs",
        from: "previous.map_or(now.wall_us, |previous| now.wall_us.max(previous.saturating_add(1)))",
        to: "previous.unwrap_or(now.wall_us)",
        tests: ELECTION,
    },
    Mutation {
        rule: "a release names its tenure",
        name: "release accepted without its tenure (table)",
        file: "vip-user/src/model/record.rs",
        from: "            && self.released.as_ref() == Some(&tenure.note)\n",
        to: "",
        tests: ELECTION,
    },
    Mutation {
        rule: "a release names its tenure",
        name: "release accepted without its tenure (simulation)",
        file: "vip-user/src/model/record.rs",
        from: "            && self.released.as_ref() == Some(&tenure.note)\n            && self.repeats(&tenure.note)\n",
        to: "",
        tests: SIMULATION,
    },
    Mutation {
        rule: "a taker waits D·(1+ρ)",
        name: "taker does not wait for the clock error",
        file: "vip-user/src/model/timing.rs",
        from: "let percent = 100 + u64::from(self.clock_error_percent);",
        to: "let percent = 100 - u64::from(self.clock_error_percent);",
        tests: SIMULATION,
    },
    Mutation {
        rule: "a lost record is waited out",
        name: "a deleted Lease is created and taken at once",
        file: "vip-user/src/model/waiting.rs",
        from: "let due = if waiting.released {",
        to: "let due = if waiting.released || waiting.seen.as_ref().is_some_and(Record::is_unheld) {",
        tests: ELECTION,
    },
    Mutation {
        rule: "a lost record is waited out",
        name: "a Lease that was created anew deposes its holder",
        file: "vip-user/src/model/holding.rs",
        from: "holding.anew = Some(record.uid);\n                self.reassert",
        to: "self.reassert",
        tests: ELECTION,
    },
    Mutation {
        rule: "another holder silences now",
        name: "who took a Lease that was created anew is overwritten",
        file: "vip-user/src/model/holding.rs",
        from: "holding.anew = Some(record.uid);\n                self.reassert",
        to: "holding.tenure.uid = record.uid;\n                self.reassert",
        tests: ELECTION,
    },
    Mutation {
        rule: "another holder silences now",
        name: "deposed only at the deadline",
        file: "vip-user/src/model/holding.rs",
        from: "out.push(Effect::ClearFence(Why::Deposed));",
        to: "",
        tests: ELECTION,
    },
    Mutation {
        rule: "a restart adopts only what lives",
        name: "a tenure without its fence is adopted",
        file: "vip-user/src/model/holding.rs",
        from: "if now.boot >= until {",
        to: "if false {",
        tests: ELECTION,
    },
    Mutation {
        rule: "no fence, no claim",
        name: "what extension headers hide is taken for traffic",
        file: "vip-common/src/standing.rs",
        from: "next != NEXT_ICMPV6 && !is_extension(next)",
        to: "next != NEXT_ICMPV6",
        tests: PACKETS,
    },
    Mutation {
        rule: "no fence, no claim",
        name: "a tagged frame is taken for traffic",
        file: "vip-common/src/standing.rs",
        from: "ETHERTYPE_ARP | ETHERTYPE_VLAN | ETHERTYPE_QINQ => false",
        to: "ETHERTYPE_ARP => false",
        tests: PACKETS,
    },
    Mutation {
        rule: "no fence, no claim",
        name: "traffic to a VIP that was lost passes before it is looked at",
        file: "vip-ebpf/src/main.rs",
        from: "if traffic && !drops_on_loss()",
        to: "if traffic",
        tests: PACKETS,
    },
    Mutation {
        rule: "no fence, no claim",
        name: "an ARP frame that was cut short passes egress",
        file: "vip-common/src/egress.rs",
        from: "map_or(Claimed::HIDDEN, Claimed::address)",
        to: "map_or(Claimed::NOTHING, Claimed::address)",
        tests: PACKETS,
    },
    Mutation {
        rule: "a confirmed write is a new version",
        name: "an answer that stored nothing raises the fence",
        file: "vip-user/src/model/holding.rs",
        from: "if !ours || attempt.base.as_ref() == Some(&record.version) {",
        to: "if !ours {",
        tests: ELECTION,
    },
    Mutation {
        rule: "the shorter D counts",
        name: "a shorter D is written before the fence is lowered",
        file: "vip-user/src/model/holding.rs",
        from: "                self.shorten(&mut holding, self.timing.duration_s, out);\n",
        to: "",
        tests: ELECTION,
    },
    Mutation {
        rule: "the shorter D counts",
        name: "D as written counts, whatever was stored",
        file: "vip-user/src/model/holding.rs",
        from: "holding.duration_s = self.timing.duration_s.min(record.duration_s);",
        to: "holding.duration_s = self.timing.duration_s;",
        tests: ELECTION,
    },
    Mutation {
        rule: "a taker waits D·(1+ρ)",
        name: "the longest D of a tenure is forgotten",
        file: "vip-user/src/model/waiting.rs",
        from: "before.wait.max(own)",
        to: "own",
        tests: ELECTION,
    },
    Mutation {
        rule: "a holder stops at D·(1-ρ)",
        name: "the fence is D long",
        file: "vip-user/src/model/timing.rs",
        from: "let percent = 100_u64.saturating_sub(u64::from(self.clock_error_percent));",
        to: "let percent = 100_u64;",
        tests: SIMULATION,
    },
    Mutation {
        rule: "a holder stops at D·(1-ρ)",
        name: "no margin is taken off",
        file: "vip-user/src/model/timing.rs",
        from: ".saturating_sub(self.margin)",
        to: "",
        tests: &["-p", "vip-user", "--lib", "config::tests"],
    },
    Mutation {
        rule: "a note must match its spec",
        name: "an annotation that was left standing counts (table)",
        file: "vip-user/src/model/record.rs",
        from: "let agrees = note.holder == self.holder && self.repeats(note);",
        to: "let agrees = true;",
        tests: ELECTION,
    },
    Mutation {
        rule: "only newer evidence counts",
        name: "a lagging watch is believed",
        file: "vip-user/src/model/election.rs",
        from: "(Some(record), Some(known)) => record.version.newer_than(known),",
        to: "(Some(_), Some(_)) => true,",
        tests: ELECTION,
    },
    Mutation {
        rule: "only newer evidence counts",
        name: "an edited label restarts the timer",
        file: "vip-user/src/model/waiting.rs",
        from: "complete && seen.same_spec(record)",
        to: "complete && seen == record",
        tests: ELECTION,
    },
    Mutation {
        rule: "a lost record is waited out",
        name: "a deleted Lease is created and taken at once (simulation)",
        file: "vip-user/src/model/waiting.rs",
        from: "let due = if waiting.released {",
        to: "let due = if waiting.released || waiting.seen.as_ref().is_some_and(Record::is_unheld) {",
        tests: SIMULATION,
    },
    Mutation {
        rule: "foreign holders are waited out",
        name: "a client-go holder is waited for like one of ours",
        file: "vip-user/src/model/timing.rs",
        from: "self.foreign_grace.unwrap_or(grace).max(self.wait(duration_s))",
        to: "self.wait(duration_s)",
        tests: ELECTION,
    },
    Mutation {
        rule: "the entry outlives the address",
        name: "an entry goes while another interface carries the address",
        file: "vip-user/src/model/plan.rs",
        from: "!want.vips.contains_key(ip) && !want.untouched.contains(ip) && !carried",
        to: "!want.vips.contains_key(ip) && !want.untouched.contains(ip)",
        tests: PLAN,
    },
    Mutation {
        rule: "the entry outlives the address",
        name: "an address of another program is removed",
        file: "vip-user/src/model/plan.rs",
        from: "let leaving = |addr: &HostAddr| have.owned.contains(addr) && !keeps(want, addr);",
        to: "let leaving = |addr: &HostAddr| !keeps(want, addr);",
        tests: PLAN,
    },
    Mutation {
        rule: "new maps are filled first",
        name: "an upgrade begins with empty maps",
        file: "vip-user/src/node/start.rs",
        from: "carry::fill(other, pins)",
        to: "carry::give_up(other)",
        tests: &[LAB, "upgrade::an_upgrade_and_a_downgrade"],
    },
    Mutation {
        rule: "one writer, one owner of the pins",
        name: "pins of another node are used",
        file: "vip-user/src/node/start.rs",
        from: "if found.ready == 0 || !differs {",
        to: "if found.ready == 0 || !differs || true {",
        tests: &[LAB, "start::a_pin_directory_of_another_node"],
    },
    Mutation {
        rule: "the guard is put back",
        name: "nobody looks whether the guard stands",
        file: "vip-user/src/controller/host.rs",
        from: "if !self.dataplane.is_guarded().await {",
        to: "if false {",
        tests: &[LAB, "host::what_others_take_away"],
    },
    Mutation {
        rule: "the guard is put back",
        name: "somebody else runs before the guard",
        file: "vip-user/src/node/attach.rs",
        from: "                None => return false,\n",
        to: "                None => {}\n",
        tests: &[LAB, "host::a_program_before_the_guard"],
    },
    Mutation {
        rule: "silence before release",
        name: "released without silence (simulation)",
        file: "vip-user/src/model/leaving.rs",
        from: "                out.push(Effect::ClearFence(Why::Leaving));\n                self.state = State::Leaving(holding);",
        to: "                holding.silent = true;\n                holding.next_write = now.boot;\n                self.state = State::Leaving(holding);",
        tests: SIMULATION,
    },
    Mutation {
        rule: "a lost record is waited out",
        name: "a record of another holder is overwritten",
        file: "vip-user/src/model/holding.rs",
        from: "Some(record) if live && may_reassert(&holding.tenure, &record) => {",
        to: "Some(record) if live => {",
        tests: ELECTION,
    },
    Mutation {
        rule: "who cannot serve is the last choice",
        name: "a host without a guard takes like any other",
        file: "vip-user/src/model/waiting.rs",
        from: "Fitness::Unable => due.after(self.timing.wait(self.timing.duration_s)),",
        to: "Fitness::Unable => due,",
        tests: &["-p", "vip-tests", "--test", "controller", "a_host_without_room"],
    },
    Mutation {
        rule: "who cannot serve is the last choice",
        name: "a link that has just come back counts as any other",
        file: "vip-user/src/model/fitness.rs",
        from: "Some(true) => Fitness::Doubtful,",
        to: "Some(true) => Fitness::Able,",
        tests: &["-p", "vip-user", "--lib", "fitness::tests"],
    },
    Mutation {
        rule: "an offer changes nothing by itself",
        name: "an offer for another tenure is obeyed",
        file: "vip-user/src/model/holding.rs",
        from: "offer.is_for(&holding.tenure) && offer.fitness < self.fitness",
        to: "offer.fitness < self.fitness",
        tests: &["-p", "vip-user", "--lib", "fitness_tests"],
    },
    Mutation {
        rule: "an offer changes nothing by itself",
        name: "an offer that is no better is obeyed",
        file: "vip-user/src/model/holding.rs",
        from: "offer.is_for(&holding.tenure) && offer.fitness < self.fitness",
        to: "offer.is_for(&holding.tenure)",
        tests: &["-p", "vip-user", "--lib", "fitness_tests"],
    },
    Mutation {
        rule: "silence before release",
        name: "a holder gives way without silence",
        file: "vip-user/src/model/leaving.rs",
        from: "out.push(Effect::ClearFence(Why::Yielding));",
        to: "holding.silent = true;",
        tests: &["-p", "vip-user", "--lib", "fitness_tests"],
    },
    Mutation {
        rule: "only the right interfaces answer",
        name: "an interface that is down is chosen before one that is up",
        file: "vip-user/src/model/selection.rs",
        from: "Some((!device.up, rank, device.ifindex))",
        to: "Some((false, rank, device.ifindex))",
        tests: &["-p", "vip-user", "--lib", "selection::tests"],
    },
    Mutation {
        rule: "only the right interfaces answer",
        name: "a bond that rewrites ARP is accepted",
        file: "vip-user/src/model/selection.rs",
        from: "(Kind::Bond(mode @ (5 | 6)), _) => {",
        to: "(Kind::Bond(mode @ 5), _) => {",
        tests: &["-p", "vip-user", "--lib", "selection::tests"],
    },
    Mutation {
        rule: "only the right interfaces answer",
        name: "the interface is not compared",
        file: "vip-common/src/standing.rs",
        from: "    if !vip.answers_on(iface.bit) {\n        return Standing::Silent(Silence::WrongInterface);\n    }",
        to: "",
        tests: PACKETS,
    },
    Mutation {
        rule: "only the right interfaces answer",
        name: "an interface that is down answers",
        file: "vip-common/src/standing.rs",
        from: "if iface.up == 0 {",
        to: "if false {",
        tests: PACKETS,
    },
    Mutation {
        rule: "the neighbour guard trusts the record",
        name: "a claim by the holder is dropped",
        file: "vip-common/src/ingress.rs",
        from: "        !known\n",
        to: "        true\n",
        tests: PACKETS,
    },
    Mutation {
        rule: "the neighbour guard trusts the record",
        name: "a view that is not fresh counts",
        file: "vip-common/src/ingress.rs",
        from: "holder.until_ns == 0 || env.now() >= holder.until_ns",
        to: "holder.until_ns == 0",
        tests: PACKETS,
    },
    Mutation {
        rule: "strict mode spares the holder",
        name: "traffic to a VIP that is held is dropped",
        file: "vip-common/src/ingress.rs",
        from: "if !guarded || silence(env, &vip).is_none() {",
        to: "if !guarded {",
        tests: PACKETS,
    },
    Mutation {
        rule: "a read proves nothing between",
        name: "an older content that a read shows counts as unchanged",
        file: "vip-user/src/model/waiting.rs",
        from: "let complete = source == Source::Watch || seen.version == record.version;",
        to: "let complete = true;",
        tests: EXHAUSTIVE,
    },
    Mutation {
        rule: "a read proves nothing between",
        name: "a holder that has lapsed goes on with what it reads",
        file: "vip-user/src/model/holding.rs",
        from: "let proven = live || known || source == Source::Watch;",
        to: "let proven = true;",
        tests: EXHAUSTIVE,
    },
    Mutation {
        rule: "a read proves nothing between",
        name: "a take-over that is read late counts",
        file: "vip-user/src/model/waiting.rs",
        from: "source == Source::Watch || now.boot < self.timing.fence(taking.began, duration_s)",
        to: "taking.began <= now.boot",
        tests: &["-p", "vip-user", "--lib", "evidence_tests"],
    },
    Mutation {
        rule: "a lost record is waited out",
        name: "a deleted Lease is created and taken at once (model checker)",
        file: "vip-user/src/model/waiting.rs",
        from: "let due = if waiting.released {",
        to: "let due = if waiting.released || waiting.seen.as_ref().is_some_and(Record::is_unheld) {",
        tests: &["-p", "vip-user", "--test", "exhaustive", "happens_to_the_lease"],
    },
    Mutation {
        rule: "a read proves nothing between",
        name: "a release that a read shows counts",
        file: "vip-user/src/model/waiting.rs",
        from: "(Some(record), Some(tenure)) if source == Source::Watch => {",
        to: "(Some(record), Some(tenure)) => {",
        tests: &["-p", "vip-user", "--test", "exhaustive", "old_release"],
    },
    Mutation {
        rule: "a read proves nothing between",
        name: "a release that a read shows counts (unit tests)",
        file: "vip-user/src/model/waiting.rs",
        from: "(Some(record), Some(tenure)) if source == Source::Watch => {",
        to: "(Some(record), Some(tenure)) => {",
        tests: &["-p", "vip-user", "--lib", "model::"],
    },
    Mutation {
        rule: "a read proves nothing between",
        name: "who may have released releases what it reads",
        file: "vip-user/src/model/leaving.rs",
        from: "let alone = now.boot < holding.until && !release_sent;",
        to: "let alone = release_sent || !release_sent;",
        tests: &["-p", "vip-user", "--test", "exhaustive", "old_release"],
    },
    Mutation {
        rule: "a read proves nothing between",
        name: "the release of an older tenure counts",
        file: "vip-user/src/model/waiting.rs",
        from: ".is_none_or(|last| !tenure.is_before(last))",
        to: ".is_none_or(|_| true)",
        tests: &["-p", "vip-user", "--lib", "evidence_tests"],
    },
    Mutation {
        rule: "only addresses that are free",
        name: "the host's own address is taken for a VIP",
        file: "vip-user/src/node/start.rs",
        from: "Some(vip) => Err(StartError::Vip { vip: vip.address, what: what() }),",
        to: "Some(vip) if vip.address.is_unspecified() => Err(StartError::Vip { vip: vip.address, what: what() }),\n        Some(_) => Ok(()),",
        tests: &[LAB, "start::bad_input"],
    },
    Mutation {
        rule: "the entry outlives the address",
        name: "an address comes before any entry",
        file: "vip-user/src/model/plan.rs",
        from: "None => Some(Vip { generation: 0, ..*want }),",
        to: "None => None,",
        tests: SIMULATION,
    },
    Mutation {
        rule: "another endpoint is tried",
        name: "an endpoint that has failed stays the first",
        file: "vip-user/src/cluster/endpoints.rs",
        from: "state.preferred = (state.preferred + 1) % count;",
        to: "state.preferred %= count;",
        tests: &["-p", "vip-user", "--lib", "endpoints"],
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
        // A mutation that does not compile would look like one that was caught.
        let (builds, survived) = play(mutation.tests);
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

/// Whether the mutated code builds, and whether the tests stay green.
fn play(tests: &[&str]) -> (bool, bool) {
    if let Some((&LAB, filter)) = tests.split_first() {
        let builds = succeeds("cargo", &["build", "--quiet", "--locked", "-p", "vip-user"]);
        let run = [&["xtask", "test", "--only", LAB][..], filter].concat();
        return (builds, builds && succeeds("cargo", &run));
    }
    let args = [&["test", "--quiet", "--locked"], tests].concat();
    let builds = succeeds("cargo", &[&args[..], &["--no-run"]].concat());
    (builds, builds && succeeds("cargo", &args))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mutation whose text has changed mutates nothing.
    #[test]
    fn every_planted_bug_still_has_its_place() {
        for Mutation { name, file, from, .. } in MUTATIONS {
            let text = fs::read_to_string(format!("../{file}")).unwrap();
            assert_eq!(text.matches(from).count(), 1, "{name}: not exactly once in {file}");
        }
    }

    /// The table of planted bugs in the manual is this list.
    #[test]
    fn every_planted_bug_is_in_the_manual() {
        let manual = include_str!("../../docs/planted-bugs.md");
        for Mutation { rule, name, tests, .. } in MUTATIONS {
            let found = tests.last().copied().unwrap_or_default();
            let row = format!("| {rule} | {name} | `{found}` |");
            assert!(manual.contains(&row), "docs/planted-bugs.md lacks {row}");
        }
        let rows = manual.lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(rows, MUTATIONS.len() + 1, "docs/planted-bugs.md has rows of no mutation");
    }
}
