//! The internet checksum (RFC 1071).

/// A running one's complement sum over words in memory order. The sum does not depend on the byte
/// order if all words are read in the same one, so no word is swapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u32);

impl Sum {
    /// Adds words in memory order.
    #[inline(always)]
    pub fn add<const N: usize>(&mut self, words: &[u16; N]) {
        let mut i = 0;
        while i < N {
            self.0 += words[i] as u32;
            i += 1;
        }
    }

    /// Adds a number in host byte order.
    #[inline(always)]
    pub fn add_number(&mut self, number: u16) {
        self.0 += number.to_be() as u32;
    }

    /// The one's complement sum in 16 bits, in memory order. Over data that includes a correct
    /// checksum it is 0xffff.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff) + (self.0 >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }
}
