//! Which replica holds which shards. Pure: everyone who knows the same members comes to the same answer, so that nobody has to tell anybody.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): each shard has its own order of the replicas, and goes to the first of them with room. A replica that
//! comes or goes moves only what it takes or leaves.

use std::collections::{BTreeMap, BTreeSet};

/// A replica that can hold shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub replica: String,
    /// Memory that it has for shards; none: enough for everything.
    pub bytes_max: Option<u64>,
}

/// The shards of each replica. `shards` with the memory that each takes. Every shard has its first holder before any has its second, up to
/// `replication_factor`; a replica with room for all holds all.
pub fn place(shards: &[(u32, u64)], places: &[Place], replication_factor: usize) -> BTreeMap<String, BTreeSet<u32>> {
    let total: u64 = shards.iter().map(|(_, bytes)| bytes).sum();
    let mut holds: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut room: BTreeMap<&str, u64> = BTreeMap::new();
    for place in places {
        let all = place.bytes_max.is_none_or(|bytes| bytes >= total);
        let held = holds.entry(place.replica.clone()).or_default();
        if all {
            held.extend(shards.iter().map(|&(shard, _)| shard));
        } else {
            room.insert(&place.replica, place.bytes_max.unwrap_or(0));
        }
    }
    let mut holders: BTreeMap<u32, usize> = BTreeMap::new();
    for shard in holds.values().flatten() {
        *holders.entry(*shard).or_default() += 1;
    }
    for _ in 0..replication_factor {
        for &(shard, bytes) in shards {
            if holders.get(&shard).is_some_and(|&count| count >= replication_factor) {
                continue;
            }
            let free = room
                .iter()
                .filter(|(replica, room)| **room >= bytes && !holds[**replica].contains(&shard));
            let best = free
                .map(|(replica, _)| *replica)
                .max_by_key(|replica| score(shard, replica));
            if let Some(replica) = best {
                holds.entry(replica.to_owned()).or_default().insert(shard);
                room.entry(replica).and_modify(|room| *room -= bytes);
                *holders.entry(shard).or_default() += 1;
            }
        }
    }
    holds
}

fn score(shard: u32, replica: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&shard.to_le_bytes()).update(replica.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(count: usize, bytes_max: Option<u64>) -> Vec<Place> {
        let place = |at| Place {
            replica: format!("replica-{at}"),
            bytes_max,
        };
        (0..count).map(place).collect()
    }

    fn even(count: u32) -> Vec<(u32, u64)> {
        (0..count).map(|shard| (shard, 10)).collect()
    }

    fn holders(holds: &BTreeMap<String, BTreeSet<u32>>, shard: u32) -> usize {
        holds.values().filter(|shards| shards.contains(&shard)).count()
    }

    #[test]
    fn what_fits_is_held_by_everyone() {
        let holds = place(&even(8), &places(3, Some(80)), 2);
        assert!(holds.values().all(|shards| shards.len() == 8));
        assert_eq!(place(&even(8), &places(3, None), 2), holds);
    }

    #[test]
    fn three_with_room_for_six_of_eight_hold_each_twice() {
        let holds = place(&even(8), &places(3, Some(69)), 2);
        assert!(holds.values().all(|shards| shards.len() <= 6), "{holds:?}");
        assert!((0..8).all(|shard| holders(&holds, shard) == 2), "{holds:?}");
        // Two of them gone: the last one holds what it can.
        let alone = place(&even(8), &places(1, Some(69)), 2);
        assert_eq!(alone["replica-0"].len(), 6);
    }

    proptest! {
        #[test]
        fn nobody_holds_more_than_fits_and_first_holders_come_first(
            shards in prop::collection::vec(1u64..20, 1..30),
            count in 1usize..6,
            bytes_max in prop::option::of(1u64..200),
            replication_factor in 1usize..4,
        ) {
            let shards: Vec<(u32, u64)> = (0..).zip(shards).collect();
            let places = places(count, bytes_max);
            let holds = place(&shards, &places, replication_factor);
            for place in &places {
                let held: u64 = holds[&place.replica].iter().map(|&shard| shards[shard as usize].1).sum();
                prop_assert!(place.bytes_max.is_none_or(|bytes| held <= bytes));
            }
            let counts: Vec<usize> = shards.iter().map(|&(shard, _)| holders(&holds, shard)).collect();
            if bytes_max.is_none() {
                prop_assert!(counts.iter().all(|&holders| holders == count), "{counts:?}");
            }
            // Of even shards none has a second holder while another has no first.
            let even = even(shards.len() as u32);
            let even_holds = place(&even, &places, replication_factor);
            let counts: Vec<usize> = even.iter().map(|&(shard, _)| holders(&even_holds, shard)).collect();
            prop_assert!(!counts.contains(&0) || counts.iter().all(|&holders| holders <= 1), "{counts:?}");
        }

        #[test]
        fn the_order_of_members_does_not_matter_and_one_more_moves_little(count in 2usize..8, shards in 8u32..64) {
            let shards = even(shards);
            // Room enough that who is first is decided by the hash alone.
            let roomy = places(count, Some(10 * shards.len() as u64 - 1));
            let mut turned = roomy.clone();
            turned.reverse();
            let holds = place(&shards, &roomy, 1);
            prop_assert_eq!(&place(&shards, &turned, 1), &holds);
            let more = place(&shards, &places(count + 1, Some(10 * shards.len() as u64 - 1)), 1);
            for (replica, held) in &holds {
                prop_assert!(more[replica].is_subset(held), "a shard went to another than the new one");
            }
        }
    }
}
