//! The final files of a run: `<CLASS>.npy` and `<CLASS>.json`, all of them replaced only when all are written.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use npyz::WriterBuilder;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::files::{Staged, stage, storage, sync_folder, write_json};
use super::parts::{Parts, Place};
use crate::archive::{CLASS_FORMAT, Described, RowsProvenance};
use crate::domain::{ClassLabel, Space, SpaceId, UNLABELLED};
use crate::embed::ModelCard;
use crate::error::Result;

/// What one class is about to become: row i of the matrix is described by record i.
pub(super) struct ClassRows {
    pub class: Option<ClassLabel>,
    pub records: Vec<Described>,
    pub places: Vec<Place>,
}

impl ClassRows {
    fn stem(&self) -> &str {
        self.class.as_ref().map_or(UNLABELLED, ClassLabel::as_str)
    }
}

/// Writes every class, then replaces the old files. Returns the names of `.npy` files in `out` that are of an earlier run.
pub(super) fn write_classes(
    out: &Path,
    classes: &[ClassRows],
    parts: &mut Parts,
    (card, space): (&ModelCard, Space),
    provenance: &RowsProvenance,
) -> Result<Vec<String>> {
    let mut staged = Vec::new();
    for class in classes {
        let (matrix, vectors_sha256) = stage_matrix(out, class, parts, card.dimension)?;
        staged.push(matrix);
        let described = Written::new(class, vectors_sha256, (card, &space), provenance);
        let json = out.join(format!("{}.json", class.stem()));
        staged.push(stage(&json, |file| write_json(file, &described))?);
    }
    staged.into_iter().try_for_each(Staged::publish)?;
    sync_folder(out)?;
    let written: BTreeSet<String> = classes.iter().map(|class| format!("{}.npy", class.stem())).collect();
    let mut earlier = Vec::new();
    for item in std::fs::read_dir(out).map_err(|error| storage(out, error))? {
        let name = item
            .map_err(|error| storage(out, error))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".npy") && !written.contains(&name) {
            earlier.push(name);
        }
    }
    earlier.sort();
    Ok(earlier)
}

/// float32, C order, N×D; one vector in memory at a time. Says the SHA-256 of the vectors, too.
fn stage_matrix(out: &Path, class: &ClassRows, parts: &mut Parts, dimension: usize) -> Result<(Staged, String)> {
    let path = out.join(format!("{}.npy", class.stem()));
    let mut failed = None;
    let mut bytes = vec![0; dimension * 4];
    let mut digest = Sha256::new();
    let staged = stage(&path, |file| {
        let shape = [class.places.len() as u64, dimension as u64];
        let mut matrix = npyz::WriteOptions::<f32>::new()
            .default_dtype()
            .shape(&shape)
            .writer(file)
            .begin_nd()?;
        for &place in &class.places {
            if let Err(error) = parts.read_vector(place, &mut bytes) {
                failed = Some(error);
                return Err(io::Error::other("a part can't be read"));
            }
            digest.update(&bytes);
            matrix.extend(bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)))?;
        }
        matrix.finish()
    });
    // The error about the part says more than the one about the file that could not be written for it.
    let staged = failed.map_or(staged, Err)?;
    Ok((staged, hex::encode(digest.finalize())))
}

/// `<CLASS>.json`; see `archive::ClassFile`, which reads it.
#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    space: SpaceWithId<'a>,
    provenance: Provenance<'a>,
    class: Option<&'a ClassLabel>,
    vectors_sha256: String,
    records: &'a [Described],
}

#[derive(Serialize)]
struct SpaceWithId<'a> {
    #[serde(flatten)]
    space: &'a Space,
    id: SpaceId,
}

#[derive(Serialize)]
struct Provenance<'a> {
    model: &'a str,
    precision: &'a str,
    device: &'a str,
    engine: &'a str,
}

impl<'a> Written<'a> {
    fn new(
        class: &'a ClassRows,
        vectors_sha256: String,
        (card, space): (&'a ModelCard, &'a Space),
        provenance: &'a RowsProvenance,
    ) -> Self {
        let RowsProvenance {
            precision,
            device,
            engine,
        } = provenance;
        Self {
            format: CLASS_FORMAT,
            space: SpaceWithId { space, id: space.id() },
            provenance: Provenance {
                model: &card.name,
                precision,
                device,
                engine,
            },
            class: class.class.as_ref(),
            vectors_sha256,
            records: &class.records,
        }
    }
}
