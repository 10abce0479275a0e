use super::*;
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::fmt::format::debug_fn;

/// Clears the screen, forges a line, changes the direction of writing, and begins a C1 sequence.
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
    // Two different texts never look alike.
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
