//! Many interfaces, many changes: no wait of the loop takes long, and a look costs only as much as
//! the changes.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    lab::{Lab, Options, eventually, node::Node},
    netns::{NetNs, sh},
};
use vip_user::{
    cli::settings,
    config::Config,
    model::desired::Links,
    node::{
        bpf, changes::Changes, dataplane::Dataplane as _, kernel::Kernel, netlink::Netlink, pins::Pins,
        start::start,
    },
};

const LONG: Duration = Duration::from_mins(1);

/// Pairs of interfaces, in one call of `ip`.
fn add_pairs(ns: &NetNs, names: [&str; 2], count: usize) -> anyhow::Result<()> {
    let [one, other] = names;
    let lines = (0..count).map(|number| {
        format!(
            "link add {one}{number} type veth peer name {other}{number}\\n\
             link set {one}{number} group 5 up\\nlink set {other}{number} group 5 up\\n"
        )
    });
    batch(ns, &lines.collect::<String>())
}

fn batch(ns: &NetNs, lines: &str) -> anyhow::Result<()> {
    sh(&format!("printf '{lines}' | ip -n {} -batch -", ns.name())).map(drop)
}

/// A burst once overran the socket: an acknowledgement was lost, and the loop waited for it for
/// ever.
#[test]
fn a_burst_of_link_events_stops_no_renewal() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    // Their names are excluded, so they get no programs; they only cause events.
    add_pairs(&lab.nodes[0].ns, ["vetha", "vethb"], 120).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    let node = &lab.nodes[0];
    let flaps = "link set group 5 down\\nlink set group 5 up\\n".repeat(20);
    std::thread::scope(|scope| {
        let burst = scope.spawn(|| batch(&node.ns, &flaps));
        while !burst.is_finished() {
            // The owner adds it again, each time with a request that is acknowledged.
            let _ = node.ns.ip("addr del 192.0.2.10/32 dev lo");
            sleep(Duration::from_millis(50));
        }
        burst.join().unwrap().unwrap();
    });
    let back = || node.ns.ip("addr show dev lo").unwrap().contains("192.0.2.10/32");
    assert!(eventually(LONG, || back() && node.owns()), "{}", node.log());
    // The loop also handles SIGTERM.
    let turns = |node: &Node| node.status().unwrap()["daemon"]["turned_ns"].as_u64();
    let before = turns(node);
    assert!(eventually(LONG, || turns(node) > before), "the loop is still: {}", node.log());
}

/// Changes keep interrupting a listing of several parts. That is no fault of this host; once it
/// ended the start.
#[test]
fn a_start_goes_on_while_changes_interrupt_its_listings() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    let node = &mut lab.nodes[0];
    let many =
        (0..2_000).map(|n| format!("addr add 198.18.{}.{}/32 dev vethmany\\n", n / 250, n % 250));
    let many: String = many.collect();
    batch(&node.ns, &format!("link add vethmany type veth peer name vethb\\n{many}")).unwrap();
    let change =
        "addr add 198.19.0.1/32 dev vethmany\\naddr del 198.19.0.1/32 dev vethmany\\n".repeat(500);
    let ns = node.ns.borrowed();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                batch(&ns, &change).unwrap();
            }
        });
        node.start().unwrap();
        let busy = eventually(LONG, || node.log().contains("the kernel is busy"));
        ended.store(true, Ordering::Relaxed);
        assert!(busy && node.pid().is_some(), "{}", node.log());
    });
    lab.wait_for_owner(LONG).unwrap();
}

/// If events found no room in the kernel's buffer, everything is looked at.
#[test]
fn lost_changes_ask_for_a_look_at_everything() {
    let ns = NetNs::new(&format!("xvnl{}", std::process::id())).unwrap();
    ns.ip("link add one type veth peer name other").unwrap();
    ns.run(|| {
        runtime().block_on(async {
            let netlink = Netlink::open().unwrap();
            let changes = Changes::open(&netlink, false).unwrap();
            let flaps = "link set one up\\nlink set one down\\n".repeat(2_000);
            batch(&ns, &flaps).unwrap();
            let (sender, mut looks) = tokio::sync::mpsc::channel(1);
            let reader = tokio::spawn(changes.tell(sender));
            tokio::time::timeout(LONG, looks.recv()).await.unwrap().unwrap();
            // The loss is reported only after the head of the queue was read.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let never_told_of = 1_000_000;
            assert!(netlink.touched().begin().interfaces().contains(never_told_of));
            drop(looks);
            reader.abort();
        });
    })
    .unwrap();
}

/// A start that waits for the lock does not listen, because unread events would pile up.
#[test]
fn a_start_that_waits_for_the_lock_listens_to_nothing() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    let node = &lab.nodes[0];
    let mut second = node.again();
    second.start().unwrap();
    assert!(eventually(LONG, || second.log().contains("waiting for it to end")), "{}", second.log());
    // Inodes of the sockets in a multicast group (/proc/net/netlink: sk Eth Pid Groups … Inode).
    let sockets = node.ns.run(|| fs::read_to_string("/proc/thread-self/net/netlink").unwrap()).unwrap();
    let columns = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let in_groups = columns.filter(|columns| columns[1] == "0" && columns[3] != "00000000");
    let inodes: Vec<String> = in_groups.map(|columns| format!("socket:[{}]", columns[9])).collect();
    let listens = |node: &Node| {
        let open = fs::read_dir(format!("/proc/{}/fd", node.pid().unwrap())).unwrap();
        let open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        open.filter(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str())).count()
    };
    assert_eq!((listens(node), listens(&second)), (1, 0), "{sockets}");
    second.kill();
}

/// Looks until the kernel answers in time: other tests keep its lock on all interfaces (RTNL) busy.
async fn looked(host: &mut Kernel) -> Links {
    for _ in 0..100 {
        match host.links().await {
            Ok(links) => return links,
            Err(error) => assert!(error.is_blind(), "{error}"),
        }
    }
    panic!("the kernel never answered in time");
}

/// The cost of one look and one inspection with this many guarded interfaces, in calls of bpf(2).
fn cost(interfaces: usize) -> (u64, u64) {
    let lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    let node = &lab.nodes[0];
    add_pairs(&node.ns, ["lan", "wan"], interfaces / 2).unwrap();
    let path: PathBuf = lab.dir().join("cost.yaml");
    fs::write(&path, node.config_text().unwrap()).unwrap();
    node.ns
        .run(|| {
            runtime().block_on(async {
                let config = Config::load(&path).unwrap();
                let pins = Pins::new(&config.pin_root, &config.instance);
                let netlink = Netlink::open().unwrap();
                let mut host =
                    start(&settings::host(&config), &pins, netlink, "node1", "boot").unwrap().kernel;
                let links = looked(&mut host).await;
                assert_eq!(links.links.iter().filter(|link| link.guarded).count(), interfaces + 1);
                // Other tests of this process may also call bpf(2), so the lowest of some rounds
                // counts.
                let (mut look, mut inspection) = (u64::MAX, u64::MAX);
                for _ in 0..5 {
                    let before = bpf::calls();
                    looked(&mut host).await;
                    let between = bpf::calls();
                    assert!(host.is_guarded().await.unwrap());
                    look = look.min(between - before);
                    inspection = inspection.min(bpf::calls() - between);
                }
                (look, inspection)
            })
        })
        .unwrap()
}

/// The cost once was the square of their number, twice a second.
#[test]
fn interfaces_that_did_not_change_cost_nothing() {
    let [(few, inspected), (many, all_inspected)] = [20, 200].map(cost);
    assert_eq!((few, many), (1, 1), "only our addresses are listed, in one call");
    // One call for each guarded interface, at most 64 in one turn; two for the program that
    // answers.
    assert!(inspected <= 20 + 3 && all_inspected <= 64 + 3, "{inspected} and {all_inspected} calls");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
