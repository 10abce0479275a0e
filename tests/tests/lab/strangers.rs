//! What processes without rights can reach: the admin port, the name of the local socket, and text
//! that xvip shows. None of it may cost a VIP.

use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _, pipe},
    mem::offset_of,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process::{Command, Stdio},
    sync::mpsc,
    thread::sleep,
    time::Duration,
};
use vip_tests::{
    lab::{Lab, Options, eventually, node::Node},
    netns::{NetNs, sh},
};
use vip_user::clock;

const LONG: Duration = Duration::from_secs(30);
const NOBODY: libc::c_long = 65534;
const ADMIN: &str = "admin: {port: 21112}\n";

fn owner(extra: &str) -> Lab {
    let mut lab = Lab::new(&Options { nodes: 1, extra: extra.into(), ..Options::default() }).unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    lab
}

fn answers(lab: &Lab) -> bool {
    let mut arping = lab.asker.command("arping");
    arping.args(["-c1", "-w1", "-I", "eth0", "192.0.2.10"]).output().unwrap().status.success()
}

fn connect(node: &Node) -> Option<TcpStream> {
    let limit = Duration::from_secs(2);
    let open = || TcpStream::connect_timeout(&([127, 0, 0, 1], 21112).into(), limit);
    let stream = node.ns.run(open).unwrap().ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

fn ask(stream: &mut TcpStream, path: &str) -> Option<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Asserts that the node keeps its VIP all the time, and that its Lease did not lapse.
fn keeps_its_vip(lab: &Lab, watched: Duration) {
    let until = clock::boot().after(watched);
    while clock::boot() < until {
        assert!(lab.nodes[0].owns() && answers(lab), "{}", lab.nodes[0].log());
        sleep(Duration::from_millis(300));
    }
    let log = lab.nodes[0].log();
    assert!(!log.contains("lapsed") && !log.contains("is gone"), "{log}");
}

#[test]
fn idle_connections_take_neither_descriptors_nor_the_vip() {
    let lab = owner(ADMIN);
    let node = &lab.nodes[0];
    let pid = node.pid().unwrap();
    // Few enough descriptors for these connections to use them all.
    sh(&format!("prlimit --pid {pid} --nofile=256:256")).unwrap();
    let idle: Vec<TcpStream> = (0..400).map_while(|_| connect(node)).collect();
    assert!(idle.len() > 256, "only {} connections", idle.len());
    sleep(Duration::from_secs(1));
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 128, "{open} descriptors");
    keeps_its_vip(&lab, Duration::from_secs(6));
    // The newest client is served, however many idle connections there are.
    let text = ask(&mut connect(node).unwrap(), "/healthz").unwrap();
    assert!(text.contains("200 OK"), "{text}");
}

#[test]
fn a_flood_of_scrapes_delays_no_renewal() {
    let lab = owner(ADMIN);
    let node = &lab.nodes[0];
    let (stop, stopped) = mpsc::channel::<()>();
    let flood = node.ns.spawn(move || {
        let mut served = 0;
        while matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            let open = |_| TcpStream::connect("127.0.0.1:21112").ok();
            let mut all: Vec<TcpStream> = (0..400).filter_map(open).collect();
            for stream in &mut all {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            }
            for mut stream in all {
                stream.set_read_timeout(Some(Duration::from_millis(50)))?;
                served += usize::from(stream.read(&mut [0; 64]).is_ok_and(|n| n > 0));
            }
        }
        Ok(served)
    });
    keeps_its_vip(&lab, Duration::from_secs(8));
    drop(stop);
    assert!(flood.join().unwrap().unwrap() > 0, "nobody was served at all");
    let text = ask(&mut connect(node).unwrap(), "/metrics").unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
}

/// How another process holds the name.
#[derive(Clone, Copy, PartialEq)]
enum Sits {
    /// Listens, and sends data for ever to each client.
    Feeding,
    /// Has bound it, and does not listen.
    Bound,
    /// Listens, and accepts no more connections.
    Full,
    /// Has bound it, and is connected to its own listener.
    Connected,
}

/// A process without rights holds the name of a node's socket until the sender is dropped.
fn stranger(ns: &NetNs, instance: &str, sits: Sits) -> mpsc::Sender<()> {
    let (leave, left) = mpsc::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let name = format!("xvip/{instance}");
    drop(ns.spawn(move || {
        // Of this thread alone: the kernel keeps credentials by thread, libc's wrapper changes all.
        // SAFETY: the call takes plain numbers.
        let set = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(set, 0, "cannot become nobody");
        let bound = bind_only(&name);
        if sits == Sits::Connected {
            let other = SocketAddr::from_abstract_name(format!("{name}-other"))?;
            let _listener = UnixListener::bind_addr(&other)?;
            connect_to(&bound, &format!("{name}-other"));
            ready.send(())?;
            let _ = left.recv();
            return Ok(());
        }
        if sits == Sits::Bound {
            ready.send(())?;
            let _ = left.recv();
            return Ok(());
        }
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::listen(bound.as_raw_fd(), 0) }, 0);
        let listener = UnixListener::from(bound);
        let address = SocketAddr::from_abstract_name(&name)?;
        let _inside = (sits == Sits::Full).then(|| UnixStream::connect_addr(&address));
        ready.send(())?;
        if sits == Sits::Full {
            let _ = left.recv();
            return Ok(());
        }
        listener.set_nonblocking(true)?;
        let mut fed = Vec::new();
        while matches!(left.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true)?;
                fed.push(stream);
            }
            for stream in &mut fed {
                let _ = stream.write(&vec![b'x'; 65536]);
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }));
    is_ready.recv().unwrap();
    leave
}

fn bind_only(name: &str) -> OwnedFd {
    // SAFETY: an all-zero address is valid; the descriptor is new and owned by nobody else.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0);
        let (address, length) = abstract_name(name);
        assert_eq!(libc::bind(socket, (&raw const address).cast(), length), 0, "cannot bind {name}");
        OwnedFd::from_raw_fd(socket)
    }
}

fn connect_to(socket: &OwnedFd, name: &str) {
    let (address, length) = abstract_name(name);
    // SAFETY: the pointer is to a live value of the given size.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(result, 0, "cannot connect to {name}");
}

fn abstract_name(name: &str) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path[1..].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    (address, (offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len()) as libc::socklen_t)
}

#[test]
fn a_stranger_on_the_name_of_the_socket_keeps_nobody_waiting() {
    for sits in [Sits::Feeding, Sits::Bound, Sits::Full, Sits::Connected] {
        let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
        let leave = stranger(&lab.nodes[0].ns, &lab.nodes[0].instance, sits);
        lab.start().unwrap();
        lab.wait_for_owner(LONG).unwrap();
        let node = &lab.nodes[0];
        // `status` finds the daemon and trusts it. It names the stranger, and does not trust it.
        let status = node.status().unwrap();
        assert_eq!(status["daemon"]["pid"], Value::from(node.pid().unwrap()), "{status}");
        let told = status["daemon"]["problems"]["local socket"].as_str().unwrap_or_default();
        let who = if sits == Sits::Connected { "does not listen" } else { "user 65534" };
        assert!(told.contains(who), "{status}");
        assert!(health(node, &[]).1.contains("ok"));
        let refused = node.xvip("cleanup", &[]).unwrap_err().to_string();
        assert!(refused.contains("is running; stop it first"), "{refused}");
        // There is still only one process at a time.
        let mut second = node.again();
        second.start().unwrap();
        let waits = || second.log().contains("waiting for it to end");
        assert!(eventually(LONG, waits), "{}", second.log());
        second.kill();
        if sits == Sits::Feeding {
            drop(leave);
            let over = || node.status().unwrap()["daemon"]["problems"]["local socket"].is_null();
            assert!(eventually(LONG, over), "{}", node.log());
            continue;
        }
        lab.nodes[0].signal(libc::SIGTERM);
        assert!(eventually(LONG, || lab.nodes[0].has_ended()));
        let begun = clock::boot();
        let status = lab.nodes[0].status().unwrap();
        assert!(
            status["daemon"].is_null() && begun.until(clock::boot()) < Duration::from_secs(10),
            "{status}"
        );
        lab.nodes[0].xvip("cleanup", &[]).unwrap();
        drop(leave);
    }
}

/// A version whose only lock is the name is waited for.
#[test]
fn root_on_the_name_of_the_socket_is_another_xvip() {
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    let name = format!("xvip/{}", lab.nodes[0].instance);
    let bind = || UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
    let held = lab.nodes[0].ns.run(bind).unwrap().unwrap();
    lab.start().unwrap();
    let waits = |lab: &Lab| lab.nodes[0].log().contains("another xvip runs here");
    assert!(eventually(LONG, || waits(&lab)), "{}", lab.nodes[0].log());
    assert!(!lab.nodes[0].owns());
    drop(held);
    lab.wait_for_owner(LONG).unwrap();
}

fn health(node: &Node, args: &[&str]) -> (Option<i32>, String) {
    let mut command = node.command().unwrap();
    let output = command.args(["health", "--instance", &node.instance]).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// The probe asks the daemon itself, not a port that another process may have.
#[test]
fn health_is_the_daemons_own_and_a_stolen_port_is_a_problem() {
    let mut lab = Lab::new(&Options { nodes: 1, extra: ADMIN.into(), ..Options::default() }).unwrap();
    let said = health(&lab.nodes[0], &[]);
    assert!(said.0 == Some(1) && said.1.contains("no xvip daemon runs"), "{said:?}");
    let stolen = lab.nodes[0].ns.run(|| TcpListener::bind("0.0.0.0:21112")).unwrap().unwrap();
    lab.start().unwrap();
    lab.wait_for_owner(LONG).unwrap();
    let node = &lab.nodes[0];
    let said = health(node, &["--ready"]);
    assert_eq!(said, (Some(0), "ok\n".into()));
    let problem = || node.status().unwrap()["daemon"]["problems"]["admin port"].clone();
    let told = problem();
    assert!(told.as_str().is_some_and(|told| told.contains("127.0.0.1:21112")), "{told}");
    drop(stolen);
    assert!(eventually(LONG, || problem().is_null()), "{}", node.log());
    let text = ask(&mut connect(node).unwrap(), "/metrics").unwrap();
    assert!(!text.contains("xvip_problem{subject=\"admin port\"}"), "{text}");
    // A loop that hangs is unhealthy, whatever it reported before.
    node.signal(libc::SIGSTOP);
    let said = health(node, &[]);
    node.signal(libc::SIGCONT);
    assert!(said.0 == Some(1) && said.1.contains("does not answer"), "{said:?}");
}

/// Clears the screen, forges a line, and changes the direction of writing.
const HOSTILE: &str = "node9\u{1b}[2J\nproblem over\u{202e}";

#[test]
fn text_from_outside_is_shown_and_not_obeyed() {
    for format in ["text", "json"] {
        let extra = format!("{ADMIN}log: {{format: {format}}}\n");
        let lab = owner(&extra);
        let node = &lab.nodes[0];
        lab.api.edit("kube-system", "plndr-cp-lock", |lease| {
            lease["spec"]["holderIdentity"] = HOSTILE.into();
        });
        let shown = || node.xvip("status", &[]).unwrap();
        assert!(eventually(LONG, || shown().contains("node9")), "{}", shown());
        let state = ask(&mut connect(node).unwrap(), "/state").unwrap();
        let (_, state) = state.split_once("\r\n\r\n").unwrap();
        let json = node.xvip("status", &["-o", "json"]).unwrap();
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["daemon"]["leases"][0]["holder"], HOSTILE, "scripts see all of it");
        assert!(eventually(LONG, || node.log().contains("node9")));
        for text in [shown(), node.log(), state.to_owned(), json] {
            let lines = text.lines().find(|line| line.starts_with("problem over"));
            assert_eq!(lines, None, "{text}");
            let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(obeyed), "{text:?}");
        }
    }
}

/// A reader that has gone causes no panic, and does not stop the daemon.
#[test]
fn a_closed_pipe_ends_a_subcommand_quietly_and_the_daemon_never() {
    let lab = owner("");
    let node = &lab.nodes[0];
    let closed = || {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let config = node.config_path().display().to_string();
    let place = ["--instance", &node.instance, "--pin-root", node.pin_root().to_str().unwrap()];
    let quietly = |command: &mut Command| {
        let output = command.stdout(closed()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() != Some(101) && said.is_empty(), "{command:?}: {said}");
    };
    for args in [&["status"][..], &["status", "-o", "json"], &["map"], &["map", "-o", "json"]] {
        quietly(node.command().unwrap().args(args).args(place));
    }
    quietly(node.command().unwrap().args(["health", "--instance", &node.instance]));
    quietly(node.command().unwrap().args(["probe", "192.0.2.10", "--wait", "100"]).args(place));
    quietly(node.command().unwrap().args(["config", "check", &config]));
    quietly(node.command().unwrap().args(["config", "show", &config]));
    quietly(node.command().unwrap().args(["--help"]));
    // The daemon's log no longer has a reader.
    let mut lab = Lab::new(&Options { nodes: 1, ..Options::default() }).unwrap();
    let mut command = lab.nodes[0].command().unwrap();
    command.args(["run", "--config"]).arg(lab.nodes[0].config_path());
    let mut daemon = command.stdout(closed()).stderr(closed()).spawn().unwrap();
    let owns = eventually(LONG, || lab.nodes[0].owns());
    let ended = daemon.try_wait().unwrap();
    let _ = daemon.kill();
    let _ = daemon.wait();
    assert!(owns && ended.is_none(), "{ended:?}");
    let node = &lab.nodes[0];
    let place = ["--instance", &node.instance, "--pin-root", node.pin_root().to_str().unwrap()];
    quietly(node.command().unwrap().arg("cleanup").args(place));
    lab.nodes.clear();
}
