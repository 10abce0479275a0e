//! Aligned tables.

use std::io::{IsTerminal as _, stdout};

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

fn paint(code: &str, text: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
