use super::*;
use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

/// Clients that read nothing keep no other client waiting, however long the answer is.
#[tokio::test]
async fn a_reader_that_does_not_read_blocks_nobody() {
    let name = format!("xvip-unit-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut state = DaemonState::default();
    state.problems.insert("long".into(), "x".repeat(1 << 20));
    let (_sender, latest) = watch::channel(state.clone());
    let (events, _inbox) = mpsc::channel(1);
    let desk = Desk { pins: Pins::new(std::path::Path::new("/nonexistent"), "unit"), latest, events };
    let serving = tokio::spawn(async move { answer(listener, &desk).await });
    let connect = async || {
        let mut stream = UnixStream::connect(format!("\0{name}")).await?;
        // It wants nothing but the state.
        stream.shutdown().await.map(|()| stream)
    };
    let mut silent = Vec::new();
    for _ in 0..3 * ASKERS {
        silent.push(connect().await.unwrap());
    }
    let mut text = Vec::new();
    connect().await.unwrap().read_to_end(&mut text).await.unwrap();
    let got: DaemonState = serde_json::from_slice(&text).unwrap();
    assert_eq!(got.problems, state.problems);
    serving.abort();
}
