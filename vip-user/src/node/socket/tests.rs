use super::*;

fn instance(test: &str) -> String {
    format!("unit-{}-{test}", std::process::id())
}

#[test]
fn the_kernel_says_whose_a_name_is() {
    let own = instance("own");
    let _held = listen(&name(&own)).unwrap();
    let owners = unix_sockets(|_, _| true).unwrap();
    // SAFETY: the call has no preconditions and cannot fail.
    assert_eq!(owners.get(name(&own).as_bytes()), Some(&unsafe { libc::geteuid() }));
    assert_eq!(owners.get(name(&instance("nobody")).as_bytes()), None);
}

#[test]
fn answers_that_end_in_the_middle_are_no_reason_to_panic() {
    let mut message = Vec::new();
    message.extend(52_u32.to_ne_bytes());
    message.extend([20, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend([1, 1, 10, 0]);
    message.extend([0; 12]);
    message.extend([8, 0, 7, 0]);
    message.extend(7_u32.to_ne_bytes());
    message.extend([9, 0, 0, 0, 0, b'x', b'v', b'i', b'p', 0, 0, 0]);
    let mut owners = BTreeMap::new();
    assert_eq!(diag::read(&message, &mut owners).unwrap(), diag::Dump::More);
    assert_eq!(owners, BTreeMap::from([(b"xvip".to_vec(), 7)]));
    for end in 0..message.len() {
        let _ = diag::read(&message[..end], &mut BTreeMap::new());
        let mut shorter = message[..end].to_vec();
        if let Some(length) = shorter.get_mut(..4) {
            length.copy_from_slice(&(end as u32).to_ne_bytes());
        }
        let _ = diag::read(&shorter, &mut BTreeMap::new());
    }
}

#[tokio::test]
async fn a_name_that_is_ours_already_is_busy_and_a_free_one_is_taken() {
    let instance = instance("busy");
    let Ok(Bound::Name(first)) = bind(&instance).await else { panic!("it is free") };
    assert!(matches!(bind(&instance).await, Ok(Bound::Busy(_))));
    drop(first);
    assert!(bind_again(&instance).is_some());
}

#[tokio::test]
async fn asking_ends_whatever_the_other_side_does() {
    let instance = instance("ask");
    assert!(matches!(ask(&instance).await, Err(AskError::Nobody)));
    let _silent = listen(&name(&instance)).unwrap();
    assert!(matches!(ask(&instance).await, Err(AskError::Silent(_))));
}
