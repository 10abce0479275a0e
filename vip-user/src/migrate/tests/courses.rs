//! What an apply or a rollback does with what an earlier command has left.

use super::decisions::facts;
use crate::migrate::{
    apply::{Course, Earlier, Round, Verdict, Watch, course, may_be_xvip, stuck},
    edit::parsed,
    facts::Facts,
    rollback::{Place, other_host, place},
};
use serde_json::{Value, json};

const XVIP: &str = "registry.example/xvip:1";

fn manifest(image: &str, more: &str) -> String {
    format!(
        "kind: Pod\nmetadata:\n  name: kube-vip\nspec:\n  containers:\n  - args: [manager]\n    \
         image: {image}\n    env:\n    - name: vip_arp\n      value: \"true\"\n{more}"
    )
}

#[test]
fn a_manifest_is_xvips_by_its_text_or_its_image() {
    let backup = manifest("ghcr.io/kube-vip/kube-vip:v1.0.4", "");
    let moved = manifest("registry.example/vip:1", "");
    let again = manifest("ghcr.io/kube-vip/kube-vip:v1.1.0", "");
    for (found, is) in [
        (None, Place::Nothing),
        (Some(backup.clone()), Place::Original),
        (Some(moved.clone()), Place::Moved),
        // An operator has edited it.
        (Some(manifest("registry.example/vip:1", "# edited\n")), Place::Moved),
        (Some(manifest("registry.example/xvip:2", "")), Place::Moved),
        // A tool has written kube-vip's manifest again.
        (Some(again), Place::Other),
        (Some(manifest("registry.example/vip:0", "")), Place::Other),
        (Some("a: b: c".into()), Place::Other),
        (Some(String::new()), Place::Other),
    ] {
        let kept = Some(moved.as_str());
        let seen = place(found.as_deref(), &backup, (kept, "registry.example/vip:1"));
        assert_eq!(seen, is, "{found:?}");
    }
    // A text that was kept by mistake is still the original.
    assert_eq!(place(Some(&backup), &backup, (Some(&backup), XVIP)), Place::Original);
}

#[test]
fn an_apply_goes_on_only_where_it_can_be_judged() {
    type Change = fn(&mut Facts);
    type Row = (Option<(bool, &'static str, Place)>, Change, Result<Course, &'static str>);
    let same: Change = |_| {};
    let table: [Row; 15] = [
        (None, same, Ok(Course::Begin)),
        (Some((false, XVIP, Place::Original)), same, Ok(Course::Begin)),
        (Some((false, "other", Place::Original)), same, Ok(Course::Begin)),
        (Some((true, XVIP, Place::Original)), same, Ok(Course::Begin)),
        (Some((false, XVIP, Place::Moved)), same, Ok(Course::GoOn)),
        (Some((false, "other", Place::Moved)), same, Err("an apply of other has begun")),
        (Some((true, XVIP, Place::Moved)), same, Err("this node runs xvip already")),
        (Some((true, "other", Place::Moved)), same, Err("this node runs xvip already")),
        (Some((false, XVIP, Place::Other)), same, Err("this node was moved, and its manifest has")),
        (Some((true, XVIP, Place::Other)), same, Err("this node was moved, and its manifest has")),
        (Some((true, XVIP, Place::Nothing)), same, Err("this node was moved, and its manifest is")),
        (
            Some((false, XVIP, Place::Moved)),
            |f| f.nodes = Err("connection refused".into()),
            Err("connection refused"),
        ),
        (Some((false, XVIP, Place::Moved)), |f| f.lease = Err("401".into()), Err("401")),
        (Some((false, XVIP, Place::Moved)), |f| f.boot_id = "x".into(), Err("this host is not a")),
        (Some((false, XVIP, Place::Moved)), |f| f.nodes = Ok(vec![]), Err("a is no node")),
    ];
    for (earlier, change, wanted) in table {
        let mut facts = facts();
        change(&mut facts);
        let earlier = earlier.map(|(arrived, image, place)| Earlier { arrived, image, place });
        match (course(earlier.as_ref(), XVIP, &facts), wanted) {
            (Ok(course), Ok(wanted)) => assert_eq!(course, wanted, "{earlier:?}"),
            (Err(problems), Err(what)) => {
                assert!(problems[0].what.starts_with(what), "{earlier:?}: {problems:?}");
            }
            (course, _) => panic!("{earlier:?}: {course:?}"),
        }
    }
}

#[test]
fn xvips_variable_counts_under_any_image_but_kube_vips() {
    let variable = "    - name: XVIP_PIN_ROOT\n      value: /sys/fs/bpf/xvip\n";
    for (image, more, is) in [
        ("registry.example/vip:1", variable, true),
        ("registry.example/vip:kube-vip", variable, true),
        ("registry.example/vip:1", "", false),
        // The rights came first.
        ("ghcr.io/kube-vip/kube-vip:v1.0.4", variable, false),
        ("ghcr.io/kube-vip/kube-vip-iptables@sha256:0", variable, false),
    ] {
        let object = parsed(&manifest(image, more)).unwrap();
        assert_eq!(may_be_xvip(&object), is, "{image}");
    }
    assert!(!may_be_xvip(&Value::Null));
}

#[test]
fn a_pod_that_cannot_start_ends_the_wait() {
    let pod = |list: &str, reason: &str| {
        let waiting = json!({"reason": reason, "message": "no"});
        json!({"status": {list: [{"state": {"waiting": waiting}}]}})
    };
    for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"]
    {
        let why = stuck(&pod("containerStatuses", reason)).unwrap();
        assert!(why.contains(reason) && why.ends_with("no"), "{why}");
    }
    assert!(stuck(&pod("initContainerStatuses", "ErrImagePull")).is_some());
    for pod in [
        pod("containerStatuses", "ContainerCreating"),
        pod("containerStatuses", "CrashLoopBackOff"),
        json!({"status": {"containerStatuses": [{"state": {"running": {}}}]}}),
        Value::Null,
    ] {
        assert_eq!(stuck(&pod), None, "{pod}");
    }
    let round = Round { pod: Some("not ready".into()), stuck: Some("why".into()), ..Round::default() };
    assert_eq!(Watch::default().take(&round), Verdict::Failed("why".into()));
}

#[test]
fn a_rollback_is_only_for_the_host_of_the_node() {
    let nodes = [("a".into(), "boot-a".into()), ("b".into(), String::new())];
    for (node, boot_id, what) in [
        ("a", "boot-a", None),
        ("a", "boot-b", Some("this host is not a")),
        ("b", "boot-b", Some("the API does not say the boot id of b")),
        ("b", "", Some("the API does not say the boot id of b")),
        ("c", "boot-a", Some("c is no node")),
    ] {
        let problem = other_host(&nodes, node, boot_id);
        let told = problem.map(|problem| problem.what);
        assert_eq!(told.is_some(), what.is_some(), "{node} {boot_id}");
        assert!(told.unwrap_or_default().starts_with(what.unwrap_or_default()), "{node} {boot_id}");
    }
    assert!(other_host(&[], "a", "boot-a").is_some());
}
