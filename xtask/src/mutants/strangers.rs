//! Mutations of how a Lease is taken that another program held last.

use super::{Mutation, SIMULATION};

const STRANGERS: &[&str] = &["-p", "vip-user", "--lib", "strangers_tests"];
const FILE: &str = "vip-user/src/model/lease/asking.rs";
const STRANGER: &str = "vip-user/src/model/lease/stranger.rs";
const RULE: &str = "the LAN is asked before a Lease is taken from another program";

pub(super) const TAKEN_FROM_STRANGERS: &[Mutation] = &[
    Mutation {
        rule: RULE,
        name: "nobody waits for answers",
        file: FILE,
        from: "let silent = stranger.is_silent(now.boot);",
        to: "let silent = true;",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "an answer changes nothing",
        file: STRANGER,
        from: "self.answers.values().any(|answer| answer.at >= from)",
        to: "self.answers.values().any(|answer| answer.at >= from) && false",
        tests: SIMULATION,
    },
    Mutation {
        rule: RULE,
        name: "a stranger that gave up is not given the time to stop",
        file: FILE,
        from: "let wait = self.timing.wait(self.duration_of(seen)).max(STRANGER_STOPS);",
        to: "let wait = self.timing.wait(self.duration_of(seen));",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "a read that shows no holder counts as a stranger's release",
        file: "vip-user/src/model/lease/waiting.rs",
        from: "let given_up = before.filter(|_| source == Source::Watch).zip(record.as_ref());",
        to: "let given_up = before.zip(record.as_ref());",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "silence counts for ever",
        file: STRANGER,
        from: "} else if now > asked.after(ASK_TIME + SILENCE_HOLDS) {",
        to: "} else if false {",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "questions that were not sent count",
        file: STRANGER,
        from: "if self.asked.take().is_some() {",
        to: "if self.asked.is_none() {",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "a station that serves holds the Lease back for a while only",
        file: STRANGER,
        from: "if served == Some(true) {",
        to: "if false {",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "a station that serves nothing keeps the VIP dark for ever",
        file: FILE,
        from: "self.foreign_conflict == ForeignConflict::Take || stranger.has_answered()",
        to: "self.foreign_conflict == ForeignConflict::Take",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "what a stranger gave up earlier counts for ever",
        file: FILE,
        from: "Some(Stranger::new(known.map_or(now.boot, |known| known.began), false))",
        to: "Some(Stranger::new(now.boot, known.is_some_and(|known| known.gave_up)))",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "a tenure of xvip before the stranger's is forgotten",
        file: FILE,
        from: "Some(waiting.since.after(STRANGER_TIDIES + ASK_TIME + places).max(ended))",
        to: "Some(waiting.since.after(STRANGER_TIDIES + ASK_TIME + places).min(ended.after(places)))",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "silence counts for a node that hears nobody",
        file: "vip-user/src/model/agent/frames.rs",
        from: "let deaf = self.lan.is_some() || !self.host.reconciled;",
        to: "let deaf = false;",
        tests: super::AGENT,
    },
];
