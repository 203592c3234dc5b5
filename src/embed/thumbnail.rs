//! The floor of every evaluation: 32×32 grey values minus their mean. Needs no network and no libtorch.

use super::{Backend, ModelCard, check_sizes};
use crate::archive::RowsProvenance;
use crate::error::Result;
use crate::imaging::{ModelInput, luma};

/// Grey values of a 32×32 image, minus their mean, as a vector of 1,024 components.
pub struct ThumbnailBackend {
    card: ModelCard,
}

impl Default for ThumbnailBackend {
    fn default() -> Self {
        Self {
            card: ModelCard::thumbnail(),
        }
    }
}

impl Backend for ThumbnailBackend {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn embed(&mut self, inputs: &[ModelInput]) -> Result<Vec<Vec<f32>>> {
        check_sizes(&self.card, inputs)?;
        Ok(inputs.iter().map(|input| grey_minus_mean(&input.pixels)).collect())
    }

    fn provenance(&self) -> RowsProvenance {
        RowsProvenance {
            precision: self.card.precision.clone(),
            device: "cpu".into(),
            engine: self.card.exported_with.clone(),
        }
    }
}

/// RGB bytes to grey values in 0..1 around zero. The order of roundings is that of the Python script.
fn grey_minus_mean(rgb: &[u8]) -> Vec<f32> {
    let (pixels, _) = rgb.as_chunks::<3>();
    let mut values: Vec<f32> = pixels.iter().map(|&pixel| f32::from(luma(pixel)) / 255.0).collect();
    let mean = (values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64) as f32;
    values.iter_mut().for_each(|x| *x -= mean);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(seed: u32) -> ModelInput {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let pixels = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8
        });
        ModelInput {
            width: 32,
            height: 32,
            pixels: pixels.take(32 * 32 * 3).collect(),
        }
    }

    #[test]
    fn a_batch_of_32_equals_32_single_ones() {
        let mut backend = ThumbnailBackend::default();
        let inputs: Vec<_> = (0..32).map(input).collect();
        let batch = backend.embed(&inputs).unwrap();
        for (input, together) in inputs.iter().zip(&batch) {
            assert_eq!(&backend.embed(std::slice::from_ref(input)).unwrap()[0], together);
            assert_eq!(together.len(), 1024);
            assert!(together.iter().sum::<f32>().abs() < 1e-3);
        }
        assert_ne!(batch[0], batch[1]);
    }

    #[test]
    fn luma_is_pillows() {
        // PIL.Image.new("RGB", (1, 1), rgb).convert("L")
        for (rgb, expected) in [
            ([0, 0, 0], 0),
            ([255, 255, 255], 255),
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([10, 200, 30], 124),
            ([77, 77, 77], 77),
        ] {
            assert_eq!(luma(rgb), expected, "{rgb:?}");
        }
    }

    #[test]
    fn another_size_is_refused() {
        let wrong = ModelInput {
            width: 32,
            height: 32,
            pixels: vec![0; 7],
        };
        assert!(ThumbnailBackend::default().embed(&[wrong]).is_err());
    }
}
