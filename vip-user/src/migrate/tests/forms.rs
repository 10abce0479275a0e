//! Ways to write a manifest: those that are edited, and those that are refused.

use crate::migrate::{
    additions::{Wanted, additions},
    edit::{EditError, edited, parsed},
    pod::{Pod, Program, program, version},
};

fn wanted() -> Wanted {
    Wanted { image: "xvip:1".into(), perfmon: false }
}

/// A manifest whose container has these lines.
fn pod(lines: &str) -> String {
    let container = "    - name: kube-vip\n      image: ghcr.io/kube-vip/kube-vip:v1.0.4\n";
    let args = "      args:\n        - manager\n";
    let begin = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-vip\nspec:\n  containers:\n";
    format!("{begin}{container}{args}{lines}")
}

fn run(text: &str) -> Result<String, String> {
    let object = parsed(text).map_err(|why| why.to_string())?;
    let additions = additions(&object, &wanted())?;
    edited(text, &additions.edits).map_err(|why| why.to_string())
}

const VIP: &str = "      env:\n        - name: vip_arp\n          value: \"true\"\n";

#[test]
fn what_is_missing_or_empty_is_made() {
    for more in [
        "",
        "      securityContext: {}\n      volumeMounts: []\n",
        "      securityContext:\n        runAsUser: 0\n  volumes: [] # none\n",
        "      securityContext:\n        capabilities: {}\n      volumeMounts:\n  volumes:\n",
        "      securityContext:\n        capabilities:\n          add:\n          - NET_RAW\n",
        "      command:\n        - sh\n        - -c\n        - |\n          env:\n          image: x # y\n",
    ] {
        let result = run(&pod(&format!("{VIP}{more}"))).unwrap();
        let object = parsed(&result).unwrap();
        let container = &object["spec"]["containers"][0];
        assert_eq!(container["image"], "xvip:1", "{result}");
        assert_eq!(container["env"][1]["name"], "XVIP_PIN_ROOT", "{result}");
        assert_eq!(container["volumeMounts"][0]["mountPath"], "/run/xvip/bpf", "{result}");
        assert_eq!(object["spec"]["volumes"][0]["hostPath"]["path"], "/sys/fs/bpf", "{result}");
        let add = &container["securityContext"]["capabilities"]["add"];
        assert_eq!(add.as_array().unwrap().len(), 3, "{result}");
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    for (more, why) in [
        ("      env: [{name: vip_arp, value: \"true\"}]\n", "line 11: this part is in flow style"),
        (
            &format!("{VIP}      securityContext: {{runAsUser: 0}}\n"),
            "line 14: this part is in flow style",
        ),
        (&format!("{VIP}      resources: &r {{}}\n"), "line 14: anchors and aliases"),
        (&format!("{VIP}      resources: !!map {{}}\n"), "line 14: tags"),
        (&format!("{VIP}      resources: {{\n        }}\n"), "line 14: a value in flow style spans"),
        (&format!("{VIP}  volumes: [{{name: a, hostPath: {{path: /a}}}}]\n"), "line 14: this part"),
        (&format!("{VIP}      workingDir: \"/a\n        b\"\n"), "line 14: a quoted value spans"),
    ] {
        let result = run(&pod(more));
        assert!(result.as_ref().is_err_and(|told| told.starts_with(why)), "{more}: {result:?}");
    }
    let dos = pod(VIP).replace('\n', "\r\n");
    assert!(run(&dos).unwrap_err().contains("carriage return"));
    let json = parsed(&pod(VIP)).unwrap().to_string();
    assert!(run(&json).is_err(), "{json}");
    let image = pod(VIP).replace("image: ghcr.io", "image: >-\n        ghcr.io");
    assert!(run(&image).unwrap_err().contains("the value is not in the line of its key"));
}

#[test]
fn a_second_document_is_refused_and_a_first_marker_is_not() {
    assert!(run(&format!("---\n{}", pod(VIP))).is_ok());
    assert!(run(&format!("{}---\n{}", pod(VIP), pod(VIP))).is_err());
}

/// The last line of defence: the text means something else than the object.
#[test]
fn a_result_that_reads_otherwise_is_refused() {
    use crate::migrate::edit::{Edit, Step, What};
    // A plain value goes on in the next line.
    let text = "spec:\n  image: a\n    b\n";
    let edit = Edit { path: vec![Step::Key("spec"), Step::Key("image")], what: What::Set("c".into()) };
    assert!(edited(text, &[edit]).is_err());
    let text = "spec:\n  \"im\\u0061ge\": a\n";
    let edit = Edit { path: vec![Step::Key("spec"), Step::Key("image")], what: What::Set("c".into()) };
    let error = edited(text, &[edit]).unwrap_err();
    assert!(matches!(error, EditError::Yaml(_)), "{error}");
}

#[test]
fn mounts_that_are_there_are_used_and_others_are_refused() {
    let mount = |name: &str, path: &str| {
        format!(
            "{VIP}      volumeMounts:\n        - name: {name}\n          mountPath: {path}\n  volumes:\n    \
             - name: bpf\n      hostPath:\n        path: /sys/fs/bpf\n    - name: other\n      \
             hostPath:\n        path: /other\n"
        )
    };
    let object = parsed(&run(&pod(&mount("bpf", "/run/xvip/bpf"))).unwrap()).unwrap();
    assert_eq!(object["spec"]["volumes"].as_array().unwrap().len(), 2);
    let object = parsed(&run(&pod(&mount("bpf", "/elsewhere"))).unwrap()).unwrap();
    assert_eq!(object["spec"]["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(object["spec"]["containers"][0]["volumeMounts"][1]["name"], "bpf");
    assert!(run(&pod(&mount("other", "/run/xvip/bpf"))).unwrap_err().contains("is not the host's"));
    let taken = mount("bpf", "/elsewhere").replace("/sys/fs/bpf", "/srv");
    let object = parsed(&run(&pod(&taken)).unwrap()).unwrap();
    assert_eq!(object["spec"]["volumes"][2]["name"], "xvip-bpf");
}

#[test]
fn a_pod_shows_what_it_runs_and_where_its_files_are() {
    for (image, has_pins, wanted) in [
        ("ghcr.io/kube-vip/kube-vip:v1.0.4", false, Program::KubeVip),
        // A pod of kube-vip may have the rights already.
        ("ghcr.io/kube-vip/kube-vip:v1.0.4", true, Program::KubeVip),
        ("ghcr.io/kube-vip/kube-vip-iptables@sha256:ab", false, Program::KubeVip),
        ("registry.example:5000/kube-vip:from-bundle", false, Program::KubeVip),
        ("registry.example:5000/xvip:0.1.0", false, Program::Xvip),
        ("xvip", false, Program::Xvip),
        ("registry/own-name:1", false, Program::Xvip),
        ("registry/own-name:2", false, Program::KubeVip),
        ("registry/own-name:2", true, Program::Xvip),
        ("registry/another:2", false, Program::KubeVip),
    ] {
        let found = program((image, has_pins), Some("registry/own-name:1"));
        assert_eq!(found, wanted, "{image} {has_pins}");
    }
    assert_eq!(version("ghcr.io/kube-vip/kube-vip:v0.8.9"), Some((0, 8, 9)));
    assert_eq!(version("registry:5000/kube-vip:1.1.0-rc1"), Some((1, 1, 0)));
    assert_eq!(version("registry:5000/kube-vip"), None);
    assert_eq!(version("kube-vip:from-bundle"), None);
    let text = pod(&format!(
        "{VIP}      volumeMounts:\n        - {{name: a, mountPath: /etc/kubernetes/admin.conf}}\n  volumes:\n    \
         - {{name: a, hostPath: {{path: /etc/kubernetes/super-admin.conf}}}}\n"
    ));
    let object = parsed(&text).unwrap();
    let pod = Pod::read(&object).unwrap();
    let path = pod.host_path("/etc/kubernetes/admin.conf");
    assert_eq!(path.as_deref(), Some("/etc/kubernetes/super-admin.conf"));
    assert_eq!(pod.host_path("/etc/kubernetes/admin.conf2"), None);
    assert_eq!(pod.variable("vip_arp").as_deref(), Some("true"));
    assert!(Pod::read(&parsed("spec: {containers: [{args: [manager]}]}").unwrap()).is_none());
}
