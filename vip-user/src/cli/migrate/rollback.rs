//! `xvip migrate rollback`, and the way back after a failed apply.

use super::{
    args::{self, Common, seconds},
    files::{self, Folder, Prepared, Stage, State},
    gather, reading, show,
    signals::Span,
    sysctls,
};
use crate::{
    adapter::Adapted,
    cli::{Output, Place, cleanup, handover},
    cluster::lease::LeaseApi,
    migrate::{
        edit::parsed,
        facts::{PodFact, Problem},
        pod::{Pod, Program},
        rollback::{Daemon, Note, Place as At, Seen, Step, other_host, steps},
    },
    node::{
        host,
        lock::{Attempt, Lock},
        pins::Pins,
        socket,
    },
    state::DaemonState,
};
use anyhow::{Context as _, bail};
use std::{process::ExitCode, time::Duration};
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
    if let Some(problem) = elsewhere(&api, &state, args.offline).await? {
        show::problems(&[problem]);
        return Ok(ExitCode::FAILURE);
    }
    if let Err(problem) = back(common, &state, &api, (args.offline, seconds(args.timeout))).await? {
        show::problems(&[problem]);
        return Ok(ExitCode::FAILURE);
    }
    show::say(&format!("{} runs kube-vip again", state.node));
    Ok(ExitCode::SUCCESS)
}

/// Whether the API is that of another cluster, or this is another host. An API that does not answer is
/// told later.
async fn elsewhere(
    api: &Result<LeaseApi, String>,
    state: &State,
    offline: bool,
) -> anyhow::Result<Option<Problem>> {
    let Ok(api) = api else { return Ok(None) };
    let nodes = match api.control_plane().await {
        Ok(nodes) => nodes,
        Err(_) if offline => return Ok(None),
        Err(error) => {
            let remedy = "wait for an API server, or add --offline if every xvip has this version";
            return Ok(Some(Problem::new(error.to_string(), "the API", remedy)));
        }
    };
    let nodes: Vec<_> = nodes.into_iter().map(|node| (node.name, node.boot_id)).collect();
    let boot_id = host::boot_id().context("cannot read the boot id")?;
    Ok(other_host(&nodes, &state.node, &boot_id))
}

/// kube-vip's manifest. Without it nothing can be put back here.
fn backup(folder: &Folder, state: &State) -> anyhow::Result<String> {
    folder.backup()?.with_context(|| {
        format!(
            "the backup in {} is gone: take xvip's manifest away, run xvip cleanup when its pod is \
             gone, put kube-vip's manifest to {} by hand, and remove that folder",
            folder.path().display(),
            state.manifest.display()
        )
    })
}

/// The way to the API, by the manifest of the backup.
async fn api(common: &Common, state: &State) -> Result<LeaseApi, String> {
    let read = || -> anyhow::Result<(serde_json::Value, Option<Adapted>)> {
        let object = parsed(&backup(&Folder::new(&common.state), state)?)?;
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
    let backup = backup(&folder, state)?;
    let seen = look(common, state, (&backup, api), offline).await?;
    let steps = match steps(&seen) {
        Ok(steps) => steps,
        Err(problem) => return Ok(Err(problem)),
    };
    if offline && let Note::Unknown(why) = &seen.note {
        show::say(&format!("the Lease may still note a tenure of this node: {why}"));
    }
    let mut way = Way {
        common,
        state,
        folder: &folder,
        backup: &backup,
        api,
        offline,
        patience,
        prepared: None,
        taken: None,
        span: None,
    };
    for step in steps {
        if let Err(error) = way.go(step).await {
            return Err(way.given_back(error));
        }
    }
    sysctls::back(state);
    files::sweep(&state.manifest)?;
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
        place: Folder::new(&common.state).place(state, backup)?,
        daemon,
        locked: lock_holder(&pins).await?.is_some(),
        pins: pins.try_exist().unwrap_or(true) || !pins.other_versions().is_empty(),
        note,
        offline,
    })
}

/// The process that holds xvip's lock. It is dropped at once.
pub(super) async fn lock_holder(pins: &Pins) -> anyhow::Result<Option<String>> {
    Ok(match Lock::try_take(pins).await.context("cannot look at the lock")? {
        Attempt::Taken(_) => None,
        Attempt::Busy(holder) => Some(holder),
    })
}

/// What all steps need.
struct Way<'a> {
    common: &'a Common,
    state: &'a State,
    folder: &'a Folder,
    backup: &'a str,
    api: &'a Result<LeaseApi, String>,
    offline: bool,
    patience: Duration,
    /// kube-vip's manifest beside its place.
    prepared: Option<Prepared>,
    /// What was in the place of the manifest.
    taken: Option<String>,
    /// Lives while no manifest is in its place.
    span: Option<Span>,
}

impl Way<'_> {
    async fn go(&mut self, step: Step) -> anyhow::Result<()> {
        let path = &self.state.manifest;
        match step {
            Step::Check => self.check().await?,
            Step::HandOver => self.hand_over().await,
            Step::TakeAway => self.take_away()?,
            Step::AwaitEnd => {
                // An earlier command may have taken the manifest away.
                self.span.get_or_insert_with(Span::begin);
                self.await_end().await?;
            }
            Step::CleanUp => drop(cleanup::cleanup(&self.place()).await?),
            Step::Strip => self.strip().await?,
            Step::PutBack => {
                self.refuse_others()?;
                let prepared = self.prepared.take().context("nothing is prepared")?;
                prepared.put()?;
                self.span = None;
                show::say(&format!("put {} back", path.display()));
            }
            Step::AwaitReady => self.await_ready().await?,
            Step::Sweep => self.sweep().await,
        }
        Ok(())
    }

    /// Tries what could fail later, when neither manifest is in its place.
    async fn check(&mut self) -> anyhow::Result<()> {
        let path = &self.state.manifest;
        let (_, unread) = files::manifests(files::folder_of(path))?;
        let own = path.display().to_string();
        if let Some((other, why)) = unread.iter().find(|(other, _)| *other != own) {
            bail!("{other} cannot be read ({why}), and may be kube-vip's too: take it away");
        }
        self.refuse_others()?;
        // An operator or a tool may have edited it.
        match self.folder.place(self.state, self.backup)? {
            At::Moved => self.folder.keep_moved(&files::read_text(path)?)?,
            At::Other => self.folder.keep_other(&files::read_text(path)?)?,
            At::Original | At::Nothing => {}
        }
        let place = &self.common.place;
        lock_holder(&Pins::new(&place.pin_root, &place.instance)).await?;
        self.prepared = Some(files::prepare(path, self.backup, self.state.shape)?);
        self.folder.note(&State { stage: Stage::RollingBack, ..self.state.clone() })
    }

    fn take_away(&mut self) -> anyhow::Result<()> {
        let path = &self.state.manifest;
        let text = files::read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.taken = Some(text);
        self.span = Some(Span::begin());
        files::take_away(path)?;
        show::say(&format!("took {} away: the kubelet stops the pod", path.display()));
        Ok(())
    }

    /// An error must not leave this node without any manifest: what was there comes back.
    fn given_back(&mut self, error: anyhow::Error) -> anyhow::Error {
        if self.span.take().is_none() {
            return error;
        }
        let path = &self.state.manifest;
        match self.give_back() {
            Ok(true) => {
                show::say(&format!("put {} back as it was before", path.display()));
                error
            }
            Ok(false) => error,
            Err(problem) => error.context(format!(
                "no manifest is in its place ({problem:#}): put one of {} to {}",
                self.folder.path().display(),
                path.display()
            )),
        }
    }

    /// Whether a manifest was put back. One that is there already stays.
    fn give_back(&mut self) -> anyhow::Result<bool> {
        let path = &self.state.manifest;
        if path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
            return Ok(false);
        }
        self.refuse_others()?;
        let taken = match self.taken.take() {
            Some(text) => Some(text),
            None => self.folder.moved()?,
        };
        let text = taken.context("xvip's manifest is not kept")?;
        self.prepared = None;
        files::prepare(path, &text, self.state.shape)?.put()?;
        Ok(true)
    }

    async fn sweep(&self) {
        if let Err(error) = cleanup::cleanup(&self.place()).await {
            show::say(&format!("run xvip cleanup by hand: {error:#}"));
        }
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
        let path = &self.state.manifest;
        let (files, _) = files::manifests(files::folder_of(path))?;
        // A file in the place itself is there because it was not taken away.
        let is_expected = self.span.is_none();
        let mut others = files
            .iter()
            .filter(|file| !(is_expected && file.path == *path) && Pod::read(&file.object).is_some());
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
            let busy = lock_holder(&pins).await?.map(|holder| format!("{holder} still runs"));
            let since = match busy {
                None => *free_since.get_or_insert_with(Instant::now),
                Some(_) => Instant::now(),
            };
            if busy.is_some() {
                free_since = None;
            }
            let is_gone = match self.pods().await {
                Some(pods) if pods.is_empty() => busy.is_none(),
                Some(_) => {
                    free_since = None;
                    false
                }
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

    /// The pod of this manifest; `None` if the API does not say.
    async fn pods(&self) -> Option<Vec<PodFact>> {
        let api = self.api.as_ref().ok()?;
        let pods = gather::pods_on(api, &self.state.node, Some(&self.state.image)).await.ok()?;
        let object = parsed(self.backup).ok()?;
        let name = format!("{}-{}", Pod::read(&object)?.name(), self.state.node);
        Some(pods.into_iter().filter(|pod| pod.name.eq_ignore_ascii_case(&name)).collect())
    }

    async fn strip(&self) -> anyhow::Result<()> {
        let api = self.api.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
        let stripped = match api.strip(&self.state.node).await {
            Err(error) if self.offline => {
                show::say(&format!("the Lease may still note a tenure of this node: {error}"));
                return Ok(());
            }
            stripped => stripped.context("the note of this node's tenure is still in the Lease")?,
        };
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
                    let is_ready = |pod: &PodFact| pod.program == Program::KubeVip && pod.ready;
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

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::{
        fs,
        os::unix::fs::PermissionsExt as _,
        path::{Path, PathBuf},
    };

    const KUBE_VIP: &str = "kind: Pod\nmetadata:\n  name: kube-vip\nspec:\n  containers:\n  - \
                            args: [manager]\n    image: registry.example/kube-vip:1\n";

    /// A way back whose folders are empty.
    fn with(name: &str, test: impl Fn(&Path, &mut Way<'_>)) {
        let dir = std::env::temp_dir().join(format!("xvip-back-{name}-{}", std::process::id()));
        let manifests: PathBuf = dir.join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let path = manifests.join("kube-vip.yaml");
        let place = Place { instance: "test".into(), pin_root: dir.join("pins") };
        let common = Common { manifests, kubeconfig: None, state: dir.join("state"), place };
        let state = State {
            stage: Stage::RollingBack,
            node: "a".into(),
            manifest: path.clone(),
            image: "registry.example/xvip:1".into(),
            sysctls: None,
            before: vec![],
            shape: None,
        };
        let (folder, api) = (Folder::new(&common.state), Err("no answer".into()));
        test(
            &path,
            &mut Way {
                common: &common,
                state: &state,
                folder: &folder,
                backup: KUBE_VIP,
                api: &api,
                offline: false,
                patience: Duration::ZERO,
                prepared: None,
                taken: None,
                span: None,
            },
        );
        let _ = fs::remove_dir_all(&dir);
    }

    #[test]
    fn an_error_leaves_the_manifest_that_was_there() {
        with("taken", |path, way| {
            fs::write(path, "edited by hand").unwrap();
            way.take_away().unwrap();
            assert!(!path.exists());
            assert_eq!(way.given_back(anyhow!("no end")).to_string(), "no end");
            assert_eq!(fs::read_to_string(path).unwrap(), "edited by hand");
        });
        // An earlier command has taken it away.
        with("resumed", |path, way| {
            way.folder.keep_moved("xvip's").unwrap();
            way.span = Some(Span::begin());
            way.given_back(anyhow!("no end"));
            assert_eq!(fs::read_to_string(path).unwrap(), "xvip's");
        });
        with("written", |path, way| {
            fs::write(path, "xvip's").unwrap();
            way.take_away().unwrap();
            fs::write(path, "by a tool").unwrap();
            way.given_back(anyhow!("no end"));
            assert_eq!(fs::read_to_string(path).unwrap(), "by a tool");
        });
        with("second", |path, way| {
            fs::write(path, "xvip's").unwrap();
            way.take_away().unwrap();
            fs::write(path.with_file_name("other.yaml"), KUBE_VIP).unwrap();
            let told = way.given_back(anyhow!("no end")).to_string();
            assert!(told.contains("no manifest is in its place"), "{told}");
            assert!(!path.exists());
        });
    }

    #[test]
    fn kube_vips_manifest_does_not_take_the_place_of_xvips_copy() {
        with("kept", |path, way| {
            way.folder.keep_moved("xvip's").unwrap();
            fs::write(path, KUBE_VIP).unwrap();
            way.take_away().unwrap();
            assert_eq!(way.folder.moved().unwrap().as_deref(), Some("xvip's"));
        });
    }

    #[test]
    fn what_could_fail_later_fails_while_a_manifest_is_there() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (name, text) in [("second.yaml", KUBE_VIP), ("broken.yaml", "# vip\na: b: c")] {
            with("checked", |path, way| {
                fs::write(path, "xvip's").unwrap();
                let other = path.with_file_name(name);
                fs::write(&other, text).unwrap();
                let told = runtime.block_on(way.go(Step::Check)).unwrap_err().to_string();
                assert!(told.contains(name), "{told}");
                assert_eq!(fs::read_to_string(path).unwrap(), "xvip's");
                assert_eq!(way.folder.state().unwrap(), None);
                fs::remove_file(other).unwrap();
            });
        }
    }
}
