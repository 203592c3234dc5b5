//! A similarity split into the places where two images look alike. Pure.
//!
//! A network with global average pooling sums what it sees in each cell of a grid into its vector, so that the cosine of two images is a sum over pairs of
//! cells (Stylianou et al., Visualizing Deep Similarity Networks, WACV 2019; Zhu et al., Visual Explanation for Deep Metric Learning, TIP 2021). Summed
//! over the cells of the other image, each cell has its share. Nothing is estimated: the shares of one image add up to the similarity.

use crate::domain::Metric;
use crate::embed::Cells;

/// Shares of a similarity, cell by cell over a rectangle.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// rows × columns, row by row; finite. Cells that make the images less alike have negative shares.
    pub cells: Vec<f64>,
}

impl Grid {
    /// All shares together.
    pub fn sum(&self) -> f64 {
        self.cells.iter().sum()
    }
}

/// The share of each cell of an image in its similarity to `other`, a unit vector as it is compared (by `metric`, where there is one). Shares of parts
/// with fewer cells are spread evenly over the finest grid. `None` where the image has no direction, or sizes don't fit.
///
/// With z the image's vector, u = z/|z|, and a metric P(u - m): the similarity is ((P u) · n - (P m) · n) / |P(u - m)|. The first term is linear in the
/// cells, the second is the same for all images and spread evenly.
pub fn shares(cells: &Cells, metric: Option<&Metric>, other: &[f32]) -> Option<Grid> {
    let vector = cells.vector();
    let norm = norm(&vector);
    let unit: Vec<f64> = vector.iter().map(|x| x / norm).collect();
    let other: Vec<f64> = other.iter().map(|&x| f64::from(x)).collect();
    let (direction, constant) = match metric {
        None => (other, 0.0),
        Some(metric) => through(metric, &unit, &other)?,
    };
    if direction.len() != unit.len() {
        return None;
    }
    let rows = cells.parts().iter().map(|part| part.grid().0).max()?;
    let columns = cells.parts().iter().map(|part| part.grid().1).max()?;
    let mut shares = vec![constant / (rows * columns) as f64; rows * columns];
    let mut at = 0;
    for part in cells.parts() {
        let along = part.along(&direction[at..at + part.channels()]);
        at += part.channels();
        let (down, across) = (spread(part.grid().0, rows), spread(part.grid().1, columns));
        for (cell, share) in along.iter().enumerate() {
            let (row, column) = (cell / part.grid().1, cell % part.grid().1);
            for &(fine_row, height) in &down[row] {
                for &(fine_column, width) in &across[column] {
                    shares[fine_row * columns + fine_column] += share / norm * height * width;
                }
            }
        }
    }
    shares.iter().all(|share| share.is_finite()).then_some(Grid {
        rows,
        columns,
        cells: shares,
    })
}

/// The direction in the space of the model's vectors along which the similarity grows, and what it is without them.
fn through(metric: &Metric, unit: &[f64], other: &[f64]) -> Option<(Vec<f64>, f64)> {
    let dimension = metric.dimension();
    if unit.len() != dimension || other.len() != metric.components() {
        return None;
    }
    let mean: Vec<f64> = metric.mean().iter().map(|&x| f64::from(x)).collect();
    let (mut direction, mut length) = (vec![0f64; dimension], 0f64);
    for (row, weight) in metric.projection().chunks_exact(dimension).zip(other) {
        let mut mapped = 0f64;
        for (((x, m), &p), sum) in unit.iter().zip(&mean).zip(row).zip(&mut direction) {
            mapped += f64::from(p) * (x - m);
            *sum += weight * f64::from(p);
        }
        length += mapped * mapped;
    }
    let length = length.sqrt();
    direction.iter_mut().for_each(|x| *x /= length);
    let constant = -direction.iter().zip(&mean).map(|(x, m)| x * m).sum::<f64>();
    Some((direction, constant))
}

/// For each of `coarse` equal lengths which of `fine` equal lengths it covers, and what part of the coarse one lies in each: these add up to 1.
fn spread(coarse: usize, fine: usize) -> Vec<Vec<(usize, f64)>> {
    let of = |at: usize| {
        // In units of 1 / (coarse · fine), which both divide.
        let (begin, end) = (at * fine, (at + 1) * fine);
        let (first, last) = (begin / coarse, (end - 1) / coarse);
        let part = |fine_at: usize| {
            let overlap = end.min((fine_at + 1) * coarse) - begin.max(fine_at * coarse);
            (fine_at, overlap as f64 / fine as f64)
        };
        (first..=last).map(part).collect()
    };
    (0..coarse).map(of).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Embedding, similarity};
    use crate::embed::{CellsCard, CellsPart};

    /// Channels, rows and columns of a part, with its values.
    fn part() -> impl Strategy<Value = (usize, usize, usize, Vec<f32>)> {
        (1usize..5, 1usize..6, 1usize..6).prop_flat_map(|(channels, rows, columns)| {
            let values = prop::collection::vec(-1f32..3.0, channels * rows * columns);
            (Just(channels), Just(rows), Just(columns), values)
        })
    }

    fn cells(parts: &[(usize, usize, usize, Vec<f32>)], normalise_parts: bool) -> Option<(Cells, Vec<f32>)> {
        let mut vector = Vec::new();
        for (_, rows, columns, values) in parts {
            let mut mean: Vec<f64> = values
                .chunks(rows * columns)
                .map(|cells| cells.iter().map(|&x| f64::from(x)).sum::<f64>() / cells.len() as f64)
                .collect();
            let length = norm(&mean);
            if length < 0.05 {
                return None;
            }
            if normalise_parts {
                mean.iter_mut().for_each(|x| *x /= length);
            }
            vector.extend(mean.into_iter().map(|x| x as f32));
        }
        let card = CellsCard {
            parts: parts.iter().map(|part| part.0).collect(),
            normalise_parts,
        };
        let parts = parts.iter().map(|(channels, rows, columns, values)| {
            CellsPart::new(*channels, *rows, *columns, values.clone()).unwrap()
        });
        Some((Cells::new(parts.collect(), &card, &vector).unwrap(), vector))
    }

    proptest! {
        /// Whatever the parts, their grids, the metric and the other image: the shares add up to the similarity that a search answers.
        #[test]
        fn shares_add_up_to_the_similarity(
            parts in prop::collection::vec(part(), 1..4), normalise in any::<bool>(), seed in prop::collection::vec(-1f32..1.0, 200), learned in any::<bool>(),
        ) {
            let made = cells(&parts, normalise);
            prop_assume!(made.is_some());
            let (cells, vector) = made.unwrap();
            let dimension = vector.len();
            let query = Embedding::from_raw(&vector, dimension).unwrap();
            let other = Embedding::from_raw(&seed[..dimension], dimension);
            prop_assume!(other.is_ok());
            let components = 1 + dimension / 2;
            let metric = Metric::new(
                seed[20..20 + dimension].iter().map(|x| x / 4.0).collect(),
                seed.iter().cycle().skip(40).take(components * dimension).copied().collect(),
            ).unwrap();
            let metric = learned.then_some(&metric);
            let compared = |unit: &Embedding| match metric {
                Some(metric) => metric.of_query(unit),
                None => Ok(unit.clone()),
            };
            let (Ok(query), Ok(other)) = (compared(&query), compared(&other.unwrap())) else { return Ok(()) };
            let expected = f64::from(similarity(query.as_slice(), other.as_slice()));
            let grid = shares(&cells, metric, other.as_slice()).unwrap();
            prop_assert_eq!(grid.cells.len(), grid.rows * grid.columns);
            prop_assert!((grid.sum() - expected).abs() < 1e-4, "{} is not {expected}", grid.sum());
        }

        #[test]
        fn nothing_is_lost_in_spreading(coarse in 1usize..30, more in 0usize..30) {
            let spread = spread(coarse, coarse + more);
            let mut covered = vec![0f64; coarse + more];
            for lengths in &spread {
                prop_assert!((lengths.iter().map(|(_, part)| part).sum::<f64>() - 1.0).abs() < 1e-9);
                lengths.iter().for_each(|&(at, part)| covered[at] += part);
            }
            let even = coarse as f64 / (coarse + more) as f64;
            prop_assert!(covered.iter().all(|part| (part - even).abs() < 1e-9));
        }
    }

    #[test]
    fn the_cell_that_is_alike_has_the_share() {
        // Two channels on a grid of one row: the first cell has only the first, the second only the second.
        let (cells, _) = cells(&[(2, 1, 2, vec![3.0, 0.0, 0.0, 4.0])], false).unwrap();
        let grid = shares(&cells, None, &[1.0, 0.0]).unwrap();
        assert_eq!((grid.rows, grid.columns), (1, 2));
        assert!((grid.cells[0] - 0.6).abs() < 1e-9 && grid.cells[1] == 0.0, "{grid:?}");
    }

    #[test]
    fn what_does_not_fit_has_no_shares() {
        let (cells, _) = cells(&[(2, 1, 1, vec![0.0, 4.0])], false).unwrap();
        assert_eq!(shares(&cells, None, &[1.0]), None);
        let metric = Metric::new(vec![0.0, 1.0], vec![1.0, 0.0]).unwrap();
        assert_eq!(shares(&cells, Some(&metric), &[1.0, 0.0]), None);
        assert_eq!(
            shares(&cells, Some(&metric), &[1.0]),
            None,
            "it is the mean: nothing is left of it"
        );
    }
}
