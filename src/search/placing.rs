//! Holds what placement says, and lets the rest go: one shard at a time, what is new before what is old is dropped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::holding::{Holding, shard_bytes};
use crate::archive::Manifest;
use crate::cluster::{Cluster, place};
use crate::metrics::ShardFigures;

/// Time between two looks at whether the placement is another.
const EVERY: Duration = Duration::from_millis(500);
/// Time after a load that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What this replica should hold of a version, once it is known who else is there.
pub fn assigned(cluster: &Cluster, manifest: &Manifest) -> Option<BTreeSet<u32>> {
    let settings = cluster.settings();
    let mut placed = place(&shard_bytes(manifest), &cluster.members()?, settings.replication_factor);
    Some(placed.remove(&settings.replica).unwrap_or_default())
}

/// Waits for the first placement.
pub async fn first_assigned(cluster: &Cluster, manifest: &Manifest) -> Holding {
    let mut rounds = cluster.rounds();
    loop {
        if let Some(shards) = assigned(cluster, manifest) {
            return Holding::Shards(shards);
        }
        // The sender lives as long as the cluster does.
        let _ = rounds.changed().await;
    }
}

/// Follows the placement for as long as the program runs.
pub async fn keep_placed(engine: Engine, cluster: Cluster) {
    loop {
        let wait = match step(&engine, &cluster).await {
            Ok(true) => Duration::ZERO,
            Ok(false) => EVERY,
            Err(error) => {
                tracing::error!(error = %error, cause = ?std::error::Error::source(&error), "a shard could not be loaded; what is held stays");
                AGAIN_AFTER
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// One step towards what is assigned. Whether there was one to make.
async fn step(engine: &Engine, cluster: &Cluster) -> crate::error::Result<bool> {
    let served = &engine.parts().served;
    let version = served.current();
    let manifest = &version.state.manifest;
    let Some(assigned) = assigned(cluster, manifest) else {
        return Ok(false);
    };
    let bytes = shard_bytes(manifest);
    let size = |shards: &BTreeSet<u32>| -> u64 {
        let held = bytes.iter().filter(|(shard, _)| shards.contains(shard));
        held.map(|(_, bytes)| bytes).sum()
    };
    let held: BTreeSet<u32> = version
        .held
        .iter()
        .copied()
        .filter(|shard| size(&BTreeSet::from([*shard])) > 0)
        .collect();
    let next = next_step(&assigned, &held, &size, cluster.settings().bytes_max, |shard| {
        let holds =
            |held: &crate::cluster::Held| held.is(version.number(), &manifest.commit) && held.shards.contains(&shard);
        let peers = cluster.peers();
        let others = peers
            .iter()
            .filter(|(_, status)| !status.draining && status.held.iter().any(holds));
        others.count() >= cluster.settings().replication_factor
    });
    cluster.metrics().shards(ShardFigures {
        assigned: assigned.len(),
        held: version.held.len(),
        missing: engine.shards_missing().len(),
        index_bytes: size(&held),
        index_bytes_max: cluster.settings().bytes_max,
    });
    let Some(next) = next else { return Ok(false) };
    tracing::info!(shards = next.len(), before = held.len(), "the shards held here change");
    let began = std::time::Instant::now();
    Arc::clone(served).hold(Holding::Shards(next)).await?;
    tracing::info!(
        seconds = began.elapsed().as_secs_f64(),
        "the shards held here have changed"
    );
    Ok(true)
}

/// What to hold next, if that is another than what is held. Pure. A shard that is not assigned here any more goes when enough others hold it, or when its
/// place is needed.
fn next_step(
    assigned: &BTreeSet<u32>,
    held: &BTreeSet<u32>,
    size: &dyn Fn(&BTreeSet<u32>) -> u64,
    bytes_max: Option<u64>,
    held_enough: impl Fn(u32) -> bool,
) -> Option<BTreeSet<u32>> {
    let wanted = assigned
        .difference(held)
        .copied()
        .find(|&shard| size(&BTreeSet::from([shard])) > 0);
    let mut next = held.clone();
    let mut surplus: Vec<u32> = held.difference(assigned).copied().collect();
    // First those that others hold too.
    surplus.sort_by_key(|&shard| !held_enough(shard));
    match wanted {
        Some(shard) => {
            next.insert(shard);
            let mut surplus = surplus.into_iter();
            while bytes_max.is_some_and(|most| size(&next) > most) {
                match surplus.next() {
                    Some(shard) => next.remove(&shard),
                    // Assigned is what fits; a shard has grown meanwhile.
                    None => break,
                };
            }
        }
        None => next.retain(|&shard| assigned.contains(&shard) || !held_enough(shard)),
    }
    (next != *held).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(shards: &[u32]) -> BTreeSet<u32> {
        shards.iter().copied().collect()
    }

    fn next(assigned: &[u32], held: &[u32], most: Option<u64>, elsewhere: &[u32]) -> Option<Vec<u32>> {
        let size = |shards: &BTreeSet<u32>| 10 * shards.len() as u64;
        let next = next_step(&set(assigned), &set(held), &size, most, |shard| {
            elsewhere.contains(&shard)
        });
        next.map(|shards| shards.into_iter().collect())
    }

    #[test]
    fn what_is_new_comes_before_what_is_old_goes() {
        assert_eq!(next(&[1, 2], &[0, 1], None, &[0]), Some(vec![0, 1, 2]));
        assert_eq!(next(&[1, 2], &[0, 1, 2], None, &[0]), Some(vec![1, 2]));
        assert_eq!(next(&[1, 2], &[1, 2], None, &[]), None);
        // Nobody else holds it yet: it stays.
        assert_eq!(next(&[1, 2], &[0, 1, 2], None, &[]), None);
        // No room: first what others have.
        assert_eq!(next(&[1, 4], &[1, 2, 3], Some(30), &[3]), Some(vec![1, 2, 4]));
        assert_eq!(next(&[1, 4], &[1, 2, 3], Some(30), &[]), Some(vec![1, 3, 4]));
    }

    proptest! {
        #[test]
        fn ends_with_what_is_assigned_and_never_takes_more_than_there_is(
            assigned in prop::collection::btree_set(0u32..10, 0..6),
            held in prop::collection::btree_set(0u32..10, 0..6),
        ) {
            let size = |shards: &BTreeSet<u32>| 10 * shards.len() as u64;
            let mut held = held;
            for _ in 0..30 {
                match next_step(&assigned, &held, &size, Some(60), |_| true) {
                    Some(next) => {
                        prop_assert!(size(&next) <= 60);
                        prop_assert!(assigned.intersection(&held).all(|shard| next.contains(shard)));
                        held = next;
                    }
                    None => break,
                }
            }
            prop_assert_eq!(held, assigned);
        }
    }
}
