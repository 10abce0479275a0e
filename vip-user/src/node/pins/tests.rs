use super::*;

#[test]
fn link_names_survive_the_round_trip() {
    let pins = Pins::new(Path::new("/x"), "default");
    for interface in ["eth0", "bond0.100", "a%2eb", "wan:1"] {
        let pin = LinkPin { interface: interface.into(), ifindex: 7, kind: LinkKind::Guard };
        let path = pins.link(&pin);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.contains('.'), "{name}");
        assert_eq!(parse_link(name), Some(pin));
    }
    assert_eq!(parse_link("VIPS"), None);
}
