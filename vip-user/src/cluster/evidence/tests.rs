use super::*;

fn version(text: &str) -> Version {
    Version(text.into())
}

#[test]
fn only_what_was_read_begins_a_watch_of_what_exists() {
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

/// Checks what each event of a watch, in this order, shows.
#[track_caller]
fn check(mut reached: Reached, events: &[(&str, &str, Shown)]) -> Reached {
    for (key, shown, expected) in events {
        assert_eq!(reached.shows(key, &version(shown)), *expected, "{key} at {shown}");
    }
    reached
}

#[test]
fn whatever_follows_a_read_at_its_version_counts() {
    let reached = check(
        Reached::at(version("7")),
        &[("a", "8", Shown::Next), ("b", "9", Shown::Next), ("a", "10", Shown::Next)],
    );
    assert_eq!(reached.version(), Some(&version("10")));
}

#[test]
fn what_exists_counts_only_after_what_was_read() {
    let mut lags = Reached::existing(Some(version("7")));
    assert_eq!(lags.shows("a", &version("6")), Shown::Known);
    lags.passes(version("9"));
    assert_eq!(lags.version(), None, "a bookmark shows nothing");
    let goes_on = check(lags, &[("a", "7", Shown::Known), ("a", "8", Shown::Next)]);
    assert_eq!(goes_on.version(), Some(&version("8")));
    check(Reached::existing(Some(version("7"))), &[("a", "8", Shown::Unclear)]);
    check(Reached::existing(None), &[("a", "8", Shown::Unclear)]);
}

#[test]
fn what_came_before_a_read_of_the_same_object_is_known() {
    let mut reached = Reached::at(version("7"));
    reached.confirm("a".into(), version("10"));
    let mut reached = check(
        reached,
        &[
            ("a", "8", Shown::Known),
            ("b", "9", Shown::Next),
            ("a", "10", Shown::Known),
            ("a", "11", Shown::Next),
        ],
    );
    assert!(reached.confirmed.is_empty(), "what was passed is forgotten");
    reached.confirm("a".into(), version("20"));
    assert_eq!(reached.shows("b", &version("12")), Shown::Next);
    assert_eq!(reached.confirmed.len(), 1);
    reached.passes(version("20"));
    assert!(reached.confirmed.is_empty(), "a bookmark has passed it");
    reached.confirm("a".into(), version("30"));
    assert_eq!(reached.shows("a", &version("x")), Shown::Unclear, "a version that is no number");
}
