//! The folder of an audit: files `<start>-<process>-<number>.jsonl`, so that names sort by the start of the process and then by number.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::chain::{LINE_BYTES_MAX, ProcessId};
use crate::error::{Error, ErrorKind, Result};

/// Most files that a folder is read with.
const FILES_MAX: usize = 100_000;
/// Ends the name of a file.
const ENDING: &str = ".jsonl";

/// One file of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name, which sorts as files were begun.
    pub name: String,
    /// Whose it is.
    pub process: ProcessId,
    /// Which of that process, from 1.
    pub number: u32,
    /// Its size.
    pub bytes: u64,
}

/// The files of an audit in a folder, by name. Others are left alone.
///
/// # Errors
/// `NotFound` when there is no such folder; `Unavailable` when it can't be read; `TooLarge` when it has too many.
pub fn audit_files(folder: &Path) -> Result<Vec<AuditFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let Some((process, number)) = parse(&name) else {
            continue;
        };
        let bytes = match entry.metadata() {
            Ok(data) => data.len(),
            // Moved away in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&entry.path(), error)),
        };
        files.push(AuditFile {
            path: entry.path(),
            name,
            process,
            number,
            bytes,
        });
        if files.len() > FILES_MAX {
            let message = format!("`{}` has more than {FILES_MAX} files of an audit", folder.display());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// The name of a file: of the process that started then, with this number.
pub fn name_of(started: Timestamp, process: ProcessId, number: u32) -> String {
    format!("{}-{process}-{number:06}{ENDING}", started.strftime("%Y%m%dT%H%M%SZ"))
}

fn parse(name: &str) -> Option<(ProcessId, u32)> {
    let mut parts = name.strip_suffix(ENDING)?.splitn(3, '-');
    let (_started, process, number) = (parts.next()?, parts.next()?, parts.next()?);
    let number = number.parse().ok().filter(|&number| number > 0)?;
    Some((process.parse().ok()?, number))
}

/// The folder, made if it is not there, for its owner alone.
///
/// # Errors
/// `StorageFull`; `Unavailable`.
pub fn make_folder(folder: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed(folder, error))
}

/// A new file for its owner alone, and its name in the folder on the disk.
///
/// # Errors
/// As of the system.
pub fn create(folder: &Path, name: &str) -> io::Result<File> {
    let path = folder.join(name);
    let file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Ok(()) => Ok(file),
        Err(error) => {
            // The name is free again when it is tried next; where that fails too, the next number is.
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

/// The last whole line of a file; none: there is none, or it is none of an audit.
///
/// # Errors
/// As of the system.
pub fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // Room for one that is whole and one that is not.
    let from = length.saturating_sub(2 * LINE_BYTES_MAX as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(2 * LINE_BYTES_MAX as u64).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|&byte| byte == b'\n') else {
        return Ok(None);
    };
    let begin = tail[..end]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    Ok(Some(tail[begin..end].to_vec()))
}

/// What is next in a file.
pub enum Next {
    /// A line, without its line feed.
    Line(Vec<u8>),
    /// The end of a file that ends in the middle of a line.
    Torn,
    /// A line longer than any that is written.
    TooLong,
    /// The end.
    End,
}

/// Reads the next line, of bounded length.
///
/// # Errors
/// As of the reader.
pub fn next_line(reader: &mut impl BufRead) -> io::Result<Next> {
    let mut line = Vec::new();
    loop {
        let (found, used) = {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                return Ok(match line.is_empty() {
                    true => Next::End,
                    false => Next::Torn,
                });
            }
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(bytes.len());
            // What is too long is read to its end, but not kept.
            let room = (LINE_BYTES_MAX + 1).saturating_sub(line.len());
            line.extend_from_slice(&bytes[..taken.min(room)]);
            (end.is_some(), end.map_or(bytes.len(), |end| end + 1))
        };
        reader.consume(used);
        if found {
            return Ok(match line.len() > LINE_BYTES_MAX {
                true => Next::TooLong,
                false => Next::Line(line),
            });
        }
    }
}

/// Opens a file to be read line by line.
///
/// # Errors
/// `NotFound`; `Unavailable`.
pub fn open(path: &Path) -> Result<BufReader<File>> {
    File::open(path)
        .map(BufReader::new)
        .map_err(|error| failed(path, error))
}

/// An error of the system about a file of the audit.
pub fn failed(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::StorageFull
        }
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    Error::with_source(kind, format!("the audit at `{}` can't be used", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_files_were_begun_and_are_read_back() {
        let process = ProcessId::random();
        let at = |time: &str, number| name_of(time.parse().unwrap(), process, number);
        let mut names = [
            at("2026-12-01T00:00:00Z", 1),
            at("2026-11-30T23:59:59Z", 10),
            at("2026-11-30T23:59:59Z", 9),
        ];
        names.sort();
        assert!(names[0].ends_with("000009.jsonl") && names[2].starts_with("20261201T000000Z-"));
        assert_eq!(parse(&names[1]), Some((process, 10)));
        for other in [
            "x.jsonl",
            "a-b-c.jsonl",
            &names[0].replace("jsonl", "gz"),
            &at("2026-11-30T23:59:59Z", 0),
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn lines_are_read_whole_or_not_at_all() {
        let text = [b"one\n".to_vec(), vec![b'x'; LINE_BYTES_MAX + 7], b"\n\ntorn".to_vec()].concat();
        let mut reader = BufReader::with_capacity(10, &text[..]);
        assert!(matches!(next_line(&mut reader).unwrap(), Next::Line(line) if line == b"one"));
        assert!(matches!(next_line(&mut reader).unwrap(), Next::TooLong));
        assert!(matches!(next_line(&mut reader).unwrap(), Next::Line(line) if line.is_empty()));
        assert!(matches!(next_line(&mut reader).unwrap(), Next::Torn));
        assert!(matches!(next_line(&mut reader).unwrap(), Next::End));
    }

    #[test]
    fn the_last_whole_line_is_found_behind_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for (text, last) in [
            ("", None),
            ("torn", None),
            ("a\n", Some("a")),
            ("a\nb\ntorn", Some("b")),
        ] {
            std::fs::write(&path, text).unwrap();
            let found = last_line(&path).unwrap();
            assert_eq!(found.as_deref(), last.map(str::as_bytes), "{text:?}");
        }
    }
}
