//! `export`: an archive as `<CLASS>.npy` + `<CLASS>.json` again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::interchange::{files, stem, vectors_sha256};
use super::npy::{NpyWriter, write_failed};
use super::store::blocking;
use super::{Archive, ClassFile, Identity, IdentityMode, State, VectorProvenance};
use crate::domain::{ClassLabel, FrameNumber, LabelSource, Record};
use crate::error::{Error, ErrorKind, Result};

/// Rows whose vectors are read at a time: by file name, so that those of an object are not next to each other.
const READ_TOGETHER: usize = 4096;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Records: images and their aliases.
    pub records: usize,
    /// Class files.
    pub classes: usize,
}

/// Writes every live image, and every further file with the same pixels, to `folder`. An archive of mode `linked` gives records back as
/// they came (with the label of today where it was changed); one of mode `anonymous` gives pseudonyms.
///
/// # Errors
/// `InvalidRequest` when the folder holds other classes' files; `Damaged`, `StorageFull`, `Unavailable`.
pub async fn export(archive: &Archive, folder: &Path) -> Result<Exported> {
    let state = State::load(archive).await?;
    let identity = archive.identity().clone();
    let folder = folder.to_owned();
    blocking(move || write(&state, &identity, &folder)).await?
}

/// One row of a class file.
struct Row {
    file: String,
    frame: FrameNumber,
    value: Value,
    at: (usize, u32),
    /// Where it is not that of `at`.
    vector: Option<Vec<f32>>,
}

fn write(state: &State, identity: &Identity, folder: &Path) -> Result<Exported> {
    let mut classes: BTreeMap<Option<ClassLabel>, Vec<Row>> = BTreeMap::new();
    for at in state.live() {
        let record = state.at(at);
        for index in 0..=record.aliases.len() {
            let alias = index.checked_sub(1).map(|index| &record.aliases[index]);
            // Of a file whose label was settled the image's counts.
            let class = alias
                .filter(|alias| !alias.settled)
                .map_or(&record.class, |alias| &alias.class);
            let (value, vector) = match identity.mode() {
                IdentityMode::Linked => linked(record, index, identity)?,
                IdentityMode::Anonymous => (anonymous(record, index), None),
            };
            let row = Row {
                file: value["file"].as_str().unwrap_or_default().to_owned(),
                frame: alias.map_or(record.frame, |alias| alias.frame),
                value,
                at,
                vector,
            };
            classes.entry(class.clone()).or_default().push(row);
        }
    }
    std::fs::create_dir_all(folder).map_err(|error| write_failed(folder, error))?;
    refuse_others(folder, &classes)?;
    let mut exported = Exported { records: 0, classes: 0 };
    for (class, mut rows) in classes {
        rows.sort_by(|a, b| {
            let by_name = a.file.as_bytes().cmp(b.file.as_bytes());
            by_name.then(a.frame.cmp(&b.frame)).then_with(|| a.at.cmp(&b.at))
        });
        let path = folder.join(format!("{}.npy", stem(class.as_ref())));
        let mut writer = NpyWriter::create(&path, rows.len(), state.manifest.space.dimension)?;
        for rows in rows.chunks(READ_TOGETHER) {
            let spots: Vec<(usize, u32)> = rows.iter().map(|row| row.at).collect();
            let shared = state.vectors(&spots)?;
            for (row, shared) in rows.iter().zip(shared.chunks_exact(state.manifest.space.dimension)) {
                writer.push(row.vector.as_deref().unwrap_or(shared))?;
            }
        }
        writer.finish()?;
        exported.records += rows.len();
        exported.classes += 1;
        let file = ClassFile {
            space: state.manifest.space.clone(),
            provenance: provenance(state, &rows),
            class,
            vectors_sha256: Some(vectors_sha256(&path)?),
            pseudonyms_of: (identity.mode() == IdentityMode::Anonymous).then(|| identity.secret_id()),
            records: rows.into_iter().map(|row| row.value).collect(),
        };
        file.write(folder)?;
    }
    Ok(exported)
}

/// The record as it came, with today's label where that was changed, and its own vector where it has one.
fn linked(record: &Record, index: usize, identity: &Identity) -> Result<(Value, Option<Vec<f32>>)> {
    let alias = index.checked_sub(1).map(|index| &record.aliases[index]);
    let (sealed, file_key) = match alias {
        None => (&record.sealed, record.file_key),
        Some(alias) => (&alias.sealed, alias.file_key),
    };
    let sealed = sealed.as_deref().ok_or_else(|| {
        Error::new(
            ErrorKind::Damaged,
            format!("image `{}` has no sealed record", record.id),
        )
    })?;
    let (mut value, vector) = identity
        .open_with_vector(sealed, file_key)
        .map_err(|error| error.context(format!("image `{}`", record.id)))?;
    let changed = alias.map_or(!record.history.is_empty(), |alias| alias.settled);
    if changed && let Value::Object(fields) = &mut value {
        put_label_source(fields, record.label_source.as_ref());
    }
    Ok((value, vector))
}

/// Pseudonyms in place of ids. An alias has its own file, study and label, and shares the rest with its image.
fn anonymous(record: &Record, index: usize) -> Value {
    let alias = index.checked_sub(1).map(|index| &record.aliases[index]);
    let (file, file_key, frame) = match alias {
        None => (&record.file, record.file_key, record.frame),
        Some(alias) => (&alias.file, alias.file_key, alias.frame),
    };
    let [study, series, sop] = match alias {
        None => [record.study, record.series, record.sop],
        Some(alias) => [alias.study, alias.series, alias.sop],
    };
    let label_source = match alias.filter(|alias| !alias.settled) {
        None => &record.label_source,
        Some(alias) => &alias.label_source,
    };
    let mut fields = Map::new();
    let mut put = |field: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(field.to_owned(), value.into());
        }
    };
    put("id", Some(record.id.to_string()));
    put("file", file.clone());
    put("patient_id", record.patient.map(|key| key.to_string()));
    put("patient_id_key", record.patient_id_key.map(|key| key.to_string()));
    put("study_uid", study.map(|key| key.to_string()));
    put("series_uid", series.map(|key| key.to_string()));
    put("sop_uid", sop.map(|key| key.to_string()));
    put("source", record.source.clone());
    put("view", record.view.clone());
    put("age", record.age.clone());
    put("sex", record.sex.clone());
    put("file_key", Some(file_key.to_string()));
    put("pixel_key", record.pixel_key.map(|key| key.to_string()));
    if !frame.is_first() {
        fields.insert("frame".to_owned(), frame.get().into());
    }
    put_label_source(&mut fields, label_source.as_ref());
    if !record.tags.is_empty() {
        let tags = record
            .tags
            .iter()
            .map(|(tag, value)| (tag.clone(), Value::from(value.as_str())))
            .collect();
        fields.insert("tags".to_owned(), Value::Object(tags));
    }
    Value::Object(fields)
}

fn put_label_source(fields: &mut Map<String, Value>, label_source: Option<&LabelSource>) {
    match label_source {
        Some(source) => fields.insert("label_source".to_owned(), source.as_str().into()),
        None => fields.remove("label_source"),
    };
}

/// What the rows have in common; where they differ, every value there is.
fn provenance(state: &State, rows: &[Row]) -> VectorProvenance {
    let all: BTreeSet<_> = rows.iter().map(|row| &state.rows[row.at.0].header.provenance).collect();
    let joined = |field: fn(&super::RowsProvenance) -> &str| {
        let values: BTreeSet<_> = all.iter().map(|provenance| field(provenance)).collect();
        values.into_iter().collect::<Vec<_>>().join(", ")
    };
    let card = state.manifest.model.as_ref().and_then(|model| model.card.get("name"));
    VectorProvenance {
        model: card.and_then(Value::as_str).unwrap_or("unknown").to_owned(),
        precision: joined(|provenance| &provenance.precision),
        device: joined(|provenance| &provenance.device),
        engine: joined(|provenance| &provenance.engine),
    }
}

/// A class file of something else would be taken for a part of this archive.
fn refuse_others(folder: &Path, classes: &BTreeMap<Option<ClassLabel>, Vec<Row>>) -> Result<()> {
    for ending in ["json", "npy"] {
        for path in files(folder, ending)? {
            if !classes
                .keys()
                .any(|class| path.file_stem().is_some_and(|name| name == stem(class.as_ref())))
            {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    format!("`{}` is not of this archive: give an empty folder", path.display()),
                ));
            }
        }
    }
    Ok(())
}
