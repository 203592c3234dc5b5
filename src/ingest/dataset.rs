//! A labelled data set as people have it: class folders, the Kaggle download, or its zip, read where it lies.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::ZipArchive;

use crate::domain::ClassLabel;
use crate::error::{Error, ErrorKind, Result};

/// Largest file that is read, in bytes; the limit that decoding has, too.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most files in a data set.
const FILES_MAX: usize = 10_000_000;
/// Deepest folder that is looked into: wrapper folders, class, `images`.
const DEPTH_MAX: usize = 6;
/// The folder of images within a class folder.
const IMAGES: &str = "images";
/// The folder of segmentation masks within a class folder, which is ignored.
const MASKS: &str = "masks";
const METADATA_CSV: &str = "metadata.csv";

/// Images by class, in the bytewise order of their paths.
///
/// The data folder is the given one, or the one within it that holds the class folders: a lone folder with nothing beside it but documents is a
/// wrapper. So the outer and the inner folder of a download and its zip give the same names.
pub struct Dataset {
    source: Source,
    root: String,
    entries: Vec<Entry>,
    documents: Vec<String>,
    unread: Vec<String>,
}

/// One image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the data folder, with `/`.
    pub file: String,
    /// The class folder it lies in; none directly in the data folder.
    pub folder_class: Option<ClassLabel>,
}

enum Source {
    Folder(PathBuf),
    /// The archive, and where in it each file is: names in a zip may be of another encoding than ours.
    Zip(ZipArchive<SharedFile>, HashMap<String, usize>),
}

impl Dataset {
    /// Lists a folder or a zip. Nothing is unpacked; images are recognised when they are read, by content.
    ///
    /// # Errors
    /// `NotFound` when there is nothing at `path` or no image in it; `UnsupportedMedia` when it is neither a folder nor a zip that can be read
    /// without a password; `InvalidRequest` for a class folder whose name can't be a class.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let about = std::fs::metadata(path).map_err(|error| {
            Error::with_source(ErrorKind::NotFound, format!("there is no data at `{shown}`"), error)
        })?;
        let (source, files) = if about.is_dir() {
            let mut files = Vec::new();
            list_folder(path, "", 0, &mut files)?;
            (Source::Folder(path.to_owned()), files)
        } else {
            if !about.is_file() {
                let message = format!("`{shown}` is neither a folder nor a file");
                return Err(Error::new(ErrorKind::UnsupportedMedia, message));
            }
            let zip = open_zip(path)?;
            let places = list_zip(&zip).map_err(|error| error.context(&shown))?;
            let files = places.keys().cloned().collect();
            (Source::Zip(zip, places), files)
        };
        let visible: Vec<&str> = files
            .iter()
            .map(String::as_str)
            .filter(|file| !is_hidden(file))
            .collect();
        let root = class_root(&visible);
        let inside: Vec<&str> = visible.iter().filter_map(|file| file.strip_prefix(&root)).collect();
        let Sorted {
            entries,
            documents,
            unread,
        } = sort_out(&inside)?;
        if entries.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no images in `{shown}`: expected <CLASS>/ or <CLASS>/images/ with image files in it"),
            ));
        }
        Ok(Self {
            source,
            root,
            entries,
            documents,
            unread,
        })
    }

    /// The images, in the bytewise order of their paths.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// `metadata.csv` and the like in the data folder itself.
    pub fn documents(&self) -> &[String] {
        &self.documents
    }

    /// Files that lie too deep to have a class; they are not read.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// The bytes of an entry or a document. May be called by several threads at once.
    ///
    /// # Errors
    /// `InvalidRequest` for any other name, wherever it may lead; `TooLarge` above [`FILE_BYTES_MAX`]; `InvalidImage` when the file or zip entry can't be read.
    pub fn read(&self, file: &str) -> Result<Vec<u8>> {
        let listed = |file: &str| {
            let found = self.entries.binary_search_by(|entry| entry.file.as_str().cmp(file));
            found.is_ok() || self.documents.iter().any(|document| document == file)
        };
        if !listed(file) {
            let message = "the file is not of this data set";
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        let path = format!("{}{file}", self.root);
        match &self.source {
            Source::Folder(folder) => {
                let unreadable = |error| Error::with_source(ErrorKind::InvalidImage, "the file can't be read", error);
                let opened = File::open(folder.join(path)).map_err(unreadable)?;
                let size = opened.metadata().map_err(unreadable)?.len();
                read_bounded(opened, size)
            }
            Source::Zip(zip, places) => {
                let missing = || Error::new(ErrorKind::InvalidImage, "the zip has no such entry");
                let place = *places.get(&path).ok_or_else(missing)?;
                // A clone shares the directory and has a position of its own.
                let mut zip = zip.clone();
                let entry = zip.by_index(place).map_err(|error| {
                    Error::with_source(ErrorKind::InvalidImage, "the zip entry can't be read", error)
                })?;
                let size = entry.size();
                read_bounded(entry, size)
            }
        }
    }
}

/// Reads to the end, but never more than the limit, whatever `size` promises.
fn read_bounded(reader: impl Read, size: u64) -> Result<Vec<u8>> {
    let too_large = || {
        let message = format!("the file has {size} bytes or more, {FILE_BYTES_MAX} are allowed");
        Error::new(ErrorKind::TooLarge, message)
    };
    if size > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    reader
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::with_source(ErrorKind::InvalidImage, "the file can't be read to its end", error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        Err(too_large())
    } else {
        Ok(bytes)
    }
}

/// Every file below `folder`, as paths with `/` relative to the top.
fn list_folder(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) -> Result<()> {
    let failed = |error| {
        Error::with_source(
            ErrorKind::NotFound,
            format!("`{}` can't be listed", folder.display()),
            error,
        )
    };
    for item in std::fs::read_dir(folder).map_err(failed)? {
        let item = item.map_err(failed)?;
        let Ok(name) = item.file_name().into_string() else {
            let shown = item.file_name().to_string_lossy().into_owned();
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("file name `{shown}` is not UTF-8: rename it"),
            ));
        };
        let path = format!("{prefix}{name}");
        // Links are followed, so that a data set may be put together from links; a link to nothing is reported when it is read.
        let about = std::fs::metadata(item.path());
        let is_folder = about.as_ref().is_ok_and(std::fs::Metadata::is_dir);
        // A pipe or a device would be read for ever.
        let is_file = about.map_or(true, |about| about.is_file());
        if is_file {
            files.push(path);
        } else if is_folder && depth < DEPTH_MAX && !name.starts_with('.') && !(depth > 0 && name == MASKS) {
            list_folder(&item.path(), &format!("{path}/"), depth + 1, files)?;
        }
        if files.len() > FILES_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("more than {FILES_MAX} files")));
        }
    }
    Ok(())
}

fn open_zip(path: &Path) -> Result<ZipArchive<SharedFile>> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        let message = format!("`{}` is neither a folder nor a readable zip", path.display());
        Error::with_source(ErrorKind::UnsupportedMedia, message, error)
    };
    let file = SharedFile::open(path).map_err(|error| failed(error.into()))?;
    ZipArchive::new(file).map_err(|error| failed(error.into()))
}

fn list_zip(zip: &ZipArchive<SharedFile>) -> Result<HashMap<String, usize>> {
    if zip.len() > FILES_MAX {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the zip has more than {FILES_MAX} entries"),
        ));
    }
    let mut places = HashMap::new();
    for index in 0..zip.len() {
        let broken = |error| Error::with_source(ErrorKind::UnsupportedMedia, "the zip's directory is broken", error);
        let entry = zip.by_index_data(index).map_err(broken)?;
        if entry.is_dir() {
            continue;
        }
        if entry.encrypted() {
            return Err(Error::new(
                ErrorKind::UnsupportedMedia,
                "the zip is encrypted: unpack it first",
            ));
        }
        places.insert(entry.name().map_err(broken)?.into_owned(), index);
    }
    Ok(places)
}

/// The prefix of the folder that holds the class folders: empty, or `NAME/` of a wrapper.
///
/// A wrapper is a lone folder, nothing beside it but documents (and no `metadata.csv`, which marks the data folder), that holds more than `images`
/// and `masks`.
fn class_root(files: &[&str]) -> String {
    let mut root = String::new();
    loop {
        let (mut folders, mut below) = (BTreeSet::new(), BTreeSet::new());
        for file in files.iter().filter_map(|file| file.strip_prefix(&root)) {
            match file.split_once('/') {
                None if !is_document(file) || file.eq_ignore_ascii_case(METADATA_CSV) => return root,
                None => {}
                Some((folder, rest)) => {
                    folders.insert(folder);
                    below.extend(rest.split_once('/').map(|(second, _)| second));
                }
            }
        }
        below.retain(|folder| ![IMAGES, MASKS].contains(folder));
        match folders.pop_first() {
            Some(only) if folders.is_empty() && !below.is_empty() => root = format!("{root}{only}/"),
            _ => return root,
        }
    }
}

struct Sorted {
    entries: Vec<Entry>,
    documents: Vec<String>,
    unread: Vec<String>,
}

/// Which of the files below the data folder are images, documents, or too deep to have a class.
fn sort_out(files: &[&str]) -> Result<Sorted> {
    let mut sorted = Sorted {
        entries: Vec::new(),
        documents: Vec::new(),
        unread: Vec::new(),
    };
    for &file in files {
        let parts: Vec<&str> = file.split('/').collect();
        match parts.as_slice() {
            [name] if is_document(name) => sorted.documents.push(file.to_owned()),
            [.., name] if is_document(name) => {}
            [_] => sorted.entries.push(Entry {
                file: file.to_owned(),
                folder_class: None,
            }),
            [folder, _] | [folder, IMAGES, _] if *folder != MASKS => {
                let class = ClassLabel::parse(folder).map_err(|error| error.context(format!("folder `{folder}`")))?;
                sorted.entries.push(Entry {
                    file: file.to_owned(),
                    folder_class: Some(class),
                });
            }
            [MASKS, ..] | [_, MASKS, ..] => {}
            _ => sorted.unread.push(file.to_owned()),
        }
    }
    // `str` compares bytewise.
    sorted.entries.sort_by(|a, b| a.file.cmp(&b.file));
    sorted.documents.sort();
    sorted.unread.sort();
    Ok(sorted)
}

/// What file managers and zip programs leave behind.
fn is_hidden(file: &str) -> bool {
    file.split('/').any(|part| part.is_empty() || part.starts_with('.')) || file.starts_with("__MACOSX/")
}

/// Files that are about the images.
fn is_document(name: &str) -> bool {
    let lower = name.to_lowercase();
    let ending = Path::new(&lower).extension().and_then(|ending| ending.to_str());
    ["thumbs.db", "desktop.ini"].contains(&lower.as_str())
        || lower.starts_with("readme")
        || ending.is_some_and(|ending| ["txt", "md", "csv", "xlsx"].contains(&ending))
}

/// A file that many readers share, each with a position of its own.
#[derive(Clone)]
struct SharedFile {
    file: Arc<File>,
    position: u64,
    size: u64,
}

impl SharedFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            position: 0,
            size,
        })
    }
}

impl Read for SharedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for SharedFile {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    /// A tree whose files hold their own paths.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        dir
    }

    fn zip_of(files: &[&str]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
        for (i, name) in files.iter().enumerate() {
            let method = if i % 2 == 0 {
                zip::CompressionMethod::Deflated
            } else {
                zip::CompressionMethod::Stored
            };
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method))
                .unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        file
    }

    fn names(dataset: &Dataset) -> Vec<(&str, Option<&str>)> {
        let class = |entry: &'_ Entry| entry.folder_class.clone();
        let entries = dataset.entries().iter();
        entries
            .map(|e| (e.file.as_str(), class(e).map(|c| c.as_str().to_owned().leak() as &str)))
            .collect()
    }

    const KAGGLE: [&str; 13] = [
        "COVID-19_Radiography_Dataset/README.md.txt",
        "COVID-19_Radiography_Dataset/COVID.metadata.xlsx",
        "COVID-19_Radiography_Dataset/Viral Pneumonia.metadata.xlsx",
        "COVID-19_Radiography_Dataset/COVID/images/COVID-1.png",
        "COVID-19_Radiography_Dataset/COVID/masks/COVID-1.png",
        "COVID-19_Radiography_Dataset/COVID/images/COVID-10.png",
        "COVID-19_Radiography_Dataset/Viral Pneumonia/images/Viral Pneumonia-1.png",
        "COVID-19_Radiography_Dataset/Viral Pneumonia/masks/Viral Pneumonia-1.png",
        "COVID-19_Radiography_Dataset/Normal/images/Normal-2.png",
        "COVID-19_Radiography_Dataset/Normal/.DS_Store",
        "COVID-19_Radiography_Dataset/Normal/images/Thumbs.db",
        "COVID-19_Radiography_Dataset/Lung_Opacity/images/Lung_Opacity-1.png",
        "__MACOSX/COVID-19_Radiography_Dataset/COVID/images/._COVID-1.png",
    ];

    #[test]
    fn the_kaggle_download_reads_the_same_outer_inner_and_zipped() {
        let outer = tree(&KAGGLE);
        let zipped = zip_of(&KAGGLE);
        let expected = vec![
            ("COVID/images/COVID-1.png", Some("COVID")),
            ("COVID/images/COVID-10.png", Some("COVID")),
            ("Lung_Opacity/images/Lung_Opacity-1.png", Some("Lung_Opacity")),
            ("Normal/images/Normal-2.png", Some("Normal")),
            ("Viral Pneumonia/images/Viral Pneumonia-1.png", Some("Viral Pneumonia")),
        ];
        let inner = outer.path().join("COVID-19_Radiography_Dataset");
        for path in [outer.path(), &inner, zipped.path()] {
            let dataset = Dataset::open(path).unwrap();
            assert_eq!(names(&dataset), expected, "{path:?}");
            assert_eq!(
                dataset.documents(),
                ["COVID.metadata.xlsx", "README.md.txt", "Viral Pneumonia.metadata.xlsx"],
                "{path:?}"
            );
            assert!(dataset.unread().is_empty());
            let read = dataset.read("Normal/images/Normal-2.png").unwrap();
            assert_eq!(read, b"COVID-19_Radiography_Dataset/Normal/images/Normal-2.png");
        }
    }

    #[test]
    fn layouts() {
        let check = |files: &[&str], expected: &[(&str, Option<&str>)], unread: &[&str]| {
            let (folder, zipped) = (tree(files), zip_of(files));
            for path in [folder.path(), zipped.path()] {
                let dataset = Dataset::open(path).unwrap();
                assert_eq!(names(&dataset), expected, "{files:?}");
                assert_eq!(dataset.unread(), unread, "{files:?}");
            }
        };
        // One class with its images in `images` is no wrapper.
        check(
            &["COVID/images/a.png", "COVID/masks/a.png"],
            &[("COVID/images/a.png", Some("COVID"))],
            &[],
        );
        // Bytewise: capitals before small letters, `-` before `/`.
        check(
            &["b/x", "B/x", "B-2/x"],
            &[("B-2/x", Some("B-2")), ("B/x", Some("B")), ("b/x", Some("b"))],
            &[],
        );
        // Unlabelled images lie in the data folder itself; metadata.csv marks it.
        check(
            &["a.png", "COVID/b.dcm"],
            &[("COVID/b.dcm", Some("COVID")), ("a.png", None)],
            &[],
        );
        check(
            &["metadata.csv", "x/y/a.png", "x/b.png"],
            &[("x/b.png", Some("x"))],
            &["x/y/a.png"],
        );
        check(
            &["w/v/A/1", "w/v/B/2", "README"],
            &[("A/1", Some("A")), ("B/2", Some("B"))],
            &[],
        );
    }

    #[test]
    fn what_is_no_data_set_is_said() {
        let empty = tree(&["COVID/readme.txt"]);
        let text = tree(&["file"]);
        let cases = [
            (Path::new("no/such/folder").to_owned(), "there is no data at"),
            (empty.path().to_owned(), "no images in"),
            (text.path().join("file"), "neither a folder nor a readable zip"),
            (tree(&["_x/a.png", "y/b.png"]).keep(), "folder `_x`: class name begins"),
        ];
        for (path, expected) in cases {
            let message = Dataset::open(&path).err().unwrap().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn an_encrypted_zip_is_refused() {
        let zipped = zip_of(&["COVID/a.png"]);
        let mut bytes = std::fs::read(zipped.path()).unwrap();
        let at = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        bytes[at + 8] |= 1;
        std::fs::write(zipped.path(), bytes).unwrap();
        let error = Dataset::open(zipped.path()).err().unwrap();
        assert!(error.to_string().contains("encrypted"), "{error}");
    }

    #[test]
    fn a_damaged_or_lying_zip_entry_costs_one_image() {
        let zipped = zip_of(&["COVID/a.png", "COVID/b.png"]);
        let mut bytes = std::fs::read(zipped.path()).unwrap();
        let at = bytes.windows(11).rposition(|w| w == b"COVID/b.png").unwrap();
        let stored = bytes
            .windows(11)
            .enumerate()
            .filter(|(_, w)| *w == b"COVID/b.png")
            .nth(1)
            .unwrap()
            .0;
        assert!(stored < at, "name, content, directory");
        bytes[stored] ^= 0xff;
        std::fs::write(zipped.path(), &bytes).unwrap();
        let dataset = Dataset::open(zipped.path()).unwrap();
        assert!(dataset.read("COVID/a.png").is_ok());
        assert_eq!(dataset.read("COVID/b.png").unwrap_err().kind(), ErrorKind::InvalidImage);
    }

    #[test]
    fn a_file_above_the_limit_is_not_read() {
        let dir = tree(&["COVID/a.png"]);
        let sparse = File::create(dir.path().join("COVID/big.dcm")).unwrap();
        sparse.set_len(FILE_BYTES_MAX + 1).unwrap();
        let dataset = Dataset::open(dir.path()).unwrap();
        assert_eq!(dataset.read("COVID/big.dcm").unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn only_what_is_listed_is_read() {
        let dir = tree(&["COVID/a.png", "COVID/b/c/deep.png", "metadata.csv", ".hidden"]);
        let outside = tree(&["private.png"]);
        let dataset = Dataset::open(dir.path()).unwrap();
        assert_eq!(dataset.read("COVID/a.png").unwrap(), b"COVID/a.png");
        assert_eq!(dataset.read("metadata.csv").unwrap(), b"metadata.csv");
        let absolute = outside.path().join("private.png");
        let upwards = format!(
            "../{}/private.png",
            outside.path().file_name().unwrap().to_str().unwrap()
        );
        let others = [
            absolute.to_str().unwrap(),
            &upwards,
            ".hidden",
            "COVID/../COVID/a.png",
            "COVID/b/c/deep.png",
        ];
        for other in others {
            assert_eq!(
                dataset.read(other).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{other}"
            );
        }
    }

    #[test]
    fn a_pipe_is_no_image() {
        let dir = tree(&["COVID/a.png"]);
        let pipe = std::ffi::CString::new(dir.path().join("COVID/pipe.png").to_str().unwrap()).unwrap();
        // SAFETY: the path is a string that ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        std::os::unix::fs::symlink("a.png", dir.path().join("COVID/link.png")).unwrap();
        let dataset = Dataset::open(dir.path()).unwrap();
        assert_eq!(
            names(&dataset).iter().map(|(file, _)| *file).collect::<Vec<_>>(),
            ["COVID/a.png", "COVID/link.png"]
        );
        let error = Dataset::open(&dir.path().join("COVID/pipe.png")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnsupportedMedia);
    }
}
