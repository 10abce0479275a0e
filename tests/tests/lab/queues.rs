//! Other traffic of the host fills its queues.

use std::{
    net::UdpSocket,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    judge::Judge,
    lab::{Lab, Options, eventually},
    netns::sh,
    standin::Outage,
};
use vip_user::clock;

const NOBODY: libc::c_long = 65534;
/// The highest priority that a process without rights may use: the first band of `pfifo_fast`.
const INTERACTIVE: libc::c_int = 6;

/// Sends to a station of the LAN until it is stopped, as the user `nobody`.
fn flood(stop: &AtomicBool) -> anyhow::Result<()> {
    // Of this thread alone: the kernel keeps credentials by thread, libc's wrapper changes all.
    // SAFETY: the call takes plain numbers.
    let set = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(set, 0, "cannot become nobody");
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let priority = INTERACTIVE;
    // SAFETY: the pointer is to a live value of the given size.
    let set = unsafe {
        let (value, size) = (&raw const priority, size_of::<libc::c_int>() as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY, value.cast(), size)
    };
    assert_eq!(set, 0, "nobody may use this priority");
    socket.connect("192.0.2.100:9")?;
    while !stop.load(Ordering::Relaxed) {
        // The call waits for room, so the queue is never empty.
        let _refused_there = socket.send(&[0; 1_400]);
    }
    Ok(())
}

/// A claim that passed the guard and waits in a queue could leave long after the end of its fence.
#[test]
fn a_flood_of_datagrams_holds_no_claim_back() {
    let extra = "announce: {refresh_s: 1}\n".into();
    let mut lab = Lab::new(&Options { nodes: 1, extra, ..Options::default() }).unwrap();
    let ns = lab.nodes[0].ns.name().to_owned();
    sh(&format!(
        "tc -n {ns} qdisc add dev eth0 root handle 1: tbf rate 5mbit burst 10kb latency 1s && \
         tc -n {ns} qdisc add dev eth0 parent 1:1 handle 2: pfifo_fast"
    ))
    .unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(Duration::from_secs(30)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let floods = [(); 16].map(|()| {
        let stop = Arc::clone(&stop);
        lab.nodes[0].ns.spawn(move || flood(&stop))
    });
    sleep(Duration::from_millis(200));
    let judge = Judge::listen(&lab.bridge, lab.ports(), &Lab::vips());
    // No renewal is possible, so the node announces nothing after its fence runs out.
    lab.api.set_outage(Outage::Hangs);
    assert!(eventually(Duration::from_secs(20), || !lab.nodes[0].owns()), "{}", lab.nodes[0].log());
    let over = clock::boot();
    sleep(Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.join().unwrap().unwrap();
    }
    sleep(Duration::from_secs(2));
    let claims = judge.finish().unwrap();
    assert!(!claims.is_empty(), "nothing was announced under the flood:\n{}", lab.nodes[0].log());
    let last = claims[claims.len() - 1].at_ns;
    assert!(last < over.0 + 500_000_000, "a claim left {} ms too late", (last - over.0) / 1_000_000);
}
