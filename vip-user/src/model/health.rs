//! Whether the services of this node that stand behind its VIPs are well. They move a VIP, but never
//! permit or forbid an answer: with no node that is better, the holder stays.

use super::{fitness::Fitness, time::BootNs};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// A service of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The API server.
    ApiServer,
    /// The kubelet.
    Kubelet,
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ApiServer => "API server",
            Self::Kubelet => "kubelet",
        })
    }
}

/// What ails a service, and how well the node can serve with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailment {
    /// How well the node can serve.
    pub fitness: Fitness,
    /// The ailment, in words.
    pub why: String,
}

/// The answer to one question to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is well.
    Good,
    /// Nobody listens. The text is what the system says.
    Refused(String),
    /// It does not answer in time, or answers that it is not well.
    Slow(String),
}

/// How long a service may be ill before that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// This many refusals in a row count.
    pub refusals: u32,
    /// How well a node can serve whose service refuses.
    pub refused: Fitness,
    /// So long without a good answer makes a node doubtful.
    pub slow: Duration,
    /// A node is able again after so long with good answers alone.
    pub good: Duration,
    /// Whether the service counts only once it has answered. A host may have none.
    pub once_answered: bool,
}

impl Limits {
    /// The usual limits of a service.
    pub const fn of(service: Service) -> Self {
        match service {
            Service::ApiServer => Self {
                refusals: 3,
                refused: Fitness::Unable,
                slow: Duration::from_secs(6),
                good: Duration::from_secs(10),
                once_answered: false,
            },
            Service::Kubelet => Self {
                refusals: 5,
                refused: Fitness::Doubtful,
                slow: Duration::from_secs(10),
                good: Duration::from_secs(15),
                once_answered: true,
            },
        }
    }
}

/// Judges one service by its answers.
#[derive(Clone, Debug)]
pub struct Judge {
    service: Service,
    limits: Limits,
    answered: bool,
    /// The first question of those without a good answer since.
    bad_since: Option<BootNs>,
    /// Refusals in a row.
    refusals: u32,
    /// The first of the good answers in a row.
    good_since: Option<BootNs>,
    ailment: Option<Ailment>,
}

impl Judge {
    /// A judge that has heard nothing yet.
    pub const fn new(service: Service, limits: Limits) -> Self {
        Self {
            service,
            limits,
            answered: false,
            bad_since: None,
            refusals: 0,
            good_since: None,
            ailment: None,
        }
    }

    /// Hears the answer that is there `now` to a question that was `asked` before. Returns what ails
    /// the service.
    pub fn hear(&mut self, asked: BootNs, now: BootNs, answer: &Answer) -> Option<&Ailment> {
        match answer {
            Answer::Good => self.hear_good(asked, now),
            Answer::Refused(why) => self.hear_bad(asked, now, true, why),
            Answer::Slow(why) => self.hear_bad(asked, now, false, why),
        }
        self.ailment.as_ref()
    }

    fn hear_good(&mut self, asked: BootNs, now: BootNs) {
        (self.bad_since, self.refusals) = (None, 0);
        let since = *self.good_since.get_or_insert(asked);
        // A service that was never good has just started, so it does not flap.
        let first = !std::mem::replace(&mut self.answered, true);
        if first || now >= since.after(self.limits.good) {
            self.ailment = None;
        }
    }

    fn hear_bad(&mut self, asked: BootNs, now: BootNs, refused: bool, why: &str) {
        self.good_since = None;
        if self.limits.once_answered && !self.answered {
            return;
        }
        let bad_since = *self.bad_since.get_or_insert(asked);
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
        let fitness = if self.refusals >= self.limits.refusals {
            self.limits.refused
        } else if now >= bad_since.after(self.limits.slow) {
            Fitness::Doubtful
        } else {
            return;
        };
        let worst = self.ailment.as_ref().map_or(fitness, |ailment| ailment.fitness.max(fitness));
        self.ailment = Some(Ailment { fitness: worst, why: format!("{}: {why}", self.service) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fitness::{Able, Doubtful, Unable};

    /// Lets a service answer like this for so many seconds each, one question a second. Returns the
    /// fitness after each answer.
    fn play(service: Service, script: &[(char, u64)]) -> Vec<Fitness> {
        let mut judge = Judge::new(service, Limits::of(service));
        let letters = script.iter().flat_map(|(letter, times)| (0..*times).map(|_| *letter));
        let mut at = 100_000_000_000;
        let hear = |letter| {
            let answer = match letter {
                'g' => Answer::Good,
                'r' => Answer::Refused("refused".into()),
                _ => Answer::Slow("503".into()),
            };
            let now = BootNs(at);
            at += 1_000_000_000;
            judge.hear(now, now, &answer).map_or(Able, |ailment| ailment.fitness)
        };
        letters.map(hear).collect()
    }

    fn ends(service: Service, script: &[(char, u64)]) -> Fitness {
        *play(service, script).last().unwrap()
    }

    #[test]
    fn an_api_server_that_refuses_three_times_cannot_serve() {
        let played = play(Service::ApiServer, &[('g', 3), ('r', 4)]);
        assert_eq!(played, [Able, Able, Able, Able, Able, Unable, Unable]);
        assert_eq!(ends(Service::ApiServer, &[('r', 3)]), Unable, "one that never answered, too");
        assert_eq!(ends(Service::ApiServer, &[('g', 1), ('r', 2), ('g', 1), ('r', 2)]), Able);
    }

    #[test]
    fn an_api_server_that_is_slow_for_six_seconds_is_in_doubt() {
        assert_eq!(ends(Service::ApiServer, &[('g', 3), ('s', 6)]), Able);
        assert_eq!(ends(Service::ApiServer, &[('g', 3), ('s', 7)]), Doubtful);
        assert_eq!(ends(Service::ApiServer, &[('g', 3), ('s', 4), ('r', 1), ('s', 2)]), Doubtful);
        assert_eq!(ends(Service::ApiServer, &[('g', 3), ('s', 7), ('r', 3)]), Unable, "it gets worse");
        assert_eq!(ends(Service::ApiServer, &[('g', 3), ('r', 3), ('s', 9)]), Unable, "no better yet");
    }

    #[test]
    fn a_service_is_trusted_again_after_a_while_but_at_once_when_it_has_just_started() {
        let ill = [('g', 1), ('r', 3)];
        let then = |good| ends(Service::ApiServer, &[ill.as_slice(), &[('g', good)]].concat());
        assert_eq!((then(10), then(11)), (Unable, Able));
        let relapse = [ill.as_slice(), &[('g', 9), ('s', 1), ('g', 9)]].concat();
        assert_eq!(ends(Service::ApiServer, &relapse), Unable, "a relapse counts from the start");
        assert_eq!(ends(Service::ApiServer, &[('r', 30), ('g', 1)]), Able, "it has just started");
    }

    #[test]
    fn a_kubelet_counts_once_it_has_answered_and_a_restart_of_it_does_not() {
        assert_eq!(ends(Service::Kubelet, &[('r', 60)]), Able, "this host has none");
        assert_eq!(ends(Service::Kubelet, &[('g', 1), ('r', 4)]), Able);
        assert_eq!(ends(Service::Kubelet, &[('g', 1), ('r', 5)]), Doubtful);
        assert_eq!(ends(Service::Kubelet, &[('g', 1), ('s', 10)]), Able);
        assert_eq!(ends(Service::Kubelet, &[('g', 1), ('s', 11)]), Doubtful);
        assert_eq!(ends(Service::Kubelet, &[('g', 1), ('r', 5), ('g', 15)]), Doubtful);
        assert_eq!(ends(Service::Kubelet, &[('g', 1), ('r', 5), ('g', 16)]), Able);
    }
}
