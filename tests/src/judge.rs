//! The judge of ownership: a listener on the bridge. It records the time and the port of every
//! frame that claims a VIP. It has its own parser, so that an error in the code under test cannot
//! hide there.

use crate::{netns::NetNs, packet_socket::PacketSocket};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// One frame that claimed a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `CLOCK_BOOTTIME` nanoseconds.
    pub at_ns: u64,
    /// The node whose port it came from.
    pub node: usize,
    /// The claimed address.
    pub vip: IpAddr,
}

/// The listener.
#[derive(Debug)]
pub struct Judge {
    stop: Arc<AtomicBool>,
    claims: mpsc::Receiver<Claim>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Judge {
    /// Listens inside a namespace on the ports of the nodes, each with its node's number. Once it
    /// has returned, no claim is missed.
    pub fn listen(ns: &NetNs, ports: Vec<(usize, String)>, vips: &[IpAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, claims) = mpsc::channel();
        // Each thread drops its sender once its socket is open or has failed to open.
        let (opening, opened) = mpsc::channel::<()>();
        let threads = ports.into_iter().map(|(node, port)| {
            let (stop, sender, vips) = (Arc::clone(&stop), sender.clone(), vips.to_vec());
            let opening = opening.clone();
            ns.spawn(move || {
                let socket = PacketSocket::open(&port)?;
                drop(opening);
                while !stop.load(Ordering::Relaxed) {
                    let Some(received) = socket.receive(Duration::from_millis(50))? else { continue };
                    if let Some(vip) = claimed(&received.frame).filter(|vip| vips.contains(vip)) {
                        let _ = sender.send(Claim { at_ns: received.at_ns, node, vip });
                    }
                }
                Ok(())
            })
        });
        let threads = threads.collect();
        drop(opening);
        let _ = opened.recv();
        Self { stop, claims, threads }
    }

    /// Stops listening and returns all claims, ordered by time.
    ///
    /// # Errors
    /// If listening failed: then there is no verdict.
    pub fn finish(self) -> anyhow::Result<Vec<Claim>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("the judge panicked"))??;
        }
        let mut claims: Vec<Claim> = self.claims.try_iter().collect();
        claims.sort_by_key(|claim| claim.at_ns);
        Ok(claims)
    }
}

/// The address that a frame claims: the sender of any ARP message; the target of a neighbour
/// advertisement; the source of a solicitation, router message or redirect with a link-layer option.
pub fn claimed(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let spa: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
            Some(IpAddr::from(spa))
        }
        [0x86, 0xdd] if *frame.get(20)? == 58 => {
            let address = |range: std::ops::Range<usize>| -> Option<IpAddr> {
                let octets: [u8; 16] = frame.get(range)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            let options = match *frame.get(54)? {
                136 => return address(62..78),
                135 => 78,
                133 => 62,
                134 => 70,
                137 => 94,
                _ => return None,
            };
            let kind = *frame.get(options)?;
            if kind == 1 || kind == 2 { address(22..38) } else { None }
        }
        _ => None,
    }
}

/// How long claims of two nodes for one VIP interleaved. With claims A A B A B the two-owner time
/// is from the first B to the last A. Milliseconds, the worst VIP.
pub fn two_owner_ms(claims: &[Claim]) -> f64 {
    let mut worst = 0.0_f64;
    let mut vips: Vec<IpAddr> = claims.iter().map(|claim| claim.vip).collect();
    vips.sort();
    vips.dedup();
    for vip in vips {
        let of_vip: Vec<&Claim> = claims.iter().filter(|claim| claim.vip == vip).collect();
        for (index, later) in of_vip.iter().enumerate() {
            // The first claim by another node after this node had already claimed.
            let own_first = of_vip[..index].iter().position(|claim| claim.node == later.node);
            let Some(own_first) = own_first else { continue };
            let other = of_vip[own_first..index].iter().find(|claim| claim.node != later.node);
            if let Some(other) = other {
                worst = worst.max((later.at_ns - other.at_ns) as f64 / 1e6);
            }
        }
    }
    if worst > 0.0 {
        // `cargo xtask test` repeats a late test once, but never one that prints this.
        println!("two owners for {worst} ms");
    }
    worst
}

/// The same if the VIP moves several times and may return to a node. Between two of the instants it
/// moves at most once. Milliseconds, the worst stretch.
pub fn two_owner_ms_between(claims: &[Claim], instants: &[u64]) -> f64 {
    let stretch = |claim: &Claim| instants.iter().filter(|at| **at <= claim.at_ns).count();
    let stretches = claims.chunk_by(|a, b| stretch(a) == stretch(b));
    stretches.map(two_owner_ms).fold(0.0, f64::max)
}

/// The claims as text: one line for each stretch by one node, in milliseconds since the first
/// claim.
pub fn spans(claims: &[Claim]) -> String {
    let begin = claims.first().map_or(0, |claim| claim.at_ns);
    let ms = |claim: &Claim| (claim.at_ns - begin) / 1_000_000;
    let line = |span: &[Claim]| {
        let (first, last) = (&span[0], &span[span.len() - 1]);
        format!("node{} {}..{} ms, {} claims", first.node + 1, ms(first), ms(last), span.len())
    };
    claims.chunk_by(|a, b| a.node == b.node).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
