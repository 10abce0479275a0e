//! keepalived on the nodes of a lab, to compare it with xvip: same VIPs, same faults, same judge.

use crate::{
    faults::Fault,
    lab::{Lab, VIP4, VIP6},
};
use anyhow::Context as _;
use std::{
    fs::{self, File},
    net::IpAddr,
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

/// keepalived on every node; dropping it ends the processes.
pub struct Keepalived {
    processes: Vec<Option<Child>>,
}

impl Keepalived {
    /// Starts it on all nodes. A higher node number has a lower priority.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn start(lab: &Lab) -> anyhow::Result<Self> {
        let mut all = Self { processes: lab.nodes.iter().map(|_| None).collect() };
        for node in 0..lab.nodes.len() {
            all.start_on(lab, node)?;
        }
        Ok(all)
    }

    fn start_on(&mut self, lab: &Lab, node: usize) -> anyhow::Result<()> {
        let dir = lab.dir().join(format!("keepalived-{node}"));
        fs::create_dir_all(&dir)?;
        let (config, log) = (dir.join("keepalived.conf"), File::create(dir.join("log"))?);
        fs::write(&config, configuration(node))?;
        let mut command = lab.nodes[node].ns.command("setpriv");
        command.args(["--pdeathsig", "KILL", "keepalived", "--dont-fork", "--log-console", "--vrrp"]);
        command.arg("--use-file").arg(&config);
        for (flag, file) in [("--pid", "pid"), ("--vrrp_pid", "vrrp_pid")] {
            command.arg(flag).arg(dir.join(file));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.processes[node] = Some(command.spawn().context("cannot start keepalived")?);
        Ok(())
    }

    /// Injects a fault of the process or the cable of a node, for the same time as with xvip.
    ///
    /// # Errors
    /// If the process has gone.
    pub fn suffer(
        &mut self,
        lab: &Lab,
        node: usize,
        fault: Fault,
        twice: Duration,
    ) -> anyhow::Result<()> {
        match fault {
            Fault::PlannedStop => {
                self.signal(node, libc::SIGTERM)?;
                sleep(twice);
            }
            Fault::Kill => {
                self.signal(node, libc::SIGKILL)?;
                sleep(twice);
            }
            Fault::Freeze => {
                self.signal(node, libc::SIGSTOP)?;
                sleep(twice);
                self.signal(node, libc::SIGCONT)?;
            }
            Fault::LinkDown => {
                lab.bridge.ip(&format!("link set n{} down", node + 1))?;
                sleep(twice);
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends it on all nodes and removes the addresses that it has left on the interfaces.
    pub fn stop(&mut self, lab: &Lab) {
        for node in 0..self.processes.len() {
            let _ = self.signal(node, libc::SIGKILL);
            if let Some(mut process) = self.processes[node].take() {
                let _ = process.kill();
                let _ = process.wait();
            }
            let _ = lab.bridge.ip(&format!("link set n{} up", node + 1));
            for (vip, length) in [(IpAddr::from(VIP4), 32), (IpAddr::from(VIP6), 128)] {
                let _ = lab.nodes[node].ns.ip(&format!("addr del {vip}/{length} dev eth0"));
            }
        }
    }

    /// Signals the parent and its child, which speaks VRRP.
    fn signal(&self, node: usize, signal: i32) -> anyhow::Result<()> {
        let parent = self.processes[node].as_ref().context("keepalived does not run there")?.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        for pid in children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()) {
            // For a planned stop, only the parent gets the signal.
            if signal != libc::SIGTERM {
                // SAFETY: the process is a child of ours that has not been waited for.
                unsafe { libc::kill(pid, signal) };
            }
        }
        // SAFETY: the process is our child and has not been waited for, so the id is its own.
        unsafe { libc::kill(parent.cast_signed(), signal) };
        Ok(())
    }
}

/// One instance per family, with the default of one advertisement per second.
fn configuration(node: usize) -> String {
    let instance = |name: &str, id: u32, vip: IpAddr, length: u8| {
        format!(
            "vrrp_instance {name} {{\n  state BACKUP\n  interface eth0\n  virtual_router_id {id}\n  priority {}\n  \
             advert_int 1\n  virtual_ipaddress {{\n    {vip}/{length}\n  }}\n}}\n",
            150 - 10 * node
        )
    };
    format!(
        "global_defs {{\n  router_id node{node}\n}}\n{}{}",
        instance("V4", 51, VIP4.into(), 32),
        instance("V6", 52, VIP6.into(), 128)
    )
}
