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

/// A user without rights who owns or may change a directory on the path could rename the pins away.
#[test]
fn directories_that_others_may_change_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = std::env::temp_dir().join(format!("xvip-pins-{}", std::process::id()));
    let pins = Pins::new(&root, "default");
    fs::create_dir_all(pins.dir()).unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (path, mode, fine) in [
        (root.as_path(), 0o700, true),
        (root.as_path(), 0o1777, true),
        (root.as_path(), 0o777, false),
        (pins.dir(), 0o770, false),
        (pins.dir(), 0o755, true),
    ] {
        set(&root, 0o755);
        set(path, mode);
        let result = pins.check_owners();
        assert_eq!(result.is_ok(), fine, "{} with {mode:o}: {result:?}", path.display());
    }
    fs::remove_dir_all(&root).unwrap();
    assert!(pins.check_owners().is_ok(), "what is not there yet is made by xvip");
}

/// The target of a symbolic link is not ours, and `cleanup` would remove it.
#[test]
fn symbolic_links_are_not_followed() {
    use std::os::unix::fs::symlink;
    let root = std::env::temp_dir().join(format!("xvip-links-{}", std::process::id()));
    let (pins, elsewhere) = (Pins::new(&root, "default"), root.join("elsewhere"));
    let version = pins.dir().with_file_name("v9");
    for dir in [pins.dir(), &version, &elsewhere] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(elsewhere.join("file"), "").unwrap();
    symlink(&elsewhere, pins.dir().with_file_name("v8")).unwrap();
    symlink(elsewhere.join("file"), version.join("VIPS")).unwrap();
    let others = pins.other_versions();
    assert_eq!(others.iter().map(Pins::dir).collect::<Vec<_>>(), [version.as_path()]);
    assert_eq!(others[0].files(), Vec::<PathBuf>::new());
    fs::remove_dir_all(&root).unwrap();
}
