//! The coded data of a scan, bit by bit (ITU-T T.87, A.1): the highest bit of a byte first, and after a byte `FF` the
//! highest bit of the next says nothing. It is zero there: `FF` and a higher byte are a marker, which ends the data.

/// Reads ahead up to eight bytes; never beyond a marker or the end of the bytes.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The first byte that isn't read ahead in full.
    at: usize,
    /// What is read ahead, the next bit highest.
    ahead: u64,
    /// How many bits of `ahead` count; what stands behind them is zero or what comes next.
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            ahead: 0,
            count: 0,
        }
    }

    /// The next bit, `None` at the end of the data.
    pub fn bit(&mut self) -> Option<bool> {
        Some(self.number(1)? == 1)
    }

    /// A number of up to 32 bits.
    pub fn number(&mut self, bits: u32) -> Option<u32> {
        debug_assert!(bits <= 32);
        if self.count < bits {
            self.fill();
        }
        if self.count < bits {
            return None;
        }
        let number = self.ahead.unbounded_shr(64 - bits);
        self.skip(bits);
        Some(number as u32)
    }

    /// Passes over zeros and the one behind them and says how many zeros they were: at most `most`, or it is `None`.
    pub fn zeros(&mut self, most: u32) -> Option<u32> {
        let mut passed = 0;
        loop {
            if self.count < 32 {
                self.fill();
            }
            let zeros = self.ahead.leading_zeros().min(self.count);
            passed += zeros;
            if passed > most || self.count == 0 {
                return None;
            }
            if zeros < self.count {
                self.skip(zeros + 1);
                return Some(passed);
            }
            self.skip(zeros);
        }
    }

    /// Where the data ends: at a marker, or at the end of the bytes when their end marker is missing. Only zeros may be
    /// left until there, as padding.
    pub fn end(self) -> Option<usize> {
        if self.ahead != 0 {
            return None;
        }
        let padding = self.bytes[self.at..].iter().take_while(|&&byte| byte == 0).count();
        let end = self.at + padding;
        matches!(self.bytes[end..], [] | [0xff] | [0xff, 0x80..=0xff, ..]).then_some(end)
    }

    fn skip(&mut self, bits: u32) {
        self.ahead = self.ahead.unbounded_shl(bits);
        self.count -= bits;
    }

    fn fill(&mut self) {
        if self.count > 56 {
            return;
        }
        if let Some(&next) = self.bytes[self.at..].first_chunk()
            && !next.contains(&0xff)
        {
            let whole = (64 - self.count) / 8;
            self.ahead |= u64::from_be_bytes(next) >> self.count;
            self.at += whole as usize;
            self.count += 8 * whole;
            return;
        }
        while self.count <= 56 {
            let byte = match self.bytes[self.at..] {
                [0xff] | [0xff, 0x80..=0xff, ..] | [] => return,
                [byte, ..] => byte,
            };
            self.ahead |= u64::from(byte) << (56 - self.count);
            self.at += 1;
            // The next byte begins with a zero, which the last one of this byte is laid over.
            self.count += if byte == 0xff { 7 } else { 8 };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_come_highest_first() {
        let mut bits = Bits::new(&[0b1010_0000, 0x01, 0x80]);
        assert_eq!(bits.bit(), Some(true));
        assert_eq!(bits.bit(), Some(false));
        assert_eq!(bits.number(0), Some(0));
        assert_eq!(bits.number(2), Some(0b10));
        assert_eq!(bits.zeros(11), Some(11));
        assert_eq!(bits.zeros(0), Some(0));
        assert_eq!(bits.number(8), None);
        assert_eq!(bits.number(7), Some(0));
        assert_eq!(bits.bit(), None);
    }

    #[test]
    fn a_bit_is_left_out_behind_ff() {
        let mut bits = Bits::new(&[0xff, 0x7f, 0xff, 0x00, 0xff, 0xd9]);
        assert_eq!(bits.number(15), Some(0x7fff));
        assert_eq!(bits.number(8), Some(0xff));
        assert_eq!(bits.number(7), Some(0));
        assert_eq!(bits.bit(), None);
        assert_eq!(bits.end(), Some(4));
    }

    #[test]
    fn too_many_zeros_are_refused() {
        let zeros = [0; 40];
        assert_eq!(Bits::new(&zeros).zeros(47), None);
        assert_eq!(Bits::new(&zeros).zeros(u32::MAX), None);
        let one_at_the_end = [[0; 7].as_slice(), &[1]].concat();
        assert_eq!(Bits::new(&one_at_the_end).zeros(63), Some(63));
        assert_eq!(Bits::new(&one_at_the_end).zeros(62), None);
    }

    #[test]
    fn only_padding_may_be_left() {
        let end = |bytes: &[u8], read: u32| {
            let mut bits = Bits::new(bytes);
            bits.number(read).unwrap();
            bits.end()
        };
        assert_eq!(end(&[0xf0, 0xff, 0xd9], 4), Some(1));
        assert_eq!(end(&[0xf0, 0x00, 0x00, 0xff, 0xd9], 4), Some(3));
        assert_eq!(end(&[0xf0], 4), Some(1));
        assert_eq!(end(&[0xf0, 0x00, 0xff], 4), Some(2));
        assert_eq!(end(&[0xff, 0x00, 0xff, 0xd9], 8), Some(2));
        assert_eq!(end(&[0xf0, 0xff, 0xd9], 3), None);
        assert_eq!(end(&[0xf0, 0x01, 0xff, 0xd9], 4), None);
        assert_eq!(end(&[0xf0, 0x00, 0xff, 0x7f], 4), None);
    }

    /// Bit by bit, as the standard has it.
    fn plainly(bytes: &[u8]) -> Vec<bool> {
        let mut bits = Vec::new();
        let mut behind_ff = false;
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == 0xff && bytes.get(at + 1).is_none_or(|&next| next >= 0x80) {
                break;
            }
            let first = u8::from(behind_ff);
            bits.extend((first..8).map(|place| byte << place >= 0x80));
            behind_ff = byte == 0xff;
        }
        bits
    }

    proptest! {
        #[test]
        fn reading_ahead_changes_nothing(
            bytes in prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(0xff), 1 => Just(0)], 0..60),
            lengths in prop::collection::vec(0_u32..=32, 1..60),
        ) {
            let plain = plainly(&bytes);
            let mut rest = plain.as_slice();
            let mut bits = Bits::new(&bytes);
            for length in lengths {
                let Some((number, behind)) = rest.split_at_checked(length as usize) else {
                    prop_assert_eq!(bits.number(length), None);
                    break;
                };
                let expected = number.iter().fold(0_u64, |number, &bit| 2 * number + u64::from(bit));
                prop_assert_eq!(bits.number(length).map(u64::from), Some(expected));
                rest = behind;
            }
        }

        #[test]
        fn zeros_are_counted(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..60)) {
            let plain = plainly(&bytes);
            let mut rest = plain.as_slice();
            let mut bits = Bits::new(&bytes);
            while let Some(zeros) = rest.iter().position(|&bit| bit) {
                prop_assert_eq!(bits.zeros(u32::MAX), Some(zeros as u32));
                rest = &rest[zeros + 1..];
            }
            prop_assert_eq!(bits.zeros(u32::MAX), None);
        }
    }
}
