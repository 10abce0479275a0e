//! Aligned tables, and colours. Text is escaped before it is coloured.

use crate::{escape::printable, log::has_colours};
use std::io::{Write as _, stdout};

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: printable(&text.into()), colour: None }
    }
}

impl Cell {
    /// In green on a terminal.
    pub fn green(text: &str) -> Self {
        Self { colour: Some(GREEN), ..text.into() }
    }

    /// In red on a terminal.
    pub fn red(text: &str) -> Self {
        Self { colour: Some(RED), ..text.into() }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Prints rows under a header, columns as wide as their widest cell.
pub fn print<C: Clone + Into<Cell>>(header: &[&str], rows: &[Vec<C>]) {
    let cells = |row: &Vec<C>| row.iter().cloned().map(Into::into).collect();
    let rows: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    for line in lines(header, &rows, has_colours(&stdout())) {
        // A reader that is gone does not matter.
        let _ = writeln!(stdout(), "{line}");
    }
}

fn lines(header: &[&str], rows: &[Vec<Cell>], colours: bool) -> Vec<String> {
    let head = header.iter().map(|name| Cell { colour: Some(BOLD), ..(*name).into() }).collect();
    let all: Vec<&Vec<Cell>> = [&head].into_iter().chain(rows).collect();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0)
    };
    let line = |row: &&Vec<Cell>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            // The last cell is not padded.
            let filler = if column + 1 == row.len() { 0 } else { width(column) - cell.width() };
            let text = match cell.colour {
                Some(code) if colours => painted(code, &cell.text),
                _ => cell.text.clone(),
            };
            text + &" ".repeat(filler)
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    all.iter().map(line).collect()
}

/// Bold on a terminal.
pub fn bold(text: &str) -> String {
    paint(BOLD, text)
}

/// Green on a terminal.
pub fn green(text: &str) -> String {
    paint(GREEN, text)
}

/// Red on a terminal.
pub fn red(text: &str) -> String {
    paint(RED, text)
}

fn paint(code: &str, text: &str) -> String {
    let text = printable(text);
    if has_colours(&stdout()) { painted(code, &text) } else { text }
}

fn painted(code: &str, text: &str) -> String {
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_escaped_and_columns_stay_aligned() {
        let rows = [
            vec![Cell::from("eth0\u{1b}[2J"), Cell::green("yes"), "a".into()],
            vec![Cell::from("b\n"), "no".into(), "b".into()],
        ];
        let plain = lines(&["NAME", "UP", "X"], &rows, false);
        let row = |name: &str, up, x| format!("{name:13}  {up:3}  {x}");
        let wanted =
            [row("NAME", "UP", "X"), row(r"eth0\u{1b}[2J", "yes", "a"), row(r"b\n", "no", "b")];
        assert_eq!(plain, wanted);
        let painted = lines(&["NAME", "UP", "X"], &rows, true);
        assert!(painted[1].ends_with("\u{1b}[32myes\u{1b}[0m  a"), "{painted:?}");
    }
}
