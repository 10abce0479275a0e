//! How many tests passed and failed.

use anyhow::bail;
use std::ops::AddAssign;

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

    /// Prints the count; an error if a test failed, or if none ran.
    pub fn verdict(self) -> anyhow::Result<()> {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 {
            bail!("{} tests failed", self.failed);
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

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
        assert_eq!(Count::parse("test result_of_something ... ok"), None);
    }
}
