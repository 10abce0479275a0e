//! Aligned tables.

use std::io::{IsTerminal, stdout};

/// Prints rows under a header, columns as wide as their widest cell.
pub fn print(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    println!("{}", bold(&line(&header)));
    for row in rows {
        println!("{}", line(row));
    }
}

/// Bold on a terminal.
pub fn bold(text: &str) -> String {
    paint("1", text)
}

/// Green on a terminal.
pub fn green(text: &str) -> String {
    paint("32", text)
}

/// Red on a terminal.
pub fn red(text: &str) -> String {
    paint("31", text)
}

/// Whether a terminal is there to show colours, and nobody has asked for none (`NO_COLOR`).
pub fn has_colours(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn paint(code: &str, text: &str) -> String {
    if has_colours(&stdout()) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
