//! Hits and the one order in which they are ranked, everywhere.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClassLabel, ImageId, Key, Record};

/// One image found, with what merge and vote need.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Cosine similarity to the query, by [`super::similarity`].
    pub similarity: f32,
    /// The image and all that is known about it.
    pub record: Arc<Record>,
    /// Its label counts: it has a class and no conflict, neither in its own record nor with another copy of the picture.
    pub votes: bool,
    /// Who it stands for: one result and one vote each.
    pub group: Group,
    /// The copies of its picture, if it is not the only one.
    pub copies: Option<Arc<Copies>>,
}

impl Hit {
    /// A hit that stands for its patient, or for itself, and whose picture is there once.
    pub fn alone(similarity: f32, record: Arc<Record>, votes: bool) -> Self {
        Self {
            similarity,
            votes,
            group: Group::of(&record),
            copies: None,
            record,
        }
    }

    /// The image.
    pub fn id(&self) -> ImageId {
        self.record.id
    }

    /// Its class.
    pub fn class(&self) -> Option<&ClassLabel> {
        self.record.class.as_ref()
    }

    /// The order of hits: similarity descending (`total_cmp`), then id bytes.
    pub fn order(&self, other: &Self) -> Ordering {
        other
            .similarity
            .total_cmp(&self.similarity)
            .then_with(|| self.record.id.cmp(&other.record.id))
    }
}

/// Who a hit stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// A known patient.
    Patient(Key),
    /// An image of an unknown patient.
    Image(ImageId),
    /// Patients and images that copies of a picture join, by the smallest id of these copies.
    Joined(ImageId),
}

impl Group {
    /// The patient, or the image where the patient is unknown.
    pub fn of(record: &Record) -> Self {
        record.patient.map_or(Self::Image(record.id), Self::Patient)
    }
}

/// Images that are one picture: equal pixels, or near-identical to one another by any chain of links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// Their ids, ascending, two or more.
    pub images: Vec<ImageId>,
    /// They have several classes, so that none of them votes.
    pub label_conflict: bool,
}

impl Copies {
    /// How many there are beside one of them.
    pub fn others(&self) -> usize {
        self.images.len() - 1
    }
}

/// How the rows of a class were searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
