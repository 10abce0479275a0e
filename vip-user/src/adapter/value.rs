//! Reads values as kube-vip does.

/// Reads a truth value as Go's `strconv.ParseBool`; `None` if it is none.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a whole number in base 10, with an optional sign; `None` if it is none or exceeds 32 bits.
pub fn parse_int(text: &str) -> Option<i64> {
    text.parse::<i32>().ok().map(i64::from)
}

/// The items of a list with commas, without blanks around them and without empty ones.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_values_are_those_of_go() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(text), Some(false), "{text}");
        }
        for text in ["", "yes", "on", "tRUE", " true", "2", "30"] {
            assert_eq!(parse_bool(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_whole_and_have_32_bits() {
        let table =
            [("15", Some(15)), ("-4", Some(-4)), ("+3", Some(3)), ("2147483647", Some(2_147_483_647))];
        for (text, number) in table {
            assert_eq!(parse_int(text), number, "{text}");
        }
        for text in ["", "15s", "1.5", " 5", "0x10", "2147483648", "1_000"] {
            assert_eq!(parse_int(text), None, "{text}");
        }
    }
}
