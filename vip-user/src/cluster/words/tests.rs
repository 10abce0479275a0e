use super::*;
use kube::core::Status;

fn refused(code: u16, reason: &str, message: &str) -> String {
    let status = Status { code, reason: reason.into(), message: message.into(), ..Status::default() };
    words(&kube::Error::Api(Box::new(status)))
}

#[test]
fn a_refusal_is_its_status_and_the_words_of_the_server() {
    assert_eq!(
        refused(403, "Forbidden", "leases is forbidden: User \"x\" cannot get"),
        "HTTP 403 (Forbidden): leases is forbidden: User \"x\" cannot get"
    );
    assert_eq!(refused(500, "", ""), "HTTP 500");
    let plain = refused(429, "Failed to parse error data", "Too many requests\n");
    assert_eq!(plain, "HTTP 429: Too many requests");
}

#[test]
fn what_a_server_says_cannot_steer_a_terminal_and_has_an_end() {
    let said =
        refused(500, "\u{1b}[2J", &format!("a\n\u{1b}]0;title\u{7}\u{202e}{}", "x".repeat(5_000)));
    assert!(!said.chars().any(|character| character.is_control() || character == '\u{202e}'), "{said}");
    assert!(said.starts_with("HTTP 500 (\\u{1b}[2J): a\\n\\u{1b}]0;title"), "{said}");
    assert!(said.chars().count() < 400, "{said}");
}

#[tokio::test]
async fn a_refused_connection_names_its_cause_once() {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let error = client.apiserver_version().await.unwrap_err();
    let said = words(&error);
    assert!(said.starts_with("cannot connect: Connection refused"), "{said}");
    assert_eq!(said.matches("refused").count(), 1, "{said}");
}

/// The library's error shows the command, its environment and its output.
#[test]
fn nothing_of_a_program_for_credentials_is_shown() {
    let secret = "auth exec command 'SECRET=1 plugin' failed with status 1: Output { stdout: SECRET }";
    let error = kube::Error::Service(std::io::Error::other(secret).into());
    let said = words(&error);
    assert!(!said.contains("SECRET") && said.contains("`exec`"), "{said}");
}
