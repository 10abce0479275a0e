//! `xvip migrate apply`.

use super::{
    args::{self, seconds},
    files::{self, Folder, Manifest, Stage, State},
    gather::{self, Found, Request},
    reading, rollback, show,
};
use crate::{
    clock,
    cluster::lease::LeaseApi,
    migrate::{
        additions::additions,
        apply::{Round, Verdict, Watch, refusals},
        edit::edited,
        facts::Facts,
        pod::Program,
    },
    node::{pins::Pins, socket, sysctl},
};
use anyhow::Context as _;
use std::{fs, io::Write as _, process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What unprivileged pods cannot set themselves.
const SYSCTLS: &str = include_str!("../../../../deploy/kube-vip/sysctl.conf");
const SYSCTL_FILE: &str = "90-xvip.conf";

/// Exit code 0: the node has arrived. 1: it was not moved, or went back.
pub(super) async fn apply(args: &args::Apply) -> anyhow::Result<ExitCode> {
    let common = &args.common;
    let folder = Folder::new(&common.state);
    let request = Request {
        common,
        node: args.node.as_deref(),
        image: Some(&args.image),
        goes_on: Some(Stage::Applying),
    };
    let found = gather::gather(request).await?;
    let going_on = found.state.clone().filter(|state| state.stage == Stage::Applying);
    let state = match going_on {
        Some(state) if is_moved(&state, &folder)? => {
            show::say("an apply has begun here before: going on");
            state
        }
        _ => match begin(args, &found, &folder)? {
            Some(state) => state,
            None => return Ok(ExitCode::FAILURE),
        },
    };
    let why = match found.api.as_ref() {
        Ok(api) => arrival(args, api, &found.facts, &state).await.err(),
        Err(why) => Some(why.clone()),
    };
    let Some(why) = why else {
        folder.note(&State { stage: Stage::Applied, ..state })?;
        show::say(&format!("{} runs xvip, and one station answers", found.facts.node));
        return Ok(ExitCode::SUCCESS);
    };
    show::say(&format!("{} did not arrive: {why}", found.facts.node));
    show::say("putting kube-vip back");
    let back = rollback::back(common, &state, &found.api, (true, seconds(args.timeout)));
    if let Err(problem) = back.await.context("kube-vip is not back: run xvip migrate rollback")? {
        show::problems(&[problem]);
        return Ok(ExitCode::FAILURE);
    }
    show::say(&format!("{} runs kube-vip again", found.facts.node));
    Ok(ExitCode::FAILURE)
}

/// Whether the earlier apply has put xvip's manifest into its place.
fn is_moved(state: &State, folder: &Folder) -> anyhow::Result<bool> {
    use crate::migrate::rollback::Place;
    Ok(files::place(&state.manifest, &folder.backup()?)? == Place::Other)
}

/// Checks everything, and puts xvip's manifest into its place. `None`: something stands against it.
fn begin(args: &args::Apply, found: &Found, folder: &Folder) -> anyhow::Result<Option<State>> {
    let problems = refusals(&found.facts);
    if show::problems(&problems) {
        return Ok(None);
    }
    let Manifest { path, text, object } = found.manifest.as_ref().context("there is one manifest")?;
    let additions = additions(object, &reading::wanted(&args.image)).map_err(anyhow::Error::msg)?;
    let moved = edited(text, &additions.edits)?;
    let mut state = State {
        stage: Stage::Applying,
        node: found.facts.node.clone(),
        manifest: path.clone(),
        image: args.image.clone(),
        sysctls: None,
        before: Vec::new(),
    };
    folder.keep_backup(text)?;
    folder.keep_moved(&moved)?;
    folder.note(&state)?;
    show::say(&format!("backup of {} in {}", path.display(), folder.path().display()));
    sysctls(args, &mut state, folder)?;
    for change in &additions.words {
        show::say(&format!("change  {change}"));
    }
    // The facts took time: nobody may have edited the file meanwhile.
    let now = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if now != *text {
        folder.forget()?;
        anyhow::bail!("{} has changed meanwhile; nothing was written there", path.display());
    }
    files::put(path, &moved)?;
    show::say(&format!("{} runs xvip's image now: the kubelet replaces the pod", path.display()));
    Ok(Some(state))
}

/// The two sysctls, now and after the next boot. A file that is there is left as it is.
fn sysctls(args: &args::Apply, state: &mut State, folder: &Folder) -> anyhow::Result<()> {
    let path = args.sysctls.join(SYSCTL_FILE);
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    match file {
        Ok(mut file) => {
            state.sysctls = Some(path.clone());
            state.before =
                sysctl::SYSCTLS.iter().filter_map(|(name, _)| sysctl::read(name).ok()).collect();
            folder.note(state)?;
            file.write_all(SYSCTLS.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            for (name, value) in sysctl::SYSCTLS {
                sysctl::write(name, value).with_context(|| format!("cannot set {name}"))?;
            }
            show::say(&format!("wrote {}: arp_ignore and arp_announce, in force now", path.display()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            show::say(&format!("{} is there already and stays", path.display()));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
    Ok(())
}

/// Waits until the node has arrived. `Err`: why it did not.
async fn arrival(
    args: &args::Apply,
    api: &LeaseApi,
    facts: &Facts,
    state: &State,
) -> Result<(), String> {
    let end = Instant::now() + seconds(args.timeout);
    let (mut watch, mut told) = (Watch::default(), String::new());
    loop {
        let why = match watch.take(&look(args, api, facts, state).await) {
            Verdict::Arrived => return Ok(()),
            Verdict::Failed(why) => return Err(why),
            Verdict::Wait(why) => why,
        };
        if why != told {
            show::say(&format!("waiting: {why}"));
            told.clone_from(&why);
        }
        if Instant::now() >= end {
            return Err(format!("after {} s: {why}", args.timeout));
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn look(args: &args::Apply, api: &LeaseApi, facts: &Facts, state: &State) -> Round {
    let manifest = facts.manifests.first();
    let vips = manifest.map(|manifest| manifest.vips.clone()).unwrap_or_default();
    // While the pod changes, this host may carry the VIP for neither program.
    let facts_of_none = Facts { lease: Ok(None), ..facts.clone() };
    let owners = match gather::addresses(&vips, &args.common, &facts_of_none).await {
        Ok(asked) => {
            asked.into_iter().map(|vip| (vip.vip, vip.owners, vip.stations.join(", "))).collect()
        }
        Err(_) => vips.iter().map(|vip| (*vip, 0, String::new())).collect(),
    };
    Round { pod: pod(api, facts, state).await, daemon: daemon(args).await, owners }
}

/// Why the pod is not ready with the new image.
async fn pod(api: &LeaseApi, facts: &Facts, state: &State) -> Option<String> {
    let pods = match gather::pods_on(api, &facts.node, Some(&state.image)).await {
        Ok(pods) => pods,
        Err(error) => return Some(error.to_string()),
    };
    if pods.iter().any(|pod| pod.program == Program::KubeVip) {
        return Some("the API still shows the pod of kube-vip".into());
    }
    match pods.iter().find(|pod| pod.image == state.image) {
        None => Some("the kubelet has not made the pod".into()),
        Some(pod) if !pod.ready => Some(format!("pod {} is not ready", pod.name)),
        Some(_) => None,
    }
}

/// Why the daemon is not ready, or the guard is off.
async fn daemon(args: &args::Apply) -> Option<String> {
    let place = &args.common.place;
    match socket::ask(&place.instance).await {
        Err(error) => return Some(error.to_string()),
        Ok(state) => {
            let lacks = state.lacks(clock::boot());
            if !lacks.is_empty() {
                return Some(lacks.join("; "));
            }
        }
    }
    let pins = Pins::new(&place.pin_root, &place.instance);
    let guards = pins.links().iter().any(|pin| pin.kind.is_guard());
    (!guards).then(|| format!("no guard is pinned in {}", pins.dir().display()))
}
