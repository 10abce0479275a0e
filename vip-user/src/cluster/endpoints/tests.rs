use super::*;

fn endpoints(names: &[&str]) -> Endpoints {
    let client = |name: &str| {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        (name.to_owned(), Client::try_from(config).unwrap())
    };
    Endpoints::fixed(names.iter().map(|name| client(name)).collect())
}

#[tokio::test]
async fn another_endpoint_is_tried_first_after_a_failure() {
    let all = endpoints(&["a", "b", "c"]);
    assert_eq!((all.get(0).0, all.get(1).0, all.get(3).0), ("a".into(), "b".into(), "a".into()));
    all.failed("a");
    assert_eq!(all.get(0).0, "b");
    // A late failure of an endpoint that is no longer tried first changes nothing.
    all.clone().failed("a");
    assert_eq!(all.get(0).0, "b");
    all.failed("b");
    all.failed("c");
    assert_eq!(all.get(0).0, "a");
}

#[tokio::test]
async fn whoever_answered_while_the_first_one_did_not_is_asked_first() {
    let all = endpoints(&["a", "b", "c"]);
    all.answered("b", &[]);
    assert_eq!(all.get(0).0, "a", "nobody was slower");
    all.answered("c", &["b".into()]);
    assert_eq!(all.get(0).0, "a", "it was not the first one");
    all.answered("c", &["a".into(), "b".into()]);
    assert_eq!(all.get(0).0, "c");
    let order: Vec<String> = all.all(1).into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, ["a", "b", "c"]);
}

/// The resolver of every host knows `localhost`.
#[tokio::test]
async fn an_endpoint_whose_name_means_nothing_but_vips_is_told_of() {
    let named = async |endpoints: &[&str], vips: &[&str]| {
        let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        let config = Access { endpoints, ..Access::default() };
        let vips: Vec<_> = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        client::named_vips(&config, &vips).await
    };
    let name = "https://localhost:6443";
    assert_eq!(named(&[name, "https://192.0.2.1:6443"], &["127.0.0.1", "::1"]).await, [name]);
    assert!(named(&[name], &["192.0.2.10"]).await.is_empty(), "another address");
    assert!(named(&["https://127.0.0.1:6443"], &["127.0.0.1"]).await.is_empty(), "not a name");
    assert!(named(&["https://name.invalid:6443"], &["127.0.0.1", "::1"]).await.is_empty());
}
