//! `xvip migrate apply`.

use super::{
    args::{self, seconds},
    files::{self, Folder, Manifest, Prepared, Stage, State},
    gather::{self, Found, Request},
    reading,
    rollback::{self, lock_holder},
    show, sysctls,
};
use crate::{
    clock,
    cluster::lease::LeaseApi,
    migrate::{
        additions::additions,
        apply::{Course, Earlier, Round, Verdict, Watch, course, may_be_xvip, refusals, stuck},
        edit::edited,
        facts::{Facts, LeaseFact, Problem},
        pod::{Pod, Program},
    },
    node::{pins::Pins, socket},
};
use anyhow::{Context as _, bail};
use std::{process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    let Some(state) = moved(args, &found, &folder).await? else { return Ok(ExitCode::FAILURE) };
    let api = found.api.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
    let Err(why) = arrival(args, api, &found.facts, &state).await else {
        folder.note(&State { stage: Stage::Applied, ..state })?;
        show::say(&format!("{} runs xvip, and one station answers", found.facts.node));
        return Ok(ExitCode::SUCCESS);
    };
    show::say(&format!("{} did not arrive: {why}", found.facts.node));
    show::say("putting kube-vip back");
    let back = rollback::back(common, &state, &found.api, (false, seconds(args.timeout)));
    if let Err(problem) = back.await.context("kube-vip is not back: run xvip migrate rollback")? {
        show::problems(&[problem]);
        show::say("xvip's manifest stays in its place: run xvip migrate rollback");
        return Ok(ExitCode::FAILURE);
    }
    show::say(&format!("{} runs kube-vip again", found.facts.node));
    Ok(ExitCode::FAILURE)
}

/// The state of a move whose manifest is in its place, from now on or from an earlier command. `None`:
/// something stands against it.
async fn moved(args: &args::Apply, found: &Found, folder: &Folder) -> anyhow::Result<Option<State>> {
    // A rollback that has begun is a refusal of the plan.
    let state = found.state.as_ref().filter(|state| state.stage != Stage::RollingBack);
    let backup = if state.is_some() { folder.backup()? } else { None };
    let earlier = match (state, &backup) {
        (Some(state), Some(backup)) => Some(Earlier {
            arrived: state.stage == Stage::Applied,
            image: &state.image,
            place: folder.place(state, backup)?,
        }),
        _ => None,
    };
    match (course(earlier.as_ref(), &args.image, &found.facts), state) {
        (Ok(Course::GoOn), Some(state)) => {
            show::say("an apply has begun here before: going on");
            Ok(Some(state.clone()))
        }
        (Ok(_), _) => begin(args, found, folder).await,
        (Err(problems), _) => {
            show::problems(&problems);
            Ok(None)
        }
    }
}

/// Checks everything, and puts xvip's manifest into its place. `None`: something stands against it.
async fn begin(args: &args::Apply, found: &Found, folder: &Folder) -> anyhow::Result<Option<State>> {
    let problems = refusals(&found.facts);
    if show::problems(&problems) {
        return Ok(None);
    }
    let place = &args.common.place;
    if let Some(holder) = lock_holder(&Pins::new(&place.pin_root, &place.instance)).await? {
        let remedy = "end it first: the pod would wait for it, and look as if it had arrived";
        show::problems(&[Problem::new(format!("{holder} runs already"), "this host", remedy)]);
        return Ok(None);
    }
    let manifest = found.manifest.as_ref().context("there is one manifest")?;
    let Manifest { path, text, object } = manifest;
    if may_be_xvip(object) {
        let what = "its image has not kube-vip's name, and it has xvip's variable XVIP_PIN_ROOT";
        let remedy = "go to the next node, or take the variable out if this is kube-vip";
        show::problems(&[Problem::new(what, path.display().to_string(), remedy)]);
        return Ok(None);
    }
    let additions = additions(object, &reading::wanted(&args.image)).map_err(anyhow::Error::msg)?;
    let moved = edited(text, &additions.edits)?;
    let shape = files::Shape::of(path);
    let shape = shape.with_context(|| format!("cannot look at {}", path.display()))?;
    // What an earlier apply has noted is still true.
    let earlier = found.state.as_ref();
    let mut state = State {
        stage: Stage::Applying,
        node: found.facts.node.clone(),
        manifest: path.clone(),
        image: args.image.clone(),
        sysctls: earlier.and_then(|state| state.sysctls.clone()),
        before: earlier.map(|state| state.before.clone()).unwrap_or_default(),
        shape: Some(shape),
    };
    let prepared = files::prepare(path, &moved, Some(shape))?;
    let sysctls = sysctls::prepare(&args.sysctls)?;
    if let Some(sysctls) = &sysctls {
        sysctls.note(&mut state);
    }
    folder.keep_backup(text)?;
    folder.keep_moved(&moved)?;
    folder.note(&state)?;
    show::say(&format!("backup of {} in {}", path.display(), folder.path().display()));
    for change in &additions.words {
        show::say(&format!("change  {change}"));
    }
    let ended = put(found, manifest, (prepared, sysctls)).await;
    if !matches!(ended, Ok(true)) {
        undo(folder, &state);
    }
    Ok(ended?.then_some(state))
}

/// Whether xvip's manifest was put into its place. The facts took time, so the last ones are looked at
/// again.
async fn put(
    found: &Found,
    Manifest { path, text, .. }: &Manifest,
    (prepared, sysctls): (Prepared, Option<sysctls::Prepared>),
) -> anyhow::Result<bool> {
    if let Some(sysctls) = sysctls {
        sysctls.put()?;
    }
    if show::problems(&refusals(&now(found).await)) {
        return Ok(false);
    }
    let now = files::read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
    if now != *text {
        bail!("{} has changed meanwhile; nothing was written there", path.display());
    }
    prepared.put()?;
    show::say(&format!("{} runs xvip's image now: the kubelet replaces the pod", path.display()));
    Ok(true)
}

/// The facts with the Lease and the kubelet as they are now: this node may have become the holder.
async fn now(found: &Found) -> Facts {
    let api = found.api.as_ref().map_err(Clone::clone);
    let read = match api {
        Ok(api) => api.get(0).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    let lease = read.map(|record| {
        let seen = found.facts.known_lease()?;
        record.map(|record| LeaseFact {
            ours: record.tenure().is_some(),
            holder: record.holder,
            ..seen.clone()
        })
    });
    Facts { lease, kubelet: gather::kubelet().await, ..found.facts.clone() }
}

/// Nothing was begun if the manifest that this command wants to write is not in its place.
fn undo(folder: &Folder, state: &State) {
    let moved = folder.moved().ok().flatten();
    if moved.is_some() && files::read_text(&state.manifest).ok() == moved {
        show::say("the manifest is not kube-vip's any more: xvip migrate rollback puts it back");
        return;
    }
    sysctls::back(state);
    if let Err(error) = folder.forget() {
        show::say(&format!("{error:#}"));
    }
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
    let (pod, stuck) = match pod(api, facts, state).await {
        Ok(()) => (None, None),
        Err(why) => (Some(why), why_stuck(api, &facts.node, &state.image).await),
    };
    Round { pod, stuck, daemon: daemon(args).await, owners }
}

/// `Err`: why the pod is not ready with the new image.
async fn pod(api: &LeaseApi, facts: &Facts, state: &State) -> Result<(), String> {
    let pods = gather::pods_on(api, &facts.node, Some(&state.image)).await;
    let pods = pods.map_err(|error| error.to_string())?;
    if pods.iter().any(|pod| pod.program == Program::KubeVip) {
        return Err("the API still shows the pod of kube-vip".into());
    }
    match pods.iter().find(|pod| pod.image == state.image) {
        None => Err("the kubelet has not made the pod".into()),
        Some(pod) if !pod.ready => Err(format!("pod {} is not ready", pod.name)),
        Some(_) => Ok(()),
    }
}

/// Why the kubelet will not start the pod with the new image, if it says so.
async fn why_stuck(api: &LeaseApi, node: &str, image: &str) -> Option<String> {
    let pods = api.pods_on(node).await.ok()?;
    let is_ours = |pod: &serde_json::Value| Pod::read(pod).is_some_and(|pod| pod.image() == image);
    pods.iter().filter(|pod| is_ours(pod)).find_map(stuck)
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
