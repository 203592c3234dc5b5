//! Which version a search is answered in: the newest of those known here that all replicas together hold whole, once those who shall hold it too have said
//! that they do. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

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

/// What another replica said that it holds.
#[derive(Debug, Clone, Copy)]
pub struct Other<'a> {
    /// Of each version.
    pub held: &'a [Held],
    /// It fails, or takes long to answer.
    pub is_slow: bool,
}

/// A version that is here for no longer may be held by replicas that have not said so yet: each asks for new ones once a second and is asked twice a second. No
/// longer, since every replica is to answer in a version two seconds after its commit.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// So long a version is passed over that needs a replica that is slow.
const SLOW_AVOIDED_FOR: Duration = Duration::from_secs(5);

/// The position in `own` (newest first) of the first version of which all of `shards` of that version are held here or by one of `others`; otherwise of the
/// one with the fewest missing, the newest of those. None when `own` is empty. `age` is how long a version is here.
///
/// A version that is fresh is passed over, where an older one is whole, while another replica is behind: it has a shard that is needed from others, but in
/// older versions only, as far as is known. The one replica of which it is known already may be slow, or fail, and nobody else could be asked. One that is
/// known to be slow is not needed for longer: where others hold an older version whole that is not much older, it is that one.
pub fn pin(
    own: &[Held],
    shards: impl Fn(usize) -> BTreeSet<u32>,
    others: &[Other<'_>],
    age: impl Fn(usize) -> Duration,
) -> Option<(usize, BTreeSet<u32>)> {
    let is_fresh = |at| age(at) < FRESH_FOR;
    let (newest, missing) = whole(own, &shards, others, is_fresh)?;
    let quick: Vec<Other<'_>> = others.iter().filter(|other| !other.is_slow).copied().collect();
    if quick.len() < others.len()
        && let Some((at, lacks)) = whole(own, &shards, &quick, is_fresh)
        && lacks.is_empty()
        && (newest..at).all(|newer| age(newer) < SLOW_AVOIDED_FOR)
    {
        return Some((at, lacks));
    }
    Some((newest, missing))
}

fn whole(
    own: &[Held],
    shards: &impl Fn(usize) -> BTreeSet<u32>,
    others: &[Other<'_>],
    is_fresh: impl Fn(usize) -> bool,
) -> Option<(usize, BTreeSet<u32>)> {
    let mut best: Option<(usize, BTreeSet<u32>)> = None;
    for (at, held) in own.iter().enumerate() {
        let mut elsewhere = shards(at);
        elsewhere.retain(|shard| !held.shards.contains(shard));
        let (mut missing, mut is_behind) = (elsewhere.clone(), false);
        for other in others {
            match other.held.iter().find(|other| other.is(held.version, &held.commit)) {
                Some(same) => missing.retain(|shard| !same.shards.contains(shard)),
                None => is_behind |= other.held.iter().any(|older| !older.shards.is_disjoint(&elsewhere)),
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

    /// Each of `others` is what another replica holds of one version, and whether it is slow; `ages` are those of `own`.
    fn pinned_with(own: &[Held], others: &[(Held, bool)], ages: &[Duration]) -> Option<(usize, Vec<u32>)> {
        let all = |_| BTreeSet::from([0, 1, 2, 3]);
        let mut said = Vec::new();
        for (held, is_slow) in others {
            said.push(Other {
                held: std::slice::from_ref(held),
                is_slow: *is_slow,
            });
        }
        let (at, missing) = pin(own, all, &said, |at| ages[at])?;
        Some((at, missing.into_iter().collect()))
    }

    /// The `fresh` newest versions are fresh, and nobody is slow.
    fn pinned_while(fresh: usize, own: &[Held], others: &[Held]) -> Option<(usize, Vec<u32>)> {
        let others: Vec<(Held, bool)> = others.iter().map(|held| (held.clone(), false)).collect();
        let ages: Vec<Duration> = (0..own.len())
            .map(|at| if at < fresh { Duration::ZERO } else { FRESH_FOR })
            .collect();
        pinned_with(own, &others, &ages)
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
    fn a_slow_one_is_not_needed_where_others_hold_what_is_hardly_older() {
        let own = [held(7, "g", &[0, 1]), held(6, "f", &[0, 1])];
        let slow = |held| (held, true);
        let behind = || (held(6, "f", &[2, 3]), false);
        let ages = |newest| [newest, SLOW_AVOIDED_FOR];
        let one_behind = [slow(held(7, "g", &[2, 3])), behind()];
        assert_eq!(pinned_with(&own, &one_behind, &ages(2 * FRESH_FOR)), Some((1, vec![])));
        assert_eq!(
            pinned_with(&own, &one_behind, &ages(SLOW_AVOIDED_FOR)),
            Some((0, vec![])),
            "not for ever"
        );
        // However often there are new ones: of those that are passed over none is here for longer.
        let three = [held(8, "h", &[0, 1]), held(7, "g", &[0, 1]), held(6, "f", &[0, 1])];
        let far_behind = [slow(held(8, "h", &[2, 3])), behind()];
        let ages_of_three = [2 * FRESH_FOR, SLOW_AVOIDED_FOR, 2 * SLOW_AVOIDED_FOR];
        assert_eq!(pinned_with(&three, &far_behind, &ages_of_three), Some((0, vec![])));
        // One that is slow and behind keeps nobody from what the others hold.
        let slow_behind = [slow(held(6, "f", &[2, 3])), (held(7, "g", &[2, 3]), false)];
        assert_eq!(
            pinned_with(&own, &slow_behind, &ages(Duration::ZERO)),
            Some((0, vec![]))
        );
        // The others have it too.
        let both = [slow(held(7, "g", &[2, 3])), (held(7, "g", &[2, 3]), false)];
        assert_eq!(pinned_with(&own, &both, &ages(2 * FRESH_FOR)), Some((0, vec![])));
        // Nobody else has it at all.
        let alone = [slow(held(7, "g", &[2, 3])), (held(6, "f", &[2]), false)];
        assert_eq!(pinned_with(&own, &alone, &ages(2 * FRESH_FOR)), Some((0, vec![])));
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
