//! `xvip migrate rollback`, and the way back after a failed apply.

use super::{
    args::{self, Common, seconds},
    files::{self, Folder, Manifest, Stage, State},
    gather, reading, show,
};
use crate::{
    adapter::Adapted,
    cli::{Output, Place, cleanup, handover},
    cluster::lease::LeaseApi,
    migrate::{
        edit::parsed,
        facts::Problem,
        pod::{Pod, Program},
        rollback::{Daemon, Note, Seen, Step, steps},
    },
    node::{
        lock::{Attempt, Lock},
        pins::Pins,
        socket, sysctl,
    },
    state::DaemonState,
};
use anyhow::{Context as _, bail};
use std::{fs, process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The kubelet reads its folder at least every 20 s. Without the API nothing else shows that it has
/// seen that the file is gone.
const KUBELET_READS: Duration = Duration::from_secs(25);

/// Exit code 0: kube-vip is back. 1: there is no way back from here.
pub(super) async fn rollback(args: &args::Rollback) -> anyhow::Result<ExitCode> {
    let common = &args.common;
    let Some(state) = Folder::new(&common.state).state()? else {
        let what = "no node was moved here, or its state is gone";
        let remedy = "put kube-vip's manifest back by hand: docs/upgrade.md";
        let at = common.state.display().to_string();
        show::problems(&[Problem::new(what, at, remedy)]);
        return Ok(ExitCode::FAILURE);
    };
    let node = gather::node(args.node.as_deref())?;
    if !state.node.eq_ignore_ascii_case(&node) {
        bail!("{} was moved here, and not {node}: name it", state.node);
    }
    let api = api(common, &state).await;
    if let Err(problem) = back(common, &state, &api, (args.offline, seconds(args.timeout))).await? {
        show::problems(&[problem]);
        return Ok(ExitCode::FAILURE);
    }
    show::say(&format!("{} runs kube-vip again", state.node));
    Ok(ExitCode::SUCCESS)
}

/// The way to the API, by the manifest of the backup.
async fn api(common: &Common, state: &State) -> Result<LeaseApi, String> {
    let read = || -> anyhow::Result<(serde_json::Value, Option<Adapted>)> {
        let object = parsed(&Folder::new(&common.state).backup()?)?;
        let pod = Pod::read(&object);
        let adapted = pod.map(|pod| reading::adapted(pod, &state.node, None));
        Ok((object, adapted))
    };
    let (object, adapted) = read().map_err(|error| format!("{error:#}"))?;
    gather::reach(common, Some(&object), adapted.as_ref()).await
}

/// Goes back, from wherever the move has come to. `Err` inside: there is no way back from here.
pub(super) async fn back(
    common: &Common,
    state: &State,
    api: &Result<LeaseApi, String>,
    (offline, patience): (bool, Duration),
) -> anyhow::Result<Result<(), Problem>> {
    let folder = Folder::new(&common.state);
    let backup = folder.backup()?;
    let seen = look(common, state, (&backup, api), offline).await?;
    let steps = match steps(&seen) {
        Ok(steps) => steps,
        Err(problem) => return Ok(Err(problem)),
    };
    if offline && let Note::Unknown(why) = &seen.note {
        show::say(&format!("the Lease may still note a tenure of this node: {why}"));
    }
    folder.note(&State { stage: Stage::RollingBack, ..state.clone() })?;
    let way = Way { common, state, folder: &folder, backup: &backup, api, patience };
    for step in steps {
        way.go(step).await?;
    }
    sysctls_back(state)?;
    folder.forget()?;
    Ok(Ok(()))
}

async fn look(
    common: &Common,
    state: &State,
    (backup, api): (&str, &Result<LeaseApi, String>),
    offline: bool,
) -> anyhow::Result<Seen> {
    let place = &common.place;
    let holds = |daemon: DaemonState| {
        let mut states = daemon.leases.iter().map(|lease| lease.state.as_str());
        states.any(|state| matches!(state, "holding" | "lapsed"))
    };
    let daemon = match socket::ask(&place.instance).await.ok().map(holds) {
        None => Daemon::Gone,
        Some(false) => Daemon::Waits,
        Some(true) => Daemon::Holds,
    };
    let read = match api {
        Ok(api) => api.get(0).await.map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    let note = match read {
        Err(why) => Note::Unknown(why),
        Ok(record) => {
            let note = record.and_then(|record| record.note);
            let is_own = note.is_some_and(|note| note.holder.eq_ignore_ascii_case(&state.node));
            if is_own { Note::Own } else { Note::NotOwn }
        }
    };
    let pins = Pins::new(&place.pin_root, &place.instance);
    Ok(Seen {
        place: files::place(&state.manifest, backup)?,
        daemon,
        pins: pins.try_exist().unwrap_or(true) || !pins.other_versions().is_empty(),
        note,
        offline,
    })
}

/// What all steps need.
struct Way<'a> {
    common: &'a Common,
    state: &'a State,
    folder: &'a Folder,
    backup: &'a str,
    api: &'a Result<LeaseApi, String>,
    patience: Duration,
}

impl Way<'_> {
    async fn go(&self, step: Step) -> anyhow::Result<()> {
        let path = &self.state.manifest;
        match step {
            Step::HandOver => self.hand_over().await,
            Step::TakeAway => {
                // An operator may have edited it.
                let text = fs::read_to_string(path);
                self.folder
                    .keep_moved(&text.with_context(|| format!("cannot read {}", path.display()))?)?;
                files::take_away(path)?;
                show::say(&format!("took {} away: the kubelet stops the pod", path.display()));
            }
            Step::AwaitEnd => self.await_end().await?,
            Step::CleanUp => drop(cleanup::cleanup(&self.place()).await?),
            Step::Strip => self.strip().await?,
            Step::PutBack => {
                self.refuse_others()?;
                files::put(path, self.backup)?;
                show::say(&format!("put {} back", path.display()));
            }
            Step::AwaitReady => self.await_ready().await?,
        }
        Ok(())
    }

    fn place(&self) -> Place {
        let Place { instance, pin_root } = &self.common.place;
        Place { instance: instance.clone(), pin_root: pin_root.clone() }
    }

    /// A stop releases the Lease as well. So it is no failure if no other node takes it now.
    async fn hand_over(&self) {
        let args =
            handover::Handover { to: None, lease: None, place: self.place(), output: Output::Table };
        if let Err(error) = handover::handover(&args).await {
            show::say(&format!("no handover: {error:#}; the stop releases the Lease"));
        }
    }

    /// A pod of the same name may have come back by other ways, such as a tool that writes manifests.
    fn refuse_others(&self) -> anyhow::Result<()> {
        let (files, _) = files::manifests(&self.common.manifests)?;
        let mut others = files.iter().filter(|file: &&Manifest| Pod::read(&file.object).is_some());
        match others.next() {
            None => Ok(()),
            Some(other) => bail!(
                "{} is a manifest of kube-vip or xvip too: take it away, and run this again",
                other.path.display()
            ),
        }
    }

    async fn await_end(&self) -> anyhow::Result<()> {
        let end = Instant::now() + self.patience;
        let (place, mut told) = (&self.common.place, String::new());
        let pins = Pins::new(&place.pin_root, &place.instance);
        let mut free_since: Option<Instant> = None;
        loop {
            // The lock is dropped at once.
            let busy = match Lock::try_take(&pins).await.context("cannot look at the lock")? {
                Attempt::Taken(_) => None,
                Attempt::Busy(holder) => Some(format!("{holder} still runs")),
            };
            let since = match busy {
                None => *free_since.get_or_insert_with(Instant::now),
                Some(_) => Instant::now(),
            };
            if busy.is_some() {
                free_since = None;
            }
            let is_gone = match self.pods().await {
                Some(pods) if pods.is_empty() => busy.is_none(),
                Some(_) => false,
                None => busy.is_none() && since.elapsed() >= KUBELET_READS,
            };
            if is_gone {
                return Ok(());
            }
            let why = busy.unwrap_or_else(|| "the kubelet has not removed the pod".into());
            if Instant::now() >= end {
                bail!("the pod did not end: {why}. Is the kubelet running? Then run this again");
            }
            if why != told {
                show::say(&format!("waiting: {why}"));
                told = why;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The pods of kube-vip or xvip on this node; `None` if the API does not say.
    async fn pods(&self) -> Option<Vec<crate::migrate::facts::PodFact>> {
        let api = self.api.as_ref().ok()?;
        gather::pods_on(api, &self.state.node, Some(&self.state.image)).await.ok()
    }

    async fn strip(&self) -> anyhow::Result<()> {
        let api = self.api.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
        let stripped = api.strip(&self.state.node).await;
        let stripped = stripped.context("the note of this node's tenure is still in the Lease")?;
        if stripped {
            show::say(&format!(
                "took the note of this node's tenure out of the Lease {}",
                api.full_name()
            ));
        }
        Ok(())
    }

    async fn await_ready(&self) -> anyhow::Result<()> {
        let end = Instant::now() + self.patience;
        loop {
            match self.pods().await {
                None => {
                    show::say("the API does not say whether the pod of kube-vip is ready");
                    return Ok(());
                }
                Some(pods) => {
                    let is_ready = |pod: &crate::migrate::facts::PodFact| {
                        pod.program == Program::KubeVip && pod.ready
                    };
                    if pods.iter().any(is_ready) {
                        return Ok(());
                    }
                }
            }
            if Instant::now() >= end {
                bail!("kube-vip's manifest is back, but its pod is not ready: look at its log");
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The file and the values that `apply` has written. Values that somebody has changed since stay.
fn sysctls_back(state: &State) -> anyhow::Result<()> {
    let Some(path) = &state.sysctls else { return Ok(()) };
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => show::say(&format!("removed {}", path.display())),
    }
    for ((name, ours), before) in sysctl::SYSCTLS.into_iter().zip(&state.before) {
        if sysctl::read(name).ok() == Some(ours) && *before != ours {
            sysctl::write(name, *before).with_context(|| format!("cannot set {name}"))?;
        }
    }
    Ok(())
}
