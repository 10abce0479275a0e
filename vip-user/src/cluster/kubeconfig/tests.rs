use super::*;
use crate::cluster::client::{Access, connect, server_name};
use std::{
    fs::Permissions, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::atomic, time::Duration,
};

const WHOLE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
    clusters: [{name: k, cluster: {CLUSTER}}]\nusers: [{name: u, user: {USER}}]\n\
    contexts: [{name: c, context: {cluster: k, user: u}}, {name: d, context: {cluster: k}}]\n";

/// Creates a new directory. The kubeconfig may name the files in it.
fn directory() -> PathBuf {
    static NUMBER: atomic::AtomicU32 = atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("xvip-kubeconfig-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

async fn read_text(text: &str, files: &[(&str, &str)]) -> Result<Credentials, String> {
    let dir = directory();
    for (name, content) in files {
        std::fs::write(dir.join(name), content).unwrap();
        std::fs::set_permissions(dir.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let path = dir.join("kubeconfig");
    std::fs::write(&path, text).unwrap();
    let found = read(&path).await;
    // A client is built too, because keys and certificates are read only then.
    let config = Access {
        kubeconfig: Some(path),
        endpoints: vec!["https://192.0.2.1:6443".into()],
        ..Access::default()
    };
    let built = connect(&config, &[], Duration::from_secs(1)).await;
    std::fs::remove_dir_all(dir).unwrap();
    built.map_err(|error| error.to_string())?;
    found.map_err(|error| error.to_string())
}

fn with(cluster: &str, user: &str) -> String {
    WHOLE.replace("CLUSTER", cluster).replace("USER", user)
}

const INSECURE: &str = "server: 'https://192.0.2.9', insecure-skip-tls-verify: true";

#[tokio::test]
async fn what_works_with_kubectl_works() {
    for (cluster, user) in [
        (INSECURE, ""),
        ("insecure-skip-tls-verify: true", "token: abc"),
        (INSECURE, "username: x, password: y"),
        (INSECURE, "token: abc, tokenFile: nowhere"),
        (INSECURE, "tokenFile: token"),
        (INSECURE, "as: somebody, as-groups: [a], as-uid: '1'"),
        (INSECURE, "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin}"),
        ("server: 'https://192.0.2.9', certificate-authority: ca.pem", "token: abc"),
        (INSECURE, "client-certificate: ca.pem, client-key: p256.pem"),
        ("proxy-url: 'socks5://192.0.2.8:1080', insecure-skip-tls-verify: true", "token: abc"),
        ("proxy-url: 'http://192.0.2.8:3128', insecure-skip-tls-verify: true", "token: abc"),
        ("tls-server-name: other, insecure-skip-tls-verify: true", "token: abc"),
    ] {
        let files =
            [("token", "abc\n"), ("ca.pem", CERTIFICATE), ("p256.pem", KEY), ("plugin", PLUGIN)];
        let found = read_text(&with(cluster, user), &files).await;
        assert!(found.is_ok(), "{cluster} {user}: {:?}", found.err());
    }
}

#[tokio::test]
async fn a_token_file_counts_more_than_a_token_and_has_an_end_of_line() {
    let text = with(INSECURE, "token: abc, tokenFile: token");
    let found = read_text(&text, &[("token", "from-file")]).await.unwrap().config.auth_info;
    assert!(found.token.is_none() && found.token_file.is_some(), "it is read again while it runs");
    // A header must not contain the newline.
    let found = read_text(&text, &[("token", "from-file\n")]).await.unwrap().config.auth_info;
    assert!(found.token.is_some() && found.token_file.is_none());
}

#[tokio::test]
async fn what_cannot_work_is_refused_in_words() {
    let files = [("empty", "\n"), ("ca.pem", CERTIFICATE), ("p521.pem", P521)];
    let valid = with(INSECURE, "token: abc");
    for (text, expected) in [
        (valid.replace("current-context: c\n", ""), "it names no `current-context` (it has: c, d)"),
        (valid.replace("current-context: c", "current-context: ''"), "it names no `current-context`"),
        (
            valid.replace("current-context: c", "current-context: x"),
            "its `current-context` \"x\" is not among its contexts (it has: c, d)",
        ),
        (
            valid.replace("{name: k,", "{name: other,"),
            "the cluster \"k\" of context \"c\" is not in it",
        ),
        (String::new(), "it names no `current-context` (it has no contexts)"),
        (
            with(INSECURE, "auth-provider: {name: oidc, config: {id-token: x}}"),
            "user \"u\" has the `auth-provider` \"oidc\", which cannot be used",
        ),
        (
            with(
                INSECURE,
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin}",
            ),
            "user \"u\" gets its credentials from the program \"no-such-plugin\" (`exec`), which does not exist",
        ),
        (with(INSECURE, "tokenFile: nowhere"), "nowhere\" of user \"u\" cannot be read: No such file"),
        (with(INSECURE, "tokenFile: empty"), "empty\" of user \"u\" is empty"),
        (with("certificate-authority: nowhere", ""), "No such file"),
        (
            with("proxy-url: 'ftp://192.0.2.8', insecure-skip-tls-verify: true", ""),
            "`proxy-url` of the kubeconfig cannot be used: it must be a URL with http, https or socks5",
        ),
    ] {
        let refused = read_text(&text, &files).await.err().unwrap_or_default();
        assert!(refused.contains(expected), "{expected}\n{refused}");
    }
}

#[tokio::test]
async fn the_name_in_the_kubeconfig_counts_more_than_a_default() {
    let text = with("tls-server-name: other, insecure-skip-tls-verify: true", "");
    let found = read_text(&text, &[]).await.unwrap().config;
    assert_eq!(found.tls_server_name.as_deref(), Some("other"));
    let default = Access::default();
    assert_eq!(server_name(&default, found.tls_server_name.clone()).as_deref(), Some("other"));
    assert_eq!(server_name(&default, None).as_deref(), Some("kubernetes"));
    let set = Access { tls_server_name: Some("mine".into()), ..default };
    assert_eq!(server_name(&set, found.tls_server_name.clone()).as_deref(), Some("mine"));
    // The setting also counts if it equals the default.
    let set = Access { tls_server_name: Some("kubernetes".into()), ..set };
    assert_eq!(server_name(&set, found.tls_server_name).as_deref(), Some("kubernetes"));
}

const PLUGIN: &str =
    "#!/bin/sh\necho '{\"kind\": \"ExecCredential\", \"status\": {\"token\": \"x\"}}'\n";
/// A P-256 certificate, made for this test and used for nothing else.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBbzCCARWgAwIBAgIUGp9IUefoe5q4SzDggiRd8WAwL1EwCgYIKoZIzj0EAwIw\n\
    DDEKMAgGA1UEAwwBeDAgFw0yNjExMjcyMjI0NTlaGA8yMTI2MTEwMzIyMjQ1OVow\n\
    DDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABM3xedpxrBKU\n\
    3zlVAE3Z3M+DLVTQGetFp3x8H/cYYF5xtvMTDvOjp9s6tW8NYP+haQBZpAMPcc8p\n\
    Af14Xl/vvp6jUzBRMB0GA1UdDgQWBBQQiicBCqdPHfAhZhwoKe23i5a7ETAfBgNV\n\
    HSMEGDAWgBQQiicBCqdPHfAhZhwoKe23i5a7ETAPBgNVHRMBAf8EBTADAQH/MAoG\n\
    CCqGSM49BAMCA0gAMEUCIQCvzJy2R0/1XCONYpmPwXXLL304W1r0Em39q1Lx45fH\n\
    IAIgAZsO7l8fgAJww3sl1BRd79ubv/RZSbKsbvFkkHD54Jg=\n\
    -----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\n\
    MHcCAQEEID/TNxCENxuYTtITBp5XuHLfGB9JHeRy1S1MjvlatoekoAoGCCqGSM49\n\
    AwEHoUQDQgAEzfF52nGsEpTfOVUATdncz4MtVNAZ60WnfHwf9xhgXnG28xMO86On\n\
    2zq1bw1g/6FpAFmkAw9xzykB/XheX+++ng==\n\
    -----END EC PRIVATE KEY-----\n";
const P521: &str = "-----BEGIN EC PRIVATE KEY-----\n\
    MIHcAgEBBEIBdSUGaBz2BRzF35TkLZUWC2YOKxLxMKG1fLW+xDCiZrP+sJEHh3J+\n\
    4SA4zgH9TGd0qf2/yVsvwpgJ6mAleSmFhR+gBwYFK4EEACOhgYkDgYYABABU7p1/\n\
    rEoEt/L5rpJxKmgBrcv1clvp4dDJU5mSAiaMBqYCol5IwN4HpAA68cqumRpNhGHe\n\
    zMcwTiXjqJ+7JbRcEgGSYnrhUxXtjyidSADFq94GHsjdk2Skq+d+A0UcXkQLYzDm\n\
    s3hKWSM526CV0mwZStQYFeezUffyPRJliy7zCuapHA==\n\
    -----END EC PRIVATE KEY-----\n";

/// The library's message about a mistake quotes the lines around it.
#[tokio::test]
async fn no_secret_is_told_with_a_mistake() {
    for user in ["token: geheim, token: geheim", "password: geheim, : }", "token: [geheim"] {
        let error = read_text(&with(INSECURE, user), &[]).await.err().expect(user);
        assert!(error.contains("it is not the YAML of a kubeconfig (line 5)"), "{error}");
        assert!(!error.contains("geheim"), "{error}");
    }
}
