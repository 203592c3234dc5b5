//! The rows of one rows object, ready to be searched: unit vectors and who is where. Immutable and shared between snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::{IndexSettings, Matrix, build_graph};
use crate::domain::{ClassLabel, Embedding, ImageId, Key, Metric, PatientKeys, Record};
use crate::error::{Error, ErrorKind, Result};

/// Rows that are read, normalised and mapped side by side: few enough that their copies don't count.
const MAPPED_TOGETHER: usize = 4096;
/// Those of one thread at a time.
const READ_TOGETHER: usize = 256;

/// Whoever has the raw model vectors of a rows object, and hands them out as a segment takes them in: nobody has to bring all of them in memory.
pub trait VectorSource: fmt::Debug + Send + Sync {
    /// How many there are.
    fn rows(&self) -> usize;

    /// Shows `take` the vectors of `rows` in turn. Several threads ask at a time.
    ///
    /// # Errors
    /// `Damaged`, `Unavailable` when they can't be read; the first of `take`.
    fn each(&self, rows: Range<u32>, take: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()>;
}

/// Raw model vectors.
#[derive(Debug, Clone)]
pub enum RawVectors {
    /// All of them, row-major.
    Table(Vec<f32>),
    /// Whoever has them.
    Source(Arc<dyn VectorSource>),
}

impl From<Vec<f32>> for RawVectors {
    fn from(table: Vec<f32>) -> Self {
        Self::Table(table)
    }
}

impl RawVectors {
    /// Whether there are so many.
    fn are(&self, rows: usize, dimension: usize) -> bool {
        match self {
            Self::Table(table) => table.len() == rows * dimension,
            Self::Source(source) => source.rows() == rows,
        }
    }

    fn each(&self, rows: Range<u32>, dimension: usize, take: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        match self {
            Self::Table(table) => table[rows.start as usize * dimension..rows.end as usize * dimension]
                .chunks_exact(dimension)
                .try_for_each(take),
            Self::Source(source) => source.each(rows, take),
        }
    }

    /// The table, for tests, which have no other.
    #[cfg(test)]
    pub(crate) fn table(&self) -> &[f32] {
        match self {
            Self::Table(table) => table,
            Self::Source(_) => panic!("the vectors are elsewhere"),
        }
    }
}

/// What a segment is built from.
#[derive(Debug)]
pub struct SegmentInput {
    /// Name of the rows object: equal names mean equal content.
    pub name: String,
    /// Components of a vector.
    pub dimension: usize,
    /// The shard that all its rows are in; none for fresh rows of any shard, which everyone searches.
    pub shard: Option<u32>,
    /// Its vectors are searched here, and not by another replica.
    pub searched: bool,
    /// Row i describes vector i.
    pub records: Vec<Arc<Record>>,
    /// Raw model vectors; of no use where they are not searched.
    pub vectors: RawVectors,
}

/// The rows of one class (or of none), ascending.
#[derive(Debug)]
pub struct RowList {
    /// The class; `None` holds what has no label.
    pub class: Option<ClassLabel>,
    /// Row numbers within the segment.
    pub rows: Vec<u32>,
}

/// Rows of one rows object. Every replica knows all of them, so that filters, exclusions and copies hold for the whole archive; vectors, which take the memory,
/// it has of its own shards.
#[derive(Debug, Clone)]
pub struct Segment {
    roster: Arc<Roster>,
    matrix: Option<Arc<Matrix>>,
}

/// Who is where.
#[derive(Debug)]
struct Roster {
    name: String,
    shard: Option<u32>,
    dimension: usize,
    records: Vec<Arc<Record>>,
    slot_of: Vec<u32>,
    row_at: Vec<u32>,
    lists: Vec<RowList>,
    list_of: Vec<u32>,
    sources: Vec<Option<String>>,
    source_of: Vec<u32>,
    patients: Postings<Key>,
    studies: Postings<Key>,
    files: Postings<Key>,
    pixels: Postings<Key>,
    images: Postings<ImageId>,
    linked: Vec<u32>,
    disputed: Vec<u32>,
}

impl Segment {
    /// Sorts out who is where; normalises the vectors, and maps them by the metric if there is one, where they are searched.
    ///
    /// # Errors
    /// `Damaged` when there are not as many vectors as records, or one is not finite or zero; `WrongDimension` for a metric of other vectors.
    pub fn new(input: &SegmentInput, metric: Option<&Metric>) -> Result<Self> {
        let roster = Arc::new(Roster::new(input)?);
        let matrix = match input.searched {
            true => Some(Arc::new(roster.matrix(&input.vectors, metric)?)),
            false => None,
        };
        Ok(Self { roster, matrix })
    }

    /// The same rows as `input` says whether they are searched: it brings vectors where they are and were not.
    ///
    /// # Errors
    /// As [`Segment::new`].
    pub fn again(&self, input: &SegmentInput, metric: Option<&Metric>) -> Result<Self> {
        let matrix = match (input.searched, &self.matrix) {
            (false, _) => None,
            (true, Some(held)) => Some(Arc::clone(held)),
            (true, None) => Some(Arc::new(self.roster.matrix(&input.vectors, metric)?)),
        };
        Ok(Self {
            roster: Arc::clone(&self.roster),
            matrix,
        })
    }

    /// Name of the rows object.
    pub fn name(&self) -> &str {
        &self.roster.name
    }

    /// The shard that all its rows are in, unless they are fresh.
    pub fn shard(&self) -> Option<u32> {
        self.roster.shard
    }

    /// Number of rows, tombstoned or not.
    pub fn rows(&self) -> usize {
        self.roster.records.len()
    }

    /// The record of a row.
    pub fn record(&self, row: u32) -> &Arc<Record> {
        &self.roster.records[row as usize]
    }

    /// All unit vectors, where they are searched, those of each list one after the other: a scan that jumps reads only two thirds as fast.
    pub fn matrix(&self) -> Option<&Matrix> {
        self.matrix.as_deref()
    }

    /// Where in [`Self::matrix`] a row is.
    #[inline]
    pub fn slot_of(&self, row: u32) -> u32 {
        self.roster.slot_of[row as usize]
    }

    /// Which row is there.
    #[inline]
    pub fn row_at(&self, slot: u32) -> u32 {
        self.roster.row_at[slot as usize]
    }

    /// The rows by class, what has no class first, then by name.
    pub fn lists(&self) -> &[RowList] {
        &self.roster.lists
    }

    /// Which of [`Self::lists`] a row is in.
    pub fn list_of(&self, row: u32) -> usize {
        self.roster.list_of[row as usize] as usize
    }

    /// The sources that occur.
    pub fn sources(&self) -> &[Option<String>] {
        &self.roster.sources
    }

    /// Which of [`Self::sources`] a row has.
    pub fn source_of(&self, row: u32) -> usize {
        self.roster.source_of[row as usize] as usize
    }

    /// Rows by patient id, whoever issued it.
    pub fn patients(&self) -> &Postings<Key> {
        &self.roster.patients
    }

    /// Rows by study.
    pub fn studies(&self) -> &Postings<Key> {
        &self.roster.studies
    }

    /// Rows by file bytes, those of aliases included.
    pub fn files(&self) -> &Postings<Key> {
        &self.roster.files
    }

    /// Rows by decoded pixels.
    pub fn pixels(&self) -> &Postings<Key> {
        &self.roster.pixels
    }

    /// The row of an image.
    pub fn images(&self) -> &Postings<ImageId> {
        &self.roster.images
    }

    /// Rows that say which image they are a copy of.
    pub fn linked(&self) -> &[u32] {
        &self.roster.linked
    }

    /// The graph of each class that is large enough for one. Each graph is built by one thread, several graphs at a time.
    ///
    /// # Errors
    /// `Internal` when the graph library refuses, or there are no vectors here.
    pub fn build_graphs(&self, settings: &IndexSettings) -> Result<Vec<(ClassLabel, Vec<u8>)>> {
        let large = self
            .lists()
            .iter()
            .filter(|list| list.rows.len() > settings.exact_rows_max);
        let large: Vec<(&ClassLabel, &[u32])> = large
            .filter_map(|list| Some((list.class.as_ref()?, list.rows.as_slice())))
            .collect();
        let matrix = self.matrix().ok_or_else(|| Error::internal("a graph needs vectors"))?;
        let build = |(class, rows): (&ClassLabel, &[u32])| {
            let vectors: Vec<Vec<f32>> = rows.iter().map(|&row| matrix.row(self.slot_of(row))).collect();
            let vectors: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
            Ok((class.clone(), build_graph(&vectors, rows, &settings.graph)?))
        };
        // Largest first: the longest build must not be the last to begin.
        let mut order = large;
        order.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.len()));
        let mut graphs = order
            .into_par_iter()
            .with_max_len(1)
            .map(build)
            .collect::<Result<Vec<_>>>()?;
        graphs.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(graphs)
    }

    /// Labelled rows whose own record says that their label is in dispute.
    pub fn disputed(&self) -> &[u32] {
        &self.roster.disputed
    }
}

impl Roster {
    fn new(input: &SegmentInput) -> Result<Self> {
        let rows = input.records.len();
        if input.dimension == 0 || u32::try_from(rows).is_err() {
            let what = format!("`{rows}` records of dimension `{}`", input.dimension);
            return Err(damaged(&input.name, &what));
        }
        let each = || {
            input
                .records
                .iter()
                .enumerate()
                .map(|(row, record)| (row as u32, record))
        };
        let (lists, list_of) = number(input.records.iter().map(|record| record.class.as_ref()));
        let (sources, source_of) = number(input.records.iter().map(|record| record.source.as_ref()));
        let mut lists: Vec<RowList> = lists
            .into_iter()
            .map(|class| RowList {
                class,
                rows: Vec::new(),
            })
            .collect();
        list_of
            .iter()
            .enumerate()
            .for_each(|(row, &list)| lists[list as usize].rows.push(row as u32));
        let row_at: Vec<u32> = lists.iter().flat_map(|list| list.rows.iter().copied()).collect();
        let mut slot_of = vec![0; rows];
        row_at
            .iter()
            .zip(0..)
            .for_each(|(&row, slot)| slot_of[row as usize] = slot);
        Ok(Self {
            name: input.name.clone(),
            shard: input.shard,
            dimension: input.dimension,
            records: input.records.clone(),
            slot_of,
            row_at,
            lists,
            list_of,
            sources,
            source_of,
            patients: Postings::new(each().filter_map(|(row, record)| Some((PatientKeys::of(record)?.id, row)))),
            studies: Postings::new(each().flat_map(|(row, record)| {
                let aliases = record.aliases.iter().filter_map(|alias| alias.study);
                aliases.chain(record.study).map(move |study| (study, row))
            })),
            files: Postings::new(each().flat_map(|(row, record)| {
                let aliases = record.aliases.iter().map(|alias| alias.file_key);
                aliases.chain([record.file_key]).map(move |key| (key, row))
            })),
            pixels: Postings::new(each().filter_map(|(row, record)| Some((record.pixel_key?, row)))),
            images: Postings::new(each().map(|(row, record)| (record.id, row))),
            linked: each()
                .filter(|(_, record)| record.near_identical_to.is_some())
                .map(|(row, _)| row)
                .collect(),
            disputed: each()
                .filter(|(_, record)| record.class.is_some() && !record.votes())
                .map(|(row, _)| row)
                .collect(),
        })
    }

    /// The vectors as they are compared, those of each list one after the other.
    fn matrix(&self, vectors: &RawVectors, metric: Option<&Metric>) -> Result<Matrix> {
        if let Some(metric) = metric.filter(|metric| metric.dimension() != self.dimension) {
            return Err(super::wrong_dimension(self.dimension, metric.dimension()));
        }
        let rows = self.records.len();
        if !vectors.are(rows, self.dimension) {
            let what = format!("not the vectors of `{rows}` records of dimension `{}`", self.dimension);
            return Err(damaged(&self.name, &what));
        }
        // In the order of the file, which is read the fastest so.
        let units = |rows: Range<u32>| {
            let mut units = Vec::with_capacity(rows.len());
            vectors.each(rows.clone(), self.dimension, &mut |raw| {
                let row = rows.clone().nth(units.len());
                let row = row.ok_or_else(|| damaged(&self.name, "more vectors than rows"))?;
                let unit = compared_row(raw, self.dimension, metric)
                    .map_err(|error| damaged(&self.name, &format!("row `{row}`: {error}")))?;
                units.push((self.slot_of[row as usize], unit));
                Ok(())
            })?;
            match units.len() == rows.len() {
                true => Ok(units),
                false => Err(damaged(&self.name, "fewer vectors than rows")),
            }
        };
        let mut matrix = Matrix::zeroed(rows, metric.map_or(self.dimension, Metric::components));
        let rows = rows as u32;
        let parts = |rows: Range<u32>, of: usize| {
            let starts = rows.clone().step_by(of);
            starts.map(move |start| start..rows.end.min(start.saturating_add(of as u32)))
        };
        for together in parts(0..rows, MAPPED_TOGETHER) {
            let parts: Vec<Range<u32>> = parts(together, READ_TOGETHER).collect();
            let units = parts.into_par_iter().map(units).collect::<Result<Vec<_>>>()?;
            units.iter().flatten().for_each(|(slot, unit)| matrix.put(*slot, unit));
        }
        Ok(matrix)
    }
}

fn damaged(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("rows object `{name}`: {what}"))
}

/// A row as it is compared: of length 1, by the metric if there is one. A graph and the scan beside it need the same numbers to the bit.
///
/// # Errors
/// As [`Embedding::from_raw`].
pub fn compared_row(raw: &[f32], dimension: usize, metric: Option<&Metric>) -> Result<Vec<f32>> {
    let unit = Embedding::from_raw(raw, dimension)?;
    Ok(metric.map_or_else(|| unit.as_slice().to_vec(), |metric| metric.of_row(unit.as_slice())))
}

/// Which rows have a key: pairs sorted by key, so that a hundred thousand rows cost no hundred thousand allocations.
#[derive(Debug)]
pub struct Postings<K>(Vec<(K, u32)>);

impl<K: Ord + Copy> Postings<K> {
    fn new(pairs: impl Iterator<Item = (K, u32)>) -> Self {
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs.shrink_to_fit();
        Self(pairs)
    }

    /// The rows with this key, ascending.
    pub fn rows(&self, key: K) -> impl Iterator<Item = u32> + '_ {
        let start = self.0.partition_point(|(held, _)| *held < key);
        self.0[start..]
            .iter()
            .take_while(move |(held, _)| *held == key)
            .map(|&(_, row)| row)
    }
}

/// Numbers the distinct values by their order, and says for each item which it has.
fn number<'a, T: Ord + Clone + 'a>(items: impl Iterator<Item = Option<&'a T>> + Clone) -> (Vec<Option<T>>, Vec<u32>) {
    let mut numbers: BTreeMap<Option<&T>, u32> = items.clone().map(|item| (item, 0)).collect();
    numbers.values_mut().zip(0..).for_each(|(number, next)| *number = next);
    let of = items.map(|item| numbers[&item]).collect();
    (numbers.into_keys().map(Option::<&T>::cloned).collect(), of)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::Slot;

    pub(crate) fn key(number: u32) -> Key {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Key(bytes)
    }

    /// A record with an id, a class and a patient; its file and pixels are its own.
    pub(crate) fn record(number: u32, class: Option<&str>, patient: Option<u8>) -> Arc<Record> {
        let id = ImageId::new(Slot((number % 7) as u16), key(number));
        Arc::new(Record {
            class: class.map(|name| ClassLabel::parse(name).unwrap()),
            patient: patient.map(|patient| key(1_000_000 + u32::from(patient))),
            pixel_key: Some(key(3_000_000 + number)),
            ..Record::bare(id, key(2_000_000 + number), "2026-01-01T00:00:00Z")
        })
    }

    fn input(vectors: Vec<f32>) -> SegmentInput {
        let records = vec![
            record(0, Some("B"), Some(1)),
            record(1, None, None),
            record(2, Some("A"), Some(1)),
            record(3, Some("B"), None),
        ];
        SegmentInput {
            name: "rows/x".into(),
            dimension: 2,
            shard: None,
            searched: true,
            records,
            vectors: vectors.into(),
        }
    }

    #[test]
    fn knows_who_is_where() {
        let segment = Segment::new(&input(vec![3.0, 4.0, 1.0, 0.0, 0.0, 2.0, 1.0, 1.0]), None).unwrap();
        assert_eq!(segment.matrix().unwrap().row(segment.slot_of(0)), [0.6, 0.8]);
        let lists: Vec<_> = segment
            .lists()
            .iter()
            .map(|list| (list.class.as_ref().map(ClassLabel::as_str), list.rows.as_slice()))
            .collect();
        assert_eq!(lists, [(None, &[1][..]), (Some("A"), &[2]), (Some("B"), &[0, 3])]);
        assert_eq!([0, 1, 2, 3].map(|row| segment.list_of(row)), [2, 0, 1, 2]);
        assert!(segment.patients().rows(key(1_000_001)).eq([0, 2]));
        assert!(segment.pixels().rows(key(3_000_003)).eq([3]));
        assert_eq!(segment.patients().rows(key(5)).count(), 0);
    }

    /// Hands out as many as it likes.
    #[derive(Debug)]
    struct Handing(Vec<[f32; 2]>);

    impl VectorSource for Handing {
        fn rows(&self) -> usize {
            4
        }

        fn each(&self, rows: Range<u32>, take: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
            assert_eq!(rows, 0..4);
            self.0.iter().try_for_each(|vector| take(vector))
        }
    }

    #[test]
    fn takes_vectors_from_whoever_has_them() {
        let table = [[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0]];
        let from = |vectors: &[[f32; 2]]| {
            let source = SegmentInput {
                vectors: RawVectors::Source(Arc::new(Handing(vectors.to_vec()))),
                ..input(vec![])
            };
            Segment::new(&source, None)
        };
        let (handed, known) = (
            from(&table).unwrap(),
            Segment::new(&input(table.concat()), None).unwrap(),
        );
        for row in 0..4 {
            let unit = |segment: &Segment| segment.matrix().unwrap().row(segment.slot_of(row));
            assert_eq!(unit(&handed), unit(&known));
        }
        // One too few would move all that follow to other images.
        for wrong in [&table[..3], &[table.as_slice(), &table[..1]].concat(), &[[0.0; 2]; 4]] {
            assert_eq!(from(wrong).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }

    #[test]
    fn refuses_what_cannot_be_compared() {
        for vectors in [
            vec![0.0; 8],
            vec![1.0; 7],
            vec![],
            vec![f32::NAN; 8],
            vec![f32::INFINITY; 8],
        ] {
            let error = Segment::new(&input(vectors), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
    }
}
