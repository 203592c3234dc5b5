//! Finished parts of a long run: small, durable, checked, found again after a kill.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{replace, storage, sync_folder};
use crate::domain::FrameNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::Provenance;

/// The folder of unfinished work below the output folder.
const FOLDER: &str = ".partial";
const MAGIC: &[u8; 8] = b"MSPART1\n";
const DIGEST_BYTES: usize = 32;

/// The parts of one run: `OUT/.partial/<key>/NNNNNN.part`.
///
/// A part is the magic, the header's length (u32 LE), a JSON header, the vectors (float32 LE, row-major), and SHA-256 over all of that.
pub(super) struct Parts {
    folder: PathBuf,
    dimension: usize,
    /// Part -> where its vectors begin, in bytes.
    vectors_at: HashMap<u32, u64>,
    next: u32,
    /// The part that was read last.
    open: Option<(u32, File)>,
    /// Held while this run writes to the output folder.
    _lock: Lock,
}

/// An image whose vector is in a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PartRow {
    /// Path below the data folder.
    pub file: String,
    /// Which frame of it; absent: the first.
    #[serde(default, skip_serializing_if = "FrameNumber::is_first")]
    pub frame: FrameNumber,
    /// Bytes of the file.
    pub size: u64,
    /// Of the file's bytes, in hex.
    pub sha256: String,
    pub facts: Provenance,
}

/// What is done, by file and frame.
pub(super) type Known = HashMap<(String, FrameNumber), (PartRow, Place)>;

/// Where the vector of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    part: u32,
    row: u32,
}

#[derive(Serialize, Deserialize)]
struct Header {
    dimension: usize,
    rows: Vec<PartRow>,
}

impl Parts {
    /// Opens the parts of `key` below `out` and returns what is done. Without `resume` earlier parts are dropped, a damaged one always is.
    ///
    /// # Errors
    /// `Conflict` while another run writes to `out`; `StorageFull` or `Unavailable` when the folder fails.
    pub fn open(out: &Path, key: &str, dimension: usize, resume: bool) -> Result<(Self, Known)> {
        let top = out.join(FOLDER);
        let folder = top.join(key);
        std::fs::create_dir_all(&top).map_err(|error| storage(&top, error))?;
        let lock = lock(&top)?;
        if !resume && folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|error| storage(&folder, error))?;
        }
        std::fs::create_dir_all(&folder).map_err(|error| storage(&folder, error))?;
        for folder in [&top, out] {
            sync_folder(folder)?;
        }
        let mut parts = Self {
            folder,
            dimension,
            vectors_at: HashMap::new(),
            next: 0,
            open: None,
            _lock: lock,
        };
        let done = parts.load()?;
        Ok((parts, done))
    }

    /// Writes one part; durable on return. `vectors` holds `dimension` components for each row.
    pub fn add(&mut self, rows: Vec<PartRow>, vectors: &[f32]) -> Result<Vec<Place>> {
        debug_assert_eq!(vectors.len(), rows.len() * self.dimension);
        let part = self.next;
        let count = rows.len() as u32;
        let header = serde_json::to_vec(&Header {
            dimension: self.dimension,
            rows,
        })
        .map_err(|error| Error::with_source(ErrorKind::Internal, "a part's header can't be written", error))?;
        let mut content = Vec::with_capacity(MAGIC.len() + 4 + header.len() + vectors.len() * 4);
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&(header.len() as u32).to_le_bytes());
        content.extend_from_slice(&header);
        let vectors_at = content.len() as u64;
        content.extend(vectors.iter().flat_map(|value| value.to_le_bytes()));
        replace(&self.path(part), |file| {
            file.write_all(&content)?;
            file.write_all(&Sha256::digest(&content))
        })?;
        self.vectors_at.insert(part, vectors_at);
        self.next += 1;
        Ok((0..count).map(|row| Place { part, row }).collect())
    }

    /// The bytes (float32 LE) of the vector at `place`. Cheap when places come in the order in which they were added.
    pub fn read_vector(&mut self, place: Place, bytes: &mut [u8]) -> Result<()> {
        let path = self.path(place.part);
        let failed = |error| storage(&path, error);
        let file = match self.open.take() {
            Some((part, file)) if part == place.part => file,
            _ => File::open(&path).map_err(failed)?,
        };
        let begin = self.vectors_at.get(&place.part).copied().unwrap_or_default();
        file.read_exact_at(bytes, begin + u64::from(place.row) * bytes.len() as u64)
            .map_err(failed)?;
        self.open = Some((place.part, file));
        Ok(())
    }

    /// Forgets everything, once the final files are in their places.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.folder).map_err(|error| storage(&self.folder, error))?;
        let top = self.folder.parent().unwrap_or(&self.folder);
        let _ = std::fs::remove_file(top.join("lock"));
        // Stays while it holds the parts of another model's run.
        let _ = std::fs::remove_dir(top);
        Ok(())
    }

    fn load(&mut self) -> Result<Known> {
        let failed = |error| storage(&self.folder, error);
        let mut numbers = Vec::new();
        for item in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = item.map_err(failed)?.path();
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse::<u32>().ok());
            match number {
                Some(number) if path.extension().is_some_and(|ending| ending == "part") => numbers.push(number),
                // What a killed write left.
                _ => std::fs::remove_file(&path).map_err(failed)?,
            }
        }
        numbers.sort_unstable();
        let mut done = HashMap::new();
        for part in numbers {
            self.next = part + 1;
            let path = self.path(part);
            let mut content = Vec::new();
            File::open(&path)
                .and_then(|mut file| file.read_to_end(&mut content))
                .map_err(|error| storage(&path, error))?;
            match parse(&content, self.dimension) {
                Some((rows, vectors_at)) => {
                    self.vectors_at.insert(part, vectors_at);
                    done.extend(
                        (0..)
                            .zip(rows)
                            .map(|(row, image)| ((image.file.clone(), image.frame), (image, Place { part, row }))),
                    );
                }
                None => {
                    tracing::warn!(part, "a damaged part is dropped, its images are embedded again");
                    std::fs::remove_file(&path).map_err(|error| storage(&path, error))?;
                }
            }
        }
        Ok(done)
    }

    fn path(&self, part: u32) -> PathBuf {
        self.folder.join(format!("{part:06}.part"))
    }
}

/// The rows of a part and where its vectors begin; none when anything about it is wrong.
fn parse(content: &[u8], dimension: usize) -> Option<(Vec<PartRow>, u64)> {
    let (body, digest) = content.split_at_checked(content.len().checked_sub(DIGEST_BYTES)?)?;
    if Sha256::digest(body).as_slice() != digest {
        return None;
    }
    let (length, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let (header, vectors) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let fits = header.dimension == dimension && vectors.len() == header.rows.len() * dimension * 4;
    fits.then(|| (header.rows, (body.len() - vectors.len()) as u64))
}

/// A folder that nobody else writes to.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it is not enough: a worker that is just being started holds a copy until it runs. What fails here ends with the process.
        let _ = self.0.unlock();
    }
}

fn lock(folder: &Path) -> Result<Lock> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| storage(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            let shown = folder.parent().unwrap_or(folder).display();
            Err(Error::new(
                ErrorKind::Conflict,
                format!("another run writes to `{shown}` at the moment"),
            ))
        }
        Err(TryLockError::Error(error)) => Err(storage(&path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_holder_even_while_a_child_is_being_started() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert_eq!(
            lock(folder.path()).err().map(|error| error.kind()),
            Some(ErrorKind::Conflict)
        );
        let of_a_child = held.0.try_clone().unwrap();
        drop(held);
        assert!(lock(folder.path()).is_ok());
        drop(of_a_child);
    }

    fn row(file: &str) -> PartRow {
        let facts = Provenance {
            view: Some("PA".into()),
            ..Provenance::default()
        };
        PartRow {
            file: file.into(),
            frame: FrameNumber::FIRST,
            size: 7,
            sha256: "09".repeat(32),
            facts,
        }
    }

    fn vector(parts: &mut Parts, place: Place) -> Vec<f32> {
        let mut bytes = [0; 8];
        parts.read_vector(place, &mut bytes).unwrap();
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect()
    }

    #[test]
    fn parts_survive_and_damaged_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (mut parts, done) = Parts::open(dir.path(), "key", 2, true).unwrap();
        assert!(done.is_empty());
        let first = parts.add(vec![row("a"), row("b")], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let other_frame = FrameNumber::try_from(2).unwrap();
        let other = PartRow {
            frame: other_frame,
            ..row("c")
        };
        let second = parts.add(vec![row("c"), other], &[5.0, 6.0, 7.0, 8.0]).unwrap();
        assert_eq!(vector(&mut parts, first[1]), [3.0, 4.0]);
        assert_eq!(vector(&mut parts, second[0]), [5.0, 6.0]);
        assert_eq!(
            Parts::open(dir.path(), "key", 2, true).err().unwrap().kind(),
            ErrorKind::Conflict
        );
        let folder = parts.folder.clone();
        drop(parts);

        // A flipped bit, and what a kill in the middle of a write leaves.
        let path = folder.join("000000.part");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(folder.join(".000002.part.new"), b"MSPART1\n").unwrap();
        let (mut parts, done) = Parts::open(dir.path(), "key", 2, true).unwrap();
        assert_eq!(done.len(), 2);
        let (row, place) = &done[&("c".into(), FrameNumber::FIRST)];
        let (_, of_other_frame) = &done[&("c".into(), other_frame)];
        assert_eq!(vector(&mut parts, *of_other_frame), [7.0, 8.0]);
        assert_eq!(
            (row.size, row.sha256.as_str(), row.facts.view.as_deref()),
            (7, "09".repeat(32).as_str(), Some("PA"))
        );
        assert_eq!(vector(&mut parts, *place), [5.0, 6.0]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        drop(parts);

        // Another dimension is another model, whatever the key says; without `resume` nothing is kept.
        assert!(Parts::open(dir.path(), "key", 3, true).unwrap().1.is_empty());
        let (parts, done) = Parts::open(dir.path(), "key", 2, false).unwrap();
        assert!(done.is_empty());
        parts.remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
