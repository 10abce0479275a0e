//! A control plane of one or three members.

use super::{
    member::Member,
    objects::{self, Mode},
    pki::Pki,
};
use crate::{lab::eventually, netns::NetNs};
use anyhow::{Context as _, ensure};
use kube::{Client, config::KubeConfigOptions, config::Kubeconfig};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

const DEFAULT_ACCOUNT: &str =
    "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: kube-system}}";
/// Starting takes seconds, or longer on a machine that also compiles.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// The control plane; dropping it ends the servers.
pub struct ControlPlane {
    /// Its members.
    pub members: Vec<Member>,
    /// Its certificate authority.
    pub pki: Pki,
    admins: Vec<PathBuf>,
}

impl ControlPlane {
    /// One member on loopback, port 6444, inside a namespace.
    ///
    /// # Errors
    /// If the servers are not built or do not become ready.
    pub fn single(ns: &NetNs, dir: &Path) -> anyhow::Result<Self> {
        let at = (ns.borrowed(), IpAddr::from([127, 0, 0, 1]));
        Self::start(vec![at], 6444, dir)
    }

    /// A member at each of these addresses.
    ///
    /// # Errors
    /// If the servers are not built or do not become ready.
    pub fn start(at: Vec<(NetNs, IpAddr)>, api_port: u16, dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.join("plane");
        fs::create_dir_all(&dir)?;
        let pki = Pki::new(&dir)?;
        let peers: Vec<(String, IpAddr)> =
            at.iter().enumerate().map(|(index, (_, ip))| (format!("m{}", index + 1), *ip)).collect();
        let mut members = Vec::new();
        let mut admins = Vec::new();
        for ((ns, _), (name, _)) in at.into_iter().zip(&peers) {
            let member = Member::new(&pki, ns, name, api_port, &peers, &dir)?;
            let admin = pki.kubeconfig(&member.url(), &format!("admin-{name}"), "system:masters")?;
            admins.push(admin);
            members.push(member);
        }
        let mut plane = Self { members, pki, admins };
        plane.members.iter_mut().try_for_each(Member::start_etcd)?;
        plane.members.iter_mut().try_for_each(Member::start_api)?;
        for index in 0..plane.members.len() {
            plane.wait_ready(index)?;
        }
        // Admission requires this account, which usually a controller-manager creates.
        objects::apply(&plane, DEFAULT_ACCOUNT, Mode::Store)?;
        Ok(plane)
    }

    /// Waits until a member answers.
    ///
    /// # Errors
    /// With its logs, if it does not.
    pub fn wait_ready(&mut self, member: usize) -> anyhow::Result<()> {
        let mut ended = false;
        let ready = eventually(READY_LIMIT, || {
            ended = self.members[member].has_ended();
            if ended {
                return true;
            }
            let asked = self.call(member, async |client: Client| {
                let request = http::Request::get("/readyz").body(Vec::new())?;
                let limit = Duration::from_secs(5);
                Ok(tokio::time::timeout(limit, client.request_text(request)).await??)
            });
            asked.is_ok()
        });
        ensure!(ready && !ended, "the API server does not get ready:\n{}", self.members[member].log());
        Ok(())
    }

    /// Runs `work` inside the namespace of a member, with the rights of an administrator.
    ///
    /// # Errors
    /// Those of the work.
    pub fn call<T: Send>(
        &self,
        member: usize,
        work: impl AsyncFnOnce(Client) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.call_as(member, &self.admins[member], work)
    }

    fn call_as<T: Send>(
        &self,
        member: usize,
        kubeconfig: &Path,
        work: impl AsyncFnOnce(Client) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.members[member].ns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { work(client(kubeconfig).await?).await })
        })?
    }

    /// Whether a client that trusts only this authority can connect to a member.
    pub fn shows_certificate_of(&self, member: usize, pki: &Pki) -> bool {
        let kubeconfig = pki.ca().with_extension("kubeconfig");
        let ca = |pki: &Pki| pki.ca().display().to_string();
        let text = fs::read_to_string(&self.admins[member]).unwrap_or_default();
        let written = fs::write(&kubeconfig, text.replace(&ca(&self.pki), &ca(pki)));
        let asked = self.call_as(member, &kubeconfig, async |client: Client| {
            Ok(client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?)
        });
        written.is_ok() && asked.is_ok()
    }

    /// The kubeconfig of the administrator at a member.
    pub fn admin(&self, member: usize) -> &Path {
        &self.admins[member]
    }
}

/// A client with the settings of a kubeconfig.
///
/// # Errors
/// If it cannot be used.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("kubeconfig")?;
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}
