//! Parses the URLs of API servers.

use http::Uri;
use std::net::IpAddr;

/// Parses the URL of an API server; `None` if it is not one.
pub fn server(endpoint: &str) -> Option<Uri> {
    let uri: Uri = endpoint.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    (known && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// The host of a URL, if it is an IP address.
pub fn host_address(uri: &Uri) -> Option<IpAddr> {
    uri.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
