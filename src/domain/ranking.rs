//! Hits and the one order in which they are ranked, everywhere.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ClassLabel, ImageId, Key, Record};

/// One image found, with what merge and vote need.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Cosine similarity to the query, by [`super::similarity`].
    pub similarity: f32,
    /// The image and all that is known about it.
    pub record: Arc<Record>,
    /// Its label counts: it has a class and no conflict, neither in its own record nor with another record of the same pixels.
    pub votes: bool,
}

impl Hit {
    /// The image.
    pub fn id(&self) -> ImageId {
        self.record.id
    }

    /// Its class.
    pub fn class(&self) -> Option<&ClassLabel> {
        self.record.class.as_ref()
    }

    /// One result and one vote per patient: the group a hit belongs to. Images of unknown patients are groups of their own.
    pub fn group(&self) -> Group {
        self.record.patient.map_or(Group::Image(self.record.id), Group::Patient)
    }

    /// The order of hits: similarity descending (`total_cmp`), then id bytes.
    pub fn order(&self, other: &Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then_with(|| self.record.id.cmp(&other.record.id))
    }
}

/// Who a hit stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// A known patient.
    Patient(Key),
    /// An image of an unknown patient.
    Image(ImageId),
}

/// How the rows of a class were searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathTaken {
    /// Graph, then re-scored.
    Hnsw,
    /// Every row scored.
    Exact,
}

/// The merged answer of all shards.
#[derive(Debug, Clone, Default)]
pub struct Ranking {
    /// At most k hits, best first, one per [`Group`].
    pub hits: Vec<Hit>,
    /// The best hit of each class, best first.
    pub nearest_per_class: Vec<Hit>,
    /// How each class was searched (a class searched both ways counts as `Hnsw`).
    pub path: BTreeMap<ClassLabel, PathTaken>,
    /// Images per class that could have been returned under the ask's filters.
    pub eligible: BTreeMap<ClassLabel, usize>,
    /// Vectors compared with the query.
    pub distance_evaluations: u64,
}

/// Which shards answered. A shard that failed is part of the answer, not an exception.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Shards of the archive.
    pub shards: usize,
    /// Those that answered.
    pub answered: usize,
    /// Those that did not.
    pub missing: Vec<u32>,
}
