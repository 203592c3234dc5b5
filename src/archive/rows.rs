//! Rows objects: records and raw model vectors, one file, one provenance.
//!
//! `MSROWS1\n`, u32 LE length of the header, JSON header (filled up with spaces to a multiple of 64 from the start), one JSON record a line,
//! zeros to a multiple of 64, vectors as f32 LE, row after row. Offsets in the header count from the start of the object.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::store::{Loaded, Local};
use super::vectors::{Vectors, components};
use crate::domain::{ImageId, Key, PatientKeys, Record, SpaceId};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"MSROWS1\n";
const FORMAT: u32 = 1;
const ALIGN: usize = 64;
const HEADER_BYTES_MAX: usize = 1 << 20;
const DIMENSION_MAX: usize = 65_536;

/// How the vectors of an object were computed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowsProvenance {
    /// For example `f32`.
    pub precision: String,
    /// For example `cpu`.
    pub device: String,
    /// For example `pytorch 2.13.0`.
    pub engine: String,
}

/// The header of a rows object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowsHeader {
    /// Format of the object.
    pub format: u32,
    /// Space of its vectors.
    pub space: SpaceId,
    /// Components of a vector.
    pub dimension: usize,
    /// Rows.
    pub rows: usize,
    /// How its vectors were computed.
    pub provenance: RowsProvenance,
    /// The commit that wrote it. Makes every object new: a name that was collected never comes back.
    pub commit: String,
    /// Offset and length of the records.
    pub records: [u64; 2],
    /// Offset and length of the vectors.
    pub vectors: [u64; 2],
}

/// A rows object: records and what finds them in memory, many vectors in a file of this machine.
pub struct RowsObject {
    /// `rows/<blake3>`.
    pub name: String,
    /// Its header.
    pub header: RowsHeader,
    /// One record a row.
    pub records: Vec<Arc<Record>>,
    vectors: Vectors,
    ids: Vec<(ImageId, u32)>,
    files: Vec<(Key, u32)>,
    pixels: Vec<(Key, u32)>,
    sops: Vec<(Key, u32)>,
    patients: Vec<(Key, u32)>,
    /// By what they are near-identical to.
    links: Vec<(ImageId, u32)>,
}

/// Never the records.
impl fmt::Debug for RowsObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowsObject")
            .field("name", &self.name)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl RowsObject {
    /// The raw model vector of a row. May read a file: for many rows there are [`RowsObject::vectors`] and [`RowsObject::each_vector`].
    ///
    /// # Errors
    /// `Damaged` when the file is not what it was when it was loaded; `Unavailable` when it can't be read.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn vector(&self, row: u32) -> Result<Cow<'_, [f32]>> {
        self.vectors(row..row + 1)
    }

    /// The raw model vectors of rows, one after the other.
    ///
    /// # Errors
    /// As [`RowsObject::vector`].
    ///
    /// # Panics
    /// When there are no such rows.
    pub fn vectors(&self, rows: Range<u32>) -> Result<Cow<'_, [f32]>> {
        self.vectors.read(&self.name, rows.start as usize..rows.end as usize)
    }

    /// Hands out the raw model vectors of `rows` in turn. Rows that follow each other are read together.
    ///
    /// # Errors
    /// As [`RowsObject::vector`]; the first of `take`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn each_vector(
        &self,
        rows: impl IntoIterator<Item = u32>,
        mut take: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let together = self.vectors.block_rows();
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let mut end = first + 1;
            while ((end - first) as usize) < together && rows.next_if_eq(&end).is_some() {
                end += 1;
            }
            let vectors = self.vectors(first..end)?;
            vectors.chunks_exact(self.header.dimension).try_for_each(&mut take)?;
        }
        Ok(())
    }

    /// Whether asking for vectors reads a file.
    #[cfg(test)]
    pub(super) fn is_in_file(&self) -> bool {
        self.vectors.are_in_file()
    }

    /// Leaves the vectors to a file with the object's bytes. They stay in memory where they take no more than `memory_bytes_max`, or someone uses the object already.
    pub(super) fn left_to(self: Arc<Self>, local: Option<Local>, memory_bytes_max: usize) -> Arc<Self> {
        let Some(local) = local else { return self };
        let mut object = match Arc::try_unwrap(self) {
            Ok(object) => object,
            Err(shared) => return shared,
        };
        object
            .vectors
            .leave_to(local, object.header.vectors[0], memory_bytes_max);
        Arc::new(object)
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.records.len() as u32
    }

    /// The row of an image.
    pub fn find(&self, id: ImageId) -> Option<u32> {
        self.ids
            .binary_search_by_key(&id, |entry| entry.0)
            .ok()
            .map(|at| self.ids[at].1)
    }

    /// Rows that hold a file, as themselves or as an alias.
    pub fn with_file(&self, key: Key) -> impl Iterator<Item = u32> {
        equal(&self.files, key)
    }

    /// Rows with these pixels.
    pub fn with_pixels(&self, key: Key) -> impl Iterator<Item = u32> {
        equal(&self.pixels, key)
    }

    /// Rows that hold a SOP instance, as themselves or as an alias.
    pub fn with_sop(&self, key: Key) -> impl Iterator<Item = u32> {
        equal(&self.sops, key)
    }

    /// Rows that may be a patient's.
    pub fn of_patient(&self, patient: PatientKeys) -> impl Iterator<Item = u32> {
        let own = |row: &u32| PatientKeys::of(&self.records[*row as usize]);
        equal(&self.patients, patient.id).filter(move |row| own(row).is_some_and(|own| own.may_be(patient)))
    }

    /// Rows that say they are copies of an image.
    pub fn linked_to(&self, id: ImageId) -> impl Iterator<Item = u32> {
        equal(&self.links, id)
    }

    fn new(name: String, header: RowsHeader, records: Vec<Arc<Record>>, vectors: Vectors) -> Self {
        let numbered = || (0u32..).zip(&records);
        let mut ids: Vec<_> = numbered().map(|(row, record)| (record.id, row)).collect();
        let mut files: Vec<_> = numbered()
            .flat_map(|(row, record)| {
                std::iter::once(record.file_key)
                    .chain(record.aliases.iter().map(|alias| alias.file_key))
                    .map(move |key| (key, row))
            })
            .collect();
        let mut pixels: Vec<_> = numbered()
            .filter_map(|(row, record)| Some((record.pixel_key?, row)))
            .collect();
        let mut sops: Vec<_> = numbered()
            .flat_map(|(row, record)| {
                let aliases = record.aliases.iter().map(|alias| alias.sop);
                std::iter::once(record.sop)
                    .chain(aliases)
                    .filter_map(move |key| Some((key?, row)))
            })
            .collect();
        let mut patients: Vec<_> = numbered()
            .filter_map(|(row, record)| Some((PatientKeys::of(record)?.id, row)))
            .collect();
        let mut links: Vec<_> = numbered()
            .filter_map(|(row, record)| Some((record.near_identical_to?, row)))
            .collect();
        links.sort_unstable();
        ids.sort_unstable();
        files.sort_unstable();
        files.dedup();
        pixels.sort_unstable();
        sops.sort_unstable();
        sops.dedup();
        patients.sort_unstable();
        Self {
            name,
            header,
            records,
            vectors,
            ids,
            files,
            pixels,
            sops,
            patients,
            links,
        }
    }
}

fn equal<K: Ord + Copy>(sorted: &[(K, u32)], key: K) -> impl Iterator<Item = u32> {
    let start = sorted.partition_point(|entry| entry.0 < key);
    sorted[start..]
        .iter()
        .take_while(move |entry| entry.0 == key)
        .map(|entry| entry.1)
}

/// What a rows object is made of.
pub(super) struct Rows {
    pub space: SpaceId,
    pub dimension: usize,
    pub provenance: RowsProvenance,
    pub commit: String,
    pub records: Vec<Arc<Record>>,
    /// Row after row.
    pub vectors: Vec<f32>,
}

impl Rows {
    /// The object's bytes, and the object as it will be once its name is known.
    ///
    /// # Errors
    /// `Internal` when rows and vectors don't fit each other, an id comes twice or a component is not finite.
    pub fn encode(self) -> Result<(Vec<u8>, impl FnOnce(String) -> RowsObject)> {
        let Self {
            space,
            dimension,
            provenance,
            commit,
            records,
            vectors,
        } = self;
        let rows = records.len();
        if rows == 0 || u32::try_from(rows).is_err() || rows.checked_mul(dimension) != Some(vectors.len()) {
            return Err(Error::internal("rows and vectors don't fit each other"));
        }
        check_content(&records, vectors.iter().copied())
            .map_err(|what| Error::internal(format!("refused to write rows: {what}")))?;

        let unwritable = |error| Error::with_source(ErrorKind::Internal, "a record can't be written as JSON", error);
        let mut lines = Vec::new();
        for record in &records {
            serde_json::to_writer(&mut lines, record).map_err(unwritable)?;
            lines.push(b'\n');
        }
        let mut header = RowsHeader {
            format: FORMAT,
            space,
            dimension,
            rows,
            provenance,
            commit,
            records: [u64::MAX; 2],
            vectors: [u64::MAX; 2],
        };
        // The offsets depend on the header's length: room is made for the longest ones, and spaces fill it.
        let longest = serde_json::to_vec(&header).map_err(unwritable)?.len();
        let start = (MAGIC.len() + 4 + longest).next_multiple_of(ALIGN);
        let vectors_at = (start + lines.len()).next_multiple_of(ALIGN);
        let vectors_bytes = vectors.len() * 4;
        header.records = [start as u64, lines.len() as u64];
        header.vectors = [vectors_at as u64, vectors_bytes as u64];

        let mut bytes = Vec::with_capacity(vectors_at + vectors_bytes);
        bytes.extend(MAGIC);
        bytes.extend(((start - MAGIC.len() - 4) as u32).to_le_bytes());
        serde_json::to_writer(&mut bytes, &header).map_err(unwritable)?;
        bytes.resize(start, b' ');
        bytes.extend(lines);
        bytes.resize(vectors_at, 0);
        bytes.extend(vectors.iter().flat_map(|x| x.to_le_bytes()));
        let vectors = Vectors::in_memory(dimension, vectors);
        Ok((bytes, move |name| RowsObject::new(name, header, records, vectors)))
    }
}

/// Reads a rows object. Checked against every kind of damage: never panics, never allocates more than the bytes can hold. Vectors of more than
/// `memory_bytes_max` stay in the object's file, where it has one.
///
/// # Errors
/// `Damaged`; `Unavailable` for the format of a later program.
pub(super) fn decode(name: &str, loaded: Loaded, memory_bytes_max: usize) -> Result<RowsObject> {
    decode_checked(name, loaded, memory_bytes_max).map_err(|problem| match problem {
        Problem::Newer(format) => Error::new(
            ErrorKind::Unavailable,
            format!("`{name}` has format {format}, this program reads format {FORMAT}: use a newer medsearch"),
        ),
        Problem::Damaged(what) => Error::new(ErrorKind::Damaged, format!("`{name}` is damaged: {what}")),
    })
}

enum Problem {
    Newer(u32),
    Damaged(String),
}

impl From<&str> for Problem {
    fn from(what: &str) -> Self {
        Self::Damaged(what.to_owned())
    }
}

fn decode_checked(name: &str, loaded: Loaded, memory_bytes_max: usize) -> Result<RowsObject, Problem> {
    let Loaded { bytes, local } = loaded;
    let bytes = &*bytes;
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a rows object")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("its header is cut off")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err("its header is too long".into());
    }
    let header = rest.get(..length).ok_or("its header is cut off")?;
    let Format { format } = serde_json::from_slice(header).map_err(|_| "its header is not readable")?;
    if format > FORMAT {
        return Err(Problem::Newer(format));
    }
    let header: RowsHeader = serde_json::from_slice(header).map_err(|_| "its header is not readable")?;
    if header.dimension == 0 || header.dimension > DIMENSION_MAX || header.rows == 0 || header.rows > u32::MAX as usize
    {
        return Err("its numbers of rows and components can't be".into());
    }
    let lines = part(bytes, header.records).ok_or("its records are cut off")?;
    let vectors = part(bytes, header.vectors).ok_or("its vectors are cut off")?;
    let expected = header.rows.checked_mul(header.dimension).and_then(|n| n.checked_mul(4));
    if expected != Some(vectors.len()) {
        return Err("its vectors don't fit its rows".into());
    }
    let lines = lines.strip_suffix(b"\n").ok_or("its last record is cut off")?;
    let mut records = Vec::with_capacity(header.rows.min(lines.len()));
    for line in lines.split(|&byte| byte == b'\n') {
        let record: Record = serde_json::from_slice(line)
            .map_err(|_| format!("record {} is not readable", records.len()))
            .map_err(Problem::Damaged)?;
        records.push(Arc::new(record));
    }
    if records.len() != header.rows {
        return Err("its records don't fit its rows".into());
    }
    check_content(&records, components(vectors))?;
    let vectors = match local.filter(|_| vectors.len() > memory_bytes_max) {
        Some(local) => Vectors::in_file(header.dimension, local, header.vectors[0], vectors),
        None => Vectors::in_memory(header.dimension, components(vectors).collect()),
    };
    Ok(RowsObject::new(name.to_owned(), header, records, vectors))
}

fn part(bytes: &[u8], [offset, length]: [u64; 2]) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    bytes.get(start..end)
}

fn check_content(
    records: &[Arc<Record>],
    mut components: impl Iterator<Item = f32>,
) -> std::result::Result<(), &'static str> {
    let mut ids = HashSet::with_capacity(records.len());
    if !records.iter().all(|record| ids.insert(record.id)) {
        return Err("an image comes twice");
    }
    if components.all(f32::is_finite) {
        Ok(())
    } else {
        Err("a component is not finite")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::super::testing::record;
    use super::super::vectors::MEMORY_BYTES_MAX;
    use super::*;

    fn rows(count: usize, dimension: usize, seed: f32) -> Rows {
        let records = (0..count).map(|i| {
            let mut record = record(i as u32);
            record.file = Some(format!("Viral Pneumonia/{i} \n ü.png"));
            Arc::new(record)
        });
        Rows {
            space: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            dimension,
            provenance: RowsProvenance {
                precision: "f32".into(),
                device: "cpu".into(),
                engine: "test".into(),
            },
            commit: "commit".into(),
            records: records.collect(),
            vectors: (0..count * dimension).map(|i| seed + i as f32).collect(),
        }
    }

    fn in_memory(bytes: Vec<u8>) -> Result<RowsObject> {
        let bytes = bytes.into();
        decode("rows/x", Loaded { bytes, local: None }, 0)
    }

    fn in_file(bytes: Vec<u8>) -> Result<RowsObject> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let (bytes, local) = (bytes.into(), Some(Local::of(file)));
        decode("rows/x", Loaded { bytes, local }, 0)
    }

    fn bits(vectors: &[f32]) -> Vec<u32> {
        vectors.iter().map(|x| x.to_bits()).collect()
    }

    fn encoded(rows: Rows) -> Vec<u8> {
        rows.encode().unwrap().0
    }

    #[test]
    fn layout_is_as_described() {
        let bytes = encoded(rows(3, 5, 0.5));
        assert_eq!(&bytes[..8], b"MSROWS1\n");
        let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        assert_eq!((12 + length) % 64, 0);
        let header: serde_json::Value = serde_json::from_slice(&bytes[12..12 + length]).unwrap();
        let at = header["vectors"][0].as_u64().unwrap() as usize;
        assert_eq!(at % 64, 0);
        assert_eq!(bytes.len(), at + 3 * 5 * 4);
        assert_eq!(&bytes[at + 4..at + 8], &1.5f32.to_le_bytes());
        assert_eq!(header["records"][0].as_u64().unwrap() as usize, 12 + length);
    }

    #[test]
    fn looks_up_by_every_key() {
        let (_, object) = rows(10, 2, 0.0).encode().unwrap();
        let object = object("rows/x".into());
        let third = &object.records[3];
        assert_eq!(object.find(third.id), Some(3));
        assert_eq!(object.with_file(third.file_key).collect::<Vec<_>>(), [3]);
        assert_eq!(object.with_pixels(third.pixel_key.unwrap()).collect::<Vec<_>>(), [3]);
        assert_eq!(
            object.of_patient(PatientKeys::of(third).unwrap()).collect::<Vec<_>>(),
            [3]
        );
        assert_eq!(*object.vector(3).unwrap(), [6.0, 7.0]);
    }

    #[test]
    fn large_vectors_are_read_in_blocks() {
        let dimension = 1024;
        let load = |count: usize| {
            let bytes = encoded(rows(count, dimension, 0.5));
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let (bytes, local) = (bytes.into(), Some(Local::of(file)));
            decode("rows/x", Loaded { bytes, local }, MEMORY_BYTES_MAX).unwrap()
        };
        assert!(!load(256).is_in_file(), "1 MiB");
        let object = load(600);
        assert!(object.is_in_file());
        let whole = rows(600, dimension, 0.5).vectors;
        for range in [0..600, 0..256, 1..258, 100..590, 599..600, 7..7] {
            let components = range.start as usize * dimension..range.end as usize * dimension;
            assert!(*object.vectors(range).unwrap() == whole[components]);
        }
        let mut each = Vec::new();
        let asked = (0..600).chain([3, 3, 599, 0, 1]);
        let take = |vector: &[f32]| {
            each.push(vector[0]);
            Ok(())
        };
        object.each_vector(asked.clone(), take).unwrap();
        let firsts: Vec<f32> = asked.map(|row| whole[row as usize * dimension]).collect();
        assert_eq!(each, firsts);
    }

    #[test]
    fn what_must_not_be_stored_is_refused() {
        let refuse = |change: fn(&mut Rows)| {
            let mut rows = rows(2, 2, 0.0);
            change(&mut rows);
            assert!(rows.encode().is_err_and(|error| error.kind() == ErrorKind::Internal));
        };
        refuse(|rows| rows.vectors[1] = f32::NAN);
        refuse(|rows| rows.vectors.truncate(3));
        refuse(|rows| rows.records.clear());
        refuse(|rows| rows.records[1] = Arc::clone(&rows.records[0]));
    }

    #[test]
    fn a_later_format_is_refused_in_words() {
        let mut bytes = encoded(rows(1, 1, 0.0));
        let at = bytes.windows(10).position(|window| window == b"\"format\":1").unwrap();
        bytes[at + 9] = b'2';
        let error = in_memory(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("newer medsearch"));
    }

    proptest! {
        #[test]
        fn comes_back_as_written(
            count in 1usize..20,
            dimension in 1usize..40,
            seed in -1e30f32..1e30,
            asked in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let rows = rows(count, dimension, seed);
            let (records, vectors) = (rows.records.clone(), bits(&rows.vectors));
            let bytes = encoded(rows);
            let (memory, file) = (in_memory(bytes.clone()).unwrap(), in_file(bytes).unwrap());
            prop_assert!(file.is_in_file() && !memory.is_in_file());
            let asked: Vec<u32> = asked.iter().map(|at| at.index(count) as u32).collect();
            let own = |row: u32| vectors[row as usize * dimension..(row as usize + 1) * dimension].iter().copied();
            let expected: Vec<u32> = asked.iter().flat_map(|&row| own(row)).collect();
            for read in [memory, file] {
                prop_assert_eq!(&read.records, &records);
                prop_assert_eq!(&bits(&read.vectors(0..count as u32).unwrap()), &vectors);
                let mut each = Vec::new();
                read.each_vector(asked.iter().copied(), |vector| { each.extend(bits(vector)); Ok(()) }).unwrap();
                prop_assert_eq!(&each, &expected);
            }
        }

        /// Whichever byte of its vectors a disk spoils after it was loaded: the row is refused, all others are read.
        #[test]
        fn what_is_spoilt_later_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8, cut: bool) {
            let bytes = encoded(rows(5, 3, 0.25));
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("object");
            std::fs::write(&path, &bytes).unwrap();
            let local = Some(Local::of(std::fs::File::open(&path).unwrap()));
            let object = decode("rows/x", Loaded { bytes: bytes.clone().into(), local }, 0).unwrap();
            let start = object.header.vectors[0] as usize;
            let at = start + at.index(bytes.len() - start);
            let mut spoilt = bytes;
            match cut {
                true => spoilt.truncate(at),
                false => spoilt[at] ^= 1 << bit,
            }
            std::fs::write(&path, &spoilt).unwrap();
            let first = ((at - start) / 12) as u32;
            for row in 0..5 {
                let read = object.vector(row);
                if row == first || cut && row > first {
                    prop_assert_eq!(read.unwrap_err().kind(), ErrorKind::Damaged);
                } else {
                    prop_assert_eq!(read.unwrap().len(), 3);
                }
            }
            prop_assert!(object.vectors(0..5).is_err());
        }

        /// The digest in the name catches this first; the codec must survive it all the same.
        #[test]
        fn damage_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>(), truncate: bool) {
            let mut bytes = encoded(rows(4, 3, 0.0));
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if truncate {
                bytes.truncate(cut.index(bytes.len()));
            }
            for read in [in_memory(bytes.clone()), in_file(bytes)].into_iter().flatten() {
                prop_assert_eq!(read.vector(read.rows() - 1).unwrap().len(), read.header.dimension);
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = b"MSROWS1\n".to_vec();
            framed.extend(&bytes);
            prop_assert!(in_memory(framed).is_err());
            prop_assert!(in_memory(bytes).is_err());
        }
    }
}
