use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn get_path(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The health port shows nothing but whether the process works.
#[tokio::test]
async fn the_health_port_serves_one_path() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (_sender, latest) = watch::channel(DaemonState::starting(clock::boot()));
    let (events, mut inbox) = mpsc::channel(4);
    let serving = tokio::spawn(async move { HealthPort { port, latest }.serve(&events).await });
    let opened = inbox.recv().await;
    assert!(matches!(opened, Some(Event::Problem(HEALTH_SUBJECT, None))));
    let healthy = get_path(port, "/healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200") && healthy.ends_with("ok\n"), "{healthy}");
    for path in ["/metrics", "/state", "/readyz", "/"] {
        assert!(get_path(port, path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    serving.abort();
}
