//! The credentials of a kubeconfig. What works with kubectl works here, or is refused in words before
//! the start.

use super::client::ClientError;
use kube::config::{AuthInfo, ExecConfig, KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::path::Path;

/// What is used of a kubeconfig.
pub(super) struct Credentials {
    /// Everything but the servers.
    pub(super) config: kube::Config,
    /// `proxy-url` of the cluster.
    pub(super) proxy: Option<String>,
}

/// Reads the credentials of the current context.
pub(super) async fn read(path: &Path) -> Result<Credentials, ClientError> {
    let refuse = |why: String| ClientError::Unusable { path: path.display().to_string(), why };
    let mut kubeconfig = Kubeconfig::read_from(path).map_err(|error| refuse(in_words(&error)))?;
    let (cluster, user) = current(&kubeconfig).map_err(refuse)?;
    let mut proxy = None;
    for named in kubeconfig.clusters.iter_mut().filter(|named| named.name == cluster) {
        let Some(cluster) = &mut named.cluster else { continue };
        proxy = cluster.proxy_url.clone();
        // The servers are configured, and kubectl has one for a cluster that names none.
        cluster.server.get_or_insert_with(|| "https://localhost".into());
    }
    for named in kubeconfig.auth_infos.iter_mut().filter(|named| Some(&named.name) == user.as_ref()) {
        if let Some(auth) = &mut named.auth_info {
            check(&named.name, auth).map_err(refuse)?;
        }
    }
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Ok(Credentials { config: config.map_err(|error| refuse(in_words(&error)))?, proxy })
}

/// The cluster and the user of the current context.
fn current(kubeconfig: &Kubeconfig) -> Result<(String, Option<String>), String> {
    let known = || {
        let names: Vec<&str> =
            kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if names.is_empty() {
            "it has no contexts".into()
        } else {
            format!("it has: {}", names.join(", "))
        }
    };
    let Some(name) = kubeconfig.current_context.as_ref().filter(|name| !name.is_empty()) else {
        return Err(format!("it names no `current-context` ({})", known()));
    };
    let named = kubeconfig.contexts.iter().find(|context| context.name == *name);
    let context = named.and_then(|named| named.context.as_ref());
    let Some(context) = context else {
        return Err(format!("its `current-context` {name:?} is not among its contexts ({})", known()));
    };
    if !kubeconfig.clusters.iter().any(|cluster| cluster.name == context.cluster) {
        return Err(format!("the cluster {:?} of context {name:?} is not in it", context.cluster));
    }
    Ok((context.cluster.clone(), context.user.clone()))
}

/// Refuses what cannot work, and brings what works differently here to what kubectl does.
fn check(name: &str, auth: &mut AuthInfo) -> Result<(), String> {
    if let Some(provider) = &auth.auth_provider {
        return Err(format!(
            "user {name:?} has the `auth-provider` {:?}, which cannot be used: a client certificate, a token, \
             `tokenFile` or `exec` can",
            provider.name
        ));
    }
    if let Some(exec) = &auth.exec {
        check_plugin(name, exec)?;
    }
    let Some(file) = &auth.token_file else { return Ok(()) };
    match std::fs::read_to_string(file) {
        Ok(token) if token.trim().is_empty() => {
            return Err(format!("`tokenFile` {file:?} of user {name:?} is empty"));
        }
        // The client library takes the whole content, with the end of the line.
        Ok(token) if token.trim() != token => {
            auth.token = Some(token.trim().to_owned().into());
            auth.token_file = None;
        }
        Ok(_) => auth.token = None,
        Err(_) if auth.token.is_some() => auth.token_file = None,
        Err(error) => {
            return Err(format!("`tokenFile` {file:?} of user {name:?} cannot be read: {error}"));
        }
    }
    Ok(())
}

fn check_plugin(name: &str, exec: &ExecConfig) -> Result<(), String> {
    let command = exec.command.as_deref().unwrap_or_default();
    let found = if command.contains('/') {
        Path::new(command).is_file()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !command.is_empty() && std::env::split_paths(&path).any(|dir| dir.join(command).is_file())
    };
    if found {
        return Ok(());
    }
    Err(format!(
        "user {name:?} gets its credentials from the program {command:?} (`exec`), which does not exist here; the \
         image of xvip has no other program: use a client certificate, a token or `tokenFile`"
    ))
}

fn in_words(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(source, _) => format!("it cannot be read: {source}"),
        KubeconfigError::ParseNoProxy(source) => {
            format!("the environment variable NO_PROXY cannot be used beside a proxy: {source}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::client::{connect, server_name},
        config::ApiConfig,
    };
    use std::{
        fs::Permissions, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::atomic, time::Duration,
    };

    const WHOLE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{name: k, cluster: {CLUSTER}}]\nusers: [{name: u, user: {USER}}]\n\
        contexts: [{name: c, context: {cluster: k, user: u}}, {name: d, context: {cluster: k}}]\n";

    /// A directory of its own; what is in it may be named by the kubeconfig.
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
        // A client is what counts: keys and certificates are looked at there.
        let config = ApiConfig {
            kubeconfig: Some(path),
            endpoints: vec!["https://192.0.2.1:6443".into()],
            ..ApiConfig::default()
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
        // With the end of the line it is no header.
        let found = read_text(&text, &[("token", "from-file\n")]).await.unwrap().config.auth_info;
        assert!(found.token.is_some() && found.token_file.is_none());
    }

    #[tokio::test]
    async fn what_cannot_work_is_refused_in_words() {
        let files = [("empty", "\n"), ("ca.pem", CERTIFICATE), ("p521.pem", P521)];
        let valid = with(INSECURE, "token: abc");
        for (text, expected) in [
            (valid.replace("current-context: c\n", ""), "it names no `current-context` (it has: c, d)"),
            (
                valid.replace("current-context: c", "current-context: ''"),
                "it names no `current-context`",
            ),
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
            (
                with(INSECURE, "tokenFile: nowhere"),
                "nowhere\" of user \"u\" cannot be read: No such file",
            ),
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
        let default = ApiConfig::default();
        assert_eq!(server_name(&default, found.tls_server_name.clone()).as_deref(), Some("other"));
        assert_eq!(server_name(&default, None).as_deref(), Some("kubernetes"));
        let set = ApiConfig { tls_server_name: Some("mine".into()), ..default };
        assert_eq!(server_name(&set, found.tls_server_name).as_deref(), Some("mine"));
    }

    const PLUGIN: &str =
        "#!/bin/sh\necho '{\"kind\": \"ExecCredential\", \"status\": {\"token\": \"x\"}}'\n";
    /// P-256, made for this test and used for nothing else.
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
}
