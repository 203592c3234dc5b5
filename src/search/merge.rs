//! Rankings of several shards -> one. Pure.

use std::collections::{BTreeMap, HashSet};

use crate::domain::{ClassLabel, Hit, PathTaken, Ranking};

/// The `k` best groups over all rankings, one hit a group and one an image, and the best hit of each class.
///
/// Equal to sorting all hits, keeping the first of each group and image, and cutting off; so the order of the rankings doesn't matter,
/// nor does merging them in parts (as long as an image belongs to one group, which makes sure that shards are grouped by one version of the archive).
pub fn merge(rankings: Vec<Ranking>, k: usize) -> Ranking {
    let mut merged = Ranking::default();
    let mut nearest: BTreeMap<ClassLabel, Hit> = BTreeMap::new();
    for ranking in rankings {
        merged.hits.extend(ranking.hits);
        for hit in ranking.nearest_per_class {
            let Some(class) = hit.class().cloned() else { continue };
            match nearest.get(&class) {
                Some(held) if held.order(&hit).is_le() => {}
                _ => drop(nearest.insert(class, hit)),
            }
        }
        for (class, path) in ranking.path {
            let held = merged.path.entry(class).or_insert(path);
            if path == PathTaken::Hnsw {
                *held = path;
            }
        }
        for (class, images) in ranking.eligible {
            let held = merged.eligible.entry(class).or_default();
            *held = held.saturating_add(images);
        }
        merged.distance_evaluations = merged.distance_evaluations.saturating_add(ranking.distance_evaluations);
    }
    merged.hits.sort_by(Hit::order);
    let (mut groups, mut images) = (HashSet::new(), HashSet::new());
    merged
        .hits
        .retain(|hit| images.insert(hit.id()) && groups.insert(hit.group));
    merged.hits.truncate(k);
    merged.nearest_per_class = nearest.into_values().collect();
    merged.nearest_per_class.sort_by(Hit::order);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Group, ImageId};
    use crate::index::segment::tests::record;
    use proptest::prelude::*;

    fn record_id(number: u32) -> ImageId {
        record(number, None, None).id
    }

    /// A hit whose record follows from its number, as an image has one record wherever it is found.
    fn hit(number: u32, similarity: i8) -> Hit {
        let class = [None, Some("A"), Some("B"), Some("Viral Pneumonia")][number as usize % 4];
        let patient = (!number.is_multiple_of(3)).then_some((number / 3 % 5) as u8);
        let record = record(number, class, patient);
        // Every fifth image is a copy of one picture of many patients, whatever its shard.
        let joined = number.is_multiple_of(5).then_some(Group::Joined(record_id(0)));
        let hit = Hit::alone(f32::from(similarity) / 8.0, record, class.is_some());
        Hit {
            group: joined.unwrap_or(hit.group),
            ..hit
        }
    }

    /// What a shard answers: its best groups, best first, and its best of each class.
    fn shard(hits: Vec<Hit>, k: usize) -> Ranking {
        let mut eligible = BTreeMap::new();
        let mut path = BTreeMap::new();
        for hit in &hits {
            if let Some(class) = hit.class() {
                *eligible.entry(class.clone()).or_default() += 1;
                path.insert(
                    class.clone(),
                    if hits.len().is_multiple_of(2) {
                        PathTaken::Hnsw
                    } else {
                        PathTaken::Exact
                    },
                );
            }
        }
        let distance_evaluations = hits.len() as u64;
        let mut nearest: Vec<Hit> = hits.iter().filter(|hit| hit.class().is_some()).cloned().collect();
        nearest.sort_by(Hit::order);
        let mut classes = HashSet::new();
        nearest.retain(|hit| classes.insert(hit.class().cloned()));
        Ranking {
            hits: brute(hits, k),
            nearest_per_class: nearest,
            path,
            eligible,
            distance_evaluations,
        }
    }

    fn brute(mut hits: Vec<Hit>, k: usize) -> Vec<Hit> {
        hits.sort_by(Hit::order);
        let mut kept: Vec<Hit> = Vec::new();
        for hit in hits {
            if !kept.iter().any(|held| held.group == hit.group || held.id() == hit.id()) {
                kept.push(hit);
            }
        }
        kept.truncate(k);
        kept
    }

    fn seen(ranking: &Ranking) -> impl PartialEq + std::fmt::Debug + use<> {
        let hits = |hits: &[Hit]| {
            hits.iter()
                .map(|hit| (hit.id(), hit.similarity.to_bits(), hit.votes))
                .collect::<Vec<_>>()
        };
        (
            hits(&ranking.hits),
            hits(&ranking.nearest_per_class),
            ranking
                .path
                .iter()
                .map(|(class, path)| (class.clone(), *path == PathTaken::Hnsw))
                .collect::<Vec<_>>(),
            ranking.eligible.clone(),
            ranking.distance_evaluations,
        )
    }

    /// Similarity is a function of the image: the query is one.
    fn shards() -> impl Strategy<Value = Vec<Vec<Hit>>> {
        let similarities = prop::collection::vec(-4i8..8, 40);
        let shards = prop::collection::vec(prop::collection::vec(0u32..40, 0..20), 0..5);
        (similarities, shards).prop_map(|(similarities, shards)| {
            let hits = |numbers: Vec<u32>| numbers.into_iter().map(|n| hit(n, similarities[n as usize])).collect();
            shards.into_iter().map(hits).collect()
        })
    }

    proptest! {
        #[test]
        fn is_sort_dedup_truncate(shards in shards(), k in 0usize..12) {
            let merged = merge(shards.iter().map(|hits| shard(hits.clone(), k)).collect(), k);
            let all: Vec<Hit> = shards.concat();
            let wanted = shard(all.clone(), k);
            prop_assert!(merged.hits.iter().map(Hit::id).eq(brute(all, k).iter().map(Hit::id)));
            prop_assert!(merged.nearest_per_class.iter().map(Hit::id).eq(wanted.nearest_per_class.iter().map(Hit::id)));
            prop_assert_eq!(merged.eligible, wanted.eligible);
        }

        #[test]
        fn order_and_parts_do_not_matter(shards in shards(), k in 0usize..12, cut in 0usize..5, seed in any::<u64>()) {
            let shards: Vec<Ranking> = shards.into_iter().map(|hits| shard(hits, k)).collect();
            let whole = merge(shards.clone(), k);
            let mut shuffled = shards.clone();
            shuffled.sort_by_key(|ranking| ranking.distance_evaluations.wrapping_mul(seed | 1));
            shuffled.reverse();
            prop_assert_eq!(seen(&merge(shuffled, k)), seen(&whole));
            let (left, right) = shards.split_at(cut.min(shards.len()));
            let parts = vec![merge(left.to_vec(), k), merge(right.to_vec(), k)];
            prop_assert_eq!(seen(&merge(parts, k)), seen(&whole));
            prop_assert_eq!(seen(&merge(vec![whole.clone()], k)), seen(&whole));
        }
    }
}
