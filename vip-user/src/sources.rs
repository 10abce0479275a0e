//! The sources of an error, as a chain.

use std::error::Error;

/// An error and its sources, the outermost first.
pub fn of<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| Error::source(*error))
}

/// The error and its sources as one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    of(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
