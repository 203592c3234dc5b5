//! What is known about a file beside its pixels: `metadata.csv`, the Kaggle download's `<CLASS>.metadata.xlsx`, the DICOM header.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Cursor;
use std::path::Path;

use calamine::{Data, Reader, Xlsx};
use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, Entry};
use crate::domain::ClassLabel;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::Provenance;

const XLSX_SUFFIX: &str = ".metadata.xlsx";

/// One row of the interchange form: what is known about vector i. Absent fields are left out of the JSON.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// First 32 hex digits of `sha256`.
    pub id: String,
    /// Path below the data folder, with `/`.
    pub file: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Whose image it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_id: Option<String>,
    /// Who issued `patient_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// Where the image comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How the class was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_source: Option<String>,
    /// Projection, for example `PA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Age in years, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// Sex, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sex: Option<String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl FileRecord {
    /// The field of a known column of `metadata.csv`.
    fn column(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "patient_id" => &mut self.patient_id,
            "issuer" => &mut self.issuer,
            "study_uid" => &mut self.study_uid,
            "series_uid" => &mut self.series_uid,
            "sop_uid" => &mut self.sop_uid,
            "source" => &mut self.source,
            "label_source" => &mut self.label_source,
            "view" | "projection" => &mut self.view,
            "age" => &mut self.age,
            "sex" => &mut self.sex,
            _ => return None,
        })
    }
}

// It names patients: its values never reach a log.
impl fmt::Debug for FileRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRecord")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The documents of a data set, read.
#[derive(Default)]
pub struct Metadata {
    rows: HashMap<String, Row>,
    sources: HashMap<String, String>,
    unmatched: BTreeMap<String, usize>,
}

/// A row of `metadata.csv`: its class, and its other non-empty cells in the order of the columns.
#[derive(Default)]
struct Row {
    class: Option<ClassLabel>,
    cells: Vec<(String, String)>,
}

impl Metadata {
    /// Reads every document of `dataset` that is known here.
    ///
    /// # Errors
    /// `InvalidRequest` for a document that can't be read or lacks its columns, naming it.
    pub fn read(dataset: &Dataset) -> Result<Self> {
        let mut metadata = Self::default();
        for document in dataset.documents() {
            let lower = document.to_lowercase();
            let is_csv = lower == "metadata.csv";
            if is_csv || lower.ends_with(XLSX_SUFFIX) {
                let bytes = dataset
                    .read(document)
                    .map_err(|error| error.context(format!("`{document}`")))?;
                let unmatched = if is_csv {
                    metadata.read_csv(&bytes, dataset.entries())
                } else {
                    let class = &lower[..lower.len() - XLSX_SUFFIX.len()];
                    metadata.read_xlsx(&bytes, class, dataset.entries())
                };
                match unmatched.map_err(|error| error.context(format!("`{document}`")))? {
                    0 => {}
                    count => drop(metadata.unmatched.insert(document.clone(), count)),
                }
            }
        }
        Ok(metadata)
    }

    /// Rows that name no image, by document; documents without such rows are absent.
    pub fn unmatched(&self) -> &BTreeMap<String, usize> {
        &self.unmatched
    }

    /// The class of an image: `metadata.csv` wins over the folder; none when neither says.
    pub fn class_of(&self, entry: &Entry) -> Option<ClassLabel> {
        let row = self.rows.get(&entry.file);
        row.and_then(|row| row.class.clone())
            .or_else(|| entry.folder_class.clone())
    }

    /// Everything known about an image; `sha256` of its file, in hex. `metadata.csv` wins over the xlsx, which wins over the file's own header.
    pub fn record(&self, entry: &Entry, sha256: String, facts: Provenance) -> FileRecord {
        let folder_says = entry.folder_class.is_some() && self.class_of(entry) == entry.folder_class;
        let mut record = FileRecord {
            id: sha256[..32].to_owned(),
            file: entry.file.clone(),
            sha256,
            patient_id: facts.patient_id,
            issuer: facts.issuer,
            study_uid: facts.study_uid,
            series_uid: facts.series_uid,
            sop_uid: facts.sop_uid,
            source: self.sources.get(&entry.file).cloned(),
            label_source: folder_says.then(|| "folder".to_owned()),
            view: facts.view,
            age: facts.age,
            sex: facts.sex,
            tags: BTreeMap::new(),
        };
        for (tag, value) in [("modality", facts.modality), ("body_part", facts.body_part)] {
            record.tags.extend(value.map(|value| (tag.to_owned(), value)));
        }
        for (column, value) in self
            .rows
            .get(&entry.file)
            .map(|row| row.cells.as_slice())
            .unwrap_or_default()
        {
            match record.column(column) {
                Some(field) => *field = Some(value.clone()),
                None => drop(record.tags.insert(column.clone(), value.clone())),
            }
        }
        record
    }

    /// `metadata.csv`: UTF-8, a header with `file`; says how many rows name no image.
    fn read_csv(&mut self, bytes: &[u8], entries: &[Entry]) -> Result<usize> {
        let known: HashMap<&str, &Entry> = entries.iter().map(|entry| (entry.file.as_str(), entry)).collect();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let broken = |error: csv::Error| {
            Error::with_source(
                ErrorKind::InvalidRequest,
                format!("it can't be read as CSV: {error}"),
                error,
            )
        };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
        let header = reader.headers().map_err(broken)?.clone();
        let Some(file_at) = header.iter().position(|column| column == "file") else {
            return Err(Error::new(ErrorKind::InvalidRequest, "it has no column `file`"));
        };
        let mut unmatched = 0;
        for row in reader.records() {
            let row = row.map_err(broken)?;
            let file = row.get(file_at).unwrap_or_default().trim();
            let Some(entry) = known.get(file.strip_prefix("./").unwrap_or(file)) else {
                unmatched += 1;
                continue;
            };
            let mut kept = Row::default();
            for (column, value) in header.iter().zip(&row) {
                match (column, value.trim()) {
                    (_, "") | ("" | "file", _) => {}
                    ("class", name) => {
                        let class = ClassLabel::parse(name);
                        kept.class = Some(class.map_err(|error| error.context(format!("class `{name}`")))?);
                    }
                    (_, value) => kept.cells.push((column.to_owned(), value.to_owned())),
                }
            }
            self.rows.insert(entry.file.clone(), kept);
        }
        Ok(unmatched)
    }

    /// The Kaggle download's list of one class: FILE NAME (case and ending vary), FORMAT, SIZE, URL; says how many rows name no image.
    fn read_xlsx(&mut self, bytes: &[u8], class: &str, entries: &[Entry]) -> Result<usize> {
        let of_class = |entry: &&Entry| {
            entry
                .folder_class
                .as_ref()
                .map(|name| name.as_str().to_lowercase())
                .as_deref()
                == Some(class)
        };
        let by_stem: HashMap<String, &str> = entries
            .iter()
            .filter(of_class)
            .map(|entry| (stem(file_name(&entry.file)).to_lowercase(), entry.file.as_str()))
            .collect();
        let broken = |error: calamine::XlsxError| {
            Error::with_source(ErrorKind::InvalidRequest, "it can't be read as xlsx", error)
        };
        let mut book = Xlsx::new(Cursor::new(bytes)).map_err(broken)?;
        let no_columns = || Error::new(ErrorKind::InvalidRequest, "it has no columns FILE NAME and URL");
        let sheet = book.worksheet_range_at(0).ok_or_else(no_columns)?.map_err(broken)?;
        let mut rows = sheet.rows();
        let titles: Vec<String> = rows
            .next()
            .unwrap_or_default()
            .iter()
            .map(|cell| text(cell).to_uppercase())
            .collect();
        let column = |title: &str| titles.iter().position(|found| found == title).ok_or_else(no_columns);
        let (name_at, url_at) = (column("FILE NAME")?, column("URL")?);
        let mut unmatched = 0;
        for row in rows {
            let cell = |at: usize| row.get(at).map(text).unwrap_or_default();
            let (name, url) = (cell(name_at).to_lowercase(), cell(url_at));
            // A name may hold a dot of its own: as it is first, then without its ending.
            match by_stem.get(&name).or_else(|| by_stem.get(stem(&name))) {
                _ if name.is_empty() => {}
                None => unmatched += 1,
                Some(_) if url.is_empty() => {}
                Some(&file) => drop(self.sources.insert(file.to_owned(), url)),
            }
        }
        Ok(unmatched)
    }
}

fn text(cell: &Data) -> String {
    cell.to_string().trim().to_owned()
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn stem(name: &str) -> &str {
    Path::new(name)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or(name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// An xlsx as small as can be, with the cells as inline text.
    pub fn xlsx(rows: &[&[&str]]) -> Vec<u8> {
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
        let mut sheet = String::new();
        for (i, row) in rows.iter().enumerate() {
            sheet += &format!("<row r=\"{}\">", i + 1);
            for (j, cell) in row.iter().enumerate() {
                let column = char::from(b'A' + j as u8);
                sheet += &format!(
                    "<c r=\"{column}{}\" t=\"inlineStr\"><is><t>{}</t></is></c>",
                    i + 1,
                    escape(cell)
                );
            }
            sheet += "</row>";
        }
        let main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
        let relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
        let package = "http://schemas.openxmlformats.org/package/2006";
        let files = [
            (
                "[Content_Types].xml",
                format!(
                    "<Types xmlns=\"{package}/content-types\"><Default Extension=\"xml\" ContentType=\"application/xml\"/></Types>"
                ),
            ),
            (
                "_rels/.rels",
                format!(
                    "<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"rId1\" Type=\"{relations}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
                ),
            ),
            (
                "xl/workbook.xml",
                format!(
                    "<workbook xmlns=\"{main}\" xmlns:r=\"{relations}\"><sheets><sheet name=\"Sheet1\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>"
                ),
            ),
            (
                "xl/_rels/workbook.xml.rels",
                format!(
                    "<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"rId1\" Type=\"{relations}/worksheet\" Target=\"worksheets/sheet1.xml\"/></Relationships>"
                ),
            ),
            (
                "xl/worksheets/sheet1.xml",
                format!("<worksheet xmlns=\"{main}\"><sheetData>{sheet}</sheetData></worksheet>"),
            ),
        ];
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn dataset(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Dataset) {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let dataset = Dataset::open(dir.path()).unwrap();
        (dir, dataset)
    }

    fn entry<'a>(dataset: &'a Dataset, file: &str) -> &'a Entry {
        dataset.entries().iter().find(|entry| entry.file == file).unwrap()
    }

    #[test]
    fn metadata_csv_wins_over_the_header_and_the_folder() {
        let csv = "\u{feff}file,class,patient_id,projection,age,sex,split,empty,\n\
            COVID/a.png,COVID, P1 ,pa,45,f,train,,\n\
            ./COVID/b.png,Normal,,ap\n\
            c.png,Viral Pneumonia,,,,,,,x,y\n\
            COVID/gone.png,COVID,,,,,,,\n";
        let files: [(&str, &[u8]); 5] = [
            ("metadata.csv", csv.as_bytes()),
            ("COVID/a.png", b""),
            ("COVID/b.png", b""),
            ("c.png", b""),
            ("d.png", b""),
        ];
        let (_dir, dataset) = dataset(&files);
        let metadata = Metadata::read(&dataset).unwrap();
        assert_eq!(metadata.unmatched().get("metadata.csv"), Some(&1));
        let facts = Provenance {
            patient_id: Some("header".into()),
            study_uid: Some("1.2.3".into()),
            modality: Some("DX".into()),
            ..Provenance::default()
        };
        let record = |file: &str| metadata.record(entry(&dataset, file), "ab".repeat(32), facts.clone());
        let class = |file: &str| metadata.class_of(entry(&dataset, file)).map(|class| class.to_string());

        let json = serde_json::to_string(&record("COVID/a.png")).unwrap();
        let expected = format!(
            r#"{{"id":"{}","file":"COVID/a.png","sha256":"{}","patient_id":"P1","study_uid":"1.2.3","label_source":"folder","view":"pa","age":"45","sex":"f","tags":{{"modality":"DX","split":"train"}}}}"#,
            "ab".repeat(16),
            "ab".repeat(32)
        );
        assert_eq!(json, expected);
        assert_eq!(class("COVID/a.png").as_deref(), Some("COVID"));
        // Another class than the folder's: nobody says how it was proven.
        assert_eq!(class("COVID/b.png").as_deref(), Some("Normal"));
        assert_eq!(
            (record("COVID/b.png").label_source, record("COVID/b.png").view),
            (None, Some("ap".into()))
        );
        assert_eq!(record("COVID/b.png").patient_id.as_deref(), Some("header"));
        assert_eq!(class("c.png").as_deref(), Some("Viral Pneumonia"));
        assert_eq!(class("d.png"), None);
        assert!(!format!("{:?} {facts:?}", record("COVID/a.png")).contains("P1"));
    }

    #[test]
    fn kaggles_names_match_whatever_their_case_and_ending() {
        let normal = xlsx(&[
            &["FILE NAME", "FORMAT", "SIZE", "URL"],
            &["NORMAL-1", "PNG", "256*256", "https://example.org/a?x=1&y=2"],
            &["normal-2.png", "PNG", "256*256", "https://example.org/b"],
            &["NORMAL-99", "PNG", "256*256", "https://example.org/c"],
            &["", "PNG", "256*256", "https://example.org/d"],
            &["Normal-3.v2", "PNG", "256*256", ""],
        ]);
        let files: [(&str, &[u8]); 5] = [
            ("Normal.metadata.xlsx", &normal),
            ("Normal/images/Normal-1.png", b""),
            ("Normal/images/Normal-2.png", b""),
            ("Normal/images/Normal-3.v2.png", b""),
            ("COVID/images/Normal-1.png", b""),
        ];
        let (_dir, dataset) = dataset(&files);
        let metadata = Metadata::read(&dataset).unwrap();
        let source = |file: &str| {
            metadata
                .record(entry(&dataset, file), "00".repeat(32), Provenance::default())
                .source
        };
        assert_eq!(
            source("Normal/images/Normal-1.png").as_deref(),
            Some("https://example.org/a?x=1&y=2")
        );
        assert_eq!(
            source("Normal/images/Normal-2.png").as_deref(),
            Some("https://example.org/b")
        );
        assert_eq!(source("Normal/images/Normal-3.v2.png"), None);
        assert_eq!(source("COVID/images/Normal-1.png"), None, "another class");
        assert_eq!(metadata.unmatched().get("Normal.metadata.xlsx"), Some(&1));
    }

    #[test]
    fn unreadable_documents_are_named() {
        let cases: [(&str, &[u8], &str); 5] = [
            ("metadata.csv", b"name,class\na.png,COVID\n", "no column `file`"),
            ("metadata.csv", b"file,class\nCOVID/a.png,\xff\n", "as CSV"),
            (
                "metadata.csv",
                b"file,class\nCOVID/a.png,a/b\n",
                "a control character or a slash",
            ),
            ("COVID.metadata.xlsx", b"not a zip", "as xlsx"),
            ("COVID.metadata.xlsx", &xlsx(&[&["NAME", "URL"]]), "FILE NAME and URL"),
        ];
        for (document, content, expected) in cases {
            let (_dir, dataset) = dataset(&[(document, content), ("COVID/a.png", b"")]);
            let message = Metadata::read(&dataset).err().unwrap().to_string();
            assert!(message.contains(document) && message.contains(expected), "{message}");
        }
    }
}
