//! PALETTE COLOR (PS3.3, C.7.6.3.1.5 and C.7.9): stored values to RGB of 8 bit.

use super::elements::Tag;
use super::invalid;
use super::layout::Layout;
use super::lut_descriptor::LutDescriptor;
use crate::error::Result;

const DESCRIPTOR: Tag = (0x0028, 0x1101);
const DATA: [Tag; 3] = [(0x0028, 0x1201), (0x0028, 0x1202), (0x0028, 0x1203)];
const SEGMENTED: [Tag; 3] = [(0x0028, 0x1221), (0x0028, 0x1222), (0x0028, 0x1223)];

/// Three tables of the same length.
pub struct Palette {
    /// Stored value of the first entry.
    first: i32,
    entries: Vec<[u8; 3]>,
}

impl Palette {
    /// Reads the tables, plain or segmented; of 16-bit entries the high byte counts.
    ///
    /// # Errors
    /// `InvalidImage`.
    pub fn read(layout: &Layout<'_>, signed: bool) -> Result<Self> {
        let missing = || invalid("its palette is missing or too short");
        let descriptor = layout.words(DESCRIPTOR).ok_or_else(missing)?;
        let LutDescriptor { count, first, bits } = LutDescriptor::read(&descriptor, signed).ok_or_else(missing)?;
        let table = |place: usize| -> Result<Vec<u8>> {
            if let Some(words) = layout.words(DATA[place]) {
                return plain(&words, count, bits).ok_or_else(missing);
            }
            let words = layout.words(SEGMENTED[place]).ok_or_else(missing)?;
            let words = if bits == 8 {
                halves(&words).map(u16::from).collect()
            } else {
                words
            };
            let table = expand(&words, count).ok_or_else(|| invalid("its segmented palette makes no sense"))?;
            Ok(table
                .into_iter()
                .map(|entry| if bits == 8 { entry as u8 } else { high_byte(entry) })
                .collect())
        };
        let (red, green, blue) = (table(0)?, table(1)?, table(2)?);
        let entries = red
            .into_iter()
            .zip(green)
            .zip(blue)
            .map(|((red, green), blue)| [red, green, blue])
            .collect();
        Ok(Self { first, entries })
    }

    /// The colour of a stored value; values beyond the tables get the nearest entry.
    pub fn color(&self, value: i32) -> [u8; 3] {
        let place = (value - self.first).clamp(0, self.entries.len() as i32 - 1);
        self.entries[place as usize]
    }
}

fn high_byte(entry: u16) -> u8 {
    (entry >> 8) as u8
}

/// Two 8-bit entries in a word, the lower byte first.
fn halves(words: &[u16]) -> impl Iterator<Item = u8> {
    words.iter().flat_map(|word| word.to_le_bytes())
}

/// Entries take 16 bits when there is room for them, whatever the descriptor says; else 8.
fn plain(words: &[u16], count: usize, bits: u16) -> Option<Vec<u8>> {
    let table: Vec<u8> = if words.len() >= count {
        let entries = &words[..count];
        let small = bits == 8 && entries.iter().all(|&entry| entry <= 255);
        entries
            .iter()
            .map(|&entry| if small { entry as u8 } else { high_byte(entry) })
            .collect()
    } else {
        halves(words).take(count).collect()
    };
    (table.len() == count).then_some(table)
}

/// Segments (PS3.3, C.7.9.2): 0 discrete, 1 linear, 2 indirect.
fn expand(words: &[u16], count: usize) -> Option<Vec<u16>> {
    let mut table = Vec::new();
    let mut rest = words;
    // Padding to an even length leaves less than an opcode, a length and a value.
    while rest.len() > 2 && table.len() < count {
        if let &[2, repeats, low, high, ref behind @ ..] = rest {
            // An indirect segment runs earlier segments once more.
            let mut again = words.get(usize::from(low) | usize::from(high) << 16..)?;
            for _ in 0..repeats {
                again = segment(again, &mut table, count)?;
            }
            rest = behind;
        } else {
            rest = segment(rest, &mut table, count)?;
        }
    }
    table.truncate(count);
    (table.len() == count).then_some(table)
}

/// Appends one discrete or linear segment and gives what is behind it.
fn segment<'a>(words: &'a [u16], table: &mut Vec<u16>, count: usize) -> Option<&'a [u16]> {
    match *words {
        [0, length, ref values @ ..] => {
            let (values, behind) = values.split_at_checked(usize::from(length))?;
            table.extend(values.iter().take(count.saturating_sub(table.len())));
            Some(behind)
        }
        [1, length, end, ref behind @ ..] => {
            let start = f64::from(*table.last()?);
            let step = (f64::from(end) - start) / f64::from(length);
            let left = count.saturating_sub(table.len());
            table.extend(
                (1..=length)
                    .take(left)
                    .map(|place| (start + step * f64::from(place)).round_ties_even() as u16),
            );
            Some(behind)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_either_width() {
        assert_eq!(plain(&[0x0102, 0x0304], 2, 16), Some(vec![1, 3]));
        assert_eq!(plain(&[0x0102, 0x0304], 4, 8), Some(vec![2, 1, 4, 3]));
        assert_eq!(plain(&[0x0102, 0x0304], 3, 8), Some(vec![2, 1, 4]));
        assert_eq!(plain(&[0x00ff, 0x0004], 2, 8), Some(vec![255, 4]));
        assert_eq!(plain(&[0x0102], 4, 8), None);
    }

    #[test]
    fn segments_expand() {
        assert_eq!(expand(&[0, 1, 0, 1, 4, 40], 5), Some(vec![0, 10, 20, 30, 40]));
        assert_eq!(
            expand(&[0, 2, 5, 6, 1, 2, 10, 2, 2, 0, 0], 8),
            Some(vec![5, 6, 8, 10, 5, 6, 8, 10])
        );
        assert_eq!(expand(&[1, 4, 40], 4), None);
        assert_eq!(expand(&[0, 9, 1, 2], 9), None);
        assert_eq!(expand(&[2, 1, 0, 0], 2), None);
    }

    #[test]
    fn values_beyond_the_table_get_its_ends() {
        let palette = Palette {
            first: -1,
            entries: vec![[1; 3], [2; 3], [3; 3]],
        };
        assert_eq!([-9, -1, 0, 1, 9].map(|value| palette.color(value)[0]), [1, 1, 2, 3, 3]);
    }
}
