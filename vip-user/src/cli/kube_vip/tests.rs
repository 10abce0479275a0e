use super::*;

#[test]
fn last_words_fit_and_their_file_is_not_made() {
    let path = std::env::temp_dir().join(format!("xvip-last-words-{}", std::process::id()));
    leave(&path, "lost");
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    leave(&path, &"ä".repeat(LAST_WORDS_LEN));
    let words = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(words, "ä".repeat(LAST_WORDS_LEN / 2));
}

#[test]
fn all_objections_are_said_at_once() {
    let why = |name: &str| Refusal {
        name: name.into(),
        given: None,
        why: "why".into(),
        instead: String::new(),
        waivable: false,
    };
    let pin_root = Some("no root".to_owned());
    let lacks = Lacks { capabilities: vec!["BPF"], pin_root, ..Lacks::default() };
    let lines = objections(&[why("one"), why("two")], &lacks);
    assert_eq!(
        lines[..4],
        [
            "one (not set) is refused: why",
            "two (not set) is refused: why",
            "this container lacks BPF",
            "no root"
        ]
    );
    assert_eq!(lines.len(), 9, "and five lines of help: {lines:?}");
    assert!(objections(&[], &Lacks::default()).is_empty());
    let forbidden = Forbidden { why: "the disk is read-only".into(), by: None };
    let lacks = Lacks { forbidden: Some(forbidden), ..Lacks::default() };
    assert_eq!(objections(&[], &lacks), ["the disk is read-only"], "no line helps");
}

#[test]
fn every_accepted_loss_stays_a_problem() {
    let variables = [
        ("vip_arp", "true"),
        ("cp_enable", "true"),
        ("address", "192.0.2.10"),
        ("enable_upnp", "true"),
        ("svc_enable", "true"),
        ("xvip_without", "svc_enable,enable_upnp"),
    ];
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let adapted = adapted(&Input { environment, ..Input::default() });
    let losses = losses(&adapted);
    let subjects: Vec<&str> = losses.iter().map(|(subject, _)| *subject).collect();
    assert_eq!(subjects, ["svc_enable", "enable_upnp"]);
    assert!(losses[0].1.ends_with("(accepted by xvip_without)"), "{}", losses[0].1);
}
