//! Turns errors of an API server or of the connection to it into one short line for log, status and
//! terminal.

use crate::sources;

/// Messages of a server are cut off after this many characters.
const LONGEST: usize = 300;

/// Describes a failed request.
pub(super) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return refusal(status);
    }
    let parts: Vec<String> = sources::of(error).map(ToString::to_string).collect();
    let cannot_connect = parts.iter().any(|part| part.contains("(Connect)"));
    // The library shows the command with its environment and its output, which may hold secrets.
    if parts.iter().any(|part| part.contains("auth exec")) {
        return "the program that the kubeconfig names in `exec` has failed; run it by hand to see why"
            .into();
    }
    // The outer errors repeat the inner ones, or only name a layer of the client library.
    let inner = parts.len().saturating_sub(1);
    let said: Vec<String> = (0..parts.len())
        .filter(|at| *at == inner || !is_layer(&parts[*at]))
        .filter(|at| !parts[..*at].iter().any(|outer| !is_layer(outer) && outer.contains(&parts[*at])))
        .map(|at| parts[at].clone())
        .collect();
    // rustls appends the address of its manual.
    let text = said.join(": ");
    let text = text.split(": https://docs.rs").next().unwrap_or_default();
    let prefix = if cannot_connect { "cannot connect: " } else { "" };
    format!("{}{}", printable(&format!("{prefix}{text}")), advice(text))
}

/// Advice that the message of the TLS library does not give.
fn advice(text: &str) -> &'static str {
    let known = [
        (
            "failed to parse private key",
            " (a key is RSA, ECDSA P-256 or P-384, or Ed25519, and not encrypted; P-521 cannot be used)",
        ),
        ("UnsupportedSignatureAlgorithm", " (what was signed with P-521 cannot be checked)"),
        (
            "No CA certificates",
            " (the kubeconfig names no `certificate-authority`, and this host has no bundle of its own)",
        ),
    ];
    known.iter().find(|(part, _)| text.contains(part)).map_or("", |(_, advice)| advice)
}

/// Describes why a server refused a request.
pub(super) fn refusal(status: &kube::core::Status) -> String {
    // The last text comes from the client library, for an answer that is not a Status.
    let said_nothing = ["", status.message.as_str(), "Failed to parse error data"];
    let reason = if said_nothing.contains(&status.reason.as_str()) {
        String::new()
    } else {
        format!(" ({})", printable(&status.reason))
    };
    let said = printable(status.message.trim());
    let said = if said.is_empty() { said } else { format!(": {said}") };
    format!("HTTP {}{reason}{said}", status.code)
}

/// Whether a text of the client library only names the layer that failed.
fn is_layer(text: &str) -> bool {
    ["ServiceError: ", "HyperError: ", "client error (", "tcp connect error", "Error reading events"]
        .iter()
        .any(|layer| text.starts_with(layer))
}

/// Puts outside text on one line. Characters that could steer a terminal are escaped, and long text is
/// cut off.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (at, character) in text.chars().enumerate() {
        if at == LONGEST {
            shown.push('…');
            break;
        }
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests;
