//! The judge of ownership: a listener on the bridge that timestamps every frame that claims a VIP,
//! and the port that it came from. Its parser is its own, so that an error in the code under test
//! cannot hide in it.

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
    /// Which node's port it came from.
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
    /// Listens on the ports of the nodes, each with its node's number, inside a namespace. From the
    /// return on every claim is heard.
    pub fn listen(ns: &NetNs, ports: Vec<(usize, String)>, vips: &[IpAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, claims) = mpsc::channel();
        // Each thread drops its end once its socket is open, or could not be opened.
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

    /// Stops listening and returns all claims in the order of time.
    ///
    /// # Errors
    /// If listening failed: then nothing can be said.
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

/// For how long two nodes claimed one VIP: claims of two nodes interleaved. With claims
/// A A B A B the two-owner time is from the first B to the last A. Milliseconds, the worst VIP.
pub fn two_owner_ms(claims: &[Claim]) -> f64 {
    let mut worst = 0.0_f64;
    let mut vips: Vec<IpAddr> = claims.iter().map(|claim| claim.vip).collect();
    vips.sort();
    vips.dedup();
    for vip in vips {
        let of_vip: Vec<&Claim> = claims.iter().filter(|claim| claim.vip == vip).collect();
        for (index, later) in of_vip.iter().enumerate() {
            // The first claim by somebody else after this node had already claimed.
            let own_first = of_vip[..index].iter().position(|claim| claim.node == later.node);
            let Some(own_first) = own_first else { continue };
            let other = of_vip[own_first..index].iter().find(|claim| claim.node != later.node);
            if let Some(other) = other {
                worst = worst.max((later.at_ns - other.at_ns) as f64 / 1e6);
            }
        }
    }
    worst
}

/// The same where the VIP moves several times and may come back to a node: between two of these
/// instants it moves at most once. Milliseconds, the worst stretch.
pub fn two_owner_ms_between(claims: &[Claim], instants: &[u64]) -> f64 {
    let stretch = |claim: &Claim| instants.iter().filter(|at| **at <= claim.at_ns).count();
    let stretches = claims.chunk_by(|a, b| stretch(a) == stretch(b));
    stretches.map(two_owner_ms).fold(0.0, f64::max)
}

/// Who claimed when, for a reader: one line for each stretch by one node, in milliseconds since the
/// first claim.
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
