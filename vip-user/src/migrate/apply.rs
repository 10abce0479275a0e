//! Whether a node may be moved now, and whether it has arrived.

use super::{
    facts::{Facts, Problem},
    plan,
    pod::{Pod, Program},
    rollback::{self, Place},
};
use serde_json::Value;
use std::net::IpAddr;

/// So many rounds in a row must be good. Single frames can be lost.
const GOOD_ROUNDS: u32 = 3;
/// So many rounds in a row show two owners: the first may hear the old owner's last answer.
const BAD_ROUNDS: u32 = 2;
/// What a kubelet says of a container that will not run without a change of its manifest or registry.
const STUCK: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
];

/// An apply that has begun here earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier<'a> {
    /// Whether the node has arrived.
    pub arrived: bool,
    /// The image of xvip.
    pub image: &'a str,
    /// What is in the place of the manifest.
    pub place: Place,
}

/// What an apply does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It begins.
    Begin,
    /// xvip's manifest is in its place already: it waits until the node has arrived.
    GoOn,
}

/// What an apply to an image does.
///
/// # Errors
/// What stands against both.
pub fn course(
    earlier: Option<&Earlier<'_>>,
    image: &str,
    facts: &Facts,
) -> Result<Course, Vec<Problem>> {
    let Some(earlier) = earlier else { return Ok(Course::Begin) };
    let back = "xvip migrate rollback";
    let problem = match (earlier.place, earlier.arrived) {
        // The command makes the same backup again, from the same text.
        (Place::Original, _) => return Ok(Course::Begin),
        (Place::Moved, true) => {
            Problem::new("this node runs xvip already", &facts.node, "go to the next node")
        }
        (Place::Moved, false) if earlier.image != image => Problem::new(
            format!("an apply of {} has begun here, and not of {image}", earlier.image),
            &facts.node,
            format!("name that image, or {back}"),
        ),
        (Place::Moved, false) => {
            let problems = unknown(facts);
            return if problems.is_empty() { Ok(Course::GoOn) } else { Err(problems) };
        }
        // A new backup would take the place of the only one.
        (Place::Other, _) => {
            let what = "this node was moved, and its manifest has been replaced since by another one";
            Problem::new(what, &facts.node, format!("{back} puts the backup into its place"))
        }
        (Place::Nothing, _) => {
            Problem::new("this node was moved, and its manifest is gone", &facts.node, back)
        }
    };
    Err(vec![problem])
}

/// Why an apply that has begun must not be judged: with wrong credentials a healthy node looks lost.
fn unknown(facts: &Facts) -> Vec<Problem> {
    let unread = [facts.nodes.as_ref().err(), facts.pods.as_ref().err(), facts.lease.as_ref().err()];
    let unread: Vec<Problem> = unread
        .into_iter()
        .flatten()
        .map(|why| {
            let remedy = "nothing was changed: repair it or name a --kubeconfig, and run this again";
            Problem::new(why.clone(), "the API", remedy)
        })
        .collect();
    if !unread.is_empty() {
        return unread;
    }
    let nodes = facts.known_nodes().iter();
    let nodes: Vec<_> = nodes.map(|node| (node.name.clone(), node.boot_id.clone())).collect();
    rollback::other_host(&nodes, &facts.node, &facts.boot_id)
        .map(|problem| Problem { remedy: "name the kubeconfig of its cluster".into(), ..problem })
        .into_iter()
        .collect()
}

/// Whether a manifest that counts as kube-vip's may be xvip's under an image of another name.
pub fn may_be_xvip(object: &Value) -> bool {
    let Some(pod) = Pod::read(object) else { return false };
    let last = pod.image().rsplit('/').next().unwrap_or_default();
    let name = last.split(['@', ':']).next().unwrap_or_default();
    // The rights may be in a manifest of kube-vip before the image is changed.
    pod.variable("XVIP_PIN_ROOT").is_some() && !name.contains("kube-vip")
}

/// Why the kubelet cannot start a container of this pod; `None` if it still may.
pub fn stuck(pod: &Value) -> Option<String> {
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let mut waiting = statuses
        .iter()
        .flat_map(|list| pod["status"][list].as_array().into_iter().flatten())
        .map(|status| &status["state"]["waiting"]);
    let found = waiting
        .find(|waiting| waiting["reason"].as_str().is_some_and(|reason| STUCK.contains(&reason)))?;
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    Some(format!("the kubelet cannot start it: {} {}", text("reason"), text("message")))
}

/// What stands against moving this node now.
pub fn refusals(facts: &Facts) -> Vec<Problem> {
    let plan = plan::plan(facts);
    let mut problems = plan.problems;
    if let Some(name) = plan.daemonset {
        problems.push(Problem::new(
            "kube-vip runs as a DaemonSet, which is not changed node by node here",
            format!("DaemonSet {name}"),
            "follow the steps of xvip migrate plan",
        ));
    }
    if facts.manifests.first().is_some_and(|manifest| manifest.program == Program::Xvip) {
        problems.push(Problem::new("this node runs xvip already", &facts.node, "go to the next node"));
    }
    if facts.holds(&facts.node) {
        let others: Vec<&str> = facts
            .known_nodes()
            .iter()
            .map(|node| node.name.as_str())
            .filter(|node| *node != facts.node && facts.runs(node, Program::KubeVip))
            .collect();
        if !others.is_empty() {
            problems.push(Problem::new(
                format!("this node holds the Lease, and kube-vip still runs on {}", others.join(", ")),
                &facts.node,
                format!("the holder is the last one: move {} first", others.join(", ")),
            ));
        }
    }
    problems
}

/// What one look shows while the pod changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Why the pod is not ready with the new image; `None` if it is.
    pub pod: Option<String>,
    /// Why the daemon is not ready, or the guard is off; `None` if all is well.
    pub daemon: Option<String>,
    /// Why the kubelet will not start the pod, if it says so.
    pub stuck: Option<String>,
    /// How many owners each VIP has, and which.
    pub owners: Vec<(IpAddr, usize, String)>,
}

/// What follows from all looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet. Why.
    Wait(String),
    /// The node has arrived.
    Arrived,
    /// It must go back. Why.
    Failed(String),
}

/// Watches a node that is being moved.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    good: u32,
    bad: u32,
}

impl Watch {
    /// Takes a look into account.
    pub fn take(&mut self, round: &Round) -> Verdict {
        if let Some(why) = &round.stuck {
            return Verdict::Failed(why.clone());
        }
        let two = round.owners.iter().find(|(_, owners, _)| *owners > 1);
        self.bad = if two.is_some() { self.bad + 1 } else { 0 };
        if let Some((vip, _, stations)) = two {
            self.good = 0;
            let what = format!("more than one station answers for {vip}: {stations}");
            return if self.bad >= BAD_ROUNDS { Verdict::Failed(what) } else { Verdict::Wait(what) };
        }
        let none = round.owners.iter().find(|(_, owners, _)| *owners == 0);
        let none = none.map(|(vip, ..)| format!("no station answers for {vip}"));
        if let Some(why) = round.pod.clone().or_else(|| round.daemon.clone()).or(none) {
            self.good = 0;
            return Verdict::Wait(why);
        }
        self.good += 1;
        if self.good >= GOOD_ROUNDS {
            Verdict::Arrived
        } else {
            Verdict::Wait("all is well so far".into())
        }
    }
}
