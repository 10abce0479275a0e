//! Under which Lease a VIP may be published.

use super::Mutation;

const FILE: &str = "vip-user/src/model/admission.rs";
const RIVALS: &str = "vip-user/src/model/rivals.rs";
const TABLES: &[&str] = &["-p", "vip-user", "--lib", "admission_tests"];
const WORLD: &[&str] = &["-p", "vip-user", "--test", "admission"];

pub(super) const ADMISSIONS: &[Mutation] = &[
    Mutation {
        rule: "one Lease guards a VIP",
        name: "a claim of another Lease is not seen",
        file: RIVALS,
        from: "                    Mark::Claimed if name < own => Rank::EarlierClaim,\n                    Mark::Claimed => Rank::LaterClaim,",
        to: "                    Mark::Claimed if name < own => return None,\n                    Mark::Claimed => return None,",
        tests: WORLD,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "the first name does not wait until the other claim is withdrawn",
        file: FILE,
        from: "Some(Rank::LaterClaim) => vip.stage,",
        to: "Some(Rank::LaterClaim) => asking,",
        tests: WORLD,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "a list that was begun before the claim was stored counts",
        file: FILE,
        from: "Stage::Claiming { from: Some(from) } if list >= from => {",
        to: "Stage::Claiming { from: Some(from) } if list <= from => {",
        tests: TABLES,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "a Lease counts as left behind at once",
        file: RIVALS,
        from: "if released { wait } else { wait * 2 }",
        to: "if released { wait } else { wait * 0 }",
        tests: WORLD,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "a Lease that was left behind goes on naming the VIP",
        file: FILE,
        from: "None if dead => vip.stage,",
        to: "None if dead => asking,",
        tests: WORLD,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "a VIP that was struck out wakes with the fence",
        file: "vip-user/src/model/holding.rs",
        from: "            && !live\n        {\n            self.generation += 1;",
        to: "            && live\n        {\n            self.generation += 1;",
        tests: TABLES,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "what a stranger's Lease guards is not looked at first",
        file: FILE,
        from: "            _ => Mark::Claimed,\n        };\n        self.written",
        to: "            Names::Nothing if !seen.is_unheld() => Mark::Admitted,\n            _ => Mark::Claimed,\n        };\n        self.written",
        tests: WORLD,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "what an old version's Lease guards is not looked at first",
        file: FILE,
        from: "let mark = |ip: &IpAddr| match names {\n            Names::Listed",
        to: "let mark = |ip: &IpAddr| match names {\n            Names::Unknown => Mark::Admitted,\n            Names::Listed",
        tests: WORLD,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "a strike that is refused comes no less often",
        file: FILE,
        from: "(1 << self.strikes.min(8))",
        to: "(1 << self.strikes.min(0))",
        tests: TABLES,
    },
    Mutation {
        rule: "one Lease guards a VIP",
        name: "a VIP that was never admitted is carried when the fence is over",
        file: "vip-user/src/model/plan.rs",
        from: "let stays = |addr: &HostAddr| have.owned.contains(addr) && have.addrs.contains_key(addr);",
        to: "let stays = |_: &HostAddr| true;",
        tests: super::PLAN,
    },
    Mutation {
        rule: "only addresses that are free",
        name: "the time for answers begins before the question",
        file: FILE,
        from: "vip.stage = Stage::Asking { since: now, asked: true };",
        to: "vip.stage = Stage::Asking { since, asked: true };",
        tests: TABLES,
    },
    Mutation {
        rule: "only addresses that are free",
        name: "an answer that comes at last is not heard",
        file: FILE,
        from: "vip.revoked = vip.stage == Stage::Admitting;",
        to: "vip.revoked = false;",
        tests: TABLES,
    },
    Mutation {
        rule: "only addresses that are free",
        name: "the LAN is not asked for a VIP that is new",
        file: FILE,
        from: "asked && now >= since.after(self.probe_time) {",
        to: "asked && now >= since {",
        tests: TABLES,
    },
    Mutation {
        rule: "only addresses that are free",
        name: "what was admitted is forgotten at a failover",
        file: FILE,
        from: "Names::Listed(guarded) if guarded.admitted.contains(ip) => Mark::Admitted,",
        to: "Names::Listed(guarded) if guarded.claimed.contains(ip) => Mark::Admitted,",
        tests: TABLES,
    },
];
