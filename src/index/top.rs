//! The best groups seen so far: a bounded list in the one order of hits.

use std::cmp::Ordering;

use crate::domain::Hit;

/// The k best hits, one for each group, best first.
///
/// A group that falls out comes back when a better hit of it is offered, so the order in which hits are offered doesn't matter.
#[derive(Debug)]
pub struct TopGroups {
    k: usize,
    hits: Vec<Hit>,
}

impl TopGroups {
    /// Keeps at most `k` groups.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            hits: Vec::with_capacity(k + 1),
        }
    }

    /// Whether a hit of this similarity could still get in: a cheap test before the hit is made.
    #[inline]
    pub fn welcomes(&self, similarity: f32) -> bool {
        self.hits.len() < self.k
            || self
                .hits
                .last()
                .is_some_and(|worst| similarity.total_cmp(&worst.similarity) != Ordering::Less)
    }

    /// Takes the hit if it is among the best.
    pub fn offer(&mut self, hit: Hit) {
        let at = self.hits.partition_point(|held| held.order(&hit) != Ordering::Greater);
        if at >= self.k {
            return;
        }
        let group = hit.group;
        match self.hits.iter().position(|held| held.group == group) {
            Some(better) if better < at => return,
            Some(worse) => drop(self.hits.remove(worse)),
            None => {}
        }
        self.hits.insert(at, hit);
        self.hits.truncate(self.k);
    }

    /// Groups held.
    pub fn len(&self) -> usize {
        self.hits.len()
    }

    /// Whether nothing was taken yet.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// The hits, best first.
    pub fn into_hits(self) -> Vec<Hit> {
        self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::segment::tests::record;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn is_sort_dedup_truncate(rows in prop::collection::vec((0i8..4, 0u8..6), 0..60), k in 0usize..8) {
            let hits: Vec<Hit> = rows.iter().enumerate().map(|(at, &(similarity, patient))| {
                Hit::alone(f32::from(similarity) / 4.0, record(at as u32, None, (patient > 0).then_some(patient)), false)
            }).collect();
            let mut top = TopGroups::new(k);
            for hit in &hits {
                if top.welcomes(hit.similarity) {
                    top.offer(hit.clone());
                }
            }
            let mut wanted = hits;
            wanted.sort_by(Hit::order);
            let mut groups = HashSet::new();
            wanted.retain(|hit| groups.insert(hit.group));
            wanted.truncate(k);
            prop_assert!(top.into_hits().iter().map(Hit::id).eq(wanted.iter().map(Hit::id)));
        }
    }
}
