//! Which version a search is answered in: the newest of those known here that all replicas together hold whole, once those who shall hold it too have said
//! that they do. Pure.

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

/// The position in `own` (newest first) of the first version of which all of `shards` of that version are held here or by one of `others` (of each replica
/// what it holds); otherwise of the one with the fewest missing, the newest of those. None when `own` is empty.
///
/// A version that `is_fresh` is passed over, where an older one is whole, while another replica is behind: it has a shard that is needed from others, but in
/// older versions only, as far as is known. The one replica of which it is known already may be slow, or fail, and nobody else could be asked.
pub fn pin<'a>(
    own: &[Held],
    shards: impl Fn(usize) -> BTreeSet<u32>,
    others: impl Fn() -> Box<dyn Iterator<Item = &'a [Held]> + 'a>,
    is_fresh: impl Fn(usize) -> bool,
) -> Option<(usize, BTreeSet<u32>)> {
    let mut best: Option<(usize, BTreeSet<u32>)> = None;
    for (at, held) in own.iter().enumerate() {
        let mut elsewhere = shards(at);
        elsewhere.retain(|shard| !held.shards.contains(shard));
        let (mut missing, mut is_behind) = (elsewhere.clone(), false);
        for other in others() {
            match other.iter().find(|other| other.is(held.version, &held.commit)) {
                Some(same) => missing.retain(|shard| !same.shards.contains(shard)),
                None => is_behind |= other.iter().any(|older| !older.shards.is_disjoint(&elsewhere)),
            }
        }
        if missing.is_empty() && !(is_behind && is_fresh(at)) {
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

    /// Each of `others` is what another replica holds of one version. The `fresh` newest versions are fresh.
    fn pinned_while(fresh: usize, own: &[Held], others: &[Held]) -> Option<(usize, Vec<u32>)> {
        let all = |_| BTreeSet::from([0, 1, 2, 3]);
        let others = || -> Box<dyn Iterator<Item = &[Held]>> { Box::new(others.chunks(1)) };
        let (at, missing) = pin(own, all, others, |at| at < fresh)?;
        Some((at, missing.into_iter().collect()))
    }

    fn pinned(own: &[Held], others: &[Held]) -> Option<(usize, Vec<u32>)> {
        pinned_while(0, own, others)
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
    fn a_fresh_one_waits_for_those_who_are_behind() {
        let own = [held(7, "g", &[0, 1]), held(6, "f", &[0, 1])];
        let both = [held(7, "g", &[2, 3]), held(7, "g", &[2, 3])];
        let one_behind = [held(7, "g", &[2, 3]), held(6, "f", &[2, 3])];
        assert_eq!(pinned_while(1, &own, &both), Some((0, vec![])));
        assert_eq!(pinned_while(1, &own, &one_behind), Some((1, vec![])));
        assert_eq!(pinned_while(0, &own, &one_behind), Some((0, vec![])), "not for ever");
        // It has nothing that is needed of others.
        assert_eq!(
            pinned_while(1, &own, &[held(7, "g", &[2, 3]), held(6, "f", &[0, 1])]),
            Some((0, vec![]))
        );
        // The older one is not whole: better a fresh one than none.
        assert_eq!(
            pinned_while(1, &own, &[held(7, "g", &[2, 3]), held(5, "e", &[2, 3])]),
            Some((0, vec![]))
        );
        assert_eq!(pinned_while(1, &own[..1], &one_behind), Some((0, vec![])));
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
