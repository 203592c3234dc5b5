//! The labels file: which class instances, series and studies show. Its UIDs become pseudonyms as it is read, and are kept nowhere.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::archive::{FileLabels, Identity, State};
use crate::domain::{ClassLabel, ImageId, Key, Label, LabelSource, LabelledBy, Uid};
use crate::error::{Error, ErrorKind, Result};

/// Largest file, in bytes.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// Most lines.
const LINES_MAX: usize = 500_000;

/// What a line names, from the widest to the narrowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Level {
    Study,
    Series,
    Instance,
}

/// Columns that a file may have.
const UIDS: [(&str, Level); 3] = [
    ("sop_uid", Level::Instance),
    ("series_uid", Level::Series),
    ("study_uid", Level::Study),
];
const CLASS: &str = "class";
const LABEL_SOURCE: &str = "label_source";

/// What an image is called in an archive.
#[derive(Clone, Copy, Default)]
pub struct UidKeys {
    /// Pseudonym of its Study Instance UID.
    pub study: Option<Key>,
    /// Of its Series Instance UID.
    pub series: Option<Key>,
    /// Of its SOP Instance UID.
    pub sop: Option<Key>,
}

/// A labels file, read. `Debug` shows how many lines it has.
#[derive(Clone, Default, PartialEq)]
pub struct LabelsFile {
    labels: HashMap<(Level, Key), Label>,
}

impl fmt::Debug for LabelsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabelsFile")
            .field("lines", &self.labels.len())
            .finish_non_exhaustive()
    }
}

/// What a labels file says of the images of an archive.
pub struct Meant {
    /// Of each that it says something of.
    pub images: Vec<(ImageId, FileLabels)>,
    /// Lines that name nothing in the archive.
    pub unknown: usize,
}

/// The bytes of a labels file.
///
/// # Errors
/// `NotFound` when there is none, `Unavailable` when it can't be read, `TooLarge`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let (kind, what) = match error.kind() {
            std::io::ErrorKind::NotFound => (ErrorKind::NotFound, "is not there"),
            _ => (ErrorKind::Unavailable, "can't be read"),
        };
        Error::with_source(kind, format!("the labels file `{}` {what}", path.display()), error)
    })?;
    if bytes.len() > BYTES_MAX {
        let message = format!(
            "the labels file `{}` is larger than `{BYTES_MAX}` bytes",
            path.display()
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(bytes)
}

impl LabelsFile {
    /// Reads the one at `path`.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Unavailable` when it can't be read, `TooLarge`; `InvalidRequest` with the line of what is wrong. None repeats what stands there.
    pub fn open(path: &Path, identity: &Identity) -> Result<Self> {
        let parsed = Self::parse(&read(path)?, identity);
        parsed.map_err(|error| error.context(format!("the labels file `{}`", path.display())))
    }

    /// Reads CSV (RFC 4180): a header with `class` and one or more of `study_uid`, `series_uid`, `sop_uid`, and `label_source` where wanted. Of several UIDs in a line the
    /// narrowest counts. Semicolons in the place of commas are taken too.
    ///
    /// # Errors
    /// `InvalidRequest` with the line; what stands there is not repeated, since it may be a UID in the wrong column.
    pub fn parse(bytes: &[u8], identity: &Identity) -> Result<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let delimiter = if first.contains(&b',') { b',' } else { b';' };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .from_reader(bytes);
        let header = reader.headers().map_err(|error| unread(&error, bytes))?.clone();
        let columns = Columns::of(&header)?;
        let mut lines: HashMap<(Level, Key), (Label, u64)> = HashMap::new();
        for row in reader.records() {
            let row = row.map_err(|error| unread(&error, bytes))?;
            let line = line_of(row.position(), bytes);
            if lines.len() == LINES_MAX {
                return Err(odd(line, &format!("more than `{LINES_MAX}` lines")));
            }
            let (level, uid) = columns.uid(&row).ok_or_else(|| odd(line, "it has no UID"))?;
            let key = match level {
                _ if !Uid::is(uid) => None,
                Level::Study => identity.study_key(uid),
                Level::Series => identity.series_key(uid),
                Level::Instance => identity.sop_key(uid),
            };
            let key = key.ok_or_else(|| {
                odd(
                    line,
                    "its UID has other characters than digits and dots, or more than 64",
                )
            })?;
            let label = columns.label(&row).map_err(|error| odd(line, error.message()))?;
            match lines.entry((level, key)) {
                Entry::Vacant(place) => drop(place.insert((label, line))),
                Entry::Occupied(known) if known.get().0 == label => {}
                Entry::Occupied(known) => {
                    let message = format!("line {} says something else of the same UID", known.get().1);
                    return Err(odd(line, &message));
                }
            }
        }
        let labels = lines.into_iter().map(|(name, (label, _))| (name, label));
        Ok(Self {
            labels: labels.collect(),
        })
    }

    /// How many UIDs it names.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The classes that it names, each once.
    pub fn classes(&self) -> BTreeSet<&ClassLabel> {
        self.labels.values().filter_map(|label| label.class.as_ref()).collect()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// What it says of an image: of its instance, else of its series, else of its study.
    pub fn label(&self, uids: UidKeys) -> Option<&Label> {
        let names = uids.names();
        names.into_iter().find_map(|name| self.labels.get(&name?))
    }

    /// What it says of the images of a version.
    pub fn meant(&self, state: &State) -> Meant {
        let mut named: HashSet<(Level, Key)> = HashSet::new();
        let mut images = Vec::new();
        for spot in state.live() {
            let record = state.at(spot);
            let own = UidKeys {
                study: record.study,
                series: record.series,
                sop: record.sop,
            };
            let further = record.aliases.iter().map(|alias| UidKeys {
                study: alias.study,
                series: alias.series,
                sop: alias.sop,
            });
            let mut said = |uids: UidKeys| {
                let names = uids.names().into_iter().flatten();
                named.extend(names.filter(|name| self.labels.contains_key(name)));
                self.label(uids).cloned()
            };
            let labels = FileLabels {
                own: said(own),
                further: further.map(&mut said).collect(),
            };
            if !labels.is_empty() {
                images.push((record.id, labels));
            }
        }
        Meant {
            images,
            unknown: self.len() - named.len(),
        }
    }
}

impl UidKeys {
    /// The narrowest first.
    fn names(self) -> [Option<(Level, Key)>; 3] {
        let name = |level| move |key| (level, key);
        [
            self.sop.map(name(Level::Instance)),
            self.series.map(name(Level::Series)),
            self.study.map(name(Level::Study)),
        ]
    }
}

/// Where the columns stand.
struct Columns {
    class: usize,
    label_source: Option<usize>,
    /// The narrowest first.
    uids: Vec<(usize, Level)>,
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Result<Self> {
        let place = |name: &str| header.iter().position(|column| column == name);
        let known =
            |column: &str| column == CLASS || column == LABEL_SOURCE || UIDS.iter().any(|(name, _)| *name == column);
        let mut seen = HashSet::new();
        // A file without a header has UIDs there: they are not repeated.
        if !header.iter().all(|column| known(column) && seen.insert(column)) {
            return Err(odd(
                1,
                "the columns are `study_uid`, `series_uid`, `sop_uid`, `class` and `label_source`, each once at most, and no others",
            ));
        }
        let uids: Vec<_> = UIDS
            .iter()
            .filter_map(|(name, level)| Some((place(name)?, *level)))
            .collect();
        let class = place(CLASS).filter(|_| !uids.is_empty());
        Ok(Self {
            class: class.ok_or_else(|| {
                odd(
                    1,
                    "there have to be a column `class` and one of `study_uid`, `series_uid`, `sop_uid`",
                )
            })?,
            label_source: place(LABEL_SOURCE),
            uids,
        })
    }

    fn uid<'a>(&self, row: &'a csv::StringRecord) -> Option<(Level, &'a str)> {
        let mut cells = self
            .uids
            .iter()
            .map(|(at, level)| (*level, row.get(*at).unwrap_or_default()));
        cells.find(|(_, uid)| !uid.is_empty())
    }

    fn label(&self, row: &csv::StringRecord) -> Result<Label> {
        let source = self
            .label_source
            .and_then(|at| row.get(at))
            .filter(|text| !text.is_empty());
        Ok(Label {
            class: Some(ClassLabel::parse(row.get(self.class).unwrap_or_default())?),
            label_source: source.map(str::parse::<LabelSource>).transpose()?,
            labelled_by: Some(LabelledBy::File),
        })
    }
}

/// The line of a row: its position is where the row before ends, and what is empty comes first.
fn line_of(position: Option<&csv::Position>, bytes: &[u8]) -> u64 {
    let Some(position) = position else { return 1 };
    let rest = usize::try_from(position.byte()).ok().and_then(|at| bytes.get(at..));
    let empty = rest
        .unwrap_or_default()
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + empty.filter(|byte| **byte == b'\n').count() as u64
}

fn odd(line: u64, what: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("line {line}: {what}"))
}

/// Without the reader's own words, which may repeat what stands there.
fn unread(error: &csv::Error, bytes: &[u8]) -> Error {
    odd(
        line_of(error.position(), bytes),
        match error.kind() {
            csv::ErrorKind::Utf8 { .. } => "it is no UTF-8",
            csv::ErrorKind::UnequalLengths { .. } => "it has more cells than the first line, or fewer",
            _ => "it can't be read as CSV",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{IdentityMode, Secret};

    fn identity() -> Identity {
        Identity::new(Secret::from_bytes([7; 32]), IdentityMode::Anonymous)
    }

    fn parse(text: &str) -> Result<LabelsFile> {
        LabelsFile::parse(text.as_bytes(), &identity())
    }

    fn uids(study: &str, series: &str, sop: &str) -> UidKeys {
        let identity = identity();
        UidKeys {
            study: identity.study_key(study),
            series: identity.series_key(series),
            sop: identity.sop_key(sop),
        }
    }

    fn class(file: &LabelsFile, uids: UidKeys) -> Option<&str> {
        file.label(uids)?.class.as_ref().map(ClassLabel::as_str)
    }

    #[test]
    fn the_narrowest_name_counts() {
        let file = parse(
            "study_uid,series_uid,sop_uid,class,label_source\n1.2,,,COVID,PCR\n,1.2.3,,Normal,\n1.2,1.2.3,1.2.3.4,Other,reader\n1.2,,,COVID,PCR\n",
        )
        .unwrap();
        assert_eq!(file.len(), 3);
        assert_eq!(class(&file, uids("1.2", "1.2.9", "1.2.9.1")), Some("COVID"));
        assert_eq!(class(&file, uids("1.2", "1.2.3", "1.2.3.5")), Some("Normal"));
        assert_eq!(class(&file, uids("1.2", "1.2.3", "1.2.3.4")), Some("Other"));
        // What one level is called names nothing on another.
        assert_eq!(class(&file, uids("1.2.3", "1.2", "1.2")), None);
        assert_eq!(file.label(UidKeys::default()), None);
        let label = file.label(uids("1.2", "", "")).unwrap();
        assert_eq!(label.label_source, Some(LabelSource::Pcr));
        assert_eq!(label.labelled_by, Some(LabelledBy::File));
        assert_eq!(format!("{file:?}"), "LabelsFile { lines: 3, .. }");
    }

    #[test]
    fn what_spreadsheets_write_is_read() {
        let plain = parse("class,study_uid\nCOVID,1.2\n").unwrap();
        for text in [
            "\u{feff}class;study_uid\r\nCOVID;1.2\r\n",
            "class,study_uid\n\"COVID\", 1.2 \n\n",
            " class ,study_uid\nCOVID,1.2",
        ] {
            assert_eq!(parse(text).unwrap(), plain, "{text}");
        }
        assert!(parse("class,study_uid\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_not_repeated() {
        let many: String = (0..=LINES_MAX).map(|number| format!("1.2.{number},A\n")).collect();
        for (text, says) in [
            ("", "line 1: there have to be"),
            ("1.2.77,COVID\n1.2.78,COVID\n", "line 1: the columns are"),
            ("study_uid,patient_id,class\n", "line 1: the columns are"),
            ("study_uid,class,class\n", "line 1: the columns are"),
            ("study_uid\n1.2.77\n", "line 1: there have to be"),
            ("class\nCOVID\n", "line 1: there have to be"),
            ("study_uid,class\n1.2,COVID\n1.2.77\n", "line 3: it has more cells"),
            ("study_uid,class\n1.2,COVID\n,COVID\n", "line 3: it has no UID"),
            ("study_uid,class\n1.2,COVID\nCOVID,1.2.77\n", "line 3: its UID has"),
            ("study_uid,class\n1.2.77,\n", "line 2: class name needs"),
            ("study_uid,class\n\n\n1.2.77,_x\n", "line 4: class name begins"),
            (
                "study_uid,class,label_source\n1.2,A,1.2.77\n",
                "line 2: `label_source` is one of",
            ),
            (
                "study_uid,class\n1.2.77,A\n1.2,A\n1.2.77,B\n",
                "line 4: line 2 says something else",
            ),
            (
                &format!("study_uid,class\n{many}"),
                "line 500002: more than `500000` lines",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.message().starts_with(says), "{error}");
            assert!(!error.to_string().contains("1.2.77"), "{error}");
        }
        let error = LabelsFile::parse(b"study_uid,class\n1.2,\xff\n", &identity()).unwrap_err();
        assert_eq!(error.message(), "line 2: it is no UTF-8");
    }

    proptest::proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(lines in "(study_uid,class[\n,;1.2A\"\u{e9}\r]{0,60}|[ -~\n]{0,60})") {
            if let Err(error) = parse(&lines) {
                proptest::prop_assert!(error.message().starts_with("line "));
            }
        }
    }

    #[test]
    fn a_file_has_a_bound_and_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        let open = || LabelsFile::open(&path, &identity());
        assert_eq!(open().unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(&path, "study_uid,class\n1.2,COVID\n1.2,\n").unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("labels.csv") && error.contains("line 3"), "{error}");
        std::fs::write(&path, vec![b'1'; BYTES_MAX + 1]).unwrap();
        assert_eq!(open().unwrap_err().kind(), ErrorKind::TooLarge);
        std::fs::write(&path, "study_uid,class\n1.2,COVID\n").unwrap();
        assert_eq!(open().unwrap().len(), 1);
    }
}
