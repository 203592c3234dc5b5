//! Holds what placement says, and lets the rest go: one shard at a time, what is new before what is old is dropped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Engine;
use super::holding::{Holding, shard_bytes};
use crate::archive::{Manifest, Shard};
use crate::cluster::{Cluster, Held, place};
use crate::metrics::ShardFigures;

/// Time between two looks at whether the placement is another.
const EVERY: Duration = Duration::from_millis(500);
/// A shard that could not be loaded is left alone for so long, while others are.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The last copy of a shard that is not assigned here any more makes room for an assigned one only after so long: whoever it is assigned to loads it first.
const LAST_COPY_KEPT: Duration = Duration::from_secs(60);

/// What each member should hold of a version, once it is known who they are.
fn placed(cluster: &Cluster, manifest: &Manifest) -> Option<BTreeMap<String, BTreeSet<u32>>> {
    let replication_factor = cluster.settings().replication_factor;
    Some(place(&shard_bytes(manifest), &cluster.members()?, replication_factor))
}

/// Waits for the first placement of this replica.
pub async fn first_assigned(cluster: &Cluster, manifest: &Manifest) -> Holding {
    let mut rounds = cluster.rounds();
    loop {
        if let Some(mut placed) = placed(cluster, manifest) {
            return Holding::Shards(placed.remove(&cluster.settings().replica).unwrap_or_default());
        }
        // The sender lives as long as the cluster does.
        let _ = rounds.changed().await;
    }
}

/// Follows the placement for as long as the program runs.
pub async fn keep_placed(engine: Engine, cluster: Cluster) {
    let mut placing = Placing {
        engine,
        cluster,
        shards: vec![],
        failed: BTreeMap::new(),
        waiting: None,
    };
    loop {
        if !placing.step().await {
            tokio::time::sleep(EVERY).await;
        }
    }
}

struct Placing {
    engine: Engine,
    cluster: Cluster,
    /// Those that are placed.
    shards: Vec<Shard>,
    /// Shards that could not be loaded, and when.
    failed: BTreeMap<u32, Instant>,
    /// Since when there is no room for what is assigned but by giving up a last copy.
    waiting: Option<Instant>,
}

impl Placing {
    /// One step towards what is assigned. Whether one was made.
    async fn step(&mut self) -> bool {
        let served = &self.engine.parts().served;
        let version = served.current();
        let manifest = &version.state.manifest;
        if self.shards != manifest.shards {
            self.shards.clone_from(&manifest.shards);
            self.failed.clear();
            self.waiting = None;
        }
        // Whoever is about to stop answers for what it has until then.
        let Some(mut placed) = placed(&self.cluster, manifest).filter(|_| !self.cluster.is_draining()) else {
            return false;
        };
        let settings = self.cluster.settings();
        let assigned = placed.remove(&settings.replica).unwrap_or_default();
        let bytes: BTreeMap<u32, u64> = shard_bytes(manifest).into_iter().collect();
        let filled = |shard: &&u32| bytes.get(shard).is_some_and(|&bytes| bytes > 0);
        // Empty ones take no memory, and are here when their first rows are.
        let empty: BTreeSet<u32> = assigned.iter().filter(|shard| !filled(shard)).copied().collect();
        let held: BTreeSet<u32> = version.held.iter().filter(filled).copied().collect();
        let index_bytes = held.iter().map(|shard| bytes[shard]).sum();
        self.cluster.metrics().shards(ShardFigures {
            assigned: assigned.len(),
            held: version.held.len(),
            missing: self.engine.shards_missing().len(),
            index_bytes,
            index_bytes_max: settings.bytes_max,
        });
        self.failed.retain(|_, at| at.elapsed() < AGAIN_AFTER);
        let peers = self.cluster.peers();
        let others = |shard: u32, assigned_there: bool| {
            let holds = |held: &Held| held.is(version.number(), &manifest.commit) && held.shards.contains(&shard);
            let of = peers.iter().filter(|(_, status)| {
                let is_assigned = placed
                    .get(&status.replica)
                    .is_some_and(|shards| shards.contains(&shard));
                !status.draining && status.held.iter().any(holds) && (is_assigned || !assigned_there)
            });
            of.count()
        };
        let place = Here {
            wanted: (assigned.iter().filter(filled).copied())
                .filter(|shard| !self.failed.contains_key(shard) && !held.contains(shard))
                .collect(),
            surplus: held.difference(&assigned).copied().collect(),
            held,
            bytes: &bytes,
            bytes_max: settings.bytes_max,
            replication_factor: settings.replication_factor,
            give_up_last: self.waiting.is_some_and(|since| since.elapsed() > LAST_COPY_KEPT),
        };
        let next = match place.next(&others) {
            Next::Hold(next) => next,
            Next::Wait => {
                self.waiting.get_or_insert_with(Instant::now);
                return false;
            }
            Next::Stay => {
                self.waiting = None;
                served.forget_old();
                return false;
            }
        };
        let new: Vec<u32> = next.difference(&place.held).copied().collect();
        // What was given up a moment ago is still in memory: no more than twice the bound is, or it goes first.
        let given_up = served.given_up();
        let in_memory: BTreeSet<u32> = given_up.union(&place.held).chain(&new).copied().collect();
        let is_too_much = settings
            .bytes_max
            .is_some_and(|most| place.size(&in_memory) > most.saturating_mul(2));
        if is_too_much && !given_up.is_empty() && !new.is_empty() {
            return false;
        }
        tracing::info!(
            shards = next.len(),
            before = place.held.len(),
            "the shards held here change"
        );
        let began = Instant::now();
        let holding = Holding::Shards(next.union(&empty).copied().collect());
        match served.hold(holding).await {
            Ok(()) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(seconds, "the shards held here have changed");
                self.waiting = None;
            }
            Err(error) => {
                tracing::error!(shards = ?new, error = %error, cause = ?std::error::Error::source(&error), "a shard could not be loaded; what is held stays");
                self.failed.extend(new.into_iter().map(|shard| (shard, began)));
            }
        }
        true
    }
}

/// What is held here and what should be. Pure.
struct Here<'a> {
    held: BTreeSet<u32>,
    /// Assigned, not held.
    wanted: BTreeSet<u32>,
    /// Held, not assigned.
    surplus: BTreeSet<u32>,
    bytes: &'a BTreeMap<u32, u64>,
    bytes_max: Option<u64>,
    replication_factor: usize,
    /// The last copy of a shard may make room.
    give_up_last: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// These from now on.
    Hold(BTreeSet<u32>),
    /// Others have to load first what this replica is to give up.
    Wait,
    /// As it is.
    Stay,
}

impl Here<'_> {
    /// Memory that shards take together.
    fn size(&self, shards: &BTreeSet<u32>) -> u64 {
        shards.iter().filter_map(|shard| self.bytes.get(shard)).sum()
    }

    /// What to hold next. `others` says how many others hold a shard, all of them or those that it is assigned to. The shard with the fewest holders is loaded
    /// first. What is not assigned here any more goes when enough of those hold it who should, or when its place is needed and somebody holds it.
    fn next(&self, others: &dyn Fn(u32, bool) -> usize) -> Next {
        let is_too_much = |shards: &BTreeSet<u32>| self.bytes_max.is_some_and(|most| self.size(shards) > most);
        let mut next = self.held.clone();
        let mut surplus: Vec<u32> = self.surplus.iter().copied().collect();
        surplus.sort_by_key(|&shard| (Reverse(others(shard, true)), Reverse(others(shard, false))));
        let wanted = self.wanted.iter().copied().min_by_key(|&shard| others(shard, false));
        next.extend(wanted);
        if wanted.is_none() {
            next.retain(|&shard| !self.surplus.contains(&shard) || others(shard, true) < self.replication_factor);
        }
        for shard in surplus {
            if !is_too_much(&next) {
                break;
            }
            let is_last = others(shard, false) == 0;
            // What nobody holds yet is worth as much as what nobody else holds.
            if is_last && !self.give_up_last && wanted.is_none_or(|wanted| others(wanted, false) > 0) {
                return Next::Wait;
            }
            next.remove(&shard);
        }
        match next == self.held {
            true => Next::Stay,
            false => Next::Hold(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Member;
    use proptest::prelude::*;

    const SHARDS: u32 = 10;

    fn set(shards: &[u32]) -> BTreeSet<u32> {
        shards.iter().copied().collect()
    }

    fn here<'a>(assigned: &BTreeSet<u32>, held: &BTreeSet<u32>, bytes: &'a BTreeMap<u32, u64>) -> Here<'a> {
        Here {
            held: held.clone(),
            wanted: assigned.difference(held).copied().collect(),
            surplus: held.difference(assigned).copied().collect(),
            bytes,
            bytes_max: Some(30),
            replication_factor: 1,
            give_up_last: false,
        }
    }

    fn even() -> BTreeMap<u32, u64> {
        (0..SHARDS).map(|shard| (shard, 10)).collect()
    }

    fn next(assigned: &[u32], held: &[u32], elsewhere: &[u32], give_up_last: bool) -> Next {
        let bytes = even();
        let here = Here {
            give_up_last,
            ..here(&set(assigned), &set(held), &bytes)
        };
        here.next(&|shard, _| elsewhere.iter().filter(|&&other| other == shard).count())
    }

    #[test]
    fn what_is_new_comes_before_what_is_old_goes() {
        let hold = |shards: &[u32]| Next::Hold(set(shards));
        assert_eq!(next(&[1, 2], &[0, 1], &[0], false), hold(&[0, 1, 2]));
        assert_eq!(next(&[1, 2], &[0, 1, 2], &[0], false), hold(&[1, 2]));
        assert_eq!(next(&[1, 2], &[1, 2], &[], false), Next::Stay);
        // Nobody else holds it yet: it stays.
        assert_eq!(next(&[1, 2], &[0, 1, 2], &[], false), Next::Stay);
        // No room: first what others have.
        assert_eq!(next(&[1, 4], &[1, 2, 3], &[3], false), hold(&[1, 2, 4]));
        // First what nobody has.
        assert_eq!(next(&[1, 4, 5], &[1, 2], &[4, 4], false), hold(&[1, 2, 5]));
    }

    #[test]
    fn the_last_copy_makes_no_room_for_one_of_several_but_after_a_while() {
        assert_eq!(next(&[1, 4], &[1, 2, 3], &[4], false), Next::Wait);
        assert_eq!(next(&[1, 4], &[1, 2, 3], &[4], true), Next::Hold(set(&[1, 3, 4])));
        // Nobody has either: what is assigned wins.
        assert_eq!(next(&[1, 4], &[1, 2, 3], &[], false), Next::Hold(set(&[1, 3, 4])));
    }

    #[test]
    fn shards_that_grew_beyond_the_memory_go_where_others_have_them() {
        assert_eq!(next(&[1, 2, 3], &[0, 1, 2, 3], &[], false), Next::Wait);
        assert_eq!(
            next(&[1, 2, 3], &[0, 1, 2, 3], &[0], false),
            Next::Hold(set(&[1, 2, 3]))
        );
    }

    proptest! {
        #[test]
        fn ends_with_what_is_assigned_and_never_takes_more_than_there_is(
            assigned in prop::collection::btree_set(0..SHARDS, 0..3),
            held in prop::collection::btree_set(0..SHARDS, 0..3),
        ) {
            let bytes = even();
            let mut held = held;
            for _ in 0..30 {
                let Next::Hold(next) = here(&assigned, &held, &bytes).next(&|_, _| 1) else { break };
                prop_assert!(next.len() <= 3);
                prop_assert!(assigned.intersection(&held).all(|shard| next.contains(shard)));
                held = next;
            }
            prop_assert_eq!(held, assigned);
        }

        #[test]
        fn a_newcomer_takes_shards_without_any_of_them_being_nowhere(
            count in 2usize..4,
            room in 3u64..5,
            order in prop::collection::vec(0usize..4, 200),
        ) {
            // Replicas that see each other's holdings at once, one step after the other in any order.
            let bytes = even();
            let shards: Vec<(u32, u64)> = bytes.iter().map(|(&shard, &bytes)| (shard, bytes)).collect();
            let places = |count: usize| -> Vec<Member> {
                let bytes_max = Some(10 * (u64::from(SHARDS) / count as u64 + room).min(u64::from(SHARDS) - 1));
                (0..count).map(|at| Member { replica: format!("replica-{at}"), bytes_max }).collect()
            };
            let members = places(count);
            let mut holds = place(&shards, &members, 2);
            let nowhere = |holds: &BTreeMap<String, BTreeSet<u32>>| {
                (0..SHARDS).any(|shard| !holds.values().any(|held| held.contains(&shard)))
            };
            prop_assume!(!nowhere(&holds));
            let mut more = members.clone();
            more.push(Member { replica: "newcomer".to_owned(), ..members[0].clone() });
            holds.insert("newcomer".to_owned(), BTreeSet::new());
            let assigned = place(&shards, &more, 2);
            for at in order {
                let replica = &more[at % more.len()].replica;
                let others = |shard: u32, assigned_there: bool| {
                    let of = holds.iter().filter(|(other, held)| {
                        *other != replica && held.contains(&shard) && (!assigned_there || assigned[*other].contains(&shard))
                    });
                    of.count()
                };
                let here = Here {
                    bytes_max: more[0].bytes_max,
                    replication_factor: 2,
                    ..here(&assigned[replica], &holds[replica], &bytes)
                };
                if let Next::Hold(next) = here.next(&others) {
                    holds.insert(replica.clone(), next);
                }
                prop_assert!(!nowhere(&holds), "{:?}", holds);
            }
        }
    }
}
