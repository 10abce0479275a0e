//! The address of a station on Ethernet, as text.

use core::{array::TryFromSliceError, fmt, str::FromStr};

/// An Ethernet address; shown as `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(formatter, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(formatter, ":{byte:02x}"))
    }
}

/// The text is not six bytes in hexadecimal, with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMac;

impl TryFrom<&[u8]> for Mac {
    type Error = TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, TryFromSliceError> {
        bytes.try_into().map(Self)
    }
}

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut words = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let word = words.next().ok_or(NotAMac)?;
            *byte = u8::from_str_radix(word, 16).map_err(|_| NotAMac)?;
        }
        if words.next().is_some() { Err(NotAMac) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        let mac = Mac([2, 0, 0, 0, 0xab, 1]);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for text in ["", "02:00:00:00:ab", "02:00:00:00:ab:01:02", "02:00:00:00:ab:1g", "2.0.0.0.0.1"] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }
}
