//! The two ARP sysctls that cover a NIC which appears before the guard is on it. They are what
//! kube-proxy's strictARP sets; a switch of owner leaves them alone, `cleanup` restores them.

use std::{fs, io};

/// `net.ipv4.conf.all.*` names and the values that xvip needs: answer only for addresses of the
/// interface that was asked on, and never use another interface's address as ARP sender.
pub const SYSCTLS: [(&str, u32); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

/// Reads one; `/proc/sys/net` shows the network namespace of the calling process.
pub fn read(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(path(name))?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} holds {text:?}", path(name))))
}

/// Writes one.
pub fn write(name: &str, value: u32) -> io::Result<()> {
    fs::write(path(name), value.to_string())
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/all/{name}")
}
