//! Gathers the facts: from the folder of the kubelet, the API, the LAN, and this host.

use super::{
    args::Common,
    files::{self, Folder, Listed, Manifest, Stage, State},
    reading,
};
use crate::{
    adapter::{Adapted, lease::LeaseName},
    cli::{find, pins_of, probe, settings},
    cluster::{
        endpoints::Endpoints,
        health::{self, Question},
        lease::{LeaseApi, LeaseError},
        objects::NodeSeen,
    },
    config::Config,
    migrate::{
        facts::{Facts, LeaseFact, ManifestFact, NodeFact, PodFact, VipFact},
        finish::{Carried, is_label},
        pod::{Pod, Program},
    },
    model::health::{Answer, Service},
    node::{
        host,
        maps::Maps,
        netlink::{self, Netlink},
        pins::Pins,
        socket,
    },
};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use vip_common::abi::HostAddr;

/// The time limit for a request to the API, and for a connection.
const LIMIT: Duration = Duration::from_secs(5);
/// The time limit for the way to the API, with the credentials.
const CONNECT: Duration = Duration::from_secs(30);
/// The time limit for a look at other Leases.
const LONGEST_CHECK: Duration = Duration::from_mins(5);
/// How long stations have to answer.
const ANSWERS: Duration = Duration::from_secs(1);
/// Between two reads of the Lease.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest time for which a Lease is watched.
const LONGEST_WATCH: Duration = Duration::from_mins(2);
/// kubeadm's credentials.
const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// What is wanted of the facts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) common: &'a Common,
    pub(super) node: Option<&'a str>,
    /// The image to which the node is moved.
    pub(super) image: Option<&'a str>,
    /// An earlier command that the present one goes on with.
    pub(super) goes_on: Option<Stage>,
}

/// Facts, and the ways to more.
pub(super) struct Found {
    pub(super) facts: Facts,
    /// The manifest in the folder, if there is exactly one.
    pub(super) manifest: Option<Manifest>,
    pub(super) api: Result<LeaseApi, String>,
    pub(super) state: Option<State>,
}

/// The name of this node.
pub(super) fn node(given: Option<&str>) -> anyhow::Result<String> {
    match given {
        Some(node) => Ok(node.to_owned()),
        None => host::node_name().context("cannot read the host name"),
    }
}

/// Gathers everything.
pub(super) async fn gather(request: Request<'_>) -> anyhow::Result<Found> {
    let Request { common, .. } = request;
    let state = Folder::new(&common.state).state()?;
    let image = request.image.or(state.as_ref().map(|state| state.image.as_str()));
    let node = node(request.node.or(state.as_ref().map(|state| state.node.as_str())))?;
    let (mut ours, unread) = ours(common, &node, image)?;
    let mut adapted = ours.first().map(|(.., adapted)| adapted.clone());
    let mut object = ours.first().map(|(file, ..)| file.object.clone());
    let mut api = reach(common, object.as_ref(), adapted.as_ref()).await;
    let mut template = None;
    if adapted.is_none()
        && let Some(pod) = of_daemonset(&api, &node).await
        && let Some((fact, found)) = reading::template(&pod, &node, image)
    {
        api = api.map(|api| chosen(&api, &found));
        (template, adapted, object) = (Some(fact), Some(found), Some(pod));
    }
    let mut facts = Facts {
        node,
        boot_id: host::boot_id().context("cannot read the boot id")?,
        folder: common.manifests.display().to_string(),
        manifests: ours.iter().map(|(_, fact, _)| fact.clone()).collect(),
        template,
        unread,
        kubelet: Ok(()),
        nodes: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        users: Vec::new(),
        labels: Vec::new(),
        lease: lease(&api).await,
        vips: Ok(Vec::new()),
        unfinished: unfinished(state.as_ref(), request.goes_on),
    };
    cluster(&mut facts, &api, image).await;
    other_leases(&mut facts, (adapted.as_ref(), object.as_ref()), common, &api).await;
    let vips = adapted.map(|adapted| adapted.config.addresses()).unwrap_or_default();
    facts.vips = addresses(&vips, common, &facts).await.map_err(|error| format!("{error:#}"));
    facts.kubelet = kubelet().await;
    let manifest = if ours.len() == 1 { ours.pop().map(|(file, ..)| file) } else { None };
    Ok(Found { facts, manifest, api, state })
}

/// A manifest of kube-vip, or of xvip in its place.
type Ours = (Manifest, ManifestFact, Adapted);
/// Those of a folder, and the files that cannot be read, each with the reason.
type Sorted = (Vec<Ours>, Vec<(String, String)>);

/// The manifests of the folder that matter here.
fn ours(common: &Common, node: &str, image: Option<&str>) -> anyhow::Result<Sorted> {
    let (files, unread) = listed(common)?;
    let mut ours = Vec::new();
    for file in files {
        let shown = file.path.display().to_string();
        let read = reading::manifest(&shown, &file.text, &file.object, (node, image));
        if let Some((mut fact, adapted)) = read {
            if let Err(why) = files::check_plain(&file.path) {
                fact.unfit = Some(format!("{why:#}"));
            }
            ours.push((file, fact, adapted));
        }
    }
    Ok((ours, unread))
}

/// Asks the kubelet of this host whether it is well. `Err`: what it answers.
pub(super) async fn kubelet() -> Result<(), String> {
    let (config, service) = (Config::default(), Service::Kubelet);
    let url = config.asked_at(service).ok_or("it is not asked")?;
    let limits = config.health_limits(service);
    let (access, ca) = (None, None);
    let question = Question { service, url, access, ca, every: LIMIT, limit: LIMIT, limits };
    match health::once(&question).await {
        Answer::Good => Ok(()),
        Answer::Refused(why) | Answer::Slow(why) => Err(why),
    }
}

/// A node without static pods has no folder for them.
fn listed(common: &Common) -> anyhow::Result<Listed> {
    if common.manifests.exists() { files::manifests(&common.manifests) } else { Ok(Listed::default()) }
}

fn unfinished(state: Option<&State>, goes_on: Option<Stage>) -> Option<String> {
    let state = state.filter(|state| goes_on != Some(state.stage))?;
    match state.stage {
        Stage::Applying => Some("an apply has begun here and has not ended".into()),
        Stage::RollingBack => Some("a rollback has begun here and has not ended".into()),
        Stage::Applied => None,
    }
}

/// The way to the API, with the credentials of the host.
pub(super) async fn reach(
    common: &Common,
    object: Option<&Value>,
    adapted: Option<&Adapted>,
) -> Result<LeaseApi, String> {
    let mut config = adapted.map(|adapted| adapted.config.clone()).unwrap_or_default();
    if config.api.endpoints.is_empty() {
        config.api.endpoints = vec!["https://127.0.0.1:6443".into()];
    }
    config.api.kubeconfig = Some(kubeconfig(common, object, &config));
    let (access, vips) = (settings::access(&config.api), config.addresses());
    // A kubeconfig may name a program that is run for credentials, and does not end.
    let runtime = tokio::runtime::Handle::current();
    let work = move || runtime.block_on(async move { Endpoints::connect(&access, &vips, LIMIT).await });
    let connected = timeout(CONNECT, tokio::task::spawn_blocking(work)).await;
    let connected = connected.map_err(|_| format!("no connection to the API within {CONNECT:?}"))?;
    let endpoints = connected.map_err(|error| error.to_string())?;
    let endpoints = endpoints.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    let lease = adapted.map_or_else(
        || LeaseName { namespace: "kube-system".into(), name: "plndr-cp-lock".into() },
        |adapted| adapted.search.chosen.clone(),
    );
    Ok(LeaseApi::new(endpoints, &lease.namespace, &lease.name, LIMIT))
}

fn chosen(api: &LeaseApi, adapted: &Adapted) -> LeaseApi {
    let lease = &adapted.search.chosen;
    api.of(&lease.namespace, &lease.name)
}

/// The kubeconfig on the host: as given, or that which the manifest mounts.
fn kubeconfig(common: &Common, object: Option<&Value>, config: &Config) -> PathBuf {
    if let Some(path) = &common.kubeconfig {
        return path.clone();
    }
    let inside = config.api.kubeconfig.as_ref().map(|path| path.display().to_string());
    let pod = object.and_then(Pod::read);
    let mounted = |path: &str| pod.as_ref().and_then(|pod| pod.host_path(path));
    let found = inside.as_deref().and_then(mounted).or_else(|| mounted(ADMIN));
    found.unwrap_or_else(|| ADMIN.into()).into()
}

/// Nodes and pods. The first error counts: it names the right that is missing.
pub(super) async fn cluster(facts: &mut Facts, api: &Result<LeaseApi, String>, image: Option<&str>) {
    let api = match api {
        Ok(api) => api,
        Err(why) => return facts.nodes = Err(why.clone()),
    };
    let nodes = match api.nodes().await {
        Ok(nodes) => nodes,
        Err(error) => return facts.nodes = Err(error.to_string()),
    };
    let of_node = |node: &NodeSeen| {
        let keys = node.labels.iter().filter(|key| is_label(key)).cloned();
        keys.map(|key| (node.name.clone(), key)).collect::<Vec<_>>()
    };
    facts.labels = nodes.iter().flat_map(of_node).collect();
    let fact = |NodeSeen { name, ready, boot_id, .. }| NodeFact { name, ready, boot_id };
    facts.nodes = Ok(nodes.into_iter().filter(|node| node.control_plane).map(fact).collect());
    let (mut pods, mut users) = (Vec::new(), Vec::new());
    let take = |pod: Value| {
        pods.extend(reading::pod(&pod, image));
        users.extend(reading::user(&pod));
    };
    let taken = api.each_pod(take).await;
    facts.pods = taken.map_err(|error| error.to_string()).map(|()| pods);
    facts.users = users;
}

/// The static pods of kube-vip and xvip on a node. A DaemonSet beside them stays as it is.
pub(super) async fn pods_on(
    api: &LeaseApi,
    node: &str,
    image: Option<&str>,
) -> Result<Vec<PodFact>, LeaseError> {
    let pods = api.pods_on(node).await?;
    let known = pods.iter().filter_map(|pod| reading::pod(pod, image));
    Ok(known.filter(|pod| pod.mirror).collect())
}

/// The pod of kube-vip on this node, as the API shows it.
async fn of_daemonset(api: &Result<LeaseApi, String>, node: &str) -> Option<Value> {
    let api = api.as_ref().ok()?;
    let pods = api.pods_on(node).await.ok()?;
    let mut pods = pods.into_iter().filter(|pod| Pod::read(pod).is_some_and(|pod| !pod.has_ended()));
    let first = pods.next()?;
    // Another DaemonSet may be for Services alone.
    let holds = |pod: &Value| {
        let read = Pod::read(pod).and_then(|pod| pod.variable("cp_enable"));
        read.is_some_and(|value| crate::adapter::parse_bool(&value) == Some(true))
    };
    if holds(&first) { Some(first) } else { Some(pods.find(holds).unwrap_or(first)) }
}

/// Reads the Lease, and watches whether it is renewed: the time in it must change. Clocks are not
/// compared.
pub(super) async fn lease(api: &Result<LeaseApi, String>) -> Result<Option<LeaseFact>, String> {
    let api = api.as_ref().map_err(Clone::clone)?;
    let read = async || api.get(0).await.map_err(|error| error.to_string());
    let Some(first) = read().await? else { return Ok(None) };
    // A clock may run 40 % fast or slow.
    let seconds = u64::from(first.duration_s.max(1)) * 14 / 10 + 2;
    let end = Instant::now() + Duration::from_secs(seconds).min(LONGEST_WATCH);
    let (mut last, mut fresh) = (first.clone(), false);
    while !fresh && !last.holder.is_empty() && Instant::now() < end {
        sleep(LOOK_EVERY).await;
        // One read that fails says nothing; the watch goes on.
        if let Ok(Some(now)) = read().await {
            fresh = now.renew_us != first.renew_us && !now.holder.is_empty();
            last = now;
        }
    }
    Ok(Some(LeaseFact {
        name: api.full_name(),
        ours: last.tenure().is_some(),
        holder: last.holder,
        duration_s: last.duration_s,
        fresh,
    }))
}

/// Whether another Lease is in use that kube-vip might mean.
async fn other_leases(
    facts: &mut Facts,
    (adapted, object): (Option<&Adapted>, Option<&Value>),
    common: &Common,
    api: &Result<LeaseApi, String>,
) {
    let manifest = facts.manifests.first_mut().or(facts.template.as_mut());
    let (Some(adapted), Some(manifest), Ok(_)) = (adapted, manifest, api) else { return };
    if !adapted.refused.is_empty() {
        return;
    }
    let mut adapted = adapted.clone();
    adapted.config.api.kubeconfig = Some(kubeconfig(common, object, &adapted.config));
    adapted.config.pin_root.clone_from(&common.place.pin_root);
    match timeout(LONGEST_CHECK, find::check(&adapted)).await {
        Ok(Ok(told)) => manifest.notes.extend(told),
        Ok(Err(why)) => manifest.refused.push(why),
        Err(_) => manifest.notes.push("the Lease was not looked at: this takes too long".into()),
    }
}

/// Asks the LAN for the VIPs, and looks whether this host carries them.
pub(super) async fn addresses(
    vips: &[IpAddr],
    common: &Common,
    facts: &Facts,
) -> anyhow::Result<Vec<VipFact>> {
    if vips.is_empty() {
        return Ok(Vec::new());
    }
    let verdicts = probe::once_for(vips, &common.place, ANSWERS).await?;
    let carried = carried(common, facts).await?.foreign(vips);
    let fact = |verdict: crate::probe::verdict::Verdict| {
        let here = carried.iter().filter(|found| found.ip == verdict.vip);
        let shown = |found: &Carried| (found.prefix, host::interface_name(found.ifindex));
        let carried_on: Vec<(u8, String)> = here.map(shown).collect();
        let told = |station: &crate::probe::verdict::Station| {
            format!("{} on {}", station.owner(), station.interface)
        };
        let mut stations: Vec<String> = verdict.stations.iter().map(told).collect();
        let mut owners = match verdict.owners {
            crate::probe::verdict::Owners::Nobody => 0,
            crate::probe::verdict::Owners::One => 1,
            crate::probe::verdict::Owners::Two => stations.len().max(2),
        };
        // A host never receives its own answers.
        if !carried_on.is_empty() && facts.holds(&facts.node) {
            owners += 1;
            stations.push("this host".into());
        }
        VipFact { vip: verdict.vip, stations, owners, carried_on }
    };
    Ok(verdicts.into_iter().map(fact).collect())
}

/// The addresses of this host.
pub(super) struct Addresses {
    pub(super) all: Vec<Carried>,
    /// Those that xvip has noted as its own.
    owned: Vec<HostAddr>,
}

impl Addresses {
    /// The VIPs that xvip has not put there.
    pub(super) fn foreign(&self, vips: &[IpAddr]) -> Vec<Carried> {
        let is_left = |found: &&Carried| vips.contains(&found.ip) && found.is_foreign(&self.owned);
        self.all.iter().filter(is_left).copied().collect()
    }
}

/// Lists the addresses of this host.
pub(super) async fn carried(common: &Common, facts: &Facts) -> anyhow::Result<Addresses> {
    // xvip notes an address before it adds it, so its list is read last.
    let carried = |netlink::Listed { addr, prefix, secondary }| Carried {
        ip: addr.ip.into(),
        prefix,
        ifindex: addr.ifindex,
        secondary,
    };
    let all: Vec<_> = Netlink::patient()?.listed().await?.into_iter().map(carried).collect();
    let place = &common.place;
    if let Some(pins) = pins_of(place)? {
        let owned = Maps::open(&pins).and_then(|maps| maps.owned_addrs());
        return Ok(Addresses { all, owned: owned.context("cannot read xvip's list of addresses")? });
    }
    let is_ready = |pod: &PodFact| pod.program == Program::Xvip && pod.ready;
    if facts.pods_on(&facts.node).any(is_ready) || socket::ask(&place.instance).await.is_ok() {
        bail!(
            "an xvip runs here, but has no pins in {}: name its --pin-root and --instance",
            Pins::new(&place.pin_root, &place.instance).dir().display()
        );
    }
    Ok(Addresses { all, owned: Vec::new() })
}
