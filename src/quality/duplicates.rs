//! The same picture twice: equal pixels, and pictures that are one but for encoding, size, borders, exposure or a small crop. Pure.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use super::evaluation::Picture;
use super::split::Union;
use crate::imaging::{COSINE_CANDIDATE, Fingerprint, OUTLINE_CANDIDATE, Outline};
use crate::index;

/// Two pictures that are one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The earlier item.
    pub a: usize,
    /// The later one.
    pub b: usize,
    /// [`Fingerprint::similarity`]; 1 for equal pixels.
    pub similarity: f32,
}

/// What a picture is compared by.
pub struct Compared {
    fingerprint: Fingerprint,
    outline: Outline,
}

impl Compared {
    /// Of a picture.
    pub fn of(fingerprint: Fingerprint) -> Self {
        Self {
            outline: fingerprint.outline(),
            fingerprint,
        }
    }
}

/// All pairs of at least this similarity, in the order of their items. `vectors` are unit vectors, row-major; pictures that are not kept are in no
/// pair. Every two are looked at, first by what is quick. `done` is called after each item.
pub fn near(
    pictures: &[Option<Compared>],
    vectors: &[f32],
    dimension: usize,
    similarity_min: f32,
    done: impl Fn() + Sync,
) -> Vec<Pair> {
    let of_item = |a: usize| {
        let mut found = Vec::new();
        if let Some(one) = &pictures[a] {
            let own = &vectors[a * dimension..(a + 1) * dimension];
            let later = (a + 1..pictures.len()).filter_map(|b| u32::try_from(b).ok());
            index::similarities(own, vectors, later, |b, cosine| {
                let Some(other) = &pictures[b as usize] else { return };
                if cosine >= COSINE_CANDIDATE || one.outline.similarity(&other.outline) >= OUTLINE_CANDIDATE {
                    let similarity = one.fingerprint.similarity(&other.fingerprint);
                    if similarity >= similarity_min {
                        found.push(Pair {
                            a,
                            b: b as usize,
                            similarity,
                        });
                    }
                }
            });
        }
        done();
        found
    };
    (0..pictures.len()).into_par_iter().flat_map_iter(of_item).collect()
}

/// Items that are the same picture by any chain of pairs, two or more, in the order of their first.
pub fn clusters(count: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut union = Union::new(count);
    pairs.into_iter().for_each(|(a, b)| union.join(a, b));
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (item, set) in union.sets().into_iter().enumerate() {
        members.entry(set).or_default().push(item);
    }
    members.into_values().filter(|members| members.len() > 1).collect()
}

/// What `medsearch duplicates` says.
#[derive(Debug, Clone, Serialize)]
pub struct Duplicates {
    /// The archive's name.
    pub archive: String,
    /// Its version.
    pub archive_version: u64,
    /// Images, labelled or not.
    pub images: usize,
    /// Further files with the pixels and the patient of one of them; they are one image already.
    pub further_files: usize,
    /// Images without a picture that could be compared.
    pub without_picture: usize,
    /// Pairs are at least so similar.
    pub similarity_min: f32,
    /// Pictures that are one: those under different classes first, then those of different patients.
    pub clusters: Vec<Cluster>,
}

/// Images that are one picture.
#[derive(Debug, Clone, Serialize)]
pub struct Cluster {
    /// They have different classes.
    pub label_conflict: bool,
    /// Two of them can't be of one patient.
    pub patient_conflict: bool,
    /// Their pixels are equal.
    pub equal_pixels: bool,
    /// The images; the similarity is the greatest to another one of them.
    pub images: Vec<Picture>,
    /// The pairs behind it, by place in `images`: (one, other, similarity).
    pub pairs: Vec<(usize, usize, f32)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Raster8;
    use proptest::prelude::*;

    fn picture(seed: u32, width: u32) -> Compared {
        let height = width * 3 / 4;
        let value = |at: u32| {
            let (x, y) = (
                f64::from(at % width) / f64::from(width),
                f64::from(at / width) / f64::from(height),
            );
            let waves = (1..12).map(|wave| {
                let turn = f64::from(seed.wrapping_mul(2_654_435_761).rotate_left(wave) % 1000) / 159.0;
                (x * f64::from(wave) * turn.cos() * 5.0 + y * f64::from(wave) * turn.sin() * 5.0 + turn).sin() * 9.0
            });
            (128.0 + waves.sum::<f64>()).clamp(0.0, 255.0) as u8
        };
        Compared::of(Fingerprint::of(&Raster8 {
            width,
            height,
            channels: 1,
            data: (0..width * height).map(value).collect(),
        }))
    }

    #[test]
    fn another_size_of_a_picture_is_found_whatever_the_vectors_say() {
        let pictures = [
            Some(picture(1, 200)),
            Some(picture(2, 200)),
            None,
            Some(picture(1, 130)),
        ];
        let vectors = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, -1.0];
        let pairs = near(&pictures, &vectors, 2, 0.8, || {});
        assert_eq!(pairs.iter().map(|pair| (pair.a, pair.b)).collect::<Vec<_>>(), [(0, 3)]);
        assert!(near(&pictures, &vectors, 2, 1.1, || {}).is_empty());
    }

    proptest! {
        #[test]
        fn clusters_are_closed_and_apart(count in 1usize..30, pairs in prop::collection::vec((0usize..30, 0usize..30), 0..40)) {
            let pairs: Vec<_> = pairs.into_iter().filter(|&(a, b)| a < count && b < count).collect();
            let clusters = clusters(count, pairs.iter().copied());
            let of = |item: usize| clusters.iter().position(|cluster| cluster.contains(&item));
            for &(a, b) in &pairs {
                prop_assert!(a == b || of(a).is_some() && of(a) == of(b));
            }
            let all: usize = clusters.iter().map(Vec::len).sum();
            let different: std::collections::BTreeSet<usize> = clusters.iter().flatten().copied().collect();
            prop_assert_eq!(all, different.len());
            prop_assert!(clusters.iter().all(|cluster| cluster.len() > 1 && cluster.is_sorted()));
        }
    }
}
