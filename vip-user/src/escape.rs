//! Makes text from outside safe to show. An attacker may choose it by a Lease, an interface name or
//! an answer of the API, and a terminal obeys control characters.

use std::{
    fmt::{self, Write as _},
    io,
};
use tracing::field::Field;
use tracing_subscriber::fmt::{MakeWriter, format::Writer};

/// Longer text is cut. xvip's own texts are far shorter.
const LONGEST: usize = 2_000;

/// Escapes every character that a reader would not see as it is: control characters, line breaks,
/// marks that change the direction of writing, and the backslash itself.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LONGEST));
    for (count, character) in text.chars().enumerate() {
        if count == LONGEST {
            let _ = write!(shown, "… ({} bytes in all)", text.len());
            break;
        }
        match character {
            // xvip's own texts contain quotes.
            '"' | '\'' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// Escapes in JSON text every character that a terminal may obey. JSON itself escapes only the
/// first 32 characters.
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || is_plain(character) {
            shown.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

/// The same for OpenMetrics text, which has no escape for them: each becomes U+FFFD.
pub fn metrics(text: &str) -> String {
    let shown =
        |character| if character == '\n' || is_plain(character) { character } else { '\u{fffd}' };
    text.chars().map(shown).collect()
}

/// Whether a character is safe to show. A backslash is, because here it is already an escape
/// (`metrics::Value`).
fn is_plain(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\') || character.escape_debug().len() == 1
}

/// Writes a field of a log line, escaped whatever its type.
pub fn log_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = printable(&format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        // Fields of the `log` crate repeat the line.
        name if name.starts_with("log.") => Ok(()),
        name => write!(writer, "{name}={value}"),
    }
}

/// A writer of JSON log lines that escapes each line. Each line must come in one write.
#[derive(Clone, Debug)]
pub struct JsonLog<W>(pub W);

impl<W: Clone + io::Write> MakeWriter<'_> for JsonLog<W> {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl<W: io::Write> io::Write for JsonLog<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;
