//! Which shards a replica holds: their vectors are in its memory, and searched.

use std::collections::BTreeSet;

use crate::archive::{Manifest, Shard};

/// Bytes of one number of a vector in memory.
const NUMBER_BYTES: u64 = 4;

/// The shards whose vectors are here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Holding {
    /// All of them, however many there will be.
    #[default]
    All,
    /// These.
    Shards(BTreeSet<u32>),
}

impl Holding {
    /// Whether a shard is held.
    pub fn has(&self, shard: u32) -> bool {
        match self {
            Self::All => true,
            Self::Shards(shards) => shards.contains(&shard),
        }
    }

    /// What is held of a version that is cut into `next`, after one that was cut into `before`: nothing yet where these are others, which have to be assigned first.
    pub fn after(&self, before: &[Shard], next: &[Shard]) -> Self {
        match self {
            Self::Shards(_) if before != next => Self::Shards(BTreeSet::new()),
            same => same.clone(),
        }
    }

    /// Those of `manifest` that are held. One without rows of its own is held by everyone: there is nothing to hold.
    pub fn of(&self, manifest: &Manifest) -> BTreeSet<u32> {
        let filled: BTreeSet<u32> = manifest.rows.iter().filter_map(|entry| entry.shard()).collect();
        let shards = manifest.shards.iter().map(|shard| shard.id);
        shards
            .filter(|&shard| self.has(shard) || !filled.contains(&shard))
            .collect()
    }
}

/// Memory that each shard of a version takes where it is held, in the order of the manifest: its vectors as they are compared, and their graphs.
pub fn shard_bytes(manifest: &Manifest) -> Vec<(u32, u64)> {
    let metric = manifest.metric.as_ref();
    let components = metric.map_or(manifest.space.dimension as u64, |metric| metric.components as u64);
    let rows = |shard| {
        let entries = manifest.rows.iter().filter(move |entry| entry.shard() == Some(shard));
        entries.map(|entry| entry.rows).sum::<u64>()
    };
    let graphs = |shard| {
        let entries = manifest.graphs.iter().filter(move |entry| entry.shard == shard);
        entries.map(|entry| entry.bytes).sum::<u64>()
    };
    let bytes = |shard| rows(shard) * components * NUMBER_BYTES + graphs(shard);
    manifest
        .shards
        .iter()
        .map(|shard| (shard.id, bytes(shard.id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Unknown;

    #[test]
    fn other_shards_are_not_held_before_they_are_assigned() {
        let shard = |id, slots| Shard {
            id,
            slots,
            other: Unknown::new(),
        };
        let one = [shard(0, [0, 65_535])];
        let two = [shard(0, [0, 32_767]), shard(1, [32_768, 65_535])];
        let some = Holding::Shards(BTreeSet::from([0]));
        assert_eq!(some.after(&one, &one), some);
        assert_eq!(some.after(&one, &two), Holding::Shards(BTreeSet::new()));
        assert_eq!(Holding::All.after(&one, &two), Holding::All);
    }
}
