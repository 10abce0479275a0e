//! Prints problems and steps. Text from outside is escaped.

use crate::{
    cli::table::{self, Cell},
    escape::printable,
    migrate::facts::Problem,
};
use std::io::{Write as _, stdout};

/// Says a line. A reader that is gone must not end a command halfway.
pub(super) fn say(line: &str) {
    let _ = writeln!(stdout(), "{}", printable(line));
}

/// Prints what stands against a step; returns whether anything does.
pub(super) fn problems(problems: &[Problem]) -> bool {
    if problems.is_empty() {
        return false;
    }
    let rows: Vec<Vec<Cell>> = problems
        .iter()
        .map(|problem| {
            vec![Cell::red(&problem.what), problem.at.as_str().into(), problem.remedy.as_str().into()]
        })
        .collect();
    table::print(&["PROBLEM", "WHERE", "REMEDY"], &rows);
    true
}
