//! The credentials of a kubeconfig. A kubeconfig that works with kubectl works here too, or is refused
//! before the start with an explanation.

use super::client_error::ClientError;
use kube::config::{AuthInfo, ExecConfig, KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::path::Path;

/// The parts of a kubeconfig that xvip uses.
pub(super) struct Credentials {
    /// Everything except the servers.
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
        // xvip has its own list of servers. kubectl accepts a cluster without a server, so it gets a
        // placeholder.
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

/// Refuses what cannot work. Where the client library differs from kubectl, `auth` is changed so that
/// kubectl's behaviour results.
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
        // The client library would use the whole content, including the newline at the end.
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
        // The text of this error quotes the lines around the mistake, which may hold a token.
        KubeconfigError::Parse(source) => {
            let line = source.location().map(|at| format!(" (line {})", at.line()));
            format!("it is not the YAML of a kubeconfig{}", line.unwrap_or_default())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
