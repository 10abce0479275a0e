//! The controller with a fake dataplane and the stand-in API over loopback. What the fake is taught
//! is shown for the real host by the tests of `lab`: fences and order of actions by
//! `lab::restart` and `lab::faults`, addresses by `lab::guard`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use aya::sys::SyscallError;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use vip_common::abi::{HostAddr, Ip, Port, Vip};
use vip_tests::standin::StandIn;
use vip_user::{
    cluster::{
        endpoints::Endpoints,
        events::Recorder,
        lease::LeaseApi,
        watch::{Sighting, follow},
    },
    config::{ConflictPolicy, OnStop},
    controller::{Controller, Event, LeaseSetup, Setup},
    metrics::Metrics,
    model::{
        desired::{AddrSpec, Link, LinkRole, Links, Placement},
        election::{Identity, Source, Written},
        fitness::Fitness,
        plan::{Action, Actual},
        record::{LeaseWrite, Tenure, TenureNote},
        time::BootNs,
        timing::Timing,
    },
    node::{
        clock,
        dataplane::{Dataplane, HostError},
        maps::MapsError,
    },
    state::DaemonState,
};

const SLOT: u32 = 0;

/// Everything that the controller did, in order.
#[derive(Clone, Debug, PartialEq)]
enum Did {
    Raised(u64),
    Cleared,
    Applied(Action),
    Announced,
    Probed,
}

#[derive(Default)]
struct Host {
    did: Vec<Did>,
    deadline: BootNs,
    actual: Actual,
    link_up: bool,
    /// Announcements that are still queued: clearing the fence does not end in silence.
    stuck: bool,
    /// The host refuses to add this address.
    refuses: Option<IpAddr>,
    /// The kernel has no room: calls of this sort fail with this error.
    exhausted: Option<(Call, i32)>,
    /// The released Lease as the API shows it when the fence is cleared.
    holder_when_cleared: Option<String>,
}

/// A sort of call that can fail.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Publish(IpAddr),
    PublishAny,
    Links,
    Actual,
    Raise,
}

#[derive(Clone)]
struct FakeHost {
    host: Arc<Mutex<Host>>,
    api: StandIn,
}

impl FakeHost {
    fn lock(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel says to a map or link call when it has no room.
    fn room_for(&self, call: Call) -> Result<(), HostError> {
        let Some((exhausted, errno)) = self.lock().exhausted else { return Ok(()) };
        let any = matches!((call, exhausted), (Call::Publish(_), Call::PublishAny));
        if exhausted != call && !any {
            return Ok(());
        }
        let io_error = std::io::Error::from_raw_os_error(errno);
        let source = SyscallError { call: "bpf_map_update_elem", io_error }.into();
        Err(MapsError::Access { what: "write", name: "VIPS", source }.into())
    }

    fn answers(&self) -> bool {
        let host = self.lock();
        let published = host.actual.vips.values().any(|vip| vip.generation != 0);
        published && clock::boot() < host.deadline
    }
}

impl Dataplane for FakeHost {
    async fn actual(&mut self) -> Result<Actual, HostError> {
        self.room_for(Call::Actual)?;
        Ok(self.lock().actual.clone())
    }

    async fn links(&mut self) -> Result<Links, HostError> {
        self.room_for(Call::Links)?;
        let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
        let (mac, up) = ([2, 0, 0, 0, 0, 1], self.lock().link_up);
        let link = Link { port, bit: 0, role: LinkRole::Answer, mac, up, guarded: true };
        let answer = BTreeMap::from([(vip(), 1), (other_vip(), 1)]);
        Ok(Links { links: vec![link], answer, attached: false })
    }

    async fn is_guarded(&mut self) -> bool {
        true
    }

    async fn apply(&mut self, action: Action) -> Result<(), HostError> {
        if let Action::Publish(ip, _) = action {
            self.room_for(Call::Publish(IpAddr::from(ip)))?;
        }
        let mut host = self.lock();
        if let (Action::AddAddr(addr, _), Some(refused)) = (action, host.refuses)
            && addr.ip == Ip::from(refused)
        {
            return Err(HostError::StillQueued);
        }
        host.did.push(Did::Applied(action));
        match action {
            Action::SetIface(port, iface) => drop(host.actual.ifaces.insert(port, iface)),
            Action::RemoveIface(port) => drop(host.actual.ifaces.remove(&port)),
            Action::Publish(ip, vip) => drop(host.actual.vips.insert(ip, vip)),
            Action::Withdraw(ip) => drop(host.actual.vips.remove(&ip)),
            Action::AddAddr(addr, spec) => {
                let left = if let AddrSpec::Vip { valid_s } = spec { valid_s } else { u32::MAX };
                host.actual.addrs.insert(addr, left);
                host.actual.owned.insert(addr);
            }
            Action::DelAddr(addr) => {
                host.actual.addrs.remove(&addr);
                host.actual.owned.remove(&addr);
            }
        }
        Ok(())
    }

    fn raise_fence(
        &mut self,
        _slot: u32,
        _tenure: &Tenure,
        _duration_s: u32,
        generation: u64,
        deadline: BootNs,
    ) -> Result<(), HostError> {
        self.room_for(Call::Raise)?;
        let mut host = self.lock();
        host.did.push(Did::Raised(generation));
        host.deadline = deadline;
        Ok(())
    }

    fn lower_fence(&mut self, _slot: u32, deadline: BootNs) -> Result<(), HostError> {
        self.lock().deadline = deadline;
        Ok(())
    }

    async fn clear_fence(&mut self, _slot: u32) -> Result<(), HostError> {
        let holder = self.api.lease("ns", "lease").map(|lease| lease["spec"]["holderIdentity"].clone());
        let mut host = self.lock();
        host.deadline = BootNs(0);
        host.holder_when_cleared = holder.and_then(|holder| holder.as_str().map(str::to_owned));
        host.did.push(Did::Cleared);
        if host.stuck { Err(HostError::StillQueued) } else { Ok(()) }
    }

    fn set_holder(&mut self, _: u32, _: &[[u8; 6]], _: BootNs) -> Result<(), HostError> {
        Ok(())
    }

    async fn announce(&mut self, _vips: &[IpAddr], _ask: bool) -> Result<(), HostError> {
        self.lock().did.push(Did::Announced);
        Ok(())
    }

    fn problems(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn probe(&mut self, _vips: &[IpAddr]) -> Result<(), HostError> {
        self.lock().did.push(Did::Probed);
        Ok(())
    }
}

fn other_vip() -> IpAddr {
    IpAddr::from([192, 0, 2, 20])
}

fn vip() -> IpAddr {
    IpAddr::from([192, 0, 2, 10])
}

struct Running {
    host: FakeHost,
    api: StandIn,
    events: mpsc::Sender<Event>,
    ended: tokio::task::JoinHandle<()>,
}

fn lease_api(address: std::net::SocketAddr) -> LeaseApi {
    let url = format!("http://{address}");
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    LeaseApi::new(Endpoints::fixed(vec![(url, client)]), "ns", "lease", Duration::from_millis(1_750))
}

/// A controller on `node`; with an API of its own unless one is given.
async fn run(
    node: &str,
    api: Option<(StandIn, std::net::SocketAddr)>,
) -> (Running, std::net::SocketAddr) {
    let (api, address) = if let Some(known) = api {
        known
    } else {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = StandIn::default();
        tokio::spawn(api.clone().serve_on(listener));
        (api, address)
    };
    let lease = lease_api(address);
    let setup = Setup {
        leases: vec![LeaseSetup {
            api: lease,
            slot: SLOT,
            generation: 0,
            backed: None,
            vips: vec![vip(), other_vip()],
            nodes: BTreeMap::new(),
        }],
        conflict: ConflictPolicy::Report,
        guard_neighbours: false,
        timing: Timing {
            duration_s: 2,
            renew_every: Duration::from_millis(400),
            margin: Duration::from_millis(50),
            clock_error_percent: 10,
            foreign_grace: None,
            linger: Duration::from_millis(200),
        },
        on_stop: OnStop::Handover,
        refresh: Duration::ZERO,
        placement: Placement::Loopback,
        metrics: Metrics::default(),
        recorder: Recorder::default(),
        me: Identity { node: node.into(), process: format!("p-{node}"), boot_id: "b".into() },
    };
    let up = Host { link_up: true, ..Host::default() };
    let host = FakeHost { host: Arc::new(Mutex::new(up)), api: api.clone() };
    let (events, inbox) = mpsc::channel(64);
    let (state, _) = watch::channel(DaemonState::default());
    let controller = Controller::new(host.clone(), events.clone(), setup, state);
    let ended = tokio::spawn(async move { drop(controller.run(inbox).await) });
    (Running { host, api, events, ended }, address)
}

/// Polls until a condition holds, for at most twenty seconds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within twenty seconds");
}

fn position(did: &[Did], wanted: impl Fn(&Did) -> bool) -> usize {
    did.iter().position(wanted).unwrap()
}

#[tokio::test]
async fn taking_goes_fence_address_entry_announcement() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    eventually("announcement", || running.host.lock().did.contains(&Did::Announced)).await;
    let did = running.host.lock().did.clone();
    let probed = position(&did, |did| *did == Did::Probed);
    let raised = position(&did, |did| *did == Did::Raised(1));
    let addr = HostAddr { ip: Ip::from(vip()), ifindex: 1 };
    let added =
        position(&did, |did| matches!(did, Did::Applied(Action::AddAddr(at, _)) if *at == addr));
    let published = position(&did, |did| {
        matches!(did, Did::Applied(Action::Publish(_, Vip { generation: 1, .. })))
    });
    let announced = position(&did, |did| *did == Did::Announced);
    assert!(probed < raised && raised < added && added < published && published < announced, "{did:?}");
}

/// One bad VIP never harms another: its entry stays silent until the host takes the address in.
#[tokio::test]
async fn an_address_that_cannot_be_added_is_not_answered_for() {
    let (running, _) = run("a", None).await;
    running.host.lock().refuses = Some(other_vip());
    eventually("take-over", || running.host.answers()).await;
    let generation =
        |ip: IpAddr| running.host.lock().actual.vips.get(&Ip::from(ip)).map_or(0, |vip| vip.generation);
    eventually("the good VIP serves", || generation(vip()) == 1).await;
    assert_eq!(generation(other_vip()), 0);
    running.host.lock().refuses = None;
    eventually("the other one follows", || generation(other_vip()) == 1).await;
}

#[tokio::test]
async fn stopping_goes_silence_release_linger_removal() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.events.send(Event::Stop).await.unwrap();
    running.ended.await.unwrap();
    let host = running.host.lock();
    assert_eq!(host.holder_when_cleared.as_deref(), Some("a"), "released before the fence was cleared");
    assert!(host.actual.vips.is_empty() && host.actual.addrs.is_empty(), "{:?}", host.actual);
    drop(host);
    let lease = running.api.lease("ns", "lease").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
    let annotations = &lease["metadata"]["annotations"];
    assert_eq!(annotations["xvip.io/released"], annotations["xvip.io/tenure"]);
}

#[tokio::test]
async fn without_silence_nothing_is_released() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.host.lock().stuck = true;
    running.events.send(Event::Stop).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(running.api.lease("ns", "lease").unwrap()["spec"]["holderIdentity"], "a");
    running.host.lock().stuck = false;
    running.ended.await.unwrap();
    assert_eq!(running.api.lease("ns", "lease").unwrap()["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_standby_takes_over_at_once_when_the_owner_stops() {
    let (first, address) = run("a", None).await;
    eventually("first owner", || first.host.answers()).await;
    let (second, _) = run("b", Some((first.api.clone(), address))).await;
    eventually("standby follows", || !second.host.lock().actual.vips.is_empty()).await;
    // The standby asks for nothing while nothing happens: renewals and its watch are all there is.
    let before = first.api.requests();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = first.api.requests() - before;
    assert!(requests <= 7, "{requests} requests in two seconds of renewals every 400 ms");
    first.events.send(Event::Stop).await.unwrap();
    eventually("second owner", || second.host.answers()).await;
    assert!(!first.host.answers());
}

#[tokio::test]
async fn a_slow_api_does_not_end_the_tenure() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.api.set_latency(Duration::from_millis(600));
    let mut dark = 0;
    for _ in 0..400 {
        dark += u32::from(!running.host.answers());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(dark, 0, "dark in {dark} of 400 looks");
    assert_eq!(running.host.lock().did.iter().filter(|did| **did == Did::Cleared).count(), 0);
}

#[tokio::test]
async fn labels_and_annotations_of_others_survive_our_writes() {
    let (running, _) = run("a", None).await;
    eventually("take-over", || running.host.answers()).await;
    running.api.edit("ns", "lease", |lease| {
        lease["metadata"]["labels"] = serde_json::json!({"team": "net"});
        lease["metadata"]["annotations"]["note"] = "keep".into();
    });
    let version = |running: &Running| {
        running.api.lease("ns", "lease").unwrap()["metadata"]["resourceVersion"].clone()
    };
    let edited = version(&running);
    let renewed = |running: &Running| {
        let now = version(running).as_str().unwrap().parse::<u64>().unwrap();
        now >= edited.as_str().unwrap().parse::<u64>().unwrap() + 3
    };
    eventually("renewals", || renewed(&running)).await;
    let lease = running.api.lease("ns", "lease").unwrap();
    assert_eq!(lease["metadata"]["labels"]["team"], "net");
    assert_eq!(lease["metadata"]["annotations"]["note"], "keep");
    assert!(running.host.answers());
}

/// The API server would make a Lease of the write (`contract::…::a_put_without_a_uid_creates_a_lease_that_is_gone`).
#[tokio::test]
async fn a_late_write_creates_no_lease_that_is_gone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, api) = (listener.local_addr().unwrap(), StandIn::default());
    tokio::spawn(api.clone().serve_on(listener));
    let (knows, forgot) = (lease_api(address), lease_api(address));
    let made = knows.create(3).await.unwrap().unwrap();
    let note = TenureNote {
        holder: "a".into(),
        transitions: 1,
        acquire_us: 1,
        process: "p".into(),
        boot_id: "b".into(),
    };
    let base = Some(made.version);
    let (duration_s, macs) = (3, Vec::new());
    let (fitness, release, in_flight) = (Fitness::Able, false, 0);
    let write = LeaseWrite {
        id: 1,
        base,
        note,
        duration_s,
        renew_us: 2,
        release,
        fitness,
        macs,
        vips: None,
        in_flight,
    };
    api.delete("ns", "lease");
    for lease in [knows, forgot] {
        let (outcome, error) = lease.write(write.clone()).await;
        assert_eq!((outcome, error.map(|error| error.to_string())), (Written::Conflict, None));
        assert_eq!(api.lease("ns", "lease"), None);
    }
}

/// A map that is full for one VIP harms no other one.
#[tokio::test]
async fn a_full_map_silences_one_vip_only() {
    let (running, _) = run("a", None).await;
    eventually("first look", || !running.host.lock().actual.ifaces.is_empty()).await;
    running.host.lock().exhausted = Some((Call::Publish(other_vip()), libc::ENOSPC));
    eventually("take-over", || running.host.answers()).await;
    let generation =
        |ip: IpAddr| running.host.lock().actual.vips.get(&Ip::from(ip)).map_or(0, |vip| vip.generation);
    eventually("the good VIP serves", || generation(vip()) == 1).await;
    assert_eq!(generation(other_vip()), 0);
    running.host.lock().exhausted = None;
    eventually("the other one follows", || generation(other_vip()) == 1).await;
}

/// Without entries there is no guard: such a host leaves the Lease to others.
#[tokio::test]
async fn a_host_without_room_for_its_entries_is_the_last_candidate() {
    for call in [Call::PublishAny, Call::Actual, Call::Links] {
        let (running, _) = run("a", None).await;
        running.host.lock().exhausted = Some((call, libc::ENOMEM));
        // A candidate takes the Lease after D·(1+ρ) = 2.2 s and address probes; whoever cannot serve is the
        // last choice, and waits as long again.
        tokio::time::sleep(Duration::from_millis(5_400)).await;
        assert!(!is_held(&running), "{call:?}: it wrote");
        assert!(!running.host.answers(), "{call:?}");
        running.host.lock().exhausted = None;
        eventually("recovery", || running.host.answers()).await;
    }
}

fn is_held(running: &Running) -> bool {
    let lease = running.api.lease("ns", "lease").unwrap_or_default();
    !lease["spec"]["holderIdentity"].as_str().unwrap_or_default().is_empty()
}

/// A fence that cannot be stored is not up; it is tried again with every renewal.
#[tokio::test]
async fn a_fence_that_finds_no_room_is_raised_later() {
    let (running, _) = run("a", None).await;
    running.host.lock().exhausted = Some((Call::Raise, libc::ENOMEM));
    eventually("the Lease", || is_held(&running)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!running.host.answers());
    running.host.lock().exhausted = None;
    eventually("the fence", || running.host.answers()).await;
}

#[tokio::test]
async fn a_watch_goes_on_where_its_time_was_over_and_misses_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, api) = (listener.local_addr().unwrap(), StandIn::default());
    tokio::spawn(api.clone().serve_on(listener));
    let metadata = serde_json::json!({"namespace": "ns", "name": "lease"});
    api.put("ns", "lease", serde_json::json!({"metadata": metadata, "spec": {"leaseTransitions": 0}}));
    let (sender, mut sightings) = mpsc::channel(64);
    tokio::spawn(follow(lease_api(address), 1, Arc::default(), sender));
    // Some of these changes fall between one watch and the next.
    let changes = api.clone();
    tokio::spawn(async move {
        for change in 1..=400 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            changes.edit("ns", "lease", |lease| lease["spec"]["leaseTransitions"] = change.into());
        }
    });
    for expected in 0..=400 {
        let sighting = tokio::time::timeout(Duration::from_secs(20), sightings.recv()).await;
        let Ok(Some(Sighting::Seen(source, Some(seen)))) = sighting else {
            panic!("{sighting:?} instead of change {expected}")
        };
        let wanted = if expected == 0 { Source::Quorum } else { Source::Watch };
        assert_eq!((seen.transitions, source), (expected, wanted));
    }
    assert!(api.requests() >= 4, "the watch did not end: {} requests", api.requests());
}
