//! Dark times after the main faults, many runs of each: `cargo xtask bench failover`. Runs are
//! appended to a file, so it can be interrupted and resumed; the table and the plot show the whole
//! file.

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, sleep},
    time::Duration,
};
use vip_tests::{
    faults::{Fault, SLACK_MS, inject, watched},
    judge::two_owner_ms,
    keepalived::Keepalived,
    lab::{Kube, Lab, Options, eventually},
    percentiles,
};
use vip_user::{clock, config::Config, model::timing::Timing};

/// The faults that are measured. keepalived does not get the API faults and the reboot.
const FAULTS: [Fault; 6] =
    [Fault::PlannedStop, Fault::Kill, Fault::Freeze, Fault::LinkDown, Fault::ApiCut, Fault::Reboot];
/// The program under test.
const XVIP: &str = "xvip 3/0.6";

#[derive(Debug, Parser)]
struct Args {
    /// Runs of each fault.
    #[arg(long)]
    runs: usize,
    /// The results file.
    #[arg(long)]
    results: PathBuf,
    /// Labs beside each other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    /// `keepalived`.
    #[arg(long)]
    peer: Option<String>,
}

/// One run of one fault.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Run {
    program: String,
    fault: String,
    /// Longest time without an answer to ARP or NS, ms.
    dark_asked_ms: f64,
    /// Longest time without an echo reply, ms.
    dark_felt_ms: f64,
    /// How long two nodes claimed one VIP, ms.
    two_owner_ms: f64,
    /// The bound of the dark time, ms; none for keepalived.
    bound_ms: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let results = Results::open(&args.results)?;
    if let Some(peer) = &args.peer {
        ensure!(peer == "keepalived", "--peer: {peer} cannot be used: keepalived is the only one");
        measure_keepalived(&results, &args)?;
    }
    measure_xvip(&results, &args)?;
    let table = results.table();
    println!("\n{table}");
    let (page, plot) = (args.results.with_extension("md"), args.results.with_extension("svg"));
    let plot_name =
        plot.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    fs::write(&page, percentiles::page(&table, &plot_name, SLACK_MS))?;
    fs::write(&plot, percentiles::plot(&results.series()))?;
    println!("written: {} and {}", page.display(), plot.display());
    let double: f64 =
        results.runs().iter().filter(|run| run.program == XVIP).map(|run| run.two_owner_ms).sum();
    ensure!(double == 0.0, "two xvip nodes claimed a VIP for {double} ms");
    Ok(())
}

/// Runs `work` in several threads until it returns that nothing is left. Returns the first error.
fn beside_each_other(jobs: usize, work: impl Fn() -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(&work)).collect();
        let ended = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked"))));
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

fn measure_xvip(results: &Results, args: &Args) -> anyhow::Result<()> {
    let jobs = usize::from(args.jobs).min(results.missing(XVIP, &FAULTS, args.runs));
    beside_each_other(jobs, || {
        let mut lab = Lab::new(&Options { kube: Kube::One, ..Options::default() })?;
        lab.start()?;
        let timing = Config::load(&lab.dir().join("node1.yaml"))?.timing();
        while let Some(fault) = results.next(XVIP, &FAULTS, args.runs) {
            let (outcome, _) = inject(&mut lab, &timing, fault)?;
            results.add(Run {
                program: XVIP.into(),
                fault: fault.name().into(),
                dark_asked_ms: outcome.dark_asked_ms,
                dark_felt_ms: outcome.dark_felt_ms,
                two_owner_ms: outcome.two_owner_ms,
                bound_ms: Some(outcome.bound.1),
            })?;
        }
        Ok(())
    })
}

/// Each run has its own lab, because the effects of one fault would disturb the next run.
fn measure_keepalived(results: &Results, args: &Args) -> anyhow::Result<()> {
    const NAME: &str = "keepalived 1";
    let twice = Duration::from_secs(2 * u64::from(Timing::of(3).duration_s));
    let faults = FAULTS
        .into_iter()
        .filter(|fault| !matches!(fault, Fault::ApiCut | Fault::Reboot))
        .collect::<Vec<_>>();
    beside_each_other(args.jobs.into(), || {
        while let Some(fault) = results.next(NAME, &faults, args.runs) {
            let mut lab = Lab::new(&Options::default())?;
            let mut peer = Keepalived::start(&lab)?;
            // The first node has the highest priority: Both VRRP instances are master once it has
            // both addresses.
            let has = |address: &str| {
                lab.nodes[0].ns.ip("-o addr show dev eth0").is_ok_and(|all| all.contains(address))
            };
            let master =
                eventually(Duration::from_secs(20), || has("192.0.2.10/") && has("2001:db8::10/"));
            ensure!(master, "keepalived does not become master");
            sleep(Duration::from_secs(2));
            let (mut from, mut to) = (0, 0);
            let recording = watched(&mut lab, |lab| {
                sleep(Duration::from_millis(700));
                from = clock::boot().0;
                peer.suffer(lab, 0, fault, twice)?;
                sleep(Duration::from_secs(2));
                to = clock::boot().0;
                Ok(())
            })?;
            peer.stop(&lab);
            results.add(Run {
                program: NAME.into(),
                fault: fault.name().into(),
                dark_asked_ms: recording.asked.dark_ms(from, to),
                dark_felt_ms: recording.echoes.dark_ms(from, to),
                two_owner_ms: two_owner_ms(&recording.claims),
                bound_ms: None,
            })?;
        }
        Ok(())
    })
}

/// All runs, in a file that only grows.
struct Results {
    file: File,
    runs: Mutex<Vec<Run>>,
    /// Runs in progress.
    begun: Mutex<Vec<(&'static str, Fault)>>,
}

impl Results {
    fn open(path: &PathBuf) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str(line)
                .with_context(|| format!("{} line {}: no run", path.display(), number + 1))
        };
        let runs = text.lines().enumerate().map(parse).collect::<anyhow::Result<Vec<Run>>>()?;
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file, runs: Mutex::new(runs), begun: Mutex::default() })
    }

    fn runs(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault with the fewest runs; `None` once each has `wanted`.
    fn next(&self, program: &'static str, faults: &[Fault], wanted: usize) -> Option<Fault> {
        let runs = self.runs();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |fault: &Fault| {
            count(&runs, program, fault.name())
                + begun.iter().filter(|one| **one == (program, *fault)).count()
        };
        let fault =
            *faults.iter().filter(|fault| count(fault) < wanted).min_by_key(|fault| count(fault))?;
        begun.push((program, fault));
        Some(fault)
    }

    /// The number of runs that are left.
    fn missing(&self, program: &str, faults: &[Fault], wanted: usize) -> usize {
        let runs = self.runs();
        faults.iter().map(|fault| wanted.saturating_sub(count(&runs, program, fault.name()))).sum()
    }

    fn add(&self, run: Run) -> anyhow::Result<()> {
        let mut runs = self.runs();
        writeln!(&self.file, "{}", serde_json::to_string(&run)?)?;
        let number = count(&runs, &run.program, &run.fault) + 1;
        println!(
            "{:<13} {:<22} run {number:>3}: dark {:>6.0} ms asked, {:>6.0} ms felt; two owners {:>5.0} ms",
            run.program, run.fault, run.dark_asked_ms, run.dark_felt_ms, run.two_owner_ms
        );
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let done = |one: &(&str, Fault)| one.0 == run.program && one.1.name() == run.fault;
        if let Some(at) = begun.iter().position(done) {
            begun.swap_remove(at);
        }
        runs.push(run);
        Ok(())
    }

    /// Runs by program and fault.
    fn groups(runs: &[Run]) -> BTreeMap<(String, String), Vec<&Run>> {
        let mut groups: BTreeMap<(String, String), Vec<&Run>> = BTreeMap::new();
        for run in runs {
            groups.entry((run.fault.clone(), run.program.clone())).or_default().push(run);
        }
        groups
    }

    fn series(&self) -> Vec<(String, Vec<f64>, Option<f64>)> {
        let runs = self.runs();
        let groups = Self::groups(&runs);
        let series = groups.iter().map(|((fault, program), runs)| {
            let dark = runs.iter().map(|run| run.dark_asked_ms).collect();
            (format!("{fault}, {program}"), dark, runs.iter().find_map(|run| run.bound_ms))
        });
        series.collect()
    }

    fn table(&self) -> String {
        let mut lines = vec![
            "| fault | program | runs | dark, asked: p50 / p99 / max | dark, felt: p50 / p99 / max | bound | two owners, in sum |".to_owned(),
            "|---|---|---|---|---|---|---|".to_owned(),
        ];
        let runs = self.runs();
        for ((fault, program), runs) in Self::groups(&runs) {
            let of = |pick: fn(&Run) -> f64| percentiles::summary(runs.iter().map(|run| pick(run)));
            let bound = runs.iter().find_map(|run| run.bound_ms);
            let double: f64 = runs.iter().map(|run| run.two_owner_ms).sum();
            lines.push(format!(
                "| {fault} | {program} | {} | {} | {} | {} | {double:.0} ms |",
                runs.len(),
                of(|run| run.dark_asked_ms),
                of(|run| run.dark_felt_ms),
                bound.map_or_else(|| "-".into(), |bound| format!("{bound:.0} ms")),
            ));
        }
        lines.join("\n")
    }
}

fn count(runs: &[Run], program: &str, fault: &str) -> usize {
    runs.iter().filter(|run| run.program == program && run.fault == fault).count()
}
