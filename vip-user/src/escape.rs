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

/// Whether a character is shown as it is. The backslash is: here it escapes already.
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

/// Standard error for a log of JSON lines, each written at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLog;

impl MakeWriter<'_> for JsonLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl io::Write for JsonLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, PoisonError};
    use tracing_subscriber::fmt::format::debug_fn;

    /// Clears the screen, forges a line, turns the direction of writing, and begins a C1 sequence.
    const HOSTILE: &str = "node\u{1b}[2J\r\n1 ok\u{202e}gpj\u{9b}31m\u{2066}\u{7f}\u{0}\u{2028}\\";

    fn is_tame(text: &str) -> bool {
        let marks = ['\u{202e}', '\u{2066}', '\u{2028}', '\u{200f}'];
        !text.chars().any(|c| c.is_control() || marks.contains(&c))
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let shown = printable(HOSTILE);
        assert!(is_tame(&shown), "{shown:?}");
        assert!(shown.starts_with(r"node\u{1b}[2J\r\n1 ok\u{202e}gpj"), "{shown}");
        // Two texts never look alike.
        assert_eq!(printable("a\nb"), r"a\nb");
        assert_eq!(printable(r"a\nb"), r"a\\nb");
        let plain = "it's \"node-7\" (größer, 東京): 50 %";
        assert_eq!(printable(plain), plain);
    }

    #[test]
    fn a_very_long_text_is_cut() {
        let shown = printable(&"\u{1b}".repeat(1_000_000));
        assert!(shown.ends_with("… (1000000 bytes in all)"), "{}", shown.len());
        assert!(shown.len() < LONGEST * 8);
    }

    #[test]
    fn json_stays_json_and_metrics_stay_metrics() {
        let value = serde_json::json!({ "holder": format!("{HOSTILE}\u{1f600}\u{e0001}") });
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.lines().all(is_tame), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        let text = metrics("x{subject=\"a\\\"b\\\\ \u{1b}[2J\u{202e}\"} 1\n# EOF\n");
        assert_eq!(text, "x{subject=\"a\\\"b\\\\ \u{fffd}[2J\u{fffd}\"} 1\n# EOF\n");
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_log_shows_outside_text_on_one_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .fmt_fields(debug_fn(log_field))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(holder = %HOSTILE, said = ?Some(HOSTILE), plain = HOSTILE, "{HOSTILE}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let (line, rest) = text.split_once('\n').unwrap();
        assert!(is_tame(line) && rest.is_empty(), "{text:?}");
        assert_eq!(line.matches("[2J").count(), 4, "{line}");
    }
}
