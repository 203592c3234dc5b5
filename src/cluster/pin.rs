//! Which version a search is answered in: the newest of those known here that all replicas together hold whole. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A version and the shards of it that a replica holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its number.
    pub version: u64,
    /// Its commit: what was restored or lost may give one number to two versions.
    pub commit: String,
    /// The shards.
    pub shards: BTreeSet<u32>,
}

impl Held {
    /// Whether it is the same version.
    pub fn is(&self, version: u64, commit: &str) -> bool {
        self.version == version && self.commit == commit
    }
}

/// The position in `own` (newest first) of the first version of which all of `shards` of that version are held here or by one of `others`; otherwise of the
/// one with the fewest missing, the newest of those. None when `own` is empty.
pub fn pin<'a>(
    own: &[Held],
    shards: impl Fn(usize) -> BTreeSet<u32>,
    others: impl Fn() -> Box<dyn Iterator<Item = &'a Held> + 'a>,
) -> Option<(usize, BTreeSet<u32>)> {
    let mut best: Option<(usize, BTreeSet<u32>)> = None;
    for (at, held) in own.iter().enumerate() {
        let mut missing = shards(at);
        missing.retain(|shard| !held.shards.contains(shard));
        for other in others().filter(|other| other.is(held.version, &held.commit)) {
            missing.retain(|shard| !other.shards.contains(shard));
        }
        if missing.is_empty() {
            return Some((at, missing));
        }
        if best.as_ref().is_none_or(|(_, least)| missing.len() < least.len()) {
            best = Some((at, missing));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(version: u64, commit: &str, shards: &[u32]) -> Held {
        Held {
            version,
            commit: commit.to_owned(),
            shards: shards.iter().copied().collect(),
        }
    }

    fn pinned(own: &[Held], others: &[Held]) -> Option<(usize, Vec<u32>)> {
        let all = |_| BTreeSet::from([0, 1, 2, 3]);
        let (at, missing) = pin(own, all, || Box::new(others.iter()))?;
        Some((at, missing.into_iter().collect()))
    }

    #[test]
    fn is_the_newest_that_is_whole() {
        let own = [held(7, "g", &[0, 1]), held(6, "f", &[0, 1])];
        let behind = held(6, "f", &[2, 3]);
        assert_eq!(pinned(&own, std::slice::from_ref(&behind)), Some((1, vec![])));
        assert_eq!(pinned(&own, &[behind.clone(), held(7, "g", &[2])]), Some((1, vec![])));
        assert_eq!(
            pinned(&own, &[behind, held(7, "g", &[2]), held(7, "g", &[3])]),
            Some((0, vec![]))
        );
    }

    #[test]
    fn says_what_is_missing_where_none_is_whole() {
        let own = [held(7, "g", &[0, 1]), held(6, "f", &[0, 1])];
        assert_eq!(pinned(&own, &[]), Some((0, vec![2, 3])));
        assert_eq!(pinned(&own, &[held(6, "f", &[2])]), Some((1, vec![3])));
        // The number of another history is another version.
        assert_eq!(pinned(&own, &[held(7, "x", &[2, 3])]), Some((0, vec![2, 3])));
        assert_eq!(pinned(&[], &[]), None);
    }
}
