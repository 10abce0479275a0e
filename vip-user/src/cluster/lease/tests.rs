use super::*;
use kube::core::Status;

#[test]
fn a_namespace_that_is_not_there_is_a_failure() {
    let api = |code| kube::Error::Api(Box::new(Status { code, ..Status::default() }));
    for (code, replaces, conflict) in [
        (409, true, true),
        (409, false, true),
        (404, true, true),
        (404, false, false),
        (403, false, false),
    ] {
        assert_eq!(is_conflict(&api(code), replaces), conflict, "{code}, replaces: {replaces}");
    }
}
