//! Which shards a replica holds: their vectors are in its memory, and searched.

use std::collections::BTreeSet;

use crate::archive::Manifest;

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
