//! What a network with global average pooling sees in each place, before the mean over places makes a vector of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ModelCard;
use crate::error::{Error, ErrorKind, Result};

/// Most parts of a vector, and most numbers in the cells of one image (a ResNet-50 at 512 pixels has half a million).
const PARTS_MAX: usize = 64;
const VALUES_MAX: usize = 1 << 24;
/// Longest difference between the vector and what its cells make, as a share of its length. Rounding takes a millionth; bfloat16, of which the cells are
/// means in another order, a thousandth.
const DIFFERENCE_MAX: f64 = 0.01;
/// Shorter parts are not brought to unit length but stay as they are, as `torch.nn.functional.normalize` has it.
const NORM_MIN: f64 = 1e-12;

/// How a vector is made of cells: the means of each part over its cells, one part after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellsCard {
    /// Channels of each part, in the order of the vector's components.
    pub parts: Vec<usize>,
    /// Whether each part's mean is brought to unit length first.
    pub normalise_parts: bool,
}

impl CellsCard {
    /// Whether it makes a vector of `dimension` components.
    pub fn fits(&self, dimension: usize) -> bool {
        let sum = self.parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part));
        (1..=PARTS_MAX).contains(&self.parts.len()) && !self.parts.contains(&0) && sum == Some(dimension)
    }
}

/// One part of a network's features: what one layer sees in each cell of a grid over the input.
#[derive(Clone, PartialEq)]
pub struct CellsPart {
    rows: usize,
    columns: usize,
    channels: usize,
    /// channels × rows × columns.
    values: Vec<f32>,
    /// What each cell's value is multiplied by to be its share of the vector.
    scale: f64,
}

impl CellsPart {
    /// Takes channels × rows × columns finite values, channel by channel, each channel row by row. `None` for anything else.
    pub fn new(channels: usize, rows: usize, columns: usize, values: Vec<f32>) -> Option<Self> {
        let count = channels.checked_mul(rows)?.checked_mul(columns)?;
        let fits = count > 0 && count <= VALUES_MAX && count == values.len();
        (fits && values.iter().all(|x| x.is_finite())).then_some(Self {
            rows,
            columns,
            channels,
            values,
            scale: 1.0 / (rows * columns) as f64,
        })
    }

    /// Rows and columns of its grid.
    pub fn grid(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Components of the vector that it makes.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Mean over the cells, not normalised.
    fn mean(&self) -> Vec<f64> {
        let cells = self.rows * self.columns;
        let channels = self.values.chunks_exact(cells);
        channels
            .map(|values| values.iter().map(|&x| f64::from(x)).sum::<f64>() / cells as f64)
            .collect()
    }

    /// The inner product of each cell's share of the vector with `direction`, which has one component a channel. Row by row.
    pub fn along(&self, direction: &[f64]) -> Vec<f64> {
        let cells = self.rows * self.columns;
        let mut along = vec![0f64; cells];
        for (values, &weight) in self.values.chunks_exact(cells).zip(direction) {
            let weight = weight * self.scale;
            along
                .iter_mut()
                .zip(values)
                .for_each(|(sum, &x)| *sum += weight * f64::from(x));
        }
        along
    }
}

/// The cells of one image. They make the network's vector, which was checked. `Debug` shows sizes only.
#[derive(Clone, PartialEq)]
pub struct Cells {
    parts: Vec<CellsPart>,
}

impl Cells {
    /// Takes the parts that `card` promises, of which `vector`, the network's own output, is made.
    ///
    /// # Errors
    /// `Damaged` when the parts are others, or make another vector: a card that lies would explain something else.
    pub fn new(mut parts: Vec<CellsPart>, card: &CellsCard, vector: &[f32]) -> Result<Self> {
        let damaged = |message: String| Err(Error::new(ErrorKind::Damaged, message));
        if !parts.iter().map(|part| part.channels).eq(card.parts.iter().copied()) {
            return damaged("the network's cells have not the parts that its card says".into());
        }
        if card.normalise_parts {
            for part in &mut parts {
                part.scale /= norm(&part.mean()).max(NORM_MIN);
            }
        }
        let cells = Self { parts };
        let made = cells.vector();
        let difference: Vec<f64> = made.iter().zip(vector).map(|(a, &b)| a - f64::from(b)).collect();
        let length = norm(&made);
        let alike = norm(&difference) <= DIFFERENCE_MAX * length;
        if made.len() != vector.len() || !alike {
            return damaged("the network's cells do not make its vector: its card is wrong".into());
        }
        Ok(cells)
    }

    /// The parts, in the order of the vector's components.
    pub fn parts(&self) -> &[CellsPart] {
        &self.parts
    }

    /// The vector that they make: the network's output, but for rounding.
    pub fn vector(&self) -> Vec<f64> {
        let part = |part: &CellsPart| {
            let scale = part.scale * (part.rows * part.columns) as f64;
            part.mean().into_iter().map(move |x| x * scale)
        };
        self.parts.iter().flat_map(part).collect()
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.parts.iter().map(|part| (part.channels, part.rows, part.columns)))
            .finish()
    }
}

/// The parts of a network that has no cells, said where they are asked for.
pub(super) fn card_of(card: &ModelCard) -> Result<&CellsCard> {
    card.cells
        .as_ref()
        .ok_or_else(|| Error::internal(format!("the network `{}` has no cells", card.name)))
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(parts: &[usize], normalise_parts: bool) -> CellsCard {
        CellsCard {
            parts: parts.to_vec(),
            normalise_parts,
        }
    }

    fn parts() -> Vec<CellsPart> {
        vec![
            CellsPart::new(2, 1, 2, vec![1.0, 5.0, 4.0, 4.0]).unwrap(),
            CellsPart::new(1, 1, 1, vec![7.0]).unwrap(),
        ]
    }

    #[test]
    fn means_of_the_parts_make_the_vector() {
        let plain = Cells::new(parts(), &card(&[2, 1], false), &[3.0, 4.0, 7.0]).unwrap();
        assert_eq!(plain.vector(), [3.0, 4.0, 7.0]);
        let unit = Cells::new(parts(), &card(&[2, 1], true), &[0.6, 0.8, 1.0]).unwrap();
        assert!(
            norm(
                &unit
                    .vector()
                    .iter()
                    .zip([0.6, 0.8, 1.0])
                    .map(|(a, b)| a - b)
                    .collect::<Vec<_>>()
            ) < 1e-12
        );
        // 1/2 · (1, 4) / 5 and 1/2 · (5, 4) / 5, along (1, 0).
        assert_eq!(unit.parts()[0].along(&[1.0, 0.0]), [0.1, 0.5]);
        assert_eq!(unit.parts()[0].grid(), (1, 2));
    }

    #[test]
    fn a_card_that_lies_is_damaged() {
        for (card, vector) in [
            (card(&[2, 1], false), vec![3.0, 4.0, 7.5]),
            (card(&[2, 1], false), vec![3.0, 4.0]),
            (card(&[2, 1], true), vec![3.0, 4.0, 7.0]),
            (card(&[1, 2], false), vec![3.0, 4.0, 7.0]),
            (card(&[2], false), vec![3.0, 4.0]),
            (card(&[2, 1], false), vec![3.0, 4.0, f32::NAN]),
        ] {
            let error = Cells::new(parts(), &card, &vector).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{card:?}");
        }
    }

    #[test]
    fn a_dead_part_is_zero_not_nan() {
        let dead = CellsPart::new(1, 1, 2, vec![0.0, 0.0]).unwrap();
        let alive = CellsPart::new(1, 1, 1, vec![2.0]).unwrap();
        let cells = Cells::new(vec![dead, alive], &card(&[1, 1], true), &[0.0, 1.0]).unwrap();
        assert_eq!(cells.vector(), [0.0, 1.0]);
    }

    #[test]
    fn shapes_and_values_are_checked() {
        for (channels, rows, columns, values) in [
            (0, 1, 1, vec![]),
            (1, 0, 1, vec![]),
            (1, 1, 2, vec![1.0]),
            (1, 1, 1, vec![f32::NAN]),
            (usize::MAX, 2, 1, vec![1.0]),
        ] {
            assert!(CellsPart::new(channels, rows, columns, values).is_none());
        }
        assert!(card(&[2, 1], false).fits(3) && !card(&[2, 1], false).fits(4));
        assert!(!card(&[], false).fits(0) && !card(&[3, 0], false).fits(3) && !card(&[usize::MAX, 4], false).fits(3));
    }
}
