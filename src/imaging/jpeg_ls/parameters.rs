//! What the coding of a scan depends on, and where it comes from: the frame, the scan, and presets (ITU-T T.87, C.2.4).

use super::invalid;
use crate::error::Result;

/// A segment LSE of type 1 (C.2.4.1.1); zero stands for the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Presets {
    maxval: u16,
    thresholds: [u16; 3],
    reset: u16,
}

impl Presets {
    /// What follows the type in its segment.
    pub fn read(body: &[u8]) -> Result<Self> {
        let (&[maxval, t1, t2, t3, reset], []) = body.as_chunks::<2>() else {
            return Err(invalid("its presets have a wrong length"));
        };
        let number = u16::from_be_bytes;
        Ok(Self {
            maxval: number(maxval),
            thresholds: [number(t1), number(t2), number(t3)],
            reset: number(reset),
        })
    }
}

/// The parameters of the coding, by their names in the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Largest sample, at most 65535.
    pub maxval: i32,
    /// Largest difference between a sample and what is decoded for it.
    pub near: i32,
    /// T1, T2, T3: where the classes of a gradient end, in rising order.
    pub thresholds: [i32; 3],
    /// After so many samples a context counts the older ones half.
    pub reset: u32,
    /// How many prediction errors there are, at least 2.
    pub range: i32,
    /// Bits of such an error, called qbpp.
    pub error_bits: u32,
    /// Most bits of a coded error.
    pub limit: u32,
}

impl Parameters {
    /// Fills in the defaults (C.2.4.1.1.1) and derives the rest (A.2.1).
    pub fn new(precision: u8, near: u8, presets: &Presets) -> Result<Self> {
        let highest = (1 << precision) - 1;
        let maxval = or_default(presets.maxval, highest);
        let near = i32::from(near);
        if maxval > highest || near > maxval / 2 {
            return Err(invalid(format!(
                "samples up to `{maxval}` of `{precision}` bits can't be `{near}` off"
            )));
        }
        let mut thresholds = default_thresholds(maxval, near);
        let mut least = near + 1;
        for (threshold, preset) in thresholds.iter_mut().zip(presets.thresholds) {
            *threshold = or_default(preset, *threshold);
            if !(least..=maxval).contains(threshold) {
                return Err(invalid(format!("a threshold of `{threshold}` is out of order")));
            }
            least = *threshold;
        }
        let reset = or_default(presets.reset, 64);
        if !(3..=maxval.max(255)).contains(&reset) {
            return Err(invalid(format!("a context can't be halved after `{reset}` samples")));
        }
        let range = (maxval + 2 * near) / (2 * near + 1) + 1;
        let sample_bits = bits_of(maxval + 1).max(2);
        Ok(Self {
            maxval,
            near,
            thresholds,
            reset: reset.unsigned_abs(),
            range,
            error_bits: bits_of(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
        })
    }

    /// A sample that was predicted so and is wrong by so many steps (A.4.4, A.4.5, A.8).
    pub fn reconstruct(&self, predicted: i32, error: i32) -> u16 {
        let step = 2 * self.near + 1;
        let value = predicted + error * step;
        let value = if value < -self.near {
            value + self.range * step
        } else if value > self.maxval + self.near {
            value - self.range * step
        } else {
            value
        };
        value.clamp(0, self.maxval) as u16
    }
}

fn or_default(preset: u16, default: i32) -> i32 {
    if preset == 0 { default } else { i32::from(preset) }
}

/// Bits that tell so many values apart.
fn bits_of(values: i32) -> u32 {
    (values - 1).checked_ilog2().map_or(0, |place| place + 1)
}

/// The thresholds for 8 bits and no loss, scaled (C.2.4.1.1.1).
fn default_thresholds(maxval: i32, near: i32) -> [i32; 3] {
    let basic = [(3, 2, 3), (7, 3, 5), (21, 4, 7)];
    let mut least = near + 1;
    basic.map(|(basic, lowest, slope)| {
        let scaled = if maxval >= 128 {
            let factor = (maxval.min(4095) + 128) / 256;
            factor * (basic - lowest) + lowest + slope * near
        } else {
            let factor = 256 / (maxval + 1);
            lowest.max(basic / factor + slope * near)
        };
        if (least..=maxval).contains(&scaled) {
            least = scaled;
        }
        least
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presets(numbers: [u16; 5]) -> Presets {
        Presets::read(&numbers.map(u16::to_be_bytes).concat()).unwrap()
    }

    #[test]
    fn defaults_of_the_standard() {
        let parameters = |precision, near| Parameters::new(precision, near, &Presets::default()).unwrap();
        let eight = parameters(8, 0);
        assert_eq!(eight.thresholds, [3, 7, 21]);
        assert_eq!(
            (eight.maxval, eight.reset, eight.range, eight.error_bits, eight.limit),
            (255, 64, 256, 8, 32)
        );
        let near = parameters(8, 3);
        assert_eq!(near.thresholds, [12, 22, 42]);
        assert_eq!((near.range, near.error_bits), (38, 6));
        assert_eq!(parameters(12, 0).thresholds, [18, 67, 276]);
        let sixteen = parameters(16, 0);
        assert_eq!(sixteen.thresholds, [18, 67, 276]);
        assert_eq!((sixteen.error_bits, sixteen.limit), (16, 64));
        let two = parameters(2, 0);
        assert_eq!(two.thresholds, [2, 3, 3]);
        assert_eq!((two.error_bits, two.limit), (2, 20));
    }

    #[test]
    fn presets_replace_defaults() {
        let set = Parameters::new(12, 0, &presets([1000, 0, 70, 0, 31])).unwrap();
        assert_eq!((set.maxval, set.reset, set.range, set.error_bits), (1000, 31, 1001, 10));
        assert_eq!(set.thresholds, [6, 70, 72]);
    }

    #[test]
    fn presets_out_of_bounds_are_refused() {
        for numbers in [
            [256, 0, 0, 0, 0],
            [0, 300, 300, 300, 0],
            [0, 9, 8, 9, 0],
            [0, 9, 9, 8, 0],
            [0, 0, 0, 0, 2],
            [0, 0, 0, 0, 256],
        ] {
            assert!(Parameters::new(8, 0, &presets(numbers)).is_err(), "{numbers:?}");
        }
        assert!(Parameters::new(8, 127, &Presets::default()).is_ok());
        assert!(Parameters::new(8, 128, &Presets::default()).is_err());
        assert!(Presets::read(&[0; 9]).is_err());
        assert!(Presets::read(&[0; 11]).is_err());
    }

    #[test]
    fn nothing_overflows_at_the_ends() {
        for precision in 2..=16 {
            for near in 0..=255 {
                let Ok(parameters) = Parameters::new(precision, near, &Presets::default()) else {
                    assert!(i32::from(near) > ((1 << precision) - 1) / 2);
                    continue;
                };
                for predicted in [0, parameters.maxval] {
                    for error in [-parameters.range, parameters.range] {
                        let sample = parameters.reconstruct(predicted, error);
                        assert!(i32::from(sample) <= parameters.maxval);
                    }
                }
            }
        }
    }
}
