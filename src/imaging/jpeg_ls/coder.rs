//! Lines of samples out of coded bits (ITU-T T.87, annexes A and B).

use std::array;

use super::bits::Bits;
use super::context::{Interruption, Regular};
use super::parameters::Parameters;

/// Contexts of three gradients in nine classes each, one for both signs.
const CONTEXTS: usize = 365;

/// J: a run grows by `1 << J[run_index]` pixels a bit (A.2.1).
const RUN_ORDERS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15,
];

/// The class of every gradient, -4..=4 (code segment A.4).
pub(super) struct Gradients {
    classes: Vec<i8>,
    zero: i32,
}

impl Gradients {
    pub fn new(parameters: &Parameters) -> Self {
        let [t1, t2, t3] = parameters.thresholds;
        let class = |gradient: i32| {
            let size = gradient.abs();
            let bounds = [parameters.near + 1, t1, t2, t3];
            let class = bounds.iter().filter(|&&bound| size >= bound).count() as i8;
            if gradient < 0 { -class } else { class }
        };
        Self {
            classes: (-parameters.maxval..=parameters.maxval).map(class).collect(),
            zero: parameters.maxval,
        }
    }

    fn class(&self, gradient: i32) -> i32 {
        i32::from(self.classes[(gradient + self.zero) as usize])
    }
}

/// Samples around the one to decode: to the left, above, and above to the left and right.
struct Around {
    a: i32,
    b: i32,
    c: i32,
    d: i32,
}

impl Around {
    /// The context and, as its sign, that of the first gradient that isn't flat (A.3.4).
    fn context(&self, gradients: &Gradients) -> i32 {
        let class = |gradient| gradients.class(gradient);
        (class(self.d - self.b) * 9 + class(self.b - self.c)) * 9 + class(self.c - self.a)
    }

    /// The median of left, above, and their plane (code segment A.5).
    fn predict(&self) -> i32 {
        let (low, high) = (self.a.min(self.b), self.a.max(self.b));
        (self.a + self.b - self.c).clamp(low, high)
    }
}

/// Decodes from one start to the next: a scan, or what lies between two restart markers.
pub(super) struct Coder<'a> {
    bits: Bits<'a>,
    parameters: &'a Parameters,
    gradients: &'a Gradients,
    regular: [Regular; CONTEXTS],
    /// Where left and above differ, and where they are alike.
    interruptions: [Interruption; 2],
}

impl<'a> Coder<'a> {
    pub fn new(coded: &'a [u8], parameters: &'a Parameters, gradients: &'a Gradients) -> Self {
        Self {
            bits: Bits::new(coded),
            parameters,
            gradients,
            regular: [Regular::new(parameters); CONTEXTS],
            interruptions: [false, true].map(|alike| Interruption::new(alike, parameters)),
        }
    }

    /// Where the coded data ends, when all of it is used.
    pub fn end(self) -> Option<usize> {
        self.bits.end()
    }

    /// Decodes a line of pixels that have `N` samples each. Both lines have a pixel more at either end, which are set.
    /// `None` when the data ends or makes no sense.
    pub fn line<const N: usize>(
        &mut self,
        above: &[[u16; N]],
        line: &mut [[u16; N]],
        run_index: &mut usize,
    ) -> Option<()> {
        let behind = line.len() - 1;
        let mut x = 1;
        while x < behind {
            let around: [Around; N] = array::from_fn(|lane| Around {
                a: i32::from(line[x - 1][lane]),
                b: i32::from(above[x][lane]),
                c: i32::from(above[x - 1][lane]),
                d: i32::from(above[x + 1][lane]),
            });
            let contexts = array::from_fn::<_, N, _>(|lane| around[lane].context(self.gradients));
            if contexts == [0; N] {
                let run = self.run(behind - x, run_index)?;
                let left = line[x - 1];
                line[x..x + run].fill(left);
                x += run;
                if x < behind {
                    line[x] = self.interruption(left, above[x], RUN_ORDERS[*run_index])?;
                    *run_index = run_index.saturating_sub(1);
                    x += 1;
                }
            } else {
                for lane in 0..N {
                    line[x][lane] = self.sample(&around[lane], contexts[lane])?;
                }
                x += 1;
            }
        }
        Some(())
    }

    /// A sample by its prediction (A.4 to A.6).
    fn sample(&mut self, around: &Around, context: i32) -> Option<u16> {
        let parameters = self.parameters;
        let sign = if context < 0 { -1 } else { 1 };
        let context = &mut self.regular[context.unsigned_abs() as usize];
        let predicted = (around.predict() + sign * context.correction).clamp(0, parameters.maxval);
        let low_bits = context.low_bits();
        let mapped = mapped_error(&mut self.bits, low_bits, parameters.limit, parameters)?;
        let error = context.unmap(mapped, low_bits, parameters);
        context.learn(error, parameters);
        Some(parameters.reconstruct(predicted, sign * error))
    }

    /// The length of a run, at most `most` (code segments A.14 to A.16, reversed).
    fn run(&mut self, most: usize, run_index: &mut usize) -> Option<usize> {
        let mut run = 0;
        while self.bits.bit()? {
            run += 1 << RUN_ORDERS[*run_index];
            if run <= most {
                *run_index = (*run_index + 1).min(RUN_ORDERS.len() - 1);
            }
            if run >= most {
                return Some(most);
            }
        }
        run += self.bits.number(RUN_ORDERS[*run_index])? as usize;
        // A pixel that ends the run must follow.
        (run < most).then_some(run)
    }

    /// The pixel that ends a run (A.7.2). Pixels of several samples have one context, whatever their surroundings.
    fn interruption<const N: usize>(&mut self, left: [u16; N], above: [u16; N], run_order: u32) -> Option<[u16; N]> {
        let mut pixel = [0; N];
        for lane in 0..N {
            let (left, above) = (i32::from(left[lane]), i32::from(above[lane]));
            let alike = N == 1 && left.abs_diff(above) <= self.parameters.near.unsigned_abs();
            let context = &mut self.interruptions[usize::from(alike)];
            let low_bits = context.low_bits();
            let limit = self.parameters.limit - run_order - 1;
            let mapped = mapped_error(&mut self.bits, low_bits, limit, self.parameters)?;
            let error = context.unmap(mapped, low_bits);
            context.learn(error, mapped, self.parameters);
            let sign = if !alike && left > above { -1 } else { 1 };
            pixel[lane] = self
                .parameters
                .reconstruct(if alike { left } else { above }, sign * error);
        }
        Some(pixel)
    }
}

/// A Golomb code of limited length (A.5.3): the high bits of an error as that many zeros, then the low ones; or as many
/// zeros as there may be, then all bits.
fn mapped_error(bits: &mut Bits<'_>, low_bits: u32, limit: u32, parameters: &Parameters) -> Option<u32> {
    let most = limit - parameters.error_bits - 1;
    let zeros = bits.zeros(most)?;
    let mapped = if zeros < most {
        (zeros << low_bits) | bits.number(low_bits)?
    } else {
        bits.number(parameters.error_bits)? + 1
    };
    // No encoder has a larger one, and the sums of a context have no room for it.
    (mapped <= parameters.range.unsigned_abs()).then_some(mapped)
}
