//! What is known about a file beside its pixels: `metadata.csv`, the Kaggle download's `<CLASS>.metadata.xlsx`, the DICOM header.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::path::Path;

use calamine::{Data, Reader, Xlsx};

use super::dataset::{Dataset, Entry};
use crate::archive::Described;
use crate::domain::{ClassLabel, FrameNumber, LabelSource};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::Provenance;

const XLSX_SUFFIX: &str = ".metadata.xlsx";
/// Most bytes that an xlsx may inflate to, all its members together.
const XLSX_BYTES_MAX: u64 = 256 << 20;
/// Cells beyond these are not looked at.
const XLSX_ROWS_MAX: u32 = 2_000_000;
const XLSX_COLUMNS_MAX: u32 = 64;

/// The documents of a data set, read.
#[derive(Default)]
pub struct Metadata {
    rows: HashMap<String, Row>,
    sources: HashMap<String, String>,
    unmatched: BTreeMap<String, usize>,
}

/// A row of `metadata.csv`: its class, how that was proven, and its other non-empty cells in the order of the columns.
#[derive(Default)]
struct Row {
    class: Option<ClassLabel>,
    label_source: Option<LabelSource>,
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

    /// Everything known about a frame of a file; `sha256` of the file. What is said of the file holds for each of its frames: `metadata.csv` wins over the
    /// xlsx, which wins over the file's own header.
    pub fn record(&self, entry: &Entry, frame: FrameNumber, sha256: [u8; 32], facts: Provenance) -> Described {
        let folder_says = entry.folder_class.is_some() && self.class_of(entry) == entry.folder_class;
        let mut record = Described {
            id: hex::encode(&frame.digest(&sha256)[..16]),
            file: Some(entry.file.clone()),
            frame,
            sha256: Some(hex::encode(sha256)),
            patient_id: facts.patient_id,
            issuer: facts.issuer,
            study_uid: facts.study_uid,
            series_uid: facts.series_uid,
            sop_uid: facts.sop_uid,
            source: self.sources.get(&entry.file).cloned(),
            label_source: folder_says.then_some(LabelSource::Folder),
            view: facts.view,
            age: facts.age,
            sex: facts.sex,
            ..Described::default()
        };
        for (tag, value) in [("modality", facts.modality), ("body_part", facts.body_part)] {
            record.tags.extend(value.map(|value| (tag.to_owned(), value)));
        }
        let Some(row) = self.rows.get(&entry.file) else {
            return record;
        };
        record.label_source = row.label_source.clone().or(record.label_source);
        for (column, value) in &row.cells {
            match field(&mut record, column) {
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
                    ("label_source", name) => {
                        let source = name.parse();
                        kept.label_source = Some(source.map_err(|error: Error| error.context(format!("`{name}`")))?);
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
        check_inflated(bytes)?;
        let mut book = Xlsx::new(Cursor::new(bytes)).map_err(broken)?;
        let no_columns = || Error::new(ErrorKind::InvalidRequest, "it has no columns FILE NAME and URL");
        let sheet = book.sheet_names().into_iter().next().ok_or_else(no_columns)?;
        // Cell by cell: a table of all the cells that a sheet may have would be larger than any memory.
        let mut cells = book.worksheet_cells_reader(&sheet).map_err(broken)?;
        let mut first = None;
        let mut titles: BTreeMap<u32, String> = BTreeMap::new();
        let mut rows: BTreeMap<u32, (String, String)> = BTreeMap::new();
        while let Some(cell) = cells.next_cell().map_err(broken)? {
            let (row, column) = cell.get_position();
            if row >= XLSX_ROWS_MAX || column >= XLSX_COLUMNS_MAX {
                continue;
            }
            let text = Data::from(cell.get_value().clone()).to_string().trim().to_owned();
            if row == *first.get_or_insert(row) {
                titles.insert(column, text.to_uppercase());
                continue;
            }
            match titles.get(&column).map(String::as_str) {
                Some("FILE NAME") => rows.entry(row).or_default().0 = text.to_lowercase(),
                Some("URL") => rows.entry(row).or_default().1 = text,
                _ => {}
            }
        }
        if !["FILE NAME", "URL"]
            .iter()
            .all(|title| titles.values().any(|found| found == title))
        {
            return Err(no_columns());
        }
        let mut unmatched = 0;
        for (name, url) in rows.into_values() {
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

/// The field of a known column of `metadata.csv`.
fn field<'a>(record: &'a mut Described, column: &str) -> Option<&'a mut Option<String>> {
    Some(match column {
        "patient_id" => &mut record.patient_id,
        "issuer" => &mut record.issuer,
        "study_uid" => &mut record.study_uid,
        "series_uid" => &mut record.series_uid,
        "sop_uid" => &mut record.sop_uid,
        "source" => &mut record.source,
        "view" | "projection" => &mut record.view,
        "age" => &mut record.age,
        "sex" => &mut record.sex,
        _ => return None,
    })
}

/// Inflates everything once into nothing: the workbook's reader has no bound of its own.
fn check_inflated(bytes: &[u8]) -> Result<()> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::with_source(ErrorKind::InvalidRequest, "it can't be read as xlsx", error)
    };
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(error.into()))?;
    let mut left = XLSX_BYTES_MAX;
    for index in 0..zip.len() {
        let member = zip.by_index(index).map_err(|error| broken(error.into()))?;
        let inflated = std::io::copy(&mut member.take(left + 1), &mut std::io::sink());
        let inflated = inflated.map_err(|error| broken(error.into()))?;
        left = left.checked_sub(inflated).ok_or_else(|| {
            let message = format!("it inflates to more than {XLSX_BYTES_MAX} bytes");
            Error::new(ErrorKind::TooLarge, message)
        })?;
    }
    Ok(())
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
        xlsx_with(rows, "</sheetData>")
    }

    fn xlsx_with(rows: &[&[&str]], end: &str) -> Vec<u8> {
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
                format!("<worksheet xmlns=\"{main}\"><sheetData>{sheet}{end}</worksheet>"),
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
        let frame = |file: &str, frame| metadata.record(entry(&dataset, file), frame, [0xab; 32], facts.clone());
        let record = |file: &str| frame(file, FrameNumber::FIRST);
        let class = |file: &str| metadata.class_of(entry(&dataset, file)).map(|class| class.to_string());

        let json = serde_json::to_string(&record("COVID/a.png")).unwrap();
        let expected = format!(
            r#"{{"id":"{}","file":"COVID/a.png","sha256":"{}","patient_id":"P1","study_uid":"1.2.3","label_source":"folder","view":"pa","age":"45","sex":"f","tags":{{"modality":"DX","split":"train"}}}}"#,
            "ab".repeat(16),
            "ab".repeat(32)
        );
        assert_eq!(json, expected);
        let second = frame("COVID/a.png", FrameNumber::try_from(2).unwrap());
        let first = record("COVID/a.png");
        assert_eq!(
            (second.frame.get(), &second.sha256, &second.view),
            (2, &first.sha256, &first.view)
        );
        assert_ne!(second.id, first.id);
        let json = serde_json::to_string(&second).unwrap();
        assert!(json.contains(r#""file":"COVID/a.png","frame":2,"sha256":"#), "{json}");
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
                .record(
                    entry(&dataset, file),
                    FrameNumber::FIRST,
                    [0; 32],
                    Provenance::default(),
                )
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
    fn a_cell_far_out_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let rows: [&[&str]; 2] = [&["FILE NAME", "URL"], &["A-1", "https://example.org"]];
        let far = r#"<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>"#;
        let bytes = xlsx_with(&rows, far);
        std::fs::create_dir(dir.path().join("A")).unwrap();
        std::fs::write(dir.path().join("A/A-1.png"), b"").unwrap();
        std::fs::write(dir.path().join("A.metadata.xlsx"), bytes).unwrap();
        let dataset = Dataset::open(dir.path()).unwrap();
        let metadata = Metadata::read(&dataset).unwrap();
        let record = metadata.record(
            entry(&dataset, "A/A-1.png"),
            FrameNumber::FIRST,
            [0; 32],
            Provenance::default(),
        );
        assert_eq!(record.source.as_deref(), Some("https://example.org"));
    }

    #[test]
    fn an_xlsx_that_inflates_without_end_is_refused() {
        let blanks = " ".repeat(1 << 20);
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("xl/sharedStrings.xml", zip::write::SimpleFileOptions::default())
            .unwrap();
        for _ in 0..=XLSX_BYTES_MAX >> 20 {
            zip.write_all(blanks.as_bytes()).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        assert!(bytes.len() < 1 << 20);
        let (_dir, dataset) = dataset(&[("COVID.metadata.xlsx", &bytes), ("COVID/a.png", b"")]);
        let error = Metadata::read(&dataset).err().unwrap().to_string();
        assert!(
            error.contains("COVID.metadata.xlsx") && error.contains("inflates"),
            "{error}"
        );
    }

    #[test]
    fn unreadable_documents_are_named() {
        let cases: [(&str, &[u8], &str); 6] = [
            ("metadata.csv", b"name,class\na.png,COVID\n", "no column `file`"),
            ("metadata.csv", b"file,class\nCOVID/a.png,\xff\n", "as CSV"),
            (
                "metadata.csv",
                b"file,label_source\nCOVID/a.png,histology\n",
                "`histology`: `label_source` is one of",
            ),
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
