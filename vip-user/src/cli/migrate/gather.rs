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
        lease::{LeaseApi, LeaseError},
    },
    config::Config,
    migrate::{
        facts::{Facts, LeaseFact, ManifestFact, NodeFact, PodFact, VipFact},
        pod::Pod,
    },
    node::{host, maps::Maps, netlink::Netlink},
};
use anyhow::Context as _;
use serde_json::Value;
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep};

/// The time limit for a request to the API, and for a connection.
const LIMIT: Duration = Duration::from_secs(5);
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
    let Request { common, image, .. } = request;
    let node = node(request.node)?;
    let state = Folder::new(&common.state).state()?;
    let (files, unread) = listed(common)?;
    let mut ours: Vec<(Manifest, ManifestFact, Adapted)> = Vec::new();
    for file in files {
        let shown = file.path.display().to_string();
        let read = reading::manifest(&shown, &file.text, &file.object, (&node, image));
        if let Some((mut fact, adapted)) = read {
            if let Err(why) = files::check_plain(&file.path) {
                fact.unfit = Some(format!("{why:#}"));
            }
            ours.push((file, fact, adapted));
        }
    }
    let mut adapted = ours.first().map(|(.., adapted)| adapted.clone());
    let object = ours.first().map(|(file, ..)| file.object.clone());
    let api = reach(common, object.as_ref(), adapted.as_ref()).await;
    let (nodes, pods) = cluster(&api, image).await;
    let mut api = api;
    if adapted.is_none()
        && let Some(object) = of_daemonset(&api, &node).await
        && let Some(pod) = Pod::read(&object)
    {
        let found = reading::adapted(pod, &node, Some(pod.namespace().to_owned()));
        api = api.map(|api| chosen(&api, &found));
        adapted = Some(found);
    }
    let mut facts = Facts {
        node,
        boot_id: host::boot_id().context("cannot read the boot id")?,
        folder: common.manifests.display().to_string(),
        manifests: ours.iter().map(|(_, fact, _)| fact.clone()).collect(),
        unread,
        nodes,
        pods,
        lease: lease(&api).await,
        vips: Ok(Vec::new()),
        unfinished: unfinished(state.as_ref(), request.goes_on),
    };
    other_leases(&mut facts, (adapted.as_ref(), object.as_ref()), common, &api).await;
    let vips = adapted.map(|adapted| adapted.config.addresses()).unwrap_or_default();
    facts.vips = addresses(&vips, common, &facts).await.map_err(|error| format!("{error:#}"));
    let manifest = if ours.len() == 1 { ours.pop().map(|(file, ..)| file) } else { None };
    Ok(Found { facts, manifest, api, state })
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
    let endpoints = Endpoints::connect(&access, &vips, LIMIT).await;
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

type Cluster = (Result<Vec<NodeFact>, String>, Result<Vec<PodFact>, String>);

/// Nodes and pods. The first error counts: it names the right that is missing.
async fn cluster(api: &Result<LeaseApi, String>, image: Option<&str>) -> Cluster {
    let api = match api {
        Ok(api) => api,
        Err(why) => return (Err(why.clone()), Ok(Vec::new())),
    };
    let nodes = match api.control_plane().await {
        Ok(nodes) => nodes,
        Err(error) => return (Err(error.to_string()), Ok(Vec::new())),
    };
    let of_kube_vip = |label: &String| label.starts_with("kube-vip.io/");
    let mut known = Vec::new();
    let mut pods = Ok(Vec::new());
    for node in nodes {
        match (pods_on(api, &node.name, image).await, &mut pods) {
            (Ok(more), Ok(pods)) => pods.extend(more),
            (Err(error), Ok(_)) => pods = Err(error.to_string()),
            (_, Err(_)) => {}
        }
        let labels = node.labels.into_iter().filter(of_kube_vip).collect();
        known.push(NodeFact { name: node.name, ready: node.ready, boot_id: node.boot_id, labels });
    }
    (Ok(known), pods)
}

/// The pods of kube-vip and xvip on a node.
pub(super) async fn pods_on(
    api: &LeaseApi,
    node: &str,
    image: Option<&str>,
) -> Result<Vec<PodFact>, LeaseError> {
    let pods = api.pods_on(node).await?;
    Ok(pods.iter().filter_map(|pod| reading::pod(pod, node, image)).collect())
}

/// The pod of kube-vip on this node, as the API shows it.
async fn of_daemonset(api: &Result<LeaseApi, String>, node: &str) -> Option<Value> {
    let api = api.as_ref().ok()?;
    let pods = api.pods_on(node).await.ok()?;
    pods.into_iter().find(|pod| Pod::read(pod).is_some())
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
    let (Some(adapted), Some(manifest), Ok(_)) = (adapted, facts.manifests.first_mut(), api) else {
        return;
    };
    if !adapted.refused.is_empty() {
        return;
    }
    let mut adapted = adapted.clone();
    adapted.config.api.kubeconfig = Some(kubeconfig(common, object, &adapted.config));
    adapted.config.pin_root.clone_from(&common.place.pin_root);
    match find::check(&adapted).await {
        Ok(told) => manifest.notes.extend(told),
        Err(why) => manifest.refused.push(why),
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
    let carried = carried(vips, common).await?;
    let fact = |verdict: crate::probe::verdict::Verdict| {
        let here = carried.iter().filter(|(vip, _)| *vip == verdict.vip);
        let carried_on: Vec<String> = here.map(|(_, interface)| interface.clone()).collect();
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

/// The VIPs on interfaces of this host that xvip has not put there, with the name of the interface.
pub(super) async fn carried(vips: &[IpAddr], common: &Common) -> anyhow::Result<Vec<(IpAddr, String)>> {
    let owned = match pins_of(&common.place)? {
        Some(pins) => Maps::open(&pins).and_then(|maps| maps.owned_addrs()),
        None => Ok(Vec::new()),
    };
    let owned = owned.context("cannot read xvip's list of addresses")?;
    let all = Netlink::patient()?.addresses().await?;
    let foreign = all
        .into_keys()
        .filter(|address| vips.contains(&IpAddr::from(address.ip)) && !owned.contains(address));
    Ok(foreign.map(|found| (found.ip.into(), host::interface_name(found.ifindex))).collect())
}
