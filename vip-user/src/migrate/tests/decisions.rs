//! What stands against a step.

use crate::migrate::{
    apply::{self, Round, Verdict, Watch},
    facts::{Facts, LeaseFact, ManifestFact, NodeFact, PodFact, VipFact},
    finish,
    plan::{self, Turn},
    pod::Program,
    rollback::{self, Daemon, Note, Place, Seen, Step},
};

pub(super) const VIP: [u8; 4] = [192, 0, 2, 10];
const IMAGE: &str = "ghcr.io/kube-vip/kube-vip:v1.0.0";

pub(super) fn pod(node: &str, program: Program) -> PodFact {
    PodFact {
        node: node.into(),
        namespace: "kube-system".into(),
        name: format!("kube-vip-{node}"),
        container: "kube-vip".into(),
        image: IMAGE.into(),
        program,
        version: Some((1, 0, 0)),
        duration_s: 5,
        preserves: false,
        holds_plane: true,
        ready: true,
        daemonset: None,
        mirror: true,
    }
}

/// Three nodes with kube-vip; `a` is to be moved, and `c` holds the Lease.
pub(super) fn facts() -> Facts {
    let node =
        |name: &str| NodeFact { name: name.into(), ready: true, boot_id: format!("boot-{name}") };
    Facts {
        node: "a".into(),
        boot_id: "boot-a".into(),
        folder: "/manifests".into(),
        manifests: vec![ManifestFact {
            path: "/manifests/kube-vip.yaml".into(),
            name: "kube-vip".into(),
            namespace: "kube-system".into(),
            image: IMAGE.into(),
            program: Program::KubeVip,
            refused: vec![],
            notes: vec![],
            changes: vec![],
            unfit: None,
            preserves: false,
            node: None,
            duration_s: 5,
            vips: vec![VIP.into()],
        }],
        template: None,
        unread: vec![],
        kubelet: Ok(()),
        users: vec![],
        labels: vec![],
        nodes: Ok(["c", "b", "a"].map(node).to_vec()),
        pods: Ok(["a", "b", "c"].map(|node| pod(node, Program::KubeVip)).to_vec()),
        lease: Ok(Some(LeaseFact {
            name: "kube-system/plndr-cp-lock".into(),
            holder: "c".into(),
            ours: false,
            duration_s: 5,
            fresh: true,
        })),
        vips: Ok(vec![VipFact {
            vip: VIP.into(),
            stations: vec!["02:00".into()],
            owners: 1,
            carried_on: vec![],
        }]),
        unfinished: None,
    }
}

pub(super) fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = facts();
    change(&mut facts);
    facts
}

pub(super) fn pods(facts: &mut Facts) -> &mut Vec<PodFact> {
    facts.pods.as_mut().unwrap()
}

pub(super) fn whats(problems: &[crate::migrate::facts::Problem]) -> String {
    problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>().join("; ")
}

#[test]
fn followers_come_first_and_the_holder_last() {
    let plan = plan::plan(&facts());
    assert_eq!(plan.problems, []);
    let order = |plan: &plan::Plan| {
        plan.rows.iter().map(|row| (row.node.clone(), row.turn)).collect::<Vec<_>>()
    };
    assert_eq!(
        order(&plan),
        [("a".into(), Turn::Now), ("b".into(), Turn::Now), ("c".into(), Turn::Last)]
    );
    let moved = with(|facts| {
        pods(facts)[1].program = Program::Xvip;
        pods(facts).remove(2);
    });
    let plan = plan::plan(&moved);
    assert_eq!(
        order(&plan),
        [("b".into(), Turn::Done), ("a".into(), Turn::Now), ("c".into(), Turn::Nothing)]
    );
}

#[test]
fn each_problem_of_the_plan_is_named() {
    type Change = fn(&mut Facts);
    let table: [(Change, &str); 22] = [
        (|f| f.manifests.clear(), "no manifest of kube-vip was found"),
        (|f| f.manifests.push(f.manifests[0].clone()), "more than one manifest"),
        (
            |f| f.manifests[0].refused.push("svc_enable".into()),
            "xvip would not run with it: svc_enable",
        ),
        (|f| f.manifests[0].unfit = Some("line 3".into()), "the file cannot be edited: line 3"),
        (|f| f.manifests[0].preserves = true, "vip_preserve_on_leadership_loss is on"),
        (|f| f.manifests[0].node = Some("b".into()), "vip_nodename is b"),
        (|f| f.unread.push(("x".into(), "no".into())), "the file cannot be read: no"),
        (|f| f.nodes = Err("nodes is forbidden".into()), "nodes is forbidden"),
        (|f| f.pods = Err("pods is forbidden".into()), "pods is forbidden"),
        (|f| f.vips = Err("not asked".into()), "not asked"),
        (|f| f.node = "z".into(), "z is no node of the control plane"),
        (|f| f.boot_id = "other".into(), "this host is not a"),
        (|f| f.nodes.as_mut().unwrap()[2].ready = false, "the node is not Ready"),
        (|f| f.lease = Err("no answer".into()), "no answer"),
        (|f| f.lease = Ok(None), "the Lease does not exist"),
        (|f| f.lease.as_mut().unwrap().as_mut().unwrap().holder.clear(), "nobody holds the Lease"),
        (|f| f.lease.as_mut().unwrap().as_mut().unwrap().fresh = false, "c does not renew the Lease"),
        (
            |f| f.lease.as_mut().unwrap().as_mut().unwrap().holder = "q".into(),
            "the holder q is no node",
        ),
        (|f| f.vips.as_mut().unwrap()[0].owners = 2, "more than one station answers"),
        (|f| f.vips.as_mut().unwrap()[0].owners = 0, "no station answers"),
        (
            |f| f.vips.as_mut().unwrap()[0].carried_on.push((24, "eth0".into())),
            "this host carries it on eth0",
        ),
        (|f| pods(f)[1].preserves = true, "vip_preserve_on_leadership_loss is on"),
    ];
    for (change, what) in table {
        let facts = with(change);
        let told = whats(&plan::plan(&facts).problems);
        assert!(told.starts_with(what), "{what}: {told}");
        assert!(!apply::refusals(&facts).is_empty(), "{what}");
    }
}

#[test]
fn an_old_kube_vip_with_a_shorter_duration_is_a_problem() {
    for (version, ours, stops) in
        [((0, 6, 0), 15, true), ((0, 5, 12), 15, true), ((0, 6, 1), 15, false), ((0, 6, 0), 5, false)]
    {
        let facts = with(|facts| {
            facts.manifests[0].duration_s = ours;
            pods(facts)[1].version = Some(version);
        });
        assert_eq!(!plan::plan(&facts).problems.is_empty(), stops, "{version:?} {ours}");
    }
}

#[test]
fn the_holder_is_refused_while_kube_vip_runs_elsewhere() {
    assert_eq!(apply::refusals(&facts()), []);
    let holder =
        |facts: &mut Facts| facts.lease.as_mut().unwrap().as_mut().unwrap().holder = "A".into();
    let told = whats(&apply::refusals(&with(holder)));
    assert_eq!(told, "this node holds the Lease, and kube-vip still runs on c, b");
    let last = with(|facts| {
        holder(facts);
        pods(facts)[1].program = Program::Xvip;
        pods(facts)[2].program = Program::Xvip;
    });
    assert_eq!(apply::refusals(&last), []);
}

#[test]
fn nodes_that_were_moved_must_be_ready() {
    let moved = |ready: bool, node: bool| {
        with(|facts| {
            pods(facts)[1].program = Program::Xvip;
            pods(facts)[1].ready = ready;
            facts.nodes.as_mut().unwrap()[1].ready = node;
        })
    };
    assert_eq!(apply::refusals(&moved(true, true)), []);
    assert_eq!(whats(&apply::refusals(&moved(false, true))), "xvip is not ready there");
    assert_eq!(whats(&apply::refusals(&moved(true, false))), "the node is not Ready");
}

#[test]
fn a_daemonset_gets_steps_and_is_not_applied() {
    let facts = with(|facts| {
        for pod in pods(facts) {
            pod.daemonset = Some("kube-vip-ds".into());
            pod.mirror = false;
        }
        facts.manifests.clear();
    });
    let plan = plan::plan(&facts);
    assert_eq!(plan.problems, []);
    let steps = plan::of_daemonset(&plan.daemonset.unwrap(), &plan.rows, ("xvip:1", false));
    let deleted: Vec<&str> = steps
        .iter()
        .filter(|(_, command)| command.contains("delete pod"))
        .map(|(what, _)| what.split([',', ';']).next().unwrap())
        .collect();
    assert_eq!(deleted, ["a", "b", "c"]);
    assert!(whats(&apply::refusals(&facts)).contains("DaemonSet"));
}

#[test]
fn a_node_arrives_after_three_good_looks_and_goes_back_after_two_bad_ones() {
    let good = Round { owners: vec![(VIP.into(), 1, "x".into())], ..Round::default() };
    let dark = Round { owners: vec![(VIP.into(), 0, String::new())], ..Round::default() };
    let two = Round { owners: vec![(VIP.into(), 2, "x, y".into())], ..Round::default() };
    let pod = Round { pod: Some("not ready".into()), ..good.clone() };
    let daemon = Round { daemon: Some("no guard".into()), ..good.clone() };
    let last = |rounds: &[&Round]| {
        let mut watch = Watch::default();
        rounds.iter().map(|round| watch.take(round)).last().unwrap()
    };
    assert_eq!(last(&[&good, &good, &good]), Verdict::Arrived);
    assert!(matches!(last(&[&good, &good]), Verdict::Wait(_)));
    for bad in [&dark, &two, &pod, &daemon] {
        assert!(matches!(last(&[&good, &good, bad, &good, &good]), Verdict::Wait(_)), "{bad:?}");
        assert_eq!(last(&[bad, &good, &good, &good]), Verdict::Arrived, "{bad:?}");
    }
    assert_eq!(
        last(&[&two, &good, &two]),
        Verdict::Wait("more than one station answers for 192.0.2.10: x, y".into())
    );
    assert!(matches!(last(&[&two, &two]), Verdict::Failed(why) if why.contains("x, y")));
}

fn seen() -> Seen {
    Seen {
        place: Place::Moved,
        daemon: Daemon::Waits,
        locked: true,
        pins: true,
        note: Note::NotOwn,
        offline: false,
    }
}

#[test]
fn the_way_back_begins_wherever_an_earlier_one_has_stopped() {
    use Step::{AwaitEnd, AwaitReady, Check, CleanUp, HandOver, PutBack, Strip, Sweep, TakeAway};
    let rest = [AwaitEnd, CleanUp, Strip, PutBack, AwaitReady];
    let then = |first: &[Step]| [first, rest.as_slice()].concat();
    let steps = |change: fn(&mut Seen)| {
        let mut seen = seen();
        change(&mut seen);
        rollback::steps(&seen)
    };
    assert_eq!(steps(|_| {}).unwrap(), then(&[Check, TakeAway]));
    assert_eq!(steps(|s| s.daemon = Daemon::Holds).unwrap(), then(&[Check, HandOver, TakeAway]));
    assert_eq!(steps(|s| s.place = Place::Other).unwrap(), then(&[Check, TakeAway]));
    // The process has crashed: its guard is still there.
    let crashed = |s: &mut Seen| (s.daemon, s.locked) = (Daemon::Gone, false);
    assert_eq!(steps(crashed).unwrap(), then(&[Check, TakeAway]));
    assert_eq!(steps(|s| s.place = Place::Nothing).unwrap(), then(&[Check]));
    // Somebody has put the file back by hand, and the guard silences kube-vip.
    assert_eq!(steps(|s| s.place = Place::Original).unwrap(), then(&[Check, TakeAway]));
    let done = |s: &mut Seen| {
        (s.place, s.pins, s.daemon, s.locked) = (Place::Original, false, Daemon::Gone, false);
    };
    assert_eq!(steps(done).unwrap(), [AwaitReady]);
    // xvip never ran, so there is no moment without a manifest.
    let never = |s: &mut Seen| {
        (s.pins, s.daemon, s.locked) = (false, Daemon::Gone, false);
    };
    assert_eq!(steps(never).unwrap(), [Check, Strip, PutBack, AwaitReady, Sweep]);
    let runs_without_socket = |s: &mut Seen| (s.pins, s.daemon) = (false, Daemon::Gone);
    assert_eq!(steps(runs_without_socket).unwrap(), then(&[Check, TakeAway]));
    let order = steps(|s| s.note = Note::Own).unwrap();
    let at = |step| order.iter().position(|other| *other == step).unwrap();
    assert!(at(AwaitEnd) < at(CleanUp) && at(CleanUp) < at(PutBack) && at(Strip) < at(PutBack));
    assert!(at(AwaitEnd) < at(Strip), "a daemon that runs would write the note again");
}

#[test]
fn the_way_back_needs_the_api() {
    let steps = |change: fn(&mut Seen)| {
        let mut seen = seen();
        change(&mut seen);
        rollback::steps(&seen)
    };
    let silent = |s: &mut Seen| s.note = Note::Unknown("no answer".into());
    assert!(steps(silent).unwrap_err().what.contains("no answer"));
    let offline = |s: &mut Seen| {
        (s.daemon, s.offline) = (Daemon::Holds, true);
    };
    // The API answers although the operator goes without it.
    let known = steps(offline).unwrap();
    assert!(known.contains(&Step::Strip) && known.contains(&Step::HandOver), "{known:?}");
    let unknown = |s: &mut Seen| {
        (s.daemon, s.offline, s.note) = (Daemon::Holds, true, Note::Unknown("no answer".into()));
    };
    let steps = steps(unknown).unwrap();
    assert!(!steps.contains(&Step::Strip) && !steps.contains(&Step::HandOver), "{steps:?}");
}

#[test]
fn nothing_is_removed_before_all_nodes_are_moved() {
    let moved = |change: fn(&mut Facts)| {
        let mut facts = facts();
        for pod in pods(&mut facts) {
            pod.program = Program::Xvip;
        }
        facts.lease.as_mut().unwrap().as_mut().unwrap().ours = true;
        change(&mut facts);
        facts
    };
    let told = |facts: &Facts, without: &[&str]| {
        let without: Vec<String> = without.iter().map(|node| (*node).to_owned()).collect();
        whats(&finish::refusals(facts, &without))
    };
    assert_eq!(told(&moved(|_| {}), &[]), "");
    let runs = moved(|f| pods(f)[1].program = Program::KubeVip);
    for without in [&[][..], &["b"]] {
        assert_eq!(told(&runs, without), "kube-vip still runs there, as kube-system/kube-vip-b");
    }
    assert_eq!(told(&moved(|f| pods(f)[1].ready = false), &[]), "no xvip is ready there");
    let gone = moved(|f| drop(pods(f).remove(1)));
    assert_eq!(told(&gone, &[]), "no xvip is ready there");
    assert_eq!(told(&gone, &["b"]), "");
    assert_eq!(told(&gone, &["b", "x"]), "--without names a node that is not there");
    let foreign = moved(|f| f.lease.as_mut().unwrap().as_mut().unwrap().ours = false);
    assert_eq!(told(&foreign, &[]), "c holds it, which is no xvip");
    assert_eq!(told(&moved(|f| f.lease = Ok(None)), &[]), "the Lease does not exist");
    assert_eq!(finish::quiet_s(5), 20);
}
