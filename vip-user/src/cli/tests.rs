mod documents;

use super::*;

#[test]
fn flags_may_stand_before_the_subcommand() {
    let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
    for (line, wanted) in [
        ("xvip manager --arp", "xvip manager --arp"),
        ("xvip --arp --interface eth0 manager --bgp", "xvip manager --arp --interface eth0 --bgp"),
        ("xvip -n manager manager --arp", "xvip manager -n manager --arp"),
        ("xvip -nx --arp manager", "xvip manager -nx --arp"),
        (
            "xvip --vip=192.0.2.1 manifest --image X pod --arp",
            "xvip manifest pod --vip=192.0.2.1 --image X --arp",
        ),
        ("xvip kubeadm --interface eth0 init", "xvip kubeadm init --interface eth0"),
        ("xvip manifest --help", "xvip manifest --help"),
        ("xvip map -o json", "xvip map -o json"),
        ("xvip --arp manifest pod", "xvip manifest pod --arp"),
        ("xvip status", "xvip status"),
        ("xvip --version", "xvip --version"),
    ] {
        assert_eq!(arranged(words(line)), words(wanted), "{line}");
    }
    assert_eq!(arranged(Vec::new()), Vec::<OsString>::new());
}

#[test]
fn flags_of_kube_vip_reach_the_subcommand_as_they_are() {
    for line in
        ["manager --arp -n kube-system --check", "manifest pod --arp", "kubeadm init --vip=192.0.2.1"]
    {
        let words: Vec<&str> = std::iter::once("/kube-vip").chain(line.split(' ')).collect();
        let flags = match Cli::try_parse_from(&words).unwrap().command {
            Command::Manager(settings)
            | Command::Manifest { settings, .. }
            | Command::Kubeadm { settings, .. } => settings.flags,
            other => panic!("{other:?}"),
        };
        let wanted: Vec<OsString> = line
            .split(' ')
            .filter(|w| w.starts_with('-') || *w == "kube-system")
            .map(Into::into)
            .collect();
        assert_eq!(flags, wanted, "{line}");
    }
    let show = Cli::try_parse_from(["xvip", "config", "show", "--", "--arp"]).unwrap().command;
    let Command::Config { what: ConfigCommand::Show { file: None, flags, .. } } = show else {
        panic!()
    };
    assert_eq!(flags, ["--arp"]);
}
