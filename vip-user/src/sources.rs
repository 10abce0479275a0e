//! The source chain of an error.

use std::error::Error;

/// An error and its sources, the outermost first.
pub fn of<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| Error::source(*error))
}

/// The same as one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    of(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
