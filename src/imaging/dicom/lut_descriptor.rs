//! LUT Descriptor, of a palette and of a modality LUT alike (PS3.3, C.7.6.3.1.5 and C.11.1.1).

/// How long a table is and where it begins.
pub struct LutDescriptor {
    /// Entries, 1..=65,536.
    pub count: usize,
    /// Stored value of the first entry, signed when stored values are.
    pub first: i32,
    /// Bits of an entry.
    pub bits: u16,
}

impl LutDescriptor {
    /// Reads its three words; `None` when there are fewer.
    pub fn read(words: &[u16], signed: bool) -> Option<Self> {
        let &[count, first, bits] = words.first_chunk::<3>()?;
        Some(Self {
            // 0 stands for 65,536.
            count: if count == 0 { 1 << 16 } else { usize::from(count) },
            first: if signed {
                i32::from(first as i16)
            } else {
                i32::from(first)
            },
            bits,
        })
    }
}
