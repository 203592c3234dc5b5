//! Against the definitions in dense matrices.

use faer::Mat;
use proptest::prelude::*;

use super::super::random::Random;
use super::matrices::BLOCK;
use super::*;
use crate::domain::similarity;

/// Unit vectors of `classes` classes whose directions vary by 0.9 to the power of their number, so that none varies as much as another.
fn sample(seed: u64, count: usize, dimension: usize, classes: usize) -> (Vec<Vec<f32>>, Vec<usize>) {
    let mut random = Random::new(seed);
    let mut normal = || (0..6).map(|_| random.unit() - 0.5).sum::<f64>();
    let centres: Vec<Vec<f64>> = (0..classes)
        .map(|_| (0..dimension).map(|_| 1.0 + 0.5 * normal()).collect())
        .collect();
    let vectors = (0..count)
        .map(|row| {
            let centre = &centres[row % classes];
            let raw: Vec<f64> = (0..dimension)
                .map(|at| centre[at] + normal() * 0.9f64.powi(at as i32))
                .collect();
            let norm = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
            raw.iter().map(|x| (x / norm) as f32).collect()
        })
        .collect();
    (vectors, (0..count).map(|row| row % classes).collect())
}

fn refs(vectors: &[Vec<f32>]) -> Vec<&[f32]> {
    vectors.iter().map(Vec::as_slice).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// Similarities of all pairs.
fn similarities(metric: &Metric, vectors: &[Vec<f32>]) -> Vec<f64> {
    let mapped: Vec<_> = vectors.iter().map(|vector| metric.apply(vector).unwrap()).collect();
    mapped
        .iter()
        .flat_map(|a| mapped.iter().map(|b| cosine(a, b)))
        .collect()
}

fn greatest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

/// By the definitions, in dense D x D matrices: the within-class scatter and its shrunk version.
fn dense(vectors: &[Vec<f32>], classes: &[usize], shrinkage: f64) -> (Mat<f64>, Mat<f64>) {
    let dimension = vectors[0].len();
    let mut scatter = Mat::<f64>::zeros(dimension, dimension);
    for class in classes.iter().copied().collect::<std::collections::BTreeSet<_>>() {
        let own: Vec<_> = vectors
            .iter()
            .zip(classes)
            .filter(|(_, c)| **c == class)
            .map(|(v, _)| v)
            .collect();
        let mean: Vec<f64> = (0..dimension)
            .map(|at| own.iter().map(|v| f64::from(v[at])).sum::<f64>() / own.len() as f64)
            .collect();
        for v in own {
            for i in 0..dimension {
                for j in 0..dimension {
                    scatter[(i, j)] += (f64::from(v[i]) - mean[i]) * (f64::from(v[j]) - mean[j]) / vectors.len() as f64;
                }
            }
        }
    }
    let average = (0..dimension).map(|i| scatter[(i, i)]).sum::<f64>() / dimension as f64;
    let shrunk = Mat::from_fn(dimension, dimension, |i, j| {
        (1.0 - shrinkage) * scatter[(i, j)] + if i == j { shrinkage * average } else { 0.0 }
    });
    (scatter, shrunk)
}

/// Greatest difference of two matrices, as a share of the greatest value of the second.
fn relative(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let pairs = || (0..b.ncols()).flat_map(|j| (0..b.nrows()).map(move |i| (i, j)));
    let greatest = pairs().map(|at| b[at].abs()).fold(0.0, f64::max);
    pairs().map(|at| (a[at] - b[at]).abs()).fold(0.0, f64::max) / greatest
}

fn shrinkage() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![0.05, 0.3, 0.5, 0.8, 0.95, 1.0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn neither_order_nor_names_matter(
        seed in any::<u64>(), count in 24usize..60, dimension in 6usize..70, classes in 2usize..5, shrinkage in shrinkage()
    ) {
        let (vectors, labels) = sample(seed, count, dimension, classes);
        let settings = FitSettings { shrinkage, components: 5 };
        let one = fit(&refs(&vectors), &labels, &settings).unwrap();

        let named: Vec<usize> = labels.iter().map(|label| usize::MAX - 17 * label).collect();
        prop_assert_eq!(&fit(&refs(&vectors), &named, &settings).unwrap(), &one);

        let mut order: Vec<usize> = (0..count).collect();
        Random::new(!seed).shuffle(&mut order);
        let shuffled: Vec<Vec<f32>> = order.iter().map(|&at| vectors[at].clone()).collect();
        let labels: Vec<usize> = order.iter().map(|&at| labels[at]).collect();
        let other = fit(&refs(&shuffled), &labels, &settings).unwrap();
        prop_assert!(greatest_difference(&similarities(&one, &vectors), &similarities(&other, &vectors)) < 1e-4);
    }

    /// Untruncated, with as many directions as components, Q is orthogonal: `PᵀP = S⁻¹`, and the within-class covariance `C` of the mapped
    /// vectors is that of whitened ones, `PᵀCP = S⁻¹ Sw S⁻¹`.
    #[test]
    fn whitens_as_the_formula_says(
        seed in any::<u64>(), dimension in 2usize..12, classes in 2usize..5, shrinkage in shrinkage()
    ) {
        let (vectors, labels) = sample(seed, 80, dimension, classes);
        let metric = Scatter::new(&refs(&vectors), &labels).unwrap().metric(shrinkage, dimension).unwrap();
        prop_assert_eq!(metric.components(), dimension);
        let p = Mat::from_fn(dimension, dimension, |i, j| f64::from(metric.projection()[i * dimension + j]));
        let (scatter, shrunk) = dense(&vectors, &labels, shrinkage);
        let identity = Mat::from_fn(dimension, dimension, |i, j| if i == j { 1.0 } else { 0.0 });
        let squared: Mat<f64> = p.transpose() * &p;
        prop_assert!(relative(&(&squared * &shrunk), &identity) < 1e-3);

        let mapped: Vec<Vec<f32>> = vectors
            .iter()
            .map(|z| {
                let centred: Vec<f32> = z.iter().zip(metric.mean()).map(|(x, mean)| x - mean).collect();
                metric.projection().chunks_exact(dimension).map(|row| similarity(row, &centred)).collect()
            })
            .collect();
        let (covariance, _) = dense(&mapped, &labels, shrinkage);
        let back: Mat<f64> = &shrunk * p.transpose() * &covariance * &p * &shrunk;
        prop_assert!(relative(&back, &scatter) < 1e-3);
    }

    /// Once all directions that the training vectors reach are kept, their similarities are those of `S⁻¹`.
    #[test]
    fn truncation_at_the_rank_loses_nothing(
        seed in any::<u64>(), count in 24usize..40, dimension in 10usize..60, shrinkage in shrinkage()
    ) {
        // Of about as many vectors as components the last direction may be as short as rounding.
        prop_assume!(dimension.abs_diff(count - 1) > 2);
        let (vectors, labels) = sample(seed, count, dimension, 3);
        let scatter = Scatter::new(&refs(&vectors), &labels).unwrap();
        let metric = scatter.metric(shrinkage, usize::MAX).unwrap();
        let rank = dimension.min(count - 1);
        prop_assert_eq!(metric.components(), rank);
        prop_assert_eq!(&scatter.metric(shrinkage, rank).unwrap(), &metric);

        // S⁻¹ x is found by elimination (S is positive definite, so that no pivot is near zero).
        let (_, shrunk) = dense(&vectors, &labels, shrinkage);
        let centred: Vec<Vec<f64>> = vectors
            .iter()
            .map(|z| (0..dimension).map(|at| f64::from(z[at]) - scatter.mean[at]).collect())
            .collect();
        let solved: Vec<Vec<f64>> = centred.iter().map(|z| solve(&shrunk, z)).collect();
        let inner = |i: usize, j: usize| centred[i].iter().zip(&solved[j]).map(|(x, y)| x * y).sum::<f64>();
        let expected: Vec<f64> = (0..count)
            .flat_map(|i| (0..count).map(move |j| (i, j)))
            .map(|(i, j)| inner(i, j) / (inner(i, i) * inner(j, j)).sqrt())
            .collect();
        prop_assert!(greatest_difference(&similarities(&metric, &vectors), &expected) < 1e-4);
    }

    #[test]
    fn both_routes_agree(
        seed in any::<u64>(), count in 24usize..60, dimension in 6usize..60, components in 1usize..8, shrinkage in shrinkage()
    ) {
        let (vectors, labels) = sample(seed, count, dimension, 3);
        let by = |through_vectors| {
            let scatter = Scatter::by_route(&refs(&vectors), &labels, through_vectors).unwrap();
            scatter.metric(shrinkage, components).unwrap()
        };
        let (few, many) = (by(true), by(false));
        prop_assert_eq!(few.components(), many.components());
        // Vectors that neither has seen, too.
        let (other, _) = sample(!seed, 20, dimension, 3);
        for vectors in [&vectors, &other] {
            prop_assert!(greatest_difference(&similarities(&few, vectors), &similarities(&many, vectors)) < 1e-4);
        }
    }

    #[test]
    fn what_is_applied_is_a_unit_vector(seed in any::<u64>(), dimension in 2usize..40, components in 1usize..50) {
        let (vectors, labels) = sample(seed, 40, dimension, 2);
        let metric = fit(&refs(&vectors), &labels, &FitSettings { shrinkage: 0.8, components }).unwrap();
        for vector in &vectors {
            let mapped = metric.apply(vector).unwrap();
            prop_assert_eq!(mapped.len(), metric.components());
            prop_assert!((cosine(&mapped, &mapped) - 1.0).abs() < 1e-5);
        }
    }
}

fn solve(matrix: &Mat<f64>, right: &[f64]) -> Vec<f64> {
    let n = right.len();
    let (mut a, mut x) = (matrix.clone(), right.to_vec());
    for pivot in 0..n {
        for row in pivot + 1..n {
            let factor = a[(row, pivot)] / a[(pivot, pivot)];
            for column in pivot..n {
                a[(row, column)] -= factor * a[(pivot, column)];
            }
            x[row] -= factor * x[pivot];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|column| a[(row, column)] * x[column]).sum();
        x[row] = (x[row] - known) / a[(row, row)];
    }
    x
}

#[test]
fn the_same_input_gives_the_same_bits_and_signs_are_fixed() {
    for (count, dimension) in [(60, 300), (400, 80)] {
        let (vectors, classes) = sample(3, count, dimension, 3);
        let once = || fit(&refs(&vectors), &classes, &FitSettings::default()).unwrap();
        let metric = once();
        assert_eq!(once(), metric);
        for row in metric.projection().chunks_exact(dimension) {
            let largest = row
                .iter()
                .fold(0f32, |largest, &x| if x.abs() > largest.abs() { x } else { largest });
            assert!(largest > 0.0);
        }
    }
}

#[test]
fn refuses_what_nothing_can_be_learned_from() {
    let (vectors, classes) = sample(1, 30, 5, 2);
    let fit = |vectors: &[Vec<f32>], classes: &[usize]| Scatter::new(&refs(vectors), classes).map(|_| ());
    assert_eq!(fit(&vectors, &classes), Ok(()));
    assert_eq!(fit(&[], &[]), Err(FitError::TooFewVectors(0)));
    assert_eq!(fit(&vectors[..19], &classes[..19]), Err(FitError::TooFewVectors(19)));
    assert_eq!(fit(&vectors[..20], &classes[..20]), Ok(()));
    assert_eq!(fit(&vectors, &classes[1..]), Err(FitError::Lengths));
    assert_eq!(fit(&vectors, &[4; 30]), Err(FitError::TooFewClasses));
    assert_eq!(fit(&vec![vec![]; 30], &classes), Err(FitError::Lengths));
    // Every image its own class, or each class a single image again and again.
    assert_eq!(fit(&vectors, &(0..30).collect::<Vec<_>>()), Err(FitError::NoVariation));
    let same: Vec<_> = classes.iter().map(|&class| vectors[class].clone()).collect();
    assert_eq!(fit(&same, &classes), Err(FitError::NoVariation));
    assert_eq!(fit(&vec![vec![0.0; 5]; 30], &classes), Err(FitError::NoVariation));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut wrong = vectors.clone();
        wrong[29][4] = bad;
        assert_eq!(fit(&wrong, &classes), Err(FitError::NotFinite));
    }
    let mut wrong = vectors.clone();
    wrong[29].pop();
    assert_eq!(fit(&wrong, &classes), Err(FitError::Lengths));

    let scatter = Scatter::new(&refs(&vectors), &classes).unwrap();
    for (shrinkage, components) in [(0.0, 1), (-0.1, 1), (1.1, 1), (f64::NAN, 1), (0.5, 0)] {
        assert_eq!(scatter.metric(shrinkage, components), Err(FitError::Settings));
    }
}

#[test]
fn all_blocks_count() {
    // One vector more than two blocks.
    let (vectors, classes) = sample(4, 2 * BLOCK + 1, 10, 3);
    let by = |through_vectors| {
        Scatter::by_route(&refs(&vectors), &classes, through_vectors)
            .unwrap()
            .metric(0.5, 4)
            .unwrap()
    };
    assert!(greatest_difference(&similarities(&by(true), &vectors), &similarities(&by(false), &vectors)) < 1e-5);
}

#[test]
fn the_mean_has_no_direction() {
    let (vectors, classes) = sample(2, 30, 8, 2);
    let metric = fit(&refs(&vectors), &classes, &FitSettings::default()).unwrap();
    assert_eq!(metric.apply(metric.mean()), None);
    assert_eq!(metric.apply(&[f32::NAN; 8]), None);
    assert_eq!(metric.apply(&[f32::MAX; 8]), None);
    assert_eq!(metric.apply(&vectors[0][1..]), None);
}

#[test]
fn classes_of_one_image_change_the_mean_alone() {
    let (vectors, mut classes) = sample(5, 40, 6, 2);
    classes[39] = 7;
    let metric = fit(&refs(&vectors), &classes, &FitSettings::default()).unwrap();
    assert_eq!(metric.components(), 6);
    assert!(metric.apply(&vectors[39]).is_some());
}
