//! The two ARP sysctls that cover a NIC which appears before the guard is on it. They are what
//! kube-proxy's strictARP sets; a switch of owner leaves them alone, `cleanup` restores them.

use std::{fs, io, path::Path};

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

/// Why an interface takes no IPv6 address, if it takes none. What cannot be read speaks against
/// nothing.
pub fn without_ipv6(interface: &str) -> Option<String> {
    const ALL: &str = "/proc/sys/net/ipv6";
    let path = format!("{ALL}/conf/{interface}/disable_ipv6");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == "1" => {
            Some(format!("IPv6 is off on {interface} (net.ipv6.conf.{interface}.disable_ipv6 is 1)"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !Path::new(ALL).exists() => {
            Some("this kernel runs without IPv6".into())
        }
        _ => None,
    }
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/all/{name}")
}
