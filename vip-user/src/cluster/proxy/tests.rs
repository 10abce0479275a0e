use super::*;

fn chosen(endpoint: &str, configured: Option<&str>, vars: &[(&str, &str)]) -> Result<String, String> {
    let env = |name: &str| {
        vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let proxy = proxy_for(&endpoint.parse().unwrap(), configured, env)?;
    Ok(proxy.map(|uri| uri.to_string()).unwrap_or_default())
}

#[test]
fn each_endpoint_has_the_proxy_that_kubectl_would_ask() {
    let https = ("HTTPS_PROXY", "http://10.0.0.9:3128");
    let no = |list: &'static str| [https, ("NO_PROXY", list)];
    let proxy = "http://10.0.0.9:3128/";
    for (endpoint, vars, wanted) in [
        ("https://192.0.2.1:6443", &[][..], ""),
        ("https://192.0.2.1:6443", &[https], proxy),
        ("https://192.0.2.1:6443", &[("https_proxy", "10.0.0.9:3128")], proxy),
        ("http://192.0.2.1:8080", &[https], ""),
        ("http://192.0.2.1:8080", &[("HTTP_PROXY", "http://10.0.0.9:3128")], proxy),
        ("https://192.0.2.1:6443", &[("ALL_PROXY", "http://10.0.0.9:3128")], ""),
        ("https://192.0.2.1:6443", &no("192.0.2.0/24"), ""),
        ("https://192.0.2.1:6443", &no("198.51.100.0/24, 192.0.2.1"), ""),
        ("https://192.0.2.1:6443", &no("192.0.2.1:6443"), ""),
        ("https://192.0.2.1:6443", &no("192.0.2.1:443"), proxy),
        ("https://192.0.2.1:6443", &no("198.51.100.0/24,"), proxy),
        ("https://192.0.2.1:6443", &no("*"), ""),
        ("https://[2001:db8::1]:6443", &no("2001:db8::/32"), ""),
        ("https://[2001:db8::1]:6443", &no("[2001:db8::1]:6443"), ""),
        ("https://api.example.org:6443", &no("example.org"), ""),
        ("https://api.example.org:6443", &no(".example.org"), ""),
        ("https://api.example.org:6443", &no("*.example.org"), ""),
        ("https://api.example.org:6443", &no("ample.org"), proxy),
        ("https://localhost:6443", &[https], ""),
        ("https://127.0.0.1:6443", &[https], ""),
        ("https://[::1]:6443", &[https], ""),
    ] {
        assert_eq!(chosen(endpoint, None, vars).as_deref(), Ok(wanted), "{endpoint} {vars:?}");
    }
}

#[test]
fn the_kubeconfig_comes_first_and_knows_no_exception() {
    let vars = [("HTTPS_PROXY", "http://10.0.0.9:3128"), ("NO_PROXY", "*")];
    for (url, wanted) in [
        ("http://10.0.0.8:3128", "http://10.0.0.8:3128/"),
        ("https://user:word@10.0.0.8", "https://user:word@10.0.0.8/"),
        ("socks5://10.0.0.8:1080", "socks5://10.0.0.8:1080/"),
        ("socks5h://10.0.0.8:1080", "socks5://10.0.0.8:1080/"),
    ] {
        assert_eq!(chosen("https://192.0.2.1:6443", Some(url), &vars).as_deref(), Ok(wanted));
    }
    let refused =
        chosen("https://192.0.2.1:6443", Some("ftp://user:word@10.0.0.8"), &vars).unwrap_err();
    assert!(refused.contains("`proxy-url`") && refused.contains("\"ftp\""), "{refused}");
    assert!(!refused.contains("word"), "no password in a log: {refused}");
}
