//! The manifest: one numbered JSON file that names everything a version of the archive consists of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::store::is_object_name;
use super::{CalibrationEntry, EvaluationEntry, IdentityMode, LabelRules, MetricEntry};
use crate::domain::{ClassLabel, Slot, Space, Unknown};
use crate::error::{Error, ErrorKind, Result};

/// The latest manifest format, of every manifest that is written: the first with a checksum, which a program that knows none would carry along to the
/// next version.
pub(super) const FORMAT: u32 = 4;
/// What stands before the checksum, a BLAKE3 of all that comes before this; the file ends after it.
const CHECKSUM_MARK: &[u8] = b",\"checksum\":\"";
/// What stands behind it.
const CHECKSUM_END: &[u8] = b"\"}";
/// Hex digits of a checksum.
const CHECKSUM_DIGITS: usize = 64;
/// The folder of manifests.
pub(super) const MANIFESTS: &str = "manifest";
/// The folder of models.
pub(super) const MODELS: &str = "models";

/// One version of the archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this file.
    pub format: u32,
    /// Number of this version, from 1, without gaps. Old ones are collected, and a copy has only the one that it was made of.
    pub version: u64,
    /// `commit` of the version before; absent in version 1.
    pub parent: Option<String>,
    /// Random UUID of the commit: how a writer recognises its own manifest after an unknown outcome.
    pub commit: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// Program and version that wrote it.
    pub writer: String,
    /// What the archive is.
    pub archive: ArchiveInfo,
    /// The space of every vector in it.
    pub space: Space,
    /// The model that makes such vectors.
    pub model: Option<ModelRef>,
    /// Precisions measured as interchangeable.
    pub precisions: Vec<String>,
    /// Classes with at least one image, sorted.
    pub classes: Vec<ClassLabel>,
    /// The learned metric by which it is searched; absent: cosine.
    pub metric: Option<MetricEntry>,
    /// The calibration of its votes.
    pub calibration: Option<CalibrationEntry>,
    /// How good its answers were found to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationEntry>,
    /// Which slots each shard owns: sorted, disjoint, all of them.
    pub shards: Vec<Shard>,
    /// Records and vectors.
    pub rows: Vec<RowsEntry>,
    /// HNSW graphs.
    pub graphs: Vec<GraphEntry>,
    /// Pictures.
    pub packs: Vec<PackEntry>,
    /// Rows that no longer count.
    pub tombstones: Vec<Tombstones>,
    /// Until then no new images are taken: the archive is about to be of another space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_until: Option<Timestamp>,
    /// Objects that the version before named, or that were written for this one, and that this one does not name. Each version lists its own, so that
    /// a manifest does not grow with the number of versions; once no version before this one is left, they can be deleted.
    pub superseded: Vec<String>,
    /// Fields of a later program with the same format, carried along.
    #[serde(flatten)]
    pub other: Unknown,
}

/// What an archive is, the same in all its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveInfo {
    /// Random UUID.
    pub id: String,
    /// Shown to people.
    pub name: String,
    /// RFC 3339 time of creation.
    pub created_at: String,
    /// Made by `scripts/demo`: sample queries are offered.
    #[serde(default)]
    pub demo: bool,
    /// The images are synthetic, which every page has to say.
    #[serde(default)]
    pub synthetic: bool,
    /// Licence of the images.
    pub licence: Option<String>,
    /// Whether ids can be given back.
    pub identity: IdentityMode,
    /// Name of the secret behind the pseudonyms.
    pub secret_id: String,
    /// Which pixels are kept.
    pub retention: Retention,
    /// What belongs into it.
    #[serde(default)]
    pub scope: Scope,
    /// Which class the tags of a file say that comes without one.
    #[serde(default, skip_serializing_if = "LabelRules::is_empty")]
    pub label_rules: LabelRules,
    /// What may stand in open records though nobody checked that it names no patient.
    #[serde(default)]
    pub shown: Shown,
    /// Fields of a later program with the same format, carried along.
    #[serde(flatten)]
    pub other: Unknown,
}

/// What of a data set's own names and columns stands in open records. By default three tags that can't name anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shown {
    /// Names of files.
    pub file_names: bool,
    /// Further tags, which whoever made the archive called not identifying.
    pub tags: Vec<String>,
}

impl Shown {
    /// Tags that every archive shows.
    pub const TAGS: [&str; 4] = ["split", "modality", "body_part", "burned_in"];

    /// Whether a tag stands in open records.
    pub fn tag(&self, name: &str) -> bool {
        Self::TAGS.contains(&name) || self.tags.iter().any(|shown| shown == name)
    }
}

/// Which pixels an archive keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// All of them, de-identified.
    Original,
    /// Long side at most 1536, original bit depth, lossless.
    View,
    /// A small picture only.
    Thumbnail,
}

impl FromStr for Retention {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "original" => Ok(Self::Original),
            "view" => Ok(Self::View),
            "thumbnail" => Ok(Self::Thumbnail),
            _ => Err(Error::new(
                ErrorKind::InvalidRequest,
                "the retention is `original`, `view` or `thumbnail`",
            )),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::View => "view",
            Self::Thumbnail => "thumbnail",
        })
    }
}

/// What belongs into an archive; an empty list allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// DICOM modalities.
    pub modality: Vec<String>,
    /// Body parts.
    pub body_part: Vec<String>,
    /// View positions.
    pub view: Vec<String>,
    /// SOP classes.
    pub sop_classes: Vec<String>,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

/// The model in `models/<digest>/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRef {
    /// SHA-256 of its TorchScript, 64 hex digits; of nothing for the thumbnail embedder, which has none.
    pub digest: String,
    /// Its card.
    pub card: Value,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl ModelRef {
    /// Whether it is the built-in thumbnail embedder, of which nothing is stored.
    pub fn is_thumbnail(&self) -> bool {
        self.card.get("name").and_then(Value::as_str) == Some("thumbnail")
    }

    /// The name of its TorchScript, where there is one.
    pub(super) fn object(&self) -> Option<String> {
        (!self.is_thumbnail()).then(|| model_name(&self.digest))
    }
}

/// Where the TorchScript with this digest lies.
pub(super) fn model_name(digest: &str) -> String {
    format!("{MODELS}/{digest}/model.pt")
}

/// A contiguous range of slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number.
    pub id: u32,
    /// First and last slot.
    pub slots: [u16; 2],
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

/// A rows object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowsEntry {
    /// `rows/<blake3>`.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows, dead ones included.
    pub rows: u64,
    /// Small, to be merged with others.
    pub delta: bool,
    /// Shards that it has rows of.
    pub shards: Vec<u32>,
    /// Rows per class; the rest has no class.
    pub classes: BTreeMap<ClassLabel, u64>,
    /// Packs with pictures of its rows.
    pub packs: Vec<String>,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl RowsEntry {
    /// The shard that all its rows are in; none for a delta, and for what is on its way to be merged: rows of several shards, which everyone searches.
    pub fn shard(&self) -> Option<u32> {
        match self.shards[..] {
            [shard] if !self.delta => Some(shard),
            _ => None,
        }
    }
}

/// An HNSW graph over the rows of one class in one rows object: a cache that can always be rebuilt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphEntry {
    /// `graphs/<blake3>`.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// The rows object; keys of the graph are row numbers in it.
    pub rows_object: String,
    /// The shard.
    pub shard: u32,
    /// The class; null: the rows without one.
    pub class: Option<ClassLabel>,
    /// Rows in the graph.
    pub rows: u64,
    /// The learned metric it was built for; null: cosine.
    pub metric: Option<String>,
    /// How it was built.
    pub parameters: GraphParameters,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

/// How a graph was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphParameters {
    /// Neighbors per node.
    pub connectivity: usize,
    /// Candidates while building.
    pub expansion_add: usize,
    /// Candidates while searching.
    pub expansion_search: usize,
    /// Stored scalar, for example `f16`.
    pub scalar: String,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

/// A pack of pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackEntry {
    /// `thumbnails/<blake3>` or `pixels/<blake3>`.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Since when it may hold pictures of rows that were merged away; absent: it never has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_since: Option<Timestamp>,
    /// It could not be read when its pictures were to be copied: it stays as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl PackEntry {
    /// A pack that is new.
    pub(super) fn new(object: String, bytes: u64) -> Self {
        Self {
            object,
            bytes,
            dead_since: None,
            damaged: false,
            other: Unknown::new(),
        }
    }
}

/// Dead rows of one rows object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstones {
    /// The rows object.
    pub rows_object: String,
    /// Row numbers, ascending.
    pub rows: Vec<u32>,
    /// When the first of them died; absent: longer ago than anybody remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Manifest {
    /// The name of version `version`.
    pub(super) fn name(version: u64) -> String {
        format!("{MANIFESTS}/{version:020}.json")
    }

    /// The version that a name stands for.
    pub(super) fn version_of(name: &str) -> Option<u64> {
        let digits = name.strip_prefix(MANIFESTS)?.strip_prefix('/')?.strip_suffix(".json")?;
        (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse().ok())
            .flatten()
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// `Unavailable` for the format of a later program, `Damaged` for anything that can't be a manifest, or is not what was written.
    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let changed = |what: &str| Error::new(ErrorKind::Damaged, format!("`{name}` is damaged: {what}"));
        let damaged = |error| {
            Error::with_source(
                ErrorKind::Damaged,
                format!("`{name}` is damaged: it is not a manifest"),
                error,
            )
        };
        // First of all: a changed digit must not pass for the format of a later program.
        let checksum = checksum(bytes);
        if checksum == Some(Checksum::Wrong) {
            return Err(changed("its bytes have another checksum"));
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the archive has format {format}, this program reads format {FORMAT}: use a newer medsearch"),
            ));
        }
        if format == FORMAT && checksum.is_none() {
            return Err(changed("it has no checksum"));
        }
        let mut manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| later(bytes).unwrap_or_else(|| damaged(error)))?;
        manifest.other.remove("checksum");
        manifest
            .check()
            .map_err(|what| Error::new(ErrorKind::Damaged, format!("`{name}` contradicts itself: {what}")))?;
        Ok(manifest)
    }

    /// Checks and writes a manifest.
    ///
    /// # Errors
    /// `Internal` when it contradicts itself.
    pub(super) fn encode(&self) -> Result<Bytes> {
        self.check()
            .map_err(|what| Error::internal(format!("refused to write a manifest: {what}")))?;
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "the manifest can't be written as JSON", error))?;
        // One that an older program wrote is copied as it is.
        let is_checked = self.format == FORMAT;
        Ok(if is_checked { with_checksum(bytes) } else { bytes }.into())
    }

    /// Images: rows that are not dead.
    pub fn images(&self) -> u64 {
        let rows: u64 = self.rows.iter().map(|entry| entry.rows).sum();
        rows - self.tombstones.iter().map(|dead| dead.rows.len() as u64).sum::<u64>()
    }

    /// The shard that owns a slot.
    pub fn shard(&self, slot: Slot) -> u32 {
        let index = self.shards.partition_point(|shard| shard.slots[1] < slot.0);
        self.shards.get(index).map_or(0, |shard| shard.id)
    }

    /// Refuses vectors of another space.
    ///
    /// # Errors
    /// `SpaceMismatch`.
    pub fn require_space(&self, space: &Space) -> Result<()> {
        if *space == self.space {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::SpaceMismatch,
            format!(
                "the vectors are of space `{}`, the archive is of space `{}`",
                space.id(),
                self.space.id()
            ),
        ))
    }

    /// Small rows objects that wait to be merged.
    pub(super) fn deltas(&self) -> usize {
        self.rows.iter().filter(|entry| entry.delta).count()
    }

    /// Adds a rows object.
    pub(super) fn add_rows(&mut self, entry: RowsEntry, packs: &[PackEntry]) {
        for name in &entry.packs {
            if let Some(pack) = packs.iter().find(|pack| pack.object == *name)
                && !self.packs.iter().any(|known| known.object == pack.object)
            {
                self.packs.push(pack.clone());
            }
        }
        self.rows.push(entry);
    }

    /// Marks rows as dead, the first of them since `since`.
    pub(super) fn add_tombstones(
        &mut self,
        rows_object: &str,
        rows: impl IntoIterator<Item = u32>,
        since: Option<Timestamp>,
    ) {
        let mut all: BTreeSet<u32> = rows.into_iter().collect();
        if all.is_empty() {
            return;
        }
        let known = self.tombstones.iter_mut().find(|dead| dead.rows_object == rows_object);
        match known {
            Some(dead) => {
                all.extend(&dead.rows);
                dead.rows = all.into_iter().collect();
                // `None` is the oldest of all.
                dead.since = dead.since.min(since);
            }
            None => self.tombstones.push(Tombstones {
                rows_object: rows_object.to_owned(),
                rows: all.into_iter().collect(),
                since,
                other: Unknown::new(),
            }),
        }
    }

    /// Notes in their packs since when rows of these objects are dead: with the rows goes their tombstone, and a pack may stay.
    pub(super) fn mark_dead_pictures(&mut self, objects: &BTreeSet<String>) {
        for dead in self
            .tombstones
            .iter()
            .filter(|dead| objects.contains(&dead.rows_object))
        {
            let since = dead.since.unwrap_or(Timestamp::MIN);
            let Some(of) = self.rows.iter().find(|entry| entry.object == dead.rows_object) else {
                continue;
            };
            for pack in self.packs.iter_mut().filter(|pack| of.packs.contains(&pack.object)) {
                pack.dead_since = Some(pack.dead_since.map_or(since, |known| known.min(since)));
            }
        }
    }

    /// Takes rows objects out, with their graphs, tombstones and every pack that nothing else needs.
    pub(super) fn remove_rows(&mut self, objects: &BTreeSet<String>) {
        self.mark_dead_pictures(objects);
        self.rows.retain(|entry| !objects.contains(&entry.object));
        self.graphs.retain(|graph| !objects.contains(&graph.rows_object));
        self.tombstones.retain(|dead| !objects.contains(&dead.rows_object));
        let needed: BTreeSet<&String> = self.rows.iter().flat_map(|entry| &entry.packs).collect();
        self.packs.retain(|pack| needed.contains(&pack.object));
    }

    /// The name of every object it names.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.objects().map(|(name, _)| name.to_owned()).collect()
    }

    /// Every object it names, with its size.
    pub(super) fn objects(&self) -> impl Iterator<Item = (&str, u64)> {
        let rows = self.rows.iter().map(|entry| (entry.object.as_str(), entry.bytes));
        let graphs = self.graphs.iter().map(|entry| (entry.object.as_str(), entry.bytes));
        let packs = self.packs.iter().map(|entry| (entry.object.as_str(), entry.bytes));
        let metric = self.metric.iter().map(|entry| (entry.object.as_str(), entry.bytes));
        let calibration = self
            .calibration
            .iter()
            .map(|entry| (entry.object.as_str(), entry.bytes));
        let evaluation = self.evaluation.iter().map(|entry| (entry.object.as_str(), entry.bytes));
        rows.chain(graphs)
            .chain(packs)
            .chain(metric)
            .chain(calibration)
            .chain(evaluation)
    }

    /// What contradicts itself, in words.
    fn check(&self) -> std::result::Result<(), String> {
        let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        ensure(self.version >= 1, "the version is 0")?;
        ensure(
            self.parent.is_none() == (self.version == 1),
            "only version 1 has no parent",
        )?;
        ensure(!self.commit.is_empty(), "it has no commit")?;
        ensure(
            (1..=65_536).contains(&self.space.dimension),
            "the dimension is not within 1 to 65536",
        )?;
        self.space.windows().map_err(|error| error.message().to_owned())?;
        ensure(!self.precisions.is_empty(), "no precision is accepted")?;
        ensure(self.classes.is_sorted_by(|a, b| a < b), "the classes are not sorted")?;
        self.check_shards()?;

        let mut rows: HashMap<&str, &RowsEntry> = HashMap::new();
        for entry in &self.rows {
            ensure(is_object_name(&entry.object, "rows"), "a rows object has an odd name")?;
            ensure(
                rows.insert(&entry.object, entry).is_none(),
                "a rows object is named twice",
            )?;
            ensure(
                entry.rows >= 1 && entry.rows <= u64::from(u32::MAX),
                "a rows object has no rows or too many",
            )?;
            let classed = entry
                .classes
                .values()
                .try_fold(0u64, |sum, &rows| sum.checked_add(rows));
            ensure(
                classed.is_some_and(|sum| sum <= entry.rows),
                "a rows object has more classes than rows",
            )?;
            let known = |id: &u32| self.shards.iter().any(|shard| shard.id == *id);
            ensure(entry.shards.iter().all(known), "a rows object is of an unknown shard")?;
        }
        let mut packs = BTreeSet::new();
        for pack in &self.packs {
            let odd = !is_object_name(&pack.object, "thumbnails") && !is_object_name(&pack.object, "pixels");
            ensure(!odd, "a pack has an odd name")?;
            ensure(packs.insert(&pack.object), "a pack is named twice")?;
        }
        ensure(
            self.rows
                .iter()
                .flat_map(|entry| &entry.packs)
                .all(|pack| packs.contains(pack)),
            "a pack is missing",
        )?;
        if let Some(metric) = &self.metric {
            ensure(is_object_name(&metric.object, "metrics"), "a metric has an odd name")?;
            ensure(
                (1..=self.space.dimension).contains(&metric.components),
                "a metric has more components than the vectors",
            )?;
        }
        let metric = self.metric.as_ref().map(|metric| &metric.object);
        if let Some(calibration) = &self.calibration {
            let odd = !is_object_name(&calibration.object, "calibrations");
            ensure(!odd, "a calibration has an odd name")?;
            ensure(
                calibration.metric.as_ref() == metric,
                "a calibration is of another metric",
            )?;
        }
        if let Some(evaluation) = &self.evaluation {
            let odd = !is_object_name(&evaluation.object, "evaluations");
            ensure(!odd, "an evaluation has an odd name")?;
        }
        let mut graphs = BTreeSet::new();
        for graph in &self.graphs {
            ensure(graph.metric.as_ref() == metric, "a graph is of another metric")?;
            ensure(is_object_name(&graph.object, "graphs"), "a graph has an odd name")?;
            ensure(graphs.insert(&graph.object), "a graph is named twice")?;
            let of = rows.get(graph.rows_object.as_str());
            ensure(
                of.is_some_and(|entry| graph.rows <= entry.rows),
                "a graph is of unknown rows",
            )?;
            ensure(
                of.is_some_and(|entry| entry.shards.contains(&graph.shard)),
                "a graph is of an unknown shard",
            )?;
        }
        let mut dead = BTreeSet::new();
        for tombstones in &self.tombstones {
            ensure(
                dead.insert(&tombstones.rows_object),
                "an object has two lists of tombstones",
            )?;
            let of = rows.get(tombstones.rows_object.as_str());
            ensure(
                tombstones.rows.is_sorted_by(|a, b| a < b),
                "tombstones are not ascending",
            )?;
            let last = tombstones.rows.last();
            let inside = of.zip(last).is_some_and(|(entry, &last)| u64::from(last) < entry.rows);
            ensure(inside, "tombstones are of unknown rows")?;
        }
        Ok(())
    }

    fn check_shards(&self) -> std::result::Result<(), String> {
        let mut next = 0u32;
        let mut ids = BTreeSet::new();
        for shard in &self.shards {
            let [first, last] = shard.slots.map(u32::from);
            if first != next || last < first || !ids.insert(shard.id) {
                return Err("the shards' slots are not sorted, disjoint and without gaps".to_owned());
            }
            next = last + 1;
        }
        if next == 65_536 {
            Ok(())
        } else {
            Err("the shards don't cover every slot".to_owned())
        }
    }
}

/// What the checksum at the end of a manifest says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    Right,
    Wrong,
}

/// None where there is none.
fn checksum(bytes: &[u8]) -> Option<Checksum> {
    let (rest, digits) = bytes
        .strip_suffix(CHECKSUM_END)?
        .split_last_chunk::<CHECKSUM_DIGITS>()?;
    let content = rest.strip_suffix(CHECKSUM_MARK)?;
    let is_right = blake3::hash(content).to_hex().as_bytes() == digits;
    Some(if is_right { Checksum::Right } else { Checksum::Wrong })
}

/// A JSON object with its checksum as its last field.
fn with_checksum(mut object: Vec<u8>) -> Vec<u8> {
    // The brace that closes it.
    object.pop();
    let checksum = blake3::hash(&object).to_hex();
    object.extend(CHECKSUM_MARK);
    object.extend(checksum.as_bytes());
    object.extend(CHECKSUM_END);
    object
}

/// Words that decide how an archive is written are not guessed at: one that is not known here is a later program's, not damage.
fn later(bytes: &[u8]) -> Option<Error> {
    let manifest: Value = serde_json::from_slice(bytes).ok()?;
    let word = |field: &str| manifest.get("archive")?.get(field)?.as_str();
    let (identity, retention) = (word("identity")?, word("retention")?);
    let (field, word) = match (identity.parse::<IdentityMode>(), retention.parse::<Retention>()) {
        (Err(_), _) => ("identity", identity),
        (_, Err(_)) => ("retention", retention),
        _ => return None,
    };
    let message =
        format!("the archive's `{field}` is `{word}`, which this program does not know: use a newer medsearch");
    Some(Error::new(ErrorKind::Unavailable, message))
}

/// Refuses a number of shards that an archive can't have.
///
/// # Errors
/// `InvalidRequest`.
pub(super) fn check_shard_count(count: u32) -> Result<()> {
    match count {
        1..=65_536 => Ok(()),
        _ => Err(Error::new(
            ErrorKind::InvalidRequest,
            "an archive has 1 to 65536 shards",
        )),
    }
}

/// `count` shards with equal shares of the slots.
pub(super) fn even_shards(count: u32) -> Vec<Shard> {
    let edge = |id: u32| (u64::from(id) * 65_536 / u64::from(count)) as u32;
    (0..count)
        .map(|id| Shard {
            id,
            slots: [edge(id) as u16, (edge(id + 1) - 1) as u16],
            other: Unknown::new(),
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub fn space(dimension: usize) -> Space {
        Space {
            weights_sha256: "0".repeat(64),
            layers: vec!["grey32".into()],
            pooling: "none".into(),
            views: vec!["whole".into()],
            dimension,
            pixel_pipeline: "medsearch-pixels/1 test".into(),
        }
    }

    fn rows_entry(letter: char, rows: u64) -> RowsEntry {
        RowsEntry {
            object: format!("rows/{}", letter.to_string().repeat(64)),
            bytes: 10,
            rows,
            delta: true,
            shards: vec![0],
            classes: BTreeMap::new(),
            packs: vec![],
            other: Unknown::new(),
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            version: 1,
            parent: None,
            commit: "c".into(),
            created_at: Timestamp::UNIX_EPOCH,
            writer: "test".into(),
            archive: ArchiveInfo {
                id: "id".into(),
                name: "name".into(),
                created_at: Timestamp::UNIX_EPOCH.to_string(),
                demo: false,
                synthetic: false,
                licence: None,
                identity: IdentityMode::Anonymous,
                secret_id: "s".into(),
                retention: Retention::View,
                scope: Scope::default(),
                label_rules: LabelRules::default(),
                shown: Shown::default(),
                other: Unknown::new(),
            },
            space: space(4),
            model: None,
            precisions: vec!["f32".into()],
            classes: vec![],
            metric: None,
            calibration: None,
            evaluation: None,
            shards: even_shards(1),
            rows: vec![rows_entry('a', 3), rows_entry('b', 2)],
            graphs: vec![],
            packs: vec![],
            tombstones: vec![],
            moving_until: None,
            superseded: vec![],
            other: Unknown::new(),
        }
    }

    #[test]
    fn comes_back_as_written_with_what_a_later_program_added() {
        let mut value = serde_json::to_value(manifest()).unwrap();
        value["inbox"] = "later".into();
        value["archive"]["owner"] = "later".into();
        value["rows"][0]["heat"] = 1.into();
        value["archive"]["scope"]["laterality"] = "L".into();
        value["shards"][0]["replicas"] = 2.into();
        let object = |kind: &str| format!("{kind}/{}", "a".repeat(64));
        value["tombstones"] = json!([{"rows_object": object("rows"), "rows": [1], "reason": "erasure"}]);
        value["packs"] = json!([{"object": object("pixels"), "bytes": 9, "codec": "jxl"}]);
        value["graphs"] = json!([{"object": object("graphs"), "bytes": 1, "rows_object": object("rows"), "shard": 0,
            "class": null, "rows": 1, "metric": null, "layers": 3, "parameters": {"connectivity": 1, "expansion_add": 1,
            "expansion_search": 1, "scalar": "f16", "seed": 4}}]);
        let read = Manifest::decode("m", &of_json(&value)).unwrap();
        assert_eq!(read.other["inbox"], "later");
        let mut again: Value = serde_json::from_slice(&read.encode().unwrap()).unwrap();
        again.as_object_mut().unwrap().remove("checksum").unwrap();
        assert_eq!(again, value);
    }

    fn of_json(value: &Value) -> Vec<u8> {
        with_checksum(serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn a_changed_bit_is_damage_wherever_it_is() {
        let bytes = manifest().encode().unwrap();
        assert_eq!(Manifest::decode("m", &bytes).unwrap(), manifest());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1 << bit;
                let error = Manifest::decode("m", &changed).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn an_older_program_s_manifest_is_read_and_copied_without_a_checksum() {
        for format in 1..FORMAT {
            let old = Manifest { format, ..manifest() };
            let bytes = serde_json::to_vec(&old).unwrap();
            assert_eq!(Manifest::decode("m", &bytes).unwrap(), old);
            assert_eq!(old.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn a_later_word_is_not_damage() {
        for field in ["identity", "retention"] {
            let mut value = serde_json::to_value(manifest()).unwrap();
            value["archive"][field] = "later".into();
            let error = Manifest::decode("m", &of_json(&value)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.message().contains("`later`"), "{error}");
        }
    }

    #[test]
    fn a_later_format_is_refused_in_words() {
        let error = Manifest::decode("m", br#"{"format":5,"anything":[]}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("format 5"), "{error}");
        for broken in ["", "{}", "[]", "{\"format\":1}", "{\"format\":-1}"] {
            assert_eq!(
                Manifest::decode("m", broken.as_bytes()).unwrap_err().kind(),
                ErrorKind::Damaged,
                "{broken}"
            );
        }
    }

    #[test]
    fn contradictions_are_found() {
        type Break = fn(&mut Manifest);
        let breaks: [Break; 15] = [
            |m| m.version = 0,
            |m| m.version = 2,
            |m| m.precisions.clear(),
            |m| m.space.dimension = 0,
            |m| m.shards.clear(),
            |m| m.shards[0].slots = [1, 65_535],
            |m| m.shards[0].slots = [0, 65_534],
            |m| {
                m.shards.push(Shard {
                    id: 1,
                    slots: [0, 1],
                    other: Unknown::new(),
                })
            },
            |m| m.rows.push(rows_entry('a', 1)),
            |m| m.rows[0].object = "rows/../../etc/passwd".into(),
            |m| m.rows[0].rows = 0,
            |m| m.rows[0].packs = vec!["thumbnails/none".into()],
            |m| m.add_tombstones(&format!("rows/{}", "a".repeat(64)), [3], None),
            |m| m.add_tombstones(&format!("rows/{}", "c".repeat(64)), [0], None),
            |m| {
                m.tombstones = vec![Tombstones {
                    rows_object: format!("rows/{}", "a".repeat(64)),
                    rows: vec![1, 0],
                    since: None,
                    other: Unknown::new(),
                }]
            },
        ];
        assert_eq!(manifest().check(), Ok(()));
        for (i, change) in breaks.into_iter().enumerate() {
            let mut broken = manifest();
            change(&mut broken);
            assert!(broken.check().is_err(), "break {i}");
            assert_eq!(broken.encode().unwrap_err().kind(), ErrorKind::Internal);
        }
    }

    #[test]
    fn removing_rows_takes_along_what_only_they_need() {
        let pack = |letter: &str| PackEntry::new(format!("pixels/{}", letter.repeat(64)), 1);
        let mut edited = manifest();
        edited.rows.clear();
        let (mut a, mut b) = (rows_entry('a', 3), rows_entry('b', 2));
        a.packs = vec![pack("1").object, pack("2").object];
        b.packs = vec![pack("2").object];
        let packs = [pack("1"), pack("2")];
        edited.add_rows(a.clone(), &packs);
        edited.add_rows(b.clone(), &packs);
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        edited.add_tombstones(&a.object, [2, 0], at(7));
        edited.add_tombstones(&a.object, [1], at(9));
        assert_eq!(edited.tombstones[0].since, at(7));
        assert_eq!((edited.packs.len(), edited.images()), (2, 2));
        assert_eq!(edited.check(), Ok(()));

        let before = edited.clone();
        edited.remove_rows(&BTreeSet::from([a.object.clone()]));
        assert_eq!(edited.check(), Ok(()));
        let gone: Vec<_> = before.names().difference(&edited.names()).cloned().collect();
        assert_eq!(gone, [pack("1").object, a.object]);
        let mut shared = pack("2");
        shared.dead_since = at(7);
        assert_eq!(
            (edited.rows, edited.packs, edited.tombstones),
            (vec![b], vec![shared], vec![])
        );
    }

    #[test]
    fn names_and_versions() {
        assert_eq!(Manifest::name(7), "manifest/00000000000000000007.json");
        assert_eq!(Manifest::version_of(&Manifest::name(u64::MAX)), Some(u64::MAX));
        for odd in [
            "manifest/7.json",
            "manifest/0000000000000000000x.json",
            "rows/00000000000000000007.json",
        ] {
            assert_eq!(Manifest::version_of(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn every_slot_has_one_shard(count in 1u32..=300, slot: u16) {
            let mut cut = manifest();
            cut.shards = even_shards(count);
            prop_assert_eq!(cut.check_shards(), Ok(()));
            let id = cut.shard(Slot(slot));
            let owner = cut.shards.iter().find(|shard| shard.id == id).unwrap();
            prop_assert!((owner.slots[0]..=owner.slots[1]).contains(&slot));
        }
    }
}
