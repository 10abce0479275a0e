//! Three nodes, an API server and two clients on one bridge. Each is a network namespace; the nodes
//! run the real binary.

pub mod node;
pub mod service;

use crate::{
    kernel_run,
    kube::{
        api::{LabApi, Real},
        objects::{self, Mode},
        plane::ControlPlane,
        proxy::Proxy,
    },
    netns::{NetNs, sh},
    standin::StandIn,
};
use anyhow::Context as _;
use node::Node;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use vip_common::mac::Mac;

/// The VIPs of the lab.
pub const VIP4: [u8; 4] = [192, 0, 2, 10];
/// The IPv6 VIP.
pub const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
/// Where the stand-in API listens.
pub const API: &str = "192.0.2.100:6443";
/// Where API servers on nodes listen.
pub const API_PORT: u16 = 6443;
/// MAC address of the asking client.
pub const ASKER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc8];

static LABS: AtomicU32 = AtomicU32::new(0);

/// The lab; dropping it removes everything.
pub struct Lab {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The bridge with its ports.
    pub bridge: NetNs,
    /// A client that sends ARP requests and neighbour solicitations.
    pub asker: NetNs,
    /// A client that sends pings.
    pub user: NetNs,
    /// The API.
    pub api: LabApi,
    /// Further ports of the bridge, each with the number of its node.
    more_ports: Vec<(usize, String)>,
    dir: PathBuf,
    /// The namespace of the API.
    pub api_ns: NetNs,
    passes: Vec<kernel_run::AttachedPass>,
}

/// How the nodes are configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes.
    pub nodes: usize,
    /// D in seconds.
    pub duration_s: u32,
    /// The setting `interfaces`; `None` leaves it out.
    pub interfaces: Option<String>,
    /// A second interface of each node, on the same bridge and without an address.
    pub lan: Option<String>,
    /// More settings of the Lease, each after a comma.
    pub lease: String,
    /// More lines for every node's configuration.
    pub extra: String,
    /// VIPs instead of the lab's two.
    pub vips: Option<Vec<IpAddr>>,
    /// The number of Leases that the VIPs are spread over in turn.
    pub spread_over: u32,
    /// Environment variables of every node's process.
    pub environment: Vec<(String, String)>,
    /// Which API the nodes talk to.
    pub kube: Kube,
}

/// An API for the lab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kube {
    /// The stand-in, in this process.
    #[default]
    StandIn,
    /// A real API server and etcd behind a proxy, with the rights that `deploy/` grants.
    One,
    /// A real API server and a member of etcd on every node, as kubeadm places them. A node tries
    /// its own server first.
    OnEachNode,
}

impl Options {
    /// The name of one of the Leases. The first is the one that a configuration without names has.
    pub fn lease_name(number: u32) -> String {
        if number == 0 { "plndr-cp-lock".into() } else { format!("lease-{number}") }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            duration_s: 3,
            interfaces: Some("[eth0]".into()),
            lan: None,
            lease: String::new(),
            extra: String::new(),
            vips: None,
            spread_over: 1,
            environment: Vec::new(),
            kube: Kube::StandIn,
        }
    }
}

impl Lab {
    /// Builds the lab; nodes are not started yet.
    ///
    /// # Errors
    /// Without root, iproute2 or a kernel with namespaces.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let id = format!("xv{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("xvip-lab-{id}"));
        let pins = dir.join("bpf");
        std::fs::create_dir_all(&pins)?;
        sh(&format!("mount -t bpf bpf {}", pins.display()))
            .context("cannot mount a BPF file system for the lab")?;
        let bridge = NetNs::new(&format!("{id}-br"))?;
        bridge.ip("link add br0 type bridge forward_delay 0")?;
        bridge.ip("link set br0 up")?;
        let api_ns = NetNs::new(&format!("{id}-api"))?;
        let (asker, user) = (NetNs::new(&format!("{id}-ask"))?, NetNs::new(&format!("{id}-use"))?);
        connect(&bridge, &api_ns, "api", 100)?;
        connect(&bridge, &asker, "ask", 200)?;
        connect(&bridge, &user, "use", 201)?;
        let mut nodes = Vec::new();
        let mut ports = Vec::new();
        for number in 1..=options.nodes {
            let ns = NetNs::new(&format!("{id}-n{number}"))?;
            let port = format!("n{number}");
            connect(&bridge, &ns, &port, 10 + number as u8)?;
            ports.push(port);
            nodes.push(Node::new(ns, number, &dir, &id, options)?);
        }
        let mut more_ports = Vec::new();
        if let Some(lan) = &options.lan {
            for (index, node) in nodes.iter().enumerate() {
                let port = format!("n{}{lan}", index + 1);
                join(&bridge, &node.ns, &port, lan, lan_mac(index, 0))?;
                more_ports.push((index, port.clone()));
                ports.push(port);
            }
        }
        let passes = kernel_run::attach_pass(&bridge, &ports)?;
        let api = match options.kube {
            Kube::StandIn => stand_in(&api_ns),
            Kube::One => real_api(&api_ns, &dir)?,
            Kube::OnEachNode => api_on_nodes(&api_ns, &nodes, &dir)?,
        };
        Ok(Self { nodes, bridge, asker, user, api, more_ports, dir, api_ns, passes: vec![passes] })
    }

    /// Deletes a node's interface and creates it again, with another index.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn remake_interface(&mut self, node: usize) -> anyhow::Result<()> {
        let port = format!("n{}", node + 1);
        self.bridge.ip(&format!("link del {port}"))?;
        connect(&self.bridge, &self.nodes[node].ns, &port, 11 + node as u8)?;
        self.passes.push(kernel_run::attach_pass(&self.bridge, &[port])?);
        Ok(())
    }

    /// Adds another interface of a node to the bridge. It is up and has no address; its MAC address
    /// ends in `number`.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn add_interface(&mut self, node: usize, name: &str, number: u8) -> anyhow::Result<()> {
        let port = format!("n{}{name}", node + 1);
        join(&self.bridge, &self.nodes[node].ns, &port, name, lan_mac(node, number))?;
        self.more_ports.push((node, port.clone()));
        self.passes.push(kernel_run::attach_pass(&self.bridge, &[port])?);
        Ok(())
    }

    /// The VIPs.
    pub fn vips() -> Vec<IpAddr> {
        vec![IpAddr::from(VIP4), IpAddr::from(VIP6)]
    }

    /// The bridge's ports to nodes, each with the number of its node.
    pub fn ports(&self) -> Vec<(usize, String)> {
        let first = (0..self.nodes.len()).map(|node| (node, format!("n{}", node + 1)));
        first.chain(self.more_ports.iter().cloned()).collect()
    }

    /// Starts all nodes.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }

    /// Waits until a node reports that it owns the VIPs.
    ///
    /// # Errors
    /// With the nodes' logs, after `limit`.
    pub fn wait_for_owner(&self, limit: Duration) -> anyhow::Result<usize> {
        let mut owner = None;
        let found = eventually(limit, || {
            owner = self.nodes.iter().position(Node::owns);
            owner.is_some()
        });
        let logs = || self.nodes.iter().map(Node::log).collect::<Vec<_>>().join("\n---\n");
        anyhow::ensure!(found, "no node took over within {limit:?}:\n{}", logs());
        owner.context("owner")
    }

    /// The directory of configurations, logs and pins.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The stand-in, on a thread that ends with the process, after its namespace is gone.
fn stand_in(api_ns: &NetNs) -> LabApi {
    let api = StandIn::default();
    let server = api.clone();
    let _ = api_ns.spawn(move || Ok(server.serve_unless_refusing(API.parse()?)?));
    LabApi::StandIn(api)
}

/// The roles of `deploy/`.
pub const RBAC: &str = include_str!("../../../deploy/base/rbac.yaml");

/// A real API on the same address. Nodes use the service account of `deploy/`.
fn real_api(api_ns: &NetNs, dir: &Path) -> anyhow::Result<LabApi> {
    let plane = ControlPlane::single(api_ns, dir)?;
    with_rights(api_ns, plane, dir)
}

/// A member of the control plane on each node.
fn api_on_nodes(api_ns: &NetNs, nodes: &[Node], dir: &Path) -> anyhow::Result<LabApi> {
    let at = nodes.iter().map(|node| (node.ns.borrowed(), node.ip)).collect();
    with_rights(api_ns, ControlPlane::start(at, API_PORT, dir)?, dir)
}

fn with_rights(api_ns: &NetNs, plane: ControlPlane, dir: &Path) -> anyhow::Result<LabApi> {
    let proxy = Proxy::start(api_ns, API.parse()?, ([127, 0, 0, 1], 6444).into())?;
    objects::apply(&plane, RBAC, Mode::Store)?;
    let token = dir.join("token");
    objects::write_token(&plane, "xvip", &token)?;
    let kubeconfig = plane.pki.token_kubeconfig(&format!("https://{API}"), &token)?;
    std::fs::rename(kubeconfig, dir.join("kubeconfig"))?;
    Ok(LabApi::Real(Box::new(Real { plane, proxy })))
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        let _ = sh(&format!("umount {}", self.dir.join("bpf").display()));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Connects a namespace to the bridge by a veth: `eth0` inside, `port` on the bridge. Its addresses
/// end in `host`.
fn connect(bridge: &NetNs, ns: &NetNs, port: &str, host: u8) -> anyhow::Result<()> {
    join(bridge, ns, port, "eth0", mac(host))?;
    ns.ip(&format!("addr add 192.0.2.{host}/24 dev eth0"))?;
    ns.ip(&format!("addr add 2001:db8::{host}/64 dev eth0 nodad"))?;
    Ok(())
}

/// Connects a namespace to the bridge by a veth without addresses.
fn join(bridge: &NetNs, ns: &NetNs, port: &str, name: &str, mac: [u8; 6]) -> anyhow::Result<()> {
    bridge.ip(&format!(
        "link add {port} type veth peer name {name} address {} netns {}",
        mac_text(mac),
        ns.name()
    ))?;
    bridge.ip(&format!("link set {port} master br0 up"))?;
    ns.ip(&format!("link set {name} up"))?;
    Ok(())
}

/// The MAC address of an additional interface of a node.
pub const fn lan_mac(node: usize, number: u8) -> [u8; 6] {
    [2, 0, 0, 1, node as u8, number]
}

/// The MAC address of a lab host.
pub const fn mac(host: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, host]
}

/// A MAC address as text.
pub fn mac_text(mac: [u8; 6]) -> String {
    Mac(mac).to_string()
}

/// Polls a condition until it holds or the limit is over. Returns whether it held.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = vip_user::clock::boot().after(limit);
    loop {
        if condition() {
            return true;
        }
        if vip_user::clock::boot() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
