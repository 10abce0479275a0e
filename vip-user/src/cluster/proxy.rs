//! Decides for each endpoint whether it is reached through a proxy, as kubectl does.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use std::net::IpAddr;

/// The proxy for an endpoint. `configured` is `proxy-url` of the kubeconfig and applies to every
/// endpoint. Without it the environment decides, except for endpoints that `NO_PROXY` names.
///
/// # Errors
/// A text that says why the value cannot be used.
pub(super) fn proxy_for(
    endpoint: &Uri,
    configured: Option<&str>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, String> {
    let env = |name: &str| {
        let found = env(name).or_else(|| env(&name.to_lowercase()));
        found.filter(|value| !value.trim().is_empty())
    };
    if let Some(url) = configured.filter(|url| !url.is_empty()) {
        return parsed("`proxy-url` of the kubeconfig", url).map(Some);
    }
    let name = if endpoint.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let Some(url) = env(name) else { return Ok(None) };
    let excepted = env("NO_PROXY").unwrap_or_default();
    if is_local(endpoint) || is_excepted(endpoint, &excepted) {
        return Ok(None);
    }
    parsed(&format!("environment variable {name}"), &url).map(Some)
}

fn parsed(what: &str, url: &str) -> Result<Uri, String> {
    let url = url.trim();
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    // Both schemes let the proxy resolve names. The client library knows only `socks5`.
    let whole = whole.replacen("socks5h://", "socks5://", 1);
    let uri: Option<Uri> = whole.parse().ok();
    uri.filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https" | "socks5")) && uri.host().is_some()
    })
    .ok_or_else(|| {
        // A proxy's URL may hold a password.
        let scheme = whole.split("://").next().unwrap_or_default();
        format!("{what} cannot be used: it must be a URL with http, https or socks5, not {scheme:?}")
    })
}

fn host(endpoint: &Uri) -> &str {
    endpoint.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// Whether the endpoint is on this host. Go's clients, such as kubectl, never use a proxy for it.
fn is_local(endpoint: &Uri) -> bool {
    host(endpoint).eq_ignore_ascii_case("localhost")
        || host(endpoint).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_excepted(endpoint: &Uri, excepted: &str) -> bool {
    let default = if endpoint.scheme_str() == Some("http") { 80 } else { 443 };
    let port = endpoint.port_u16().unwrap_or(default).to_string();
    let mut names = Vec::new();
    for entry in excepted.split(',').map(str::trim) {
        if entry == "*" {
            return true;
        }
        let suffix = entry.strip_prefix("*.").map(|domain| format!(".{domain}"));
        let entry = suffix.as_deref().unwrap_or(entry);
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, port)) if entry.parse::<IpAddr>().is_err() && !entry.contains('/') => {
                (name, port)
            }
            _ => (entry, port.as_str()),
        };
        if wanted == port {
            names.push(name.trim_start_matches('[').trim_end_matches(']').to_owned());
        }
    }
    // The matcher returns the proxy to use. It returns none if the endpoint is excepted.
    let matcher = Matcher::builder().all("http://proxy".to_owned()).no(names.join(",")).build();
    matcher.intercept(endpoint).is_none()
}

#[cfg(test)]
mod tests;
