//! `<CLASS>.npy` + `<CLASS>.json`: the form in which embeddings come in and go out.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::npy::{Matrix, read_npy, write_whole};
use super::{Identity, RowsProvenance, Shown};
use crate::domain::{ClassLabel, FrameNumber, ImageId, Key, LabelSource, Record, Space, SpaceId, UNLABELLED};
use crate::error::{Error, ErrorKind, Result};

/// The format of `<CLASS>.json` that is written; the only one so far. Files of other origin need not say it.
pub const CLASS_FORMAT: u32 = 1;
/// The list of images that could not be embedded lies beside the class files; no class begins with `_`.
const BROKEN: &str = "_broken.json";
/// Fields of a record in the order in which they are written; others follow.
const FIELD_ORDER: [&str; 18] = [
    "id",
    "file",
    "frame",
    "sha256",
    "patient_id",
    "patient_id_key",
    "issuer",
    "study_uid",
    "series_uid",
    "sop_uid",
    "source",
    "label_source",
    "view",
    "age",
    "sex",
    "file_key",
    "pixel_key",
    "tags",
];

/// How the vectors of a class file were computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorProvenance {
    /// The model's name.
    pub model: String,
    /// For example `f32`.
    pub precision: String,
    /// For example `cpu`.
    pub device: String,
    /// For example `pytorch 2.13.0`.
    pub engine: String,
}

impl VectorProvenance {
    /// What a rows object says.
    pub fn rows(&self) -> RowsProvenance {
        RowsProvenance {
            precision: self.precision.clone(),
            device: self.device.clone(),
            engine: self.engine.clone(),
        }
    }
}

/// `<CLASS>.json`: record i describes row i of `<CLASS>.npy`.
///
/// In this order: `format`, `space`, `provenance`, `class`, `vectors_sha256`, where there are pseudonyms `identity` and `secret_id`, `records`.
#[derive(Clone, PartialEq)]
pub struct ClassFile {
    /// Space of the vectors.
    pub space: Space,
    /// How they were computed.
    pub provenance: VectorProvenance,
    /// The class; none: the images without one.
    pub class: Option<ClassLabel>,
    /// SHA-256 of the vectors, the bytes behind the header of `<CLASS>.npy`, 64 hex digits: what they belong to.
    pub vectors_sha256: Option<String>,
    /// Set when ids are pseudonyms, made with the secret of this id: an archive with the same secret takes them as they are.
    pub pseudonyms_of: Option<String>,
    /// The records as they are written, unknown fields included.
    pub records: Vec<Value>,
}

/// Never the records.
impl fmt::Debug for ClassFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassFile")
            .field("class", &self.class)
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Raw {
    format: Option<u32>,
    space: RawSpace,
    provenance: VectorProvenance,
    class: Option<ClassLabel>,
    vectors_sha256: Option<String>,
    identity: Option<String>,
    secret_id: Option<String>,
    records: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct RawSpace {
    #[serde(flatten)]
    space: Space,
    id: SpaceId,
}

impl ClassFile {
    /// The file's name without its ending.
    pub fn stem(&self) -> &str {
        stem(self.class.as_ref())
    }

    /// Reads a class file.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable` when it can't be read; `InvalidRequest`, in a sentence that names the file, when it is no class file, its
    /// space's id is not that of its fields, or that space has windows that this program does not understand.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |what: String| Error::new(ErrorKind::InvalidRequest, format!("`{}` {what}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| {
            let kind = if error.kind() == std::io::ErrorKind::NotFound {
                ErrorKind::NotFound
            } else {
                ErrorKind::Unavailable
            };
            Error::with_source(kind, format!("`{}` can't be read", path.display()), error)
        })?;
        let raw: Raw =
            serde_json::from_slice(&bytes).map_err(|error| refuse(format!("is not a class file: {error}")))?;
        if let Some(format) = raw.format.filter(|&format| format != CLASS_FORMAT) {
            return Err(refuse(format!(
                "has format {format}, this program reads format {CLASS_FORMAT}: use a newer medsearch"
            )));
        }
        let RawSpace { space, id } = raw.space;
        if space.id() != id {
            return Err(refuse(format!(
                "says space `{id}`, but its fields make `{}`",
                space.id()
            )));
        }
        space.windows().map_err(|error| refuse(error.message().to_owned()))?;
        let pseudonyms_of = match raw.identity.as_deref() {
            None => None,
            Some("pseudonym") => Some(
                raw.secret_id
                    .ok_or_else(|| refuse("has pseudonyms of no `secret_id`".to_owned()))?,
            ),
            Some(other) => return Err(refuse(format!("has the unknown identity `{other}`"))),
        };
        Ok(Self {
            space,
            provenance: raw.provenance,
            class: raw.class,
            vectors_sha256: raw.vectors_sha256,
            pseudonyms_of,
            records: raw.records,
        })
    }

    /// Writes it to `folder`; it takes its place when it is whole.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join(format!("{}.json", self.stem())), |writer| {
            let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
            self.serialize(&mut serde_json::Serializer::with_formatter(&mut *writer, format))?;
            writer.write_all(b"\n")
        })
    }

    /// What record `index` says.
    ///
    /// # Errors
    /// `InvalidRequest` when a field is not what it should be.
    ///
    /// # Panics
    /// When there is no such record.
    pub fn described(&self, index: usize) -> Result<Described> {
        serde_json::from_value(self.records[index].clone()).map_err(|error| {
            // The error's own text may quote a value.
            let line = format!(
                "record {index} of class file `{}` has a field of the wrong type",
                self.stem()
            );
            Error::with_source(ErrorKind::InvalidRequest, line, error)
        })
    }

    /// The archive's record of record `index`: ids become pseudonyms, names and tags are left out unless they are `shown`, the original is
    /// sealed where the archive's mode says so.
    ///
    /// # Errors
    /// `InvalidRequest` when a field is missing or not what it should be.
    ///
    /// # Panics
    /// When there is no such record.
    pub fn record(&self, index: usize, identity: &Identity, shown: &Shown, ingested_at: &str) -> Result<Record> {
        let described = self.described(index)?;
        let needs = |what: &str| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("record {index} of class file `{}` {what}", self.stem()),
            )
        };
        let ours = self.pseudonyms_of.as_deref() == Some(identity.secret_id().as_str());
        let keys = match (ours, &described.sha256, described.file_key) {
            (true, _, Some(file_key)) => {
                let id: ImageId = described
                    .id
                    .parse()
                    .map_err(|_| needs("has an id that is no image id"))?;
                let key = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
                let key = |text: &Option<String>| key(text).map_err(|_| needs("has a pseudonym that is none"));
                Keys {
                    id,
                    patient: key(&described.patient_id)?,
                    patient_id_key: described.patient_id_key,
                    study: key(&described.study_uid)?,
                    series: key(&described.series_uid)?,
                    sop: key(&described.sop_uid)?,
                    file_key,
                    pixel_key: described.pixel_key,
                }
            }
            (_, sha256, file_key) => {
                let patient = described
                    .patient_id
                    .as_deref()
                    .and_then(|id| identity.patient_keys(described.issuer.as_deref(), id));
                let patient_id_key = patient.filter(|keys| keys.has_issuer()).map(|keys| keys.id);
                let patient = patient.map(|keys| keys.patient);
                let mut digest = [0; 32];
                match (sha256, file_key) {
                    (Some(sha256), _) => {
                        hex::decode_to_slice(sha256, &mut digest)
                            .map_err(|_| needs("has a `sha256` that is not 64 hex digits"))?;
                        digest = described.frame.digest(&digest);
                    }
                    // Another archive's pseudonym names the file well enough to tell it from others.
                    (None, Some(key)) => digest = *blake3::hash(&key.0).as_bytes(),
                    (None, None) => return Err(needs("has no `sha256`")),
                }
                Keys {
                    id: identity.image_id(patient, &digest),
                    patient,
                    patient_id_key,
                    study: described.study_uid.as_deref().and_then(|uid| identity.study_key(uid)),
                    series: described.series_uid.as_deref().and_then(|uid| identity.series_key(uid)),
                    sop: described.sop_uid.as_deref().and_then(|uid| identity.sop_key(uid)),
                    file_key: identity.file_key(&digest),
                    pixel_key: None,
                }
            }
        };
        Ok(Record {
            class: self.class.clone(),
            label_source: described.label_source,
            patient: keys.patient,
            patient_id_key: keys.patient_id_key,
            study: keys.study,
            series: keys.series,
            sop: keys.sop,
            pixel_key: keys.pixel_key,
            frame: described.frame,
            name_key: described.file.as_deref().and_then(|file| identity.name_key(file)),
            file: described.file.filter(|_| shown.file_names),
            source: described.source,
            view: described.view,
            age: described.age.map(open_age),
            sex: described.sex,
            tags: described.tags.into_iter().filter(|(name, _)| shown.tag(name)).collect(),
            sealed: identity.seal(&self.records[index], keys.file_key)?,
            ..Record::bare(keys.id, keys.file_key, ingested_at)
        })
    }
}

/// An age as it may stand in the open: above 89 years it can tell who somebody is, so these are one group.
pub fn open_age(age: String) -> String {
    match age.trim().parse::<f64>() {
        Ok(years) if years > 89.0 => "90+".to_owned(),
        _ => age,
    }
}

struct Keys {
    id: ImageId,
    patient: Option<Key>,
    patient_id_key: Option<Key>,
    study: Option<Key>,
    series: Option<Key>,
    sop: Option<Key>,
    file_key: Key,
    pixel_key: Option<Key>,
}

/// A record of the interchange form, as `embed` writes and `index` reads it. Absent fields are left out of the JSON.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// First 32 hex digits of the file's SHA-256, or of [`FrameNumber::digest`]; an image id in a file of pseudonyms.
    pub id: String,
    /// Path below the data folder, with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Which frame of the file, counted from 1; absent: the first.
    #[serde(default, skip_serializing_if = "FrameNumber::is_first")]
    pub frame: FrameNumber,
    /// SHA-256 of the file, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The patient.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub patient_id: Option<String>,
    /// Pseudonym of the patient id alone, in a file of pseudonyms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_id_key: Option<Key>,
    /// Who gave that id.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub issuer: Option<String>,
    /// Study Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study_uid: Option<String>,
    /// Series Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series_uid: Option<String>,
    /// SOP Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sop_uid: Option<String>,
    /// Where the data set says it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How the class was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_source: Option<LabelSource>,
    /// Projection, for example `PA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Age in years.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub age: Option<String>,
    /// Sex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sex: Option<String>,
    /// Pseudonym of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_key: Option<Key>,
    /// Pseudonym of the pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_key: Option<Key>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// It names patients: its values never reach a log.
impl fmt::Debug for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Described")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Text, or a number that should have been written as text.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("neither text nor a number")),
    }
}

impl Serialize for ClassFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("format", &CLASS_FORMAT)?;
        map.serialize_entry(
            "space",
            &RawSpace {
                space: self.space.clone(),
                id: self.space.id(),
            },
        )?;
        map.serialize_entry("provenance", &self.provenance)?;
        map.serialize_entry("class", &self.class)?;
        if let Some(digest) = &self.vectors_sha256 {
            map.serialize_entry("vectors_sha256", digest)?;
        }
        if let Some(secret_id) = &self.pseudonyms_of {
            map.serialize_entry("identity", "pseudonym")?;
            map.serialize_entry("secret_id", secret_id)?;
        }
        map.serialize_entry("records", &Ordered(&self.records))?;
        map.end()
    }
}

struct Ordered<'a>(&'a [Value]);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for record in self.0 {
            match record {
                Value::Object(fields) => seq.serialize_element(&OrderedRecord(fields))?,
                other => seq.serialize_element(other)?,
            }
        }
        seq.end()
    }
}

struct OrderedRecord<'a>(&'a Map<String, Value>);

impl Serialize for OrderedRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for field in FIELD_ORDER {
            if let Some(value) = self.0.get(field) {
                map.serialize_entry(field, value)?;
            }
        }
        for (field, value) in self
            .0
            .iter()
            .filter(|(field, _)| !FIELD_ORDER.contains(&field.as_str()))
        {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

/// A class file and its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassData {
    /// The records.
    pub file: ClassFile,
    /// Their vectors.
    pub vectors: Matrix,
}

/// Reads every class of a folder, sorted by file name. All are of one space.
///
/// # Errors
/// `NotFound` when there is none; `InvalidRequest`, in a sentence that names the file, for a file that can't be used or is alone.
pub fn load_folder(folder: &Path) -> Result<Vec<ClassData>> {
    let mut stems: Vec<PathBuf> = Vec::new();
    for ending in ["json", "npy"] {
        stems.extend(files(folder, ending)?.into_iter().map(|path| path.with_extension("")));
    }
    stems.sort();
    stems.dedup();
    if stems.is_empty() {
        let message = format!(
            "`{}` holds no class files (`<CLASS>.npy` and `<CLASS>.json`)",
            folder.display()
        );
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let mut classes: Vec<ClassData> = Vec::new();
    for stem in stems {
        // `with_extension` would take `a.b` for `a`.
        let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", stem.display()));
        let (json, npy) = (beside("json"), beside("npy"));
        let refuse = |what: String| Err(Error::new(ErrorKind::InvalidRequest, what));
        for (there, missing) in [(&json, &npy), (&npy, &json)] {
            if !missing.is_file() {
                return refuse(format!(
                    "`{}` has no `{}` beside it",
                    there.display(),
                    missing.display()
                ));
            }
        }
        let file = ClassFile::read(&json)?;
        let vectors = read_npy(&npy)?;
        let named = stem.file_name().is_some_and(|name| name == file.stem());
        if !named {
            return refuse(format!(
                "`{}` is of class `{}`: the file should be named so",
                json.display(),
                file.stem()
            ));
        }
        if let Some(digest) = &file.vectors_sha256
            && *digest != vectors_sha256(&npy)?
        {
            return refuse(format!(
                "`{}` does not belong to `{}`: it describes other vectors; embed the data again",
                json.display(),
                npy.display()
            ));
        }
        if vectors.rows != file.records.len() {
            let (rows, records) = (vectors.rows, file.records.len());
            return refuse(format!(
                "`{}` has {rows} rows, `{}` describes {records}",
                npy.display(),
                json.display()
            ));
        }
        if vectors.dimension != file.space.dimension {
            let (has, says) = (vectors.dimension, file.space.dimension);
            return refuse(format!(
                "`{}` has {has} components a row, its space has {says}",
                npy.display()
            ));
        }
        if let Some(row) = (0..vectors.rows).find(|&row| vectors.row(row).iter().all(|&x| x == 0.0)) {
            return refuse(format!("`{}` has a row of zeros only, row {row}", npy.display()));
        }
        if let Some(first) = classes.first()
            && first.file.space != file.space
        {
            return refuse(format!(
                "`{}` is of another space than `{}.json`",
                json.display(),
                first.file.stem()
            ));
        }
        classes.push(ClassData { file, vectors });
    }
    Ok(classes)
}

/// SHA-256 of the bytes behind the header of an `.npy` file, in hex.
pub(super) fn vectors_sha256(npy: &Path) -> Result<String> {
    let digest = || -> std::io::Result<String> {
        let mut file = std::io::BufReader::new(std::fs::File::open(npy)?);
        // Magic and version; then the header's length, of two bytes in version 1 and of four later.
        let mut start = [0; 8];
        file.read_exact(&mut start)?;
        let mut length = [0; 4];
        file.read_exact(if start[6] == 1 { &mut length[..2] } else { &mut length })?;
        std::io::copy(
            &mut (&mut file).take(u32::from_le_bytes(length).into()),
            &mut std::io::sink(),
        )?;
        let mut digest = Sha256::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => digest.update(&piece[..read]),
            }
        }
        Ok(hex::encode(digest.finalize()))
    };
    digest().map_err(|error| {
        Error::with_source(
            ErrorKind::Unavailable,
            format!("`{}` can't be read", npy.display()),
            error,
        )
    })
}

/// Files with this ending that could be a class's.
pub(super) fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let unreadable = |error: std::io::Error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound {
            ErrorKind::NotFound
        } else {
            ErrorKind::Unavailable
        };
        Error::with_source(kind, format!("the folder `{}` can't be read", folder.display()), error)
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ours = path.extension().is_some_and(|extension| extension == ending);
        if ours && !name.starts_with('.') && name != BROKEN && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

/// The file name of a class without its ending.
pub(super) fn stem(class: Option<&ClassLabel>) -> &str {
    class.map_or(UNLABELLED, ClassLabel::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::npy::NpyWriter;
    use super::super::{IdentityMode, Secret};
    use super::*;

    fn class_file(records: Vec<Value>) -> ClassFile {
        ClassFile {
            space: super::super::manifest::tests::space(2),
            provenance: VectorProvenance {
                model: "test".into(),
                precision: "f32".into(),
                device: "cpu".into(),
                engine: "test".into(),
            },
            class: Some(ClassLabel::parse("Viral Pneumonia").unwrap()),
            vectors_sha256: None,
            pseudonyms_of: None,
            records,
        }
    }

    fn record() -> Value {
        json!({"sha256": "ab".repeat(32), "id": "ab".repeat(16), "file": "Viral Pneumonia/ü 1.png", "patient_id": 7,
            "age": 45, "tags": {"split": "train", "scanner": "x1", "PatientName": "Mueller"}, "added": {"by": ["others"]}})
    }

    fn write(folder: &Path, file: &ClassFile, rows: &[[f32; 2]]) {
        file.write(folder).unwrap();
        let mut writer = NpyWriter::create(&folder.join(format!("{}.npy", file.stem())), rows.len(), 2).unwrap();
        rows.iter().for_each(|row| writer.push(row).unwrap());
        writer.finish().unwrap();
    }

    #[test]
    fn a_folder_comes_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = class_file(vec![record()]);
        file.vectors_sha256 = Some(hex::encode(Sha256::digest(
            [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat(),
        )));
        write(dir.path(), &file, &[[1.0, 2.0]]);
        let unlabelled = ClassFile {
            class: None,
            ..class_file(vec![record()])
        };
        write(dir.path(), &unlabelled, &[[3.0, 4.0]]);
        std::fs::write(dir.path().join("_broken.json"), "[]").unwrap();
        std::fs::write(dir.path().join(".hidden.npy"), "").unwrap();
        let classes = load_folder(dir.path()).unwrap();
        assert_eq!(classes.len(), 2);
        assert_eq!(classes[0].file, file);
        assert_eq!(classes[1].file, unlabelled);
        assert_eq!(classes[1].vectors.row(0), [3.0, 4.0]);
        let text = std::fs::read_to_string(dir.path().join("Viral Pneumonia.json")).unwrap();
        let at = |field: &str| text.find(&format!("\"{field}\"")).unwrap();
        assert!(at("format") < at("space") && at("space") < at("provenance") && at("provenance") < at("records"));
        assert!(at("file") < at("sha256") && at("sha256") < at("patient_id") && at("tags") < at("added"));
        assert!(text.contains("ü 1.png"));
    }

    #[test]
    fn files_that_can_not_be_used_are_named() {
        let check = |spoil: fn(&Path), expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &class_file(vec![record()]), &[[1.0, 2.0]]);
            spoil(dir.path());
            let error = load_folder(dir.path()).unwrap_err();
            assert!(error.message().contains(expected), "`{error}` should say `{expected}`");
        };
        check(
            |dir| std::fs::remove_file(dir.join("Viral Pneumonia.npy")).unwrap(),
            "beside it",
        );
        check(
            |dir| std::fs::remove_file(dir.join("Viral Pneumonia.json")).unwrap(),
            "beside it",
        );
        check(|dir| class_file(vec![]).write(dir).unwrap(), "has 1 rows");
        check(|dir| write(dir, &class_file(vec![record()]), &[[0.0, 0.0]]), "zeros");
        check(
            |dir| std::fs::write(dir.join("Viral Pneumonia.json"), "{").unwrap(),
            "not a class file",
        );
        check(
            |dir| {
                let path = dir.join("Viral Pneumonia.json");
                let text = std::fs::read_to_string(&path).unwrap().replace("grey32", "grey16");
                std::fs::write(path, text).unwrap();
            },
            "its fields make",
        );
        check(
            |dir| {
                let mut later = class_file(vec![record()]);
                later.space.pixel_pipeline.push_str(" windows=CT:gamma");
                write(dir, &later, &[[1.0, 2.0]]);
            },
            "newer medsearch",
        );
        check(
            |dir| {
                for ending in ["npy", "json"] {
                    let from = dir.join(format!("Viral Pneumonia.{ending}"));
                    std::fs::rename(from, dir.join(format!("COVID.{ending}"))).unwrap();
                }
            },
            "should be named so",
        );
        check(
            |dir| {
                let mut other = class_file(vec![record()]);
                other.class = None;
                other.space.pooling = "avg".into();
                write(dir, &other, &[[1.0, 2.0]]);
            },
            "another space",
        );
        check(
            |dir| {
                let mut file = class_file(vec![record()]);
                file.vectors_sha256 = Some(vectors_sha256(&dir.join("Viral Pneumonia.npy")).unwrap());
                write(dir, &file, &[[1.0, 2.5]]);
            },
            "describes other vectors",
        );
        check(
            |dir| {
                let path = dir.join("Viral Pneumonia.json");
                let text = std::fs::read_to_string(&path)
                    .unwrap()
                    .replace("\"format\": 1", "\"format\": 2");
                std::fs::write(path, text).unwrap();
            },
            "use a newer medsearch",
        );
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(load_folder(empty.path()).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            load_folder(&empty.path().join("none")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn records_become_pseudonyms() {
        let identity = Identity::new(Secret::from_bytes([1; 32]), IdentityMode::Linked);
        let file = class_file(vec![
            record(),
            json!({"id": "x"}),
            json!({"id": "x", "sha256": "zz"}),
            json!([]),
            json!({"id": "x", "sha256": "ab".repeat(32), "frame": 0}),
            json!({"id": "x", "sha256": "ab".repeat(32), "frame": "2"}),
            json!({"id": "x", "sha256": "ab".repeat(32), "frame": 10_001}),
        ]);
        let made = file.record(0, &identity, &Shown::default(), "now").unwrap();
        assert_eq!(made.patient, identity.patient_key(None, "7"));
        assert_eq!(made.age.as_deref(), Some("45"));
        assert_eq!(made.file_key, identity.file_key(&[0xab; 32]));
        assert_eq!(made.id, identity.image_id(made.patient, &[0xab; 32]));
        assert!(made.frame.is_first());
        assert_eq!(
            ["89", "90", "101", "90+", "old"].map(|age| open_age(age.into())),
            ["89", "90+", "90+", "90+", "old"]
        );
        assert_eq!(made.label_source, None);
        assert_eq!(
            (&made.file, made.name_key),
            (&None, identity.name_key("Viral Pneumonia/ü 1.png"))
        );
        assert_eq!(made.tags, BTreeMap::from([("split".into(), "train".into())]));
        let shown = Shown {
            file_names: true,
            tags: vec!["scanner".into()],
        };
        let made = file.record(0, &identity, &shown, "now").unwrap();
        assert_eq!(made.file.as_deref(), Some("Viral Pneumonia/ü 1.png"));
        assert_eq!(made.tags.keys().collect::<Vec<_>>(), ["scanner", "split"]);
        assert_eq!(
            identity.open(made.sealed.as_deref().unwrap(), made.file_key).unwrap(),
            record()
        );
        for broken in 1..7 {
            assert_eq!(
                file.record(broken, &identity, &Shown::default(), "now")
                    .unwrap_err()
                    .kind(),
                ErrorKind::InvalidRequest
            );
        }
    }

    #[test]
    fn pseudonyms_are_kept_where_the_secret_is_the_same() {
        let identity = Identity::new(Secret::from_bytes([1; 32]), IdentityMode::Anonymous);
        let patient = identity.patient_key(None, "7").unwrap();
        let id = identity.image_id(Some(patient), &[3; 32]);
        let record = json!({"id": id.to_string(), "patient_id": patient.to_string(),
            "file_key": identity.file_key(&[2; 32]).to_string(), "pixel_key": identity.pixel_key(&[3; 32]).to_string()});
        let mut file = class_file(vec![record]);
        file.pseudonyms_of = Some(identity.secret_id());
        let made = file.record(0, &identity, &Shown::default(), "now").unwrap();
        assert_eq!((made.id, made.patient), (id, Some(patient)));
        assert_eq!(made.pixel_key, Some(identity.pixel_key(&[3; 32])));
        assert_eq!(made.sealed, None);

        let other = Identity::new(Secret::from_bytes([9; 32]), IdentityMode::Anonymous);
        let made = file.record(0, &other, &Shown::default(), "now").unwrap();
        assert_eq!(made.patient, other.patient_key(None, &patient.to_string()));
        assert_ne!(made.id, id);
    }
}
