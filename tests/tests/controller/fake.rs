//! A controller with a host that fails, hangs or is slow as a test demands.

use aya::sys::SyscallError;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use vip_common::{
    abi::{Ip, Port},
    mac::Mac,
};
use vip_tests::standin::StandIn;
use vip_user::{
    clock,
    cluster::{endpoints::Endpoints, events::Recorder, lease::LeaseApi},
    controller::{Controller, Event, Setup},
    metrics::Metrics,
    model::{
        agent::Policy,
        desired::{AddrSpec, GUARD_BIT, Link, LinkRole, Links, Placement},
        group::GroupSpec,
        lease::election::Identity,
        plan::{Action, Actual},
        policy::{ConflictPolicy, ForeignConflict, OnStop},
        slots::SlotState,
        time::BootNs,
        timing::Timing,
    },
    node::{
        dataplane::{Dataplane, Failures, Fencing, HostError},
        maps::MapsError,
    },
    state::DaemonState,
};

pub const SLOT: u32 = 0;

/// Everything that the controller did, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Did {
    Looked,
    Raised(u64),
    Cleared(Vec<u32>),
    Applied(Action),
    Announced(Vec<IpAddr>),
    Probed,
}

#[derive(Default)]
pub struct Host {
    pub did: Vec<Did>,
    pub deadline: BootNs,
    pub actual: Actual,
    pub link_up: bool,
    /// Announcements are still queued, so clearing the fence does not reach silence.
    pub stuck: bool,
    /// Calls of this kind fail with this errno.
    pub fails: Option<(Call, i32)>,
    /// Calls of this kind never return.
    pub hangs: Option<Call>,
    /// Calls of this kind block the thread.
    pub blocks: Option<Call>,
    /// How long each change takes.
    pub change_takes: Duration,
    /// VIPs that the host could not carry, and why.
    pub refused: BTreeMap<IpAddr, String>,
    /// The released Lease as the API shows it when the fence is cleared.
    pub holder_when_cleared: Option<String>,
    /// How often the controller asked for announcements, and for the guard.
    pub announcements: u32,
    pub guard_looks: u32,
    /// How often the host was read.
    pub reads: u32,
    /// The Lease of each slot whose fence was raised.
    pub raised_for: BTreeMap<u32, String>,
}

impl Host {
    pub fn generation(&self, ip: IpAddr) -> u64 {
        self.actual.vips.get(&Ip::from(ip)).map_or(0, |vip| vip.generation)
    }

    pub fn carries(&self, ip: IpAddr) -> bool {
        self.actual.addrs.keys().any(|addr| addr.ip == Ip::from(ip))
    }

    pub fn raised(&self) -> usize {
        self.did.iter().filter(|did| matches!(did, Did::Raised(_))).count()
    }

    pub fn cleared(&self) -> usize {
        self.did.iter().filter(|did| matches!(did, Did::Cleared(_))).count()
    }

    pub fn has_announced(&self, vip: IpAddr) -> bool {
        self.did.iter().any(|did| matches!(did, Did::Announced(vips) if vips.contains(&vip)))
    }
}

/// A kind of call that can fail or hang.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    Publish(IpAddr),
    PublishAny,
    Add(IpAddr),
    Remove,
    Links,
    Actual,
    Guard,
    /// The entry of an interface that is only guarded.
    GuardEntry,
    Raise(u32),
    Clear,
    Announce(IpAddr),
    AnnounceAny,
}

impl Call {
    fn is(self, other: Self) -> bool {
        self == other
            || matches!(
                (self, other),
                (Self::Publish(_), Self::PublishAny) | (Self::Announce(_), Self::AnnounceAny)
            )
    }

    fn of(action: Action) -> Option<Self> {
        match action {
            Action::Publish(ip, _) => Some(Self::Publish(ip.into())),
            Action::AddAddr(addr, _) => Some(Self::Add(addr.ip.into())),
            Action::DelAddr(_) => Some(Self::Remove),
            Action::SetIface(_, iface) if iface.bit == GUARD_BIT => Some(Self::GuardEntry),
            Action::SetIface(..) | Action::RemoveIface(_) | Action::Withdraw(_) => None,
        }
    }
}

#[derive(Clone)]
pub struct FakeHost {
    host: Arc<Mutex<Host>>,
    api: StandIn,
}

impl FakeHost {
    pub fn lock(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel's result of a call.
    fn result(&self, call: Call) -> Result<(), HostError> {
        let Some((failing, errno)) = self.lock().fails else { return Ok(()) };
        if !call.is(failing) {
            return Ok(());
        }
        let io_error = io::Error::from_raw_os_error(errno);
        let source = SyscallError { call: "bpf_map_update_elem", io_error }.into();
        Err(MapsError::Access { what: "write", name: "VIPS", source }.into())
    }

    /// Returns when the call does, or never.
    async fn pass(&self, call: Call) {
        while self.lock().blocks.is_some_and(|blocking| call.is(blocking)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        while self.lock().hangs.is_some_and(|hanging| call.is(hanging)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn answers(&self) -> bool {
        let host = self.lock();
        let published = host.actual.vips.values().any(|vip| vip.generation != 0);
        published && clock::boot() < host.deadline
    }
}

impl Dataplane for FakeHost {
    async fn actual(&mut self) -> Result<Actual, HostError> {
        self.lock().reads += 1;
        self.pass(Call::Actual).await;
        self.result(Call::Actual)?;
        Ok(self.lock().actual.clone())
    }

    async fn links(&mut self) -> Result<Links, HostError> {
        self.lock().did.push(Did::Looked);
        self.pass(Call::Links).await;
        self.result(Call::Links)?;
        let port = Port { ifindex: 2, outer_vid: 0, inner_vid: 0 };
        let (mac, up) = (Mac([2, 0, 0, 0, 0, 1]), self.lock().link_up);
        let link = Link { port, bit: 0, role: LinkRole::Answer, mac, up, guarded: true };
        let answer = (0..=u8::MAX).map(|last| (IpAddr::from([192, 0, 2, last]), 1)).collect();
        let mut links = vec![link];
        if let Some((Call::GuardEntry, _)) = self.lock().fails {
            let port = Port { ifindex: 3, outer_vid: 0, inner_vid: 0 };
            links.push(Link { port, bit: GUARD_BIT, role: LinkRole::Guard, mac, up, guarded: true });
        }
        Ok(Links { links, answer, ..Links::default() })
    }

    async fn is_guarded(&mut self) -> Result<bool, HostError> {
        self.lock().guard_looks += 1;
        self.pass(Call::Guard).await;
        self.result(Call::Guard).map(|()| true)
    }

    fn refused(&self) -> BTreeMap<IpAddr, String> {
        self.lock().refused.clone()
    }

    async fn apply(&mut self, action: Action) -> Result<(), HostError> {
        if let Some(call) = Call::of(action) {
            self.pass(call).await;
            self.result(call)?;
        }
        let takes = self.lock().change_takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let mut host = self.lock();
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

    fn raise_fence(&mut self, fencing: &Fencing<'_>, deadline: BootNs) -> Result<(), HostError> {
        self.result(Call::Raise(fencing.slot))?;
        let mut host = self.lock();
        host.did.push(Did::Raised(fencing.generation));
        host.raised_for.insert(fencing.slot, fencing.lease.to_owned());
        host.deadline = deadline;
        Ok(())
    }

    fn lower_fence(&mut self, _slot: u32, deadline: BootNs) -> Result<(), HostError> {
        self.lock().deadline = deadline;
        Ok(())
    }

    async fn silence(&mut self, slots: &[u32]) -> BTreeMap<u32, HostError> {
        let holder = self.api.lease("ns", "lease").map(|lease| lease["spec"]["holderIdentity"].clone());
        {
            let mut host = self.lock();
            host.did.push(Did::Cleared(slots.to_vec()));
            host.holder_when_cleared = holder.and_then(|holder| holder.as_str().map(str::to_owned));
        }
        let all = |error: fn(&Self) -> HostError| {
            slots.iter().map(|slot| (*slot, error(self))).collect::<BTreeMap<_, _>>()
        };
        if self.result(Call::Clear).is_err() {
            return all(|host| host.result(Call::Clear).unwrap_err());
        }
        self.lock().deadline = BootNs(0);
        self.pass(Call::Clear).await;
        if self.lock().stuck { all(|_| HostError::StillQueued) } else { BTreeMap::new() }
    }

    fn set_holder(&mut self, _: u32, _: &[Mac], _: BootNs) -> Result<(), HostError> {
        Ok(())
    }

    async fn announce(&mut self, vips: &[IpAddr], _ask: bool) -> Failures {
        self.lock().announcements += 1;
        let mut failures = Failures::new();
        let mut sent = Vec::new();
        for vip in vips {
            self.pass(Call::Announce(*vip)).await;
            match self.result(Call::Announce(*vip)) {
                Ok(()) => sent.push(*vip),
                Err(error) => drop(failures.insert(*vip, error)),
            }
        }
        self.lock().did.push(Did::Announced(sent));
        failures
    }

    fn problems(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn probe(&mut self, _vips: &[IpAddr]) -> Failures {
        self.lock().did.push(Did::Probed);
        Failures::new()
    }
}

pub fn other_vip() -> IpAddr {
    IpAddr::from([192, 0, 2, 20])
}

pub fn vip() -> IpAddr {
    IpAddr::from([192, 0, 2, 10])
}

pub struct Running {
    pub host: FakeHost,
    pub api: StandIn,
    pub events: mpsc::Sender<Event>,
    pub state: watch::Receiver<DaemonState>,
    pub ended: tokio::task::JoinHandle<()>,
}

impl Running {
    /// The text of a present problem; empty if there is none.
    pub fn problem(&self, subject: &str) -> String {
        self.state.borrow().problems.get(subject).cloned().unwrap_or_default()
    }

    /// `holderIdentity` of the Lease.
    pub fn holder(&self) -> String {
        let lease = self.api.lease("ns", "lease").unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }
}

pub fn lease_api(address: SocketAddr) -> LeaseApi {
    let url = format!("http://{address}");
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    LeaseApi::new(Endpoints::fixed(vec![(url, client)]), "ns", "lease", Duration::from_millis(1_750))
}

/// Starts a stand-in API.
pub async fn api() -> (StandIn, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = StandIn::default();
    tokio::spawn(api.clone().serve_on(listener));
    (api, address)
}

/// A Lease of a test, its slot and its VIPs.
pub struct Lease {
    address: SocketAddr,
    slot: u32,
    pub spec: GroupSpec,
}

/// A Lease of a test and its VIPs.
pub fn lease(address: SocketAddr, name: &str, slot: u32, vips: Vec<IpAddr>) -> Lease {
    Lease { address, slot, spec: GroupSpec { lease: name.into(), vips, ..GroupSpec::default() } }
}

/// A controller on `node`, with its own API unless one is given.
pub async fn run(node: &str, known: Option<(StandIn, SocketAddr)>) -> (Running, SocketAddr) {
    let (api, address) = match known {
        Some(known) => known,
        None => api().await,
    };
    let leases = vec![lease(address, "lease", SLOT, vec![vip(), other_vip()])];
    (run_with(node, api, leases, Host::default()), address)
}

/// A controller for these Leases on this host.
pub fn run_with(node: &str, api: StandIn, leases: Vec<Lease>, host: Host) -> Running {
    run_changed(node, api, leases, host, |_| ())
}

/// The same with another setup.
pub fn run_changed(
    node: &str,
    api: StandIn,
    leases: Vec<Lease>,
    host: Host,
    change: impl FnOnce(&mut Setup),
) -> Running {
    let slot = |lease: &Lease| {
        let state = SlotState { lease: lease.spec.lease.clone(), generation: 0, adopted: None };
        (lease.slot, state)
    };
    let free = (8..10).map(|slot| (slot, SlotState::default()));
    let mut setup = Setup {
        api: lease_api(leases[0].address),
        slots: leases.iter().map(slot).chain(free).collect(),
        groups: leases.into_iter().map(|lease| lease.spec).collect(),
        policy: Policy {
            me: Identity { node: node.into(), process: format!("p-{node}"), boot_id: "b".into() },
            timing: Timing {
                duration_s: 2,
                renew_every: Duration::from_millis(400),
                margin: Duration::from_millis(50),
                clock_error_percent: 10,
                foreign_grace: None,
                linger: Duration::from_millis(200),
            },
            refresh: Duration::ZERO,
            conflict: ConflictPolicy::Report,
            foreign_conflict: ForeignConflict::Wait,
            guard_neighbours: false,
            placement: Placement::Loopback,
            asks_first: true,
        },
        on_stop: OnStop::Handover,
        port: 6443,
        metrics: Metrics::default(),
        recorder: Recorder::default(),
    };
    change(&mut setup);
    let host = Host { link_up: true, ..host };
    let host = FakeHost { host: Arc::new(Mutex::new(host)), api: api.clone() };
    let (events, inbox) = mpsc::channel(64);
    let (sender, state) = watch::channel(DaemonState::default());
    let controller = Controller::new(host.clone(), events.clone(), setup, sender);
    let ended = tokio::spawn(async move { drop(controller.run(inbox).await) });
    Running { host, api, events, state, ended }
}

/// Polls until a condition holds, for at most twenty seconds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within twenty seconds");
}
