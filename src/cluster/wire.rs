//! What replicas say to each other, as JSON over the inner port. Numbers that have to arrive to the bit travel as bits.
//!
//! A replica speaks [`WIRE`] and understands from [`WIRE_OLDEST`] on, so that two programs that follow each other serve together. Unknown fields are
//! skipped; a change that a reader of the wire before would answer wrongly raises both numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Held;
use crate::domain::{
    Ask, ClassLabel, Embedding, Exclude, ImageId, Key, OnePer, PathTaken, PatientKeys, Query, Ranking,
};
use crate::error::{Error, ErrorKind, Result};

/// The wire that this program speaks.
pub const WIRE: u32 = 1;
/// The oldest that it understands.
pub const WIRE_OLDEST: u32 = 1;
/// Where a replica says how it is.
pub const STATUS_PATH: &str = "/inner/v1/status";
/// Where it searches shards.
pub const SEARCH_PATH: &str = "/inner/v1/search";
/// Most bytes of an answer: a hundred neighbors of each of some hundred shards.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How a replica is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The wire it speaks.
    pub wire: u32,
    /// The oldest wire it understands.
    pub wire_oldest: u32,
    /// Random, of this process.
    pub instance: String,
    /// Its name in placement.
    pub replica: String,
    /// Id of the archive it serves.
    pub archive: String,
    /// It is about to stop.
    pub draining: bool,
    /// Memory that it has for shards; none: enough for everything.
    pub bytes_max: Option<u64>,
    /// The versions it can answer in, the newest first.
    pub held: Vec<Held>,
}

impl Status {
    /// One that holds nothing.
    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            wire: WIRE,
            wire_oldest: WIRE_OLDEST,
            instance: "i".into(),
            replica: "r".into(),
            archive: "a".into(),
            draining: false,
            bytes_max: None,
            held: vec![],
        }
    }

    /// Whether both speak a wire that the other understands.
    pub fn is_understood(&self) -> bool {
        self.wire >= WIRE_OLDEST && self.wire_oldest <= WIRE
    }
}

/// One query for some shards of one version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardQuery {
    /// The wire it is written in.
    pub wire: u32,
    /// Id of the archive.
    pub archive: String,
    /// The version.
    pub version: u64,
    /// Its commit.
    pub commit: String,
    /// The shards.
    pub shards: BTreeSet<u32>,
    /// What is left of the time for the request, in milliseconds.
    pub deadline_ms: u64,
    /// The query's vector as the version compares it: little-endian float32, base64.
    embedding: String,
    patients: Vec<[Key; 2]>,
    studies: Vec<Key>,
    same_pixels: Vec<Key>,
    k: usize,
    classes: Option<Vec<ClassLabel>>,
    sources: Option<Vec<String>>,
    exclude_sources: Vec<String>,
    exclude: BTreeSet<Left>,
    one_per: OnePer,
    exact: bool,
}

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Left {
    Patient,
    Study,
    Pixels,
}

impl ShardQuery {
    /// The question, for no shards yet.
    pub fn new(archive: &str, version: u64, commit: &str, query: &Query, ask: &Ask) -> Self {
        let bytes: Vec<u8> = query
            .embedding
            .as_slice()
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let left = [
            (ask.exclude.patient, Left::Patient),
            (ask.exclude.study, Left::Study),
            (ask.exclude.pixels, Left::Pixels),
        ];
        Self {
            // The oldest that may read it: the program before this one serves beside it in an update.
            wire: WIRE_OLDEST,
            archive: archive.to_owned(),
            version,
            commit: commit.to_owned(),
            shards: BTreeSet::new(),
            deadline_ms: 0,
            embedding: STANDARD.encode(bytes),
            patients: query.patients.iter().map(|keys| [keys.patient, keys.id]).collect(),
            studies: query.studies.clone(),
            same_pixels: query.same_pixels.clone(),
            k: ask.k,
            classes: ask.classes.clone(),
            sources: ask.sources.clone(),
            exclude_sources: ask.exclude_sources.clone(),
            exclude: left
                .into_iter()
                .filter(|(left, _)| *left)
                .map(|(_, what)| what)
                .collect(),
            one_per: ask.one_per,
            exact: ask.exact,
        }
    }

    /// The same question for these shards and so much time.
    pub fn about(&self, shards: BTreeSet<u32>, time: Duration) -> Self {
        Self {
            shards,
            deadline_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            ..self.clone()
        }
    }

    /// What is asked.
    ///
    /// # Errors
    /// `InvalidRequest` for a wire that is not understood, or a vector that is none.
    pub fn read(&self) -> Result<(Query, Ask)> {
        let wrong = |what: &str| Error::new(ErrorKind::InvalidRequest, what);
        if !(WIRE_OLDEST..=WIRE).contains(&self.wire) {
            return Err(wrong("a wire that is not understood"));
        }
        let bytes = STANDARD
            .decode(&self.embedding)
            .map_err(|_| wrong("the vector is not base64"))?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        let unit: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if !rest.is_empty() || unit.is_empty() || !unit.iter().all(|x| x.is_finite()) {
            return Err(wrong("the vector is not one"));
        }
        if !Embedding::is_unit(&unit) {
            return Err(wrong("the vector is not of unit length"));
        }
        if self.k == 0 || self.k > crate::domain::K_MAX {
            return Err(wrong("`k` is out of range"));
        }
        let query = Query {
            embedding: Embedding::from_unit(unit),
            patients: (self.patients.iter())
                .map(|&[patient, id]| PatientKeys { patient, id })
                .collect(),
            studies: self.studies.clone(),
            same_pixels: self.same_pixels.clone(),
        };
        let ask = Ask {
            k: self.k,
            classes: self.classes.clone(),
            sources: self.sources.clone(),
            exclude_sources: self.exclude_sources.clone(),
            exclude: Exclude {
                patient: self.exclude.contains(&Left::Patient),
                study: self.exclude.contains(&Left::Study),
                pixels: self.exclude.contains(&Left::Pixels),
            },
            one_per: self.one_per,
            exact: self.exact,
            ..Ask::default()
        };
        Ok((query, ask))
    }
}

/// What the asked shards have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardAnswer {
    /// One ranking a shard.
    pub rankings: Vec<ShardRanking>,
}

/// A ranking of one shard. Images by name: every replica knows their records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardRanking {
    /// The shard.
    pub shard: u32,
    /// Its best, best first.
    pub hits: Vec<Found>,
    /// Its best of each class.
    pub nearest_per_class: Vec<Found>,
    /// How each class was searched.
    pub path: BTreeMap<ClassLabel, PathTaken>,
    /// Images of each class that could have been returned.
    pub eligible: BTreeMap<ClassLabel, usize>,
    /// Vectors compared.
    pub distance_evaluations: u64,
}

/// An image that was found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Found {
    /// The image.
    pub id: ImageId,
    /// The bits of its similarity.
    similarity: u32,
}

impl Found {
    /// Cosine similarity to the query.
    pub fn similarity(self) -> f32 {
        f32::from_bits(self.similarity)
    }
}

impl ShardRanking {
    /// Of a ranking.
    pub fn new(shard: u32, ranking: &Ranking) -> Self {
        let found = |hits: &[crate::domain::Hit]| {
            let found = hits.iter().map(|hit| Found {
                id: hit.id(),
                similarity: hit.similarity.to_bits(),
            });
            found.collect()
        };
        Self {
            shard,
            hits: found(&ranking.hits),
            nearest_per_class: found(&ranking.nearest_per_class),
            path: ranking.path.clone(),
            eligible: ranking.eligible.clone(),
            distance_evaluations: ranking.distance_evaluations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::VoteMethod;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        any::<[u8; 16]>().prop_map(Key)
    }

    #[test]
    fn replicas_of_neighboring_wires_are_peers_and_others_are_not() {
        let understood = |wire_oldest, wire| {
            let status = Status {
                wire,
                wire_oldest,
                ..Status::example()
            };
            status.is_understood()
        };
        assert!(understood(WIRE_OLDEST, WIRE));
        // One that is newer and still speaks ours, and one that is older and speaks our oldest.
        assert!(understood(WIRE, WIRE + 1));
        assert!(understood(WIRE_OLDEST - 1, WIRE_OLDEST));
        // One that has left ours behind, and one that we have left behind.
        assert!(!understood(WIRE + 1, WIRE + 1));
        assert!(!understood(WIRE_OLDEST - 1, WIRE_OLDEST - 1));
    }

    #[test]
    fn a_vector_that_is_not_of_unit_length_is_refused() {
        let query = Query::of(Embedding::from_raw(&[0.6, -0.8], 2).unwrap());
        let question = ShardQuery::new("archive", 1, "commit", &query, &Ask::default());
        assert!(question.read().is_ok());
        for vector in [[0.5f32, -0.8], [0.0, 0.0], [f32::MAX, f32::MAX]] {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            let embedding = STANDARD.encode(bytes);
            let other = ShardQuery {
                embedding,
                ..question.clone()
            };
            assert_eq!(other.read().unwrap_err().kind(), ErrorKind::InvalidRequest);
        }
    }

    proptest! {
        #[test]
        fn a_question_arrives_to_the_bit(
            vector in prop::collection::vec(-1f32..1.0, 1..40).prop_filter("zero", |v| v.iter().any(|x| x.abs() > 0.1)),
            patients in prop::collection::vec((key(), key()), 0..3),
            studies in prop::collection::vec(key(), 0..3),
            exclude in any::<(bool, bool, bool)>(),
            one_per in prop_oneof![Just(OnePer::Picture), Just(OnePer::Patient), Just(OnePer::Image)],
            (k, exact) in (1usize..=100, any::<bool>()),
            sources in prop::option::of(prop::collection::vec("[a-z]{1,4}", 0..3)),
        ) {
            let dimension = vector.len();
            let query = Query {
                embedding: Embedding::from_raw(&vector, dimension).unwrap(),
                patients: patients.iter().map(|&(patient, id)| PatientKeys { patient, id }).collect(),
                studies: studies.clone(),
                same_pixels: studies,
            };
            let ask = Ask {
                k,
                exact,
                one_per,
                sources,
                exclude: Exclude { patient: exclude.0, study: exclude.1, pixels: exclude.2 },
                classes: Some(vec![ClassLabel::parse("Viral Pneumonia").unwrap()]),
                ..Ask::default()
            };
            let sent = serde_json::to_vec(&ShardQuery::new("archive", 7, "commit", &query, &ask)).unwrap();
            let (read, read_ask) = serde_json::from_slice::<ShardQuery>(&sent).unwrap().read().unwrap();
            let bits = |query: &Query| query.embedding.as_slice().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read), bits(&query));
            prop_assert_eq!((read.patients, read.studies, read.same_pixels), (query.patients, query.studies, query.same_pixels));
            prop_assert_eq!(read_ask, Ask { vote: VoteMethod::default(), ..ask });
        }
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let query = Query::of(Embedding::from_raw(&[1.0, 0.0], 2).unwrap());
        let good = serde_json::to_value(ShardQuery::new("a", 1, "c", &query, &Ask::default())).unwrap();
        let changed = |field: &str, value: serde_json::Value| {
            let mut body = good.clone();
            body[field] = value;
            serde_json::from_value::<ShardQuery>(body).unwrap().read().map(|_| ())
        };
        assert!(
            changed("later", 1.into()).is_ok(),
            "a field of a later program is skipped"
        );
        for (field, value) in [
            ("wire", (WIRE + 1).into()),
            ("embedding", "AAA".into()),
            ("embedding", "AAAA".into()),
            ("embedding", "AADAfw==".into()),
            ("k", 0.into()),
            ("k", 101.into()),
        ] {
            let refused = changed(field, value).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::InvalidRequest), "{field}");
        }
    }
}
