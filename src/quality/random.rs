//! Numbers that a seed decides, the same on every machine and in every version of this program.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): a published figure has to come out again, so the
/// generator is part of the protocol and not of a library that may change it.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..`end`, each equally likely to 2^-64; `end` must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// So many of `items` in any order, each as likely as any other; all where there are fewer.
    pub fn draw<'a, T>(&mut self, items: &'a mut [T], count: usize) -> &'a [T] {
        let count = count.min(items.len());
        for at in 0..count {
            let other = at + self.below(items.len() - at);
            items.swap(at, other);
        }
        &items[..count]
    }

    /// Any order, each equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_published_sequence() {
        // First values for seed 1234567, as in the reference implementation (prng.di.unimi.it/splitmix64.c).
        let mut random = Random::new(1_234_567);
        let values: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(
            values,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn shuffles_evenly() {
        let mut counts = [[0usize; 4]; 4];
        let mut random = Random::new(0);
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            random.shuffle(&mut items);
            for (place, &item) in items.iter().enumerate() {
                counts[item][place] += 1;
            }
        }
        // 6,000 expected, standard deviation 67.
        assert!(
            counts.iter().flatten().all(|count| count.abs_diff(6000) < 400),
            "{counts:?}"
        );
    }
}
