use super::*;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("xvip-lock-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path.join("lock:x")
}

#[test]
fn one_process_has_the_directory_until_it_ends() {
    let path = scratch("one");
    let first = take_directory(&path).unwrap();
    assert!(first.is_some());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700, "others could lock it");
    assert!(take_directory(&path).unwrap().is_none());
    drop(first);
    assert!(take_directory(&path).unwrap().is_some());
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn a_directory_that_others_can_open_is_closed() {
    let path = scratch("open");
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(take_directory(&path).unwrap().is_some());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}
