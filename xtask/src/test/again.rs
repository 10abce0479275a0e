//! A lab that is judged by the clock, and failed beside others, is repeated once, alone. Labs share two
//! cores, so a process may not have got to run. Two owners are never excused, nor is any other test.

use super::{Count, rung::Rung};

/// More failures than this are no accident.
const AT_MOST: usize = 8;
/// The tests that a busy machine may fail: a node that is late loses a VIP, and no rule is broken. The
/// judge of ownership prints when a rule was.
const JUDGED_BY_THE_CLOCK: [(Rung, &[&str]); 3] = [
    (Rung::Lab, &["faults::", "netlink::", "restart::"]),
    (Rung::Kube, &["faults::", "hosts::", "three::"]),
    (Rung::Cluster, &["daemonset::", "static_pod::"]),
];

/// Which tests of a pass have failed, from what the runner prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    names: Vec<String>,
    /// Some line says that two nodes answered.
    two_owners: bool,
}

impl Failures {
    /// Takes in a line of the runner's output. The last list of failures counts.
    pub fn take_in(&mut self, line: &str) {
        if line == "failures:" {
            self.names.clear();
        } else if let Some(name) = line.strip_prefix("    ")
            && name.contains("::")
            && !name.contains([' ', '<'])
        {
            self.names.push(name.to_owned());
        }
        let owned_twice = |rest: &str| !rest.starts_with("0.0,");
        let times = line.split("two_owner_ms: ").skip(1);
        self.two_owners |= line.contains("two owners") || times.into_iter().any(owned_twice);
    }

    /// The tests that failed, and were not repeated with success.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The test passed when it was repeated.
    pub fn excuse(&mut self, name: &str) {
        self.names.retain(|failed| failed != name);
    }

    /// The tests to repeat, if that may excuse them.
    pub fn to_repeat(&self, rung: Rung, count: Count) -> &[String] {
        let late = JUDGED_BY_THE_CLOCK.iter().find(|(of, _)| *of == rung);
        let may_be_late = |name: &String| {
            late.is_some_and(|(_, modules)| modules.iter().any(|module| name.starts_with(module)))
        };
        let named = self.names.len() as u64 == count.failed && self.names.len() <= AT_MOST;
        let all = named && self.names.iter().all(may_be_late);
        if all && !self.two_owners { &self.names } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(output: &str) -> Failures {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.take_in(line));
        failures
    }

    fn failed(failed: u64) -> Count {
        Count { passed: 80, failed }
    }

    const OUTPUT: &str = "
failures:

---- faults::link_down stdout ----
Outcome { fault: LinkDown, two_owner_ms: 0.0, owners: (\"node1\", \"node2\") }
    1: core::panicking::panic_fmt
    lab::faults::link_down::{{closure}} at <x>

failures:
    faults::link_down
    restart::a_killed_owner

test result: FAILED. 80 passed; 2 failed; 0 ignored
";

    #[test]
    fn the_last_list_is_repeated() {
        let found = failures(OUTPUT);
        let both = ["faults::link_down", "restart::a_killed_owner"];
        assert_eq!(found.to_repeat(Rung::Lab, failed(2)), both);
        assert_eq!(found.to_repeat(Rung::Unit, failed(2)), [""; 0], "it shares nothing");
        assert_eq!(found.to_repeat(Rung::Lab, failed(3)), [""; 0], "one has no name");
        let guard = failures(&OUTPUT.replace("    restart::a", "    guard::a"));
        assert_eq!(
            guard.to_repeat(Rung::Lab, failed(2)),
            [""; 0],
            "the guard is not judged by the clock"
        );
    }

    #[test]
    fn two_owners_are_not_excused() {
        let said = OUTPUT.replace("two_owner_ms: 0.0", "two_owner_ms: 3.5");
        assert_eq!(failures(&said).to_repeat(Rung::Lab, failed(2)), [""; 0]);
        // What the judge prints.
        let said = OUTPUT.replace("Outcome", "two owners for 3.5 ms\nOutcome");
        assert_eq!(failures(&said).to_repeat(Rung::Lab, failed(2)), [""; 0]);
    }
}
