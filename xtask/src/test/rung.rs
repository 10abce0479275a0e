//! The rungs of the ladder, and the passes in which each of them runs.

use clap::ValueEnum;

/// One rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rung {
    /// Pure functions, beside their code.
    Unit,
    /// The agent under a simulation of thousands of hours, and its elections under two model checkers.
    Simulation,
    /// The packet rules on the host and through the loaded programs. Root.
    Packets,
    /// The controller with a fake dataplane, and the edge to the API, with the stand-in API.
    Controller,
    /// The real binary in network namespaces. Root.
    Lab,
    /// The same against a real kube-apiserver and etcd. Root.
    Kube,
    /// The image and the manifests on a real cluster. Root.
    Cluster,
    /// What depends on the kernel, in a guest: frames, devices, guard and fence.
    Vm,
}

/// The crates that every pass builds together. Cargo unifies features over the chosen packages, so
/// another choice would recompile most dependencies, for minutes.
pub const PACKAGES: [&str; 6] = ["-p", "vip-user", "-p", "xtask", "-p", "vip-tests"];
/// Only the pure core, optimised: most of the compile time is for I/O.
pub const MODEL: [&str; 5] = ["-p", "vip-user", "--no-default-features", "--profile", "simulation"];

impl Rung {
    /// The arguments of `cargo test` for this rung.
    pub fn arguments(self) -> Vec<&'static str> {
        let (packages, targets): (&[&str], &[&str]) = match self {
            Self::Unit => (&PACKAGES, &["--lib", "--bins"]),
            Self::Simulation => {
                (&MODEL, &["--test", "simulation", "--test", "exhaustive", "--test", "admission"])
            }
            Self::Packets => (&PACKAGES, &["--test", "packets"]),
            Self::Controller => (&PACKAGES, &["--test", "controller", "--test", "edge"]),
            Self::Lab => (&PACKAGES, &["--test", "lab"]),
            Self::Kube => (&PACKAGES, &["--test", "kube"]),
            Self::Cluster => (&PACKAGES, &["--test", "cluster"]),
            Self::Vm => (&PACKAGES, &["--test", "devices"]),
        };
        [packages, targets].concat()
    }
}

/// Labs that measure time on the wire.
const MEASURED_LABS: [&str; 3] = ["faults::", "story::", "upgrade::"];
/// With this few labs the processors are mostly idle. Each lab also records when the machine
/// stalled.
const FEW_LABS: &str = "--test-threads=3";
/// Labs that measure nothing mostly wait, so this many can share two cores.
const WAITING_LABS: &str = "--test-threads=6";
/// Labs of the inner loop: a crash, a stop, the guard, and the traces on the host.
const QUICK_LABS: [&str; 4] =
    ["faults::killed", "faults::a_planned_stop", "guard::nothing", "leaving::cleanup_after_a_crash"];
/// The suites of the rung `kube`, in two lanes that take about the same time.
const KUBE_SUITES: [&[&str]; 2] = [
    &["faults::", "moving::", "bench::", "contract::"],
    &["three::", "hosts::", "foreign::", "migrate::", "bootstrap::", "rights::", "quiet::"],
];

/// One process of the test runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub rung: Rung,
    /// Its name within the rung; empty if the rung has one pass.
    pub part: &'static str,
    /// Arguments of the test runner.
    pub arguments: Vec<String>,
}

impl Pass {
    /// A whole rung, or its tests whose name contains the filter.
    pub fn whole(rung: Rung, filter: &str) -> Self {
        let arguments = (!filter.is_empty()).then(|| filter.to_owned()).into_iter().collect();
        Self { rung, part: "", arguments }
    }

    fn part(rung: Rung, part: &'static str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Self { rung, part, arguments }
    }
}

/// Passes that run one after the other.
pub type Lane = Vec<Pass>;
/// Lanes that run in parallel.
pub type Stage = Vec<Lane>;

/// The stages that run in the foreground, in order.
pub fn stages() -> Vec<Stage> {
    let whole = |rung| Pass::whole(rung, "");
    let skipped: Vec<String> = MEASURED_LABS.iter().map(|name| format!("--skip={name}")).collect();
    let mut waiting: Vec<&str> = skipped.iter().map(String::as_str).collect();
    waiting.push(WAITING_LABS);
    let measured = [&MEASURED_LABS[..], &[FEW_LABS]].concat();
    let kube = |suites: &[&'static str]| -> Lane {
        suites.iter().map(|suite| Pass::part(Rung::Kube, suite, &[suite])).collect()
    };
    vec![
        vec![vec![whole(Rung::Unit), whole(Rung::Packets)], vec![controller()]],
        vec![vec![Pass::part(Rung::Lab, "waiting", &waiting)]],
        vec![vec![Pass::part(Rung::Lab, "measured", &measured)]],
        KUBE_SUITES.map(kube).to_vec(),
        vec![vec![whole(Rung::Cluster)]],
    ]
}

/// Whether a stage measures pods.
pub fn is_of_cluster(stage: &Stage) -> bool {
    stage.iter().flatten().any(|pass| pass.rung == Rung::Cluster)
}

/// The rung `controller`, whose tests mostly wait.
fn controller() -> Pass {
    Pass::part(Rung::Controller, "", &["--test-threads=8"])
}

/// Passes that need only processor time. They get what the stages leave.
pub fn background() -> Lane {
    vec![Pass::whole(Rung::Simulation, ""), Pass::whole(Rung::Vm, "")]
}

/// The stages of the inner loop.
pub fn quick() -> Vec<Stage> {
    let pure = [Rung::Unit, Rung::Packets].map(|rung| Pass::whole(rung, "")).to_vec();
    let labs = Pass::part(Rung::Lab, "quick", &QUICK_LABS);
    vec![vec![pure, vec![controller()]], vec![vec![labs]]]
}

/// The stages of one rung alone; with a filter it is not split into parts.
pub fn only(rung: Rung, filter: &str) -> Vec<Stage> {
    let chosen = |stage: Stage| -> Stage {
        let of_rung = |lane: Lane| lane.into_iter().filter(|pass| pass.rung == rung).collect();
        stage.into_iter().map(of_rung).filter(|lane: &Lane| !lane.is_empty()).collect()
    };
    let stages: Vec<Stage> =
        stages().into_iter().map(chosen).filter(|stage| !stage.is_empty()).collect();
    if stages.is_empty() || !filter.is_empty() {
        return vec![vec![vec![Pass::whole(rung, filter)]]];
    }
    stages
}

#[cfg(test)]
mod tests;
