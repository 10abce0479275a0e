//! Text from outside, made safe to show. Whoever may write a Lease, name an interface or answer for
//! the API chooses such text, and a terminal obeys what it prints.

use std::{
    fmt::{self, Write as _},
    io,
};
use tracing::field::Field;
use tracing_subscriber::fmt::{MakeWriter, format::Writer};

/// Longer text is cut. The longest words of our own are shorter by far.
const LONGEST: usize = 2_000;

/// The text with everything escaped that a reader would not see as it is: control characters, line
/// breaks, marks that turn the direction of writing, and the backslash that escapes.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LONGEST));
    for (count, character) in text.chars().enumerate() {
        if count == LONGEST {
            let _ = write!(shown, "… ({} bytes in all)", text.len());
            break;
        }
        match character {
            // Quotes stand in our own words.
            '"' | '\'' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// JSON text in which nothing is left that a terminal may obey. JSON itself escapes no more than the
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

/// The same for OpenMetrics text, which knows no escape for them: each becomes U+FFFD.
pub fn metrics(text: &str) -> String {
    let shown =
        |character| if character == '\n' || is_plain(character) { character } else { '\u{fffd}' };
    text.chars().map(shown).collect()
}

/// Whether a character is shown as it is. The backslash is: here it escapes already (`metrics::Value`).
fn is_plain(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\') || character.escape_debug().len() == 1
}

/// A field of a line of the log, escaped whatever it is.
pub fn log_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = printable(&format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        // Fields of the `log` crate repeat what the line says already.
        name if name.starts_with("log.") => Ok(()),
        name => write!(writer, "{name}={value}"),
    }
}

/// The way to standard error for a log of JSON lines, each written at once.
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
