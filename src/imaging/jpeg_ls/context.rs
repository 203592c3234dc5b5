//! What is learnt from the errors of samples in like surroundings (ITU-T T.87, A.4.1, A.5, A.6 and A.7.2).

use super::parameters::Parameters;

/// A context of a sample that has gradients around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Regular {
    /// A: sum of errors without their signs.
    magnitude: u32,
    /// B: their sum, kept within `-count + 1..=0` by correcting predictions.
    bias: i32,
    /// C: correction of a prediction, -128..=127.
    pub correction: i32,
    /// N.
    count: u32,
}

impl Regular {
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            magnitude: first_magnitude(parameters),
            bias: 0,
            correction: 0,
            count: 1,
        }
    }

    /// k: how many of the low bits of an error are coded as they are.
    pub fn low_bits(&self) -> u32 {
        low_bits(self.count, self.magnitude)
    }

    /// Gives a mapped error its sign (code segment A.11, reversed).
    pub fn unmap(&self, mapped: u32, low_bits: u32, parameters: &Parameters) -> i32 {
        let error = (mapped >> 1).cast_signed() ^ -(mapped & 1).cast_signed();
        let negative = low_bits == 0 && parameters.near == 0 && 2 * self.bias <= -self.count.cast_signed();
        if negative { !error } else { error }
    }

    /// Code segments A.12 and A.13.
    pub fn learn(&mut self, error: i32, parameters: &Parameters) {
        self.magnitude += error.unsigned_abs();
        self.bias += error * (2 * parameters.near + 1);
        if self.count == parameters.reset {
            self.magnitude >>= 1;
            self.bias >>= 1;
            self.count >>= 1;
        }
        self.count += 1;
        let count = self.count.cast_signed();
        if self.bias <= -count {
            self.bias = (self.bias + count).max(1 - count);
            self.correction = (self.correction - 1).max(-128);
        } else if self.bias > 0 {
            self.bias = (self.bias - count).min(0);
            self.correction = (self.correction + 1).min(127);
        }
    }
}

/// A context of a sample that ends a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interruption {
    /// RItype, 0 or 1: 1 when the samples to the left and above are alike.
    alike: u32,
    /// A.
    magnitude: u32,
    /// N.
    count: u32,
    /// Nn: how many errors were below zero.
    negatives: u32,
}

impl Interruption {
    pub fn new(alike: bool, parameters: &Parameters) -> Self {
        Self {
            alike: u32::from(alike),
            magnitude: first_magnitude(parameters),
            count: 1,
            negatives: 0,
        }
    }

    /// k (code segment A.20).
    pub fn low_bits(&self) -> u32 {
        low_bits(self.count, self.magnitude + self.alike * (self.count >> 1))
    }

    /// Gives a mapped error its sign (code segment A.22, reversed).
    pub fn unmap(&self, mapped: u32, low_bits: u32) -> i32 {
        let doubled = mapped + self.alike;
        let odd = doubled & 1 == 1;
        let error = doubled.div_ceil(2).cast_signed();
        let mostly_negative = low_bits != 0 || 2 * self.negatives >= self.count;
        if odd == mostly_negative { -error } else { error }
    }

    /// Code segment A.23.
    pub fn learn(&mut self, error: i32, mapped: u32, parameters: &Parameters) {
        self.negatives += u32::from(error < 0);
        self.magnitude += (mapped + 1 - self.alike) >> 1;
        if self.count == parameters.reset {
            self.magnitude >>= 1;
            self.count >>= 1;
            self.negatives >>= 1;
        }
        self.count += 1;
    }
}

/// A before the first sample (A.8).
fn first_magnitude(parameters: &Parameters) -> u32 {
    ((parameters.range + 32) / 64).max(2).unsigned_abs()
}

/// The least k that makes `count << k` reach the magnitude (code segment A.10).
fn low_bits(count: u32, magnitude: u32) -> u32 {
    let close = count.leading_zeros().saturating_sub(magnitude.leading_zeros());
    close + u32::from(count << close < magnitude)
}

#[cfg(test)]
mod tests {
    use super::super::parameters::Presets;
    use super::*;

    fn parameters(precision: u8, near: u8) -> Parameters {
        Parameters::new(precision, near, &Presets::default()).unwrap()
    }

    #[test]
    fn low_bits_are_those_of_the_loop() {
        let looped = |count: u32, magnitude: u32| (0..).find(|&k| u64::from(count) << k >= u64::from(magnitude));
        for count in 1..70 {
            for magnitude in (0..3000).chain([1 << 20, (1 << 24) - 1, 1 << 30]) {
                assert_eq!(Some(low_bits(count, magnitude)), looped(count, magnitude));
            }
        }
    }

    #[test]
    fn signs_alternate() {
        let lossless = parameters(8, 0);
        let context = Regular::new(&lossless);
        let errors = [0, 1, 2, 3, 4].map(|mapped| context.unmap(mapped, 2, &lossless));
        assert_eq!(errors, [0, -1, 1, -2, 2]);
        let biased = Regular { bias: -1, ..context };
        let errors = [0, 1, 2, 3, 4].map(|mapped| biased.unmap(mapped, 0, &lossless));
        assert_eq!(errors, [-1, 0, -2, 1, -3]);
        assert_eq!(biased.unmap(1, 1, &lossless), -1);
        assert_eq!(biased.unmap(1, 0, &parameters(8, 1)), -1);
    }

    #[test]
    fn a_bias_corrects_predictions() {
        let lossless = parameters(8, 0);
        let mut context = Regular::new(&lossless);
        for _ in 0..1000 {
            context.learn(100, &lossless);
        }
        assert_eq!(context.correction, 127);
        for _ in 0..1000 {
            context.learn(-100, &lossless);
            assert!((1 - context.count.cast_signed()..=0).contains(&context.bias));
        }
        assert_eq!(context.correction, -128);
        assert!(context.count <= lossless.reset);
    }

    #[test]
    fn the_largest_errors_fit() {
        let rare_reset = Presets::read(&[0, 0, 0, 0, 0xffff].map(u16::to_be_bytes).concat()).unwrap();
        let parameters = Parameters::new(16, 0, &rare_reset).unwrap();
        let mut regular = Regular::new(&parameters);
        let mut interruption = Interruption::new(false, &parameters);
        for _ in 0..200_000 {
            regular.learn(-32_769, &parameters);
            interruption.learn(-32_768, 65_536, &parameters);
        }
        assert!(regular.low_bits() <= 16);
        assert!(interruption.low_bits() <= 16);
    }
}
