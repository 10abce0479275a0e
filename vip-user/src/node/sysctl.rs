//! The two ARP sysctls that protect a NIC which appears before it is guarded. kube-proxy's strictARP
//! sets the same ones. A change of owner leaves them alone, and `cleanup` restores them.

use std::{fs, io, path::Path};

/// Names below `net.ipv4.conf.all`, and the values that xvip needs. The host then answers only for
/// addresses of the interface on which it was asked. It also never uses another interface's address as
/// ARP sender.
pub const SYSCTLS: [(&str, u32); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

/// Reads one sysctl. `/proc/sys/net` shows the network namespace of the calling process.
pub fn read(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(path(name))?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} holds {text:?}", path(name))))
}

/// Writes one sysctl.
pub fn write(name: &str, value: u32) -> io::Result<()> {
    fs::write(path(name), value.to_string())
}

/// Why an interface accepts no IPv6 address; `None` if it accepts one, or if that cannot be read.
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
