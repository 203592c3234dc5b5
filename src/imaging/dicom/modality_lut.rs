//! Modality LUT Sequence (PS3.3, C.11.1): stored values to those of the modality, by a table in place of slope and intercept.

use super::elements::Tag;
use super::frame::Stored;
use super::invalid;
use super::layout::Layout;
use super::lut_descriptor::LutDescriptor;
use crate::error::Result;

const DESCRIPTOR: Tag = (0x0028, 0x3002);
const DATA: Tag = (0x0028, 0x3006);

/// What stands for each stored value.
pub struct ModalityLut {
    /// Stored value of the first entry.
    first: i32,
    /// 1 to 65,536 of them.
    entries: Vec<u16>,
}

impl ModalityLut {
    /// Reads the table; `None` when the file has none.
    ///
    /// # Errors
    /// `InvalidImage`.
    pub fn read(layout: &Layout<'_>, signed: bool) -> Result<Option<Self>> {
        if layout.modality_lut.is_empty() {
            return Ok(None);
        }
        let short = || invalid("its modality LUT is missing or too short");
        let words = |tag| layout.words_in(&layout.modality_lut, tag).ok_or_else(short);
        let descriptor = words(DESCRIPTOR)?;
        let LutDescriptor { count, first, bits } = LutDescriptor::read(&descriptor, signed).ok_or_else(short)?;
        let mut entries = words(DATA)?;
        // Entries of 8 bits may lie two in a word.
        if entries.len() < count && bits <= 8 {
            entries = entries
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .map(u16::from)
                .collect();
        }
        entries.truncate(count);
        if entries.len() < count {
            return Err(short());
        }
        Ok(Some(Self { first, entries }))
    }

    /// Unsigned values of the modality; those stored beyond the table get its ends.
    pub fn apply(&self, stored: &Stored, signed: bool) -> Vec<u16> {
        match (stored, signed) {
            (Stored::Bytes(bytes), false) => self.each(bytes.iter().map(|&byte| byte.into())),
            (Stored::Bytes(bytes), true) => self.each(bytes.iter().map(|&byte| (byte as i8).into())),
            (Stored::Words(words), false) => self.each(words.iter().map(|&word| word.into())),
            (Stored::Words(words), true) => self.each(words.iter().map(|&word| (word as i16).into())),
        }
    }

    /// Those of the stored values from `first` to `last` that it has an entry of their own for: the smallest and the largest.
    pub fn held(&self, first: i32, last: i32) -> Option<(i32, i32)> {
        let (first, last) = (
            first.max(self.first),
            last.min(self.first + self.entries.len() as i32 - 1),
        );
        (first <= last).then_some((first, last))
    }

    /// What stands for one stored value.
    pub fn value(&self, stored: i32) -> u16 {
        let place = stored
            .saturating_sub(self.first)
            .clamp(0, self.entries.len() as i32 - 1);
        self.entries[place as usize]
    }

    fn each(&self, stored: impl Iterator<Item = i32>) -> Vec<u16> {
        stored.map(|value| self.value(value)).collect()
    }
}
