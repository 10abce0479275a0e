//! How many tests passed and failed.

use std::{fmt, ops::AddAssign};

/// Numbers of passed and failed tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Count {
    /// `test result: ok. 45 passed; 0 failed; …`
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let number = |what: &str| {
            rest.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok())
        };
        Some(Self { passed: number("passed")?, failed: number("failed")? })
    }

    /// Prints the count as the last line. Fails if a test failed, or if none ran.
    pub fn verdict(self) -> anyhow::Result<()> {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 || self.passed == 0 { Err(Failed.into()) } else { Ok(()) }
    }
}

/// A test failed, or none ran. The count, already printed, is the last line of the output.
#[derive(Clone, Copy, Debug)]
pub struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a test failed, or none ran")
    }
}

impl std::error::Error for Failed {}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.68s";
        assert_eq!(Count::parse(line), Some(Count { passed: 4, failed: 2 }));
        assert!(Count { passed: 4, failed: 2 }.verdict().is_err());
        assert!(Count { passed: 4, failed: 0 }.verdict().is_ok());
        assert!(Count::default().verdict().is_err(), "none ran");
        assert_eq!(Count::parse("test result_of_something ... ok"), None);
    }
}
