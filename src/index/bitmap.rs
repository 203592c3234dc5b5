//! A set of row numbers.

/// One bit a row. Row numbers beyond its end are never in it, so a test can't panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// All of `0..rows`.
    pub fn full(rows: usize) -> Self {
        let mut words = vec![u64::MAX; rows.div_ceil(64)];
        if let Some(last) = words.last_mut()
            && !rows.is_multiple_of(64)
        {
            *last = (1 << (rows % 64)) - 1;
        }
        Self { words }
    }

    /// Whether `row` is in the set.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        self.words
            .get(row as usize / 64)
            .is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Takes `row` out; whether it was in.
    pub fn remove(&mut self, row: u32) -> bool {
        let was = self.contains(row);
        if was {
            self.words[row as usize / 64] &= !(1 << (row % 64));
        }
        was
    }

    /// How many rows are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The rows of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        ones(self.words.iter().copied())
    }

    /// The rows that are in one of the two sets but not in both.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let words = self.words.len().max(other.words.len());
        let word = |map: &Self, at: usize| map.words.get(at).copied().unwrap_or(0);
        ones((0..words).map(move |at| word(self, at) ^ word(other, at)))
    }
}

fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    words.enumerate().flat_map(|(at, word)| {
        (0..64u32)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| at as u32 * 64 + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_set(rows in 0usize..200, out in prop::collection::vec(0u32..300, 0..50), other in prop::collection::vec(0u32..200, 0..50)) {
            let mut map = Bitmap::full(rows);
            let mut set: BTreeSet<u32> = (0..rows as u32).collect();
            for row in out {
                prop_assert_eq!(map.remove(row), set.remove(&row));
            }
            prop_assert_eq!(map.count(), set.len());
            prop_assert!(map.iter().eq(set.iter().copied()));
            prop_assert!((0..400).all(|row| map.contains(row) == set.contains(&row)));
            let mut second = map.clone();
            let gone: BTreeSet<u32> = other.into_iter().filter(|&row| second.remove(row)).collect();
            prop_assert!(map.difference(&second).eq(gone.iter().copied()));
        }
    }
}
