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
        from: "self.answer.is_some_and(|answer| answer.at.0 >= asked)",
        to: "self.answer.is_some_and(|answer| answer.at.0 >= asked) && false",
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
        file: FILE,
        from: "&& stranger.asked.take().is_some()",
        to: "&& stranger.asked.is_none()",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "a station that serves holds the Lease back for a while only",
        file: STRANGER,
        from: "if served {",
        to: "if false {",
        tests: STRANGERS,
    },
    Mutation {
        rule: RULE,
        name: "a station that serves nothing keeps the VIP dark for ever",
        file: FILE,
        from: "self.foreign_conflict == ForeignConflict::Take || stranger.has_answer()",
        to: "self.foreign_conflict == ForeignConflict::Take",
        tests: STRANGERS,
    },
];
