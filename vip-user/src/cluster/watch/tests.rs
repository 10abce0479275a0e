use super::*;

#[test]
fn only_what_was_read_begins_a_watch_of_what_exists() {
    let version = |text: &str| Version(text.into());
    for (read, shown, start) in [
        (Some("7"), "7", Start::Now),
        (Some("7"), "6", Start::Later),
        (Some("7"), "8", Start::Never),
        (Some("10"), "9", Start::Later),
        (Some("7"), "x", Start::Never),
        (None, "7", Start::Never),
    ] {
        assert_eq!(begins(read.map(version).as_ref(), &version(shown)), start, "{read:?} {shown}");
    }
}
