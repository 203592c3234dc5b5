//! The raw vectors of a rows object: few in memory, many in a file of this machine that is read when somebody asks.
//!
//! The file was verified when the object was loaded. A check of eight bytes a row, kept in memory, tells later whether it still is what it was, so
//! that a merge does not copy what a disk has spoilt since and give it a new digest.

use std::borrow::Cow;
use std::ops::Range;

use super::store::Local;
use crate::error::{Error, ErrorKind, Result};

/// Vectors up to this size stay in memory: a delta of a few hundred images. A file for each would cost more than it saves.
pub(super) const MEMORY_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read from a file at a time.
const BLOCK_BYTES: usize = 1 << 20;
const COMPONENT_BYTES: usize = size_of::<f32>();

/// Row after row, all of one length.
pub(super) struct Vectors {
    dimension: usize,
    place: Place,
}

enum Place {
    Memory(Vec<f32>),
    File {
        local: Local,
        /// Of the first row.
        offset: u64,
        /// Of each row.
        checks: Vec<u64>,
    },
}

impl Vectors {
    /// Keeps them.
    pub fn in_memory(dimension: usize, vectors: Vec<f32>) -> Self {
        let place = Place::Memory(vectors);
        Self { dimension, place }
    }

    /// Leaves them to a file that has `bytes`, little-endian, at `offset`.
    pub fn in_file(dimension: usize, local: Local, offset: u64, bytes: &[u8]) -> Self {
        let checks = bytes.chunks_exact(dimension * COMPONENT_BYTES).map(check).collect();
        let place = Place::File { local, offset, checks };
        Self { dimension, place }
    }

    /// Lets those in memory go, since `local` has them at `offset`, unless they are no more than `memory_bytes_max`.
    pub fn leave_to(&mut self, local: Local, offset: u64, memory_bytes_max: usize) {
        let Place::Memory(vectors) = &self.place else { return };
        if vectors.len() * COMPONENT_BYTES <= memory_bytes_max {
            return;
        }
        let mut row = Vec::with_capacity(self.dimension * COMPONENT_BYTES);
        let checks = vectors.chunks_exact(self.dimension).map(|vector| {
            row.clear();
            row.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
            check(&row)
        });
        let checks = checks.collect();
        self.place = Place::File { local, offset, checks };
    }

    /// Whether asking for some reads a file.
    #[cfg(test)]
    pub fn are_in_file(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// Rows that are read at a time.
    pub fn block_rows(&self) -> usize {
        (BLOCK_BYTES / (self.dimension * COMPONENT_BYTES)).max(1)
    }

    /// Some rows of the object `name`.
    ///
    /// # Errors
    /// `Damaged` when the file is not what it was; `Unavailable` when it can't be read.
    ///
    /// # Panics
    /// When there are no such rows.
    pub fn read(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [f32]>> {
        let (local, offset, checks) = match &self.place {
            Place::Memory(vectors) => {
                let components = rows.start * self.dimension..rows.end * self.dimension;
                return Ok(Cow::Borrowed(&vectors[components]));
            }
            Place::File { local, offset, checks } => (local, *offset, &checks[rows.clone()]),
        };
        let row_bytes = self.dimension * COMPONENT_BYTES;
        let block_rows = self.block_rows();
        let mut vectors = Vec::with_capacity(rows.len() * self.dimension);
        let mut block = vec![0; rows.len().min(block_rows) * row_bytes];
        let mut at = offset + (rows.start * row_bytes) as u64;
        for checks in checks.chunks(block_rows) {
            let block = &mut block[..checks.len() * row_bytes];
            local.read(at, block).map_err(|error| unreadable(name, local, error))?;
            for (row, &expected) in block.chunks_exact(row_bytes).zip(checks) {
                if check(row) != expected {
                    return Err(spoilt(name, local));
                }
                vectors.extend(components(row));
            }
            at += block.len() as u64;
        }
        Ok(Cow::Owned(vectors))
    }
}

/// The numbers that little-endian bytes stand for.
pub(super) fn components(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (components, _) = bytes.as_chunks::<COMPONENT_BYTES>();
    components.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn check(row: &[u8]) -> u64 {
    let digest = blake3::hash(row);
    let first = digest.as_bytes().first_chunk().expect("a digest is longer");
    u64::from_le_bytes(*first)
}

fn spoilt(name: &str, local: &Local) -> Error {
    local.note_damage();
    let message = format!("`{name}` is damaged: its file is not what it was when it was loaded");
    Error::new(ErrorKind::Damaged, message)
}

fn unreadable(name: &str, local: &Local, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return spoilt(name, local);
    }
    Error::with_source(
        ErrorKind::Unavailable,
        format!("the file of `{name}` can't be read"),
        error,
    )
}
