//! Reads and watches of the real client against stand-ins, one of which may hang: how soon a result
//! arrives, and how often the client asks. All time limits are far above what a slow machine needs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "edge/follow.rs"]
mod follow;
#[path = "edge/scope.rs"]
mod scope;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use vip_tests::standin::StandIn;
use vip_user::cluster::{client::Access, endpoints::Endpoints, lease::LeaseApi};

/// The length of the fence. An endpoint gets a tenth of it; a read that waits for one that hangs
/// takes all of it.
const HOLD: Duration = Duration::from_secs(20);
/// Far more than a tenth, and less than the whole.
const SOON: Duration = Duration::from_secs(10);

async fn good() -> (StandIn, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, api) = (listener.local_addr().unwrap(), StandIn::default());
    tokio::spawn(api.clone().serve_on(listener));
    (api, address)
}

/// Accepts connections, counts them, and never answers.
async fn hung() -> (Arc<AtomicUsize>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&taken);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            kept.push(connection);
        }
    });
    (taken, address)
}

fn lease_api(addresses: &[SocketAddr], hold: Duration) -> LeaseApi {
    let client = |address: &SocketAddr| {
        let url = format!("http://{address}");
        let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        (url, client)
    };
    LeaseApi::new(Endpoints::fixed(addresses.iter().map(client).collect()), "ns", "lease", hold)
}

fn put(api: &StandIn, transitions: i64) {
    let metadata = serde_json::json!({"namespace": "ns", "name": "lease"});
    let spec = serde_json::json!({"leaseTransitions": transitions});
    api.put("ns", "lease", serde_json::json!({"metadata": metadata, "spec": spec}));
}

fn edit(api: &StandIn, transitions: i64) {
    api.edit("ns", "lease", |lease| lease["spec"]["leaseTransitions"] = transitions.into());
}

#[track_caller]
fn soon<T>(answer: Result<T, tokio::time::error::Elapsed>, what: &str) -> T {
    answer.unwrap_or_else(|_| panic!("{what}: it waited for the endpoint that hangs"))
}

#[tokio::test]
async fn a_read_does_not_wait_for_an_endpoint_that_hangs() {
    let ((taken, hangs), (api, works)) = (hung().await, good().await);
    put(&api, 7);
    let leases = lease_api(&[hangs, works], HOLD);
    let read = tokio::time::timeout(SOON, leases.get(0)).await;
    assert_eq!(soon(read, "the first read").unwrap().unwrap().transitions, 7);
    assert_eq!(taken.load(Ordering::Relaxed), 1);
    // The endpoint that answered is tried first from now on.
    soon(tokio::time::timeout(SOON, leases.get(0)).await, "the second read").unwrap();
    assert_eq!(taken.load(Ordering::Relaxed), 1, "the one that hangs was asked first again");
}

#[tokio::test]
async fn a_lease_is_created_though_an_endpoint_hangs() {
    let ((_, hangs), (api, works)) = (hung().await, good().await);
    let leases = lease_api(&[hangs, works], HOLD);
    let created = tokio::time::timeout(SOON, leases.create(3)).await;
    assert!(soon(created, "the creation").unwrap().is_some());
    assert!(api.lease("ns", "lease").is_some());
}

#[tokio::test]
async fn an_endpoint_that_is_well_but_slow_is_not_given_up() {
    let (api, address) = good().await;
    put(&api, 7);
    api.set_latency(Duration::from_millis(600));
    let leases = lease_api(&[address], Duration::from_secs(5));
    assert_eq!(
        leases.get(0).await.unwrap().unwrap().transitions,
        7,
        "the hedge does not end the first"
    );
}

#[tokio::test]
async fn a_read_that_nobody_answers_ends_in_time_and_says_who_was_asked() {
    let (_, hangs) = hung().await;
    let leases = lease_api(&[hangs], Duration::from_millis(300));
    let error = leases.get(0).await.unwrap_err().to_string();
    assert_eq!(error, format!("http://{hangs}: get: no answer within 300ms"));
}

/// New credentials may bring a right that the server refused before.
#[tokio::test]
async fn a_right_that_comes_with_other_credentials_is_used() {
    let (api, works) = good().await;
    put(&api, 7);
    api.forbid_all_without("new");
    let path = std::env::temp_dir().join(format!("xvip-rights-{}", std::process::id()));
    let write = |token: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: k, cluster: {{server: 'http://{works}'}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    write("old");
    let endpoints = vec![format!("http://{works}")];
    let config = Access { kubeconfig: Some(path.clone()), endpoints, ..Access::default() };
    let endpoints = Endpoints::connect(&config, &[], SOON).await.unwrap();
    let leases = LeaseApi::new(endpoints, "ns", "lease", HOLD);
    let error = leases.get(0).await.unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
    write("new");
    let mut read = None;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        read = leases.get(0).await.ok().flatten();
        if read.is_some() {
            break;
        }
    }
    std::fs::remove_file(path).unwrap();
    assert_eq!(read.expect("the new credentials are read").transitions, 7);
}
