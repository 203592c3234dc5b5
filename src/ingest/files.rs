//! Files that are whole or absent: written beside their place, fsynced, then renamed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// A finished file that has not taken its place yet. Dropped without [`Staged::publish`] it is removed.
pub(super) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
}

/// Writes a hidden neighbour of `target`, durable on return.
pub(super) fn stage(target: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<Staged> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.new"));
    let staged = Staged {
        temporary,
        target: target.to_owned(),
    };
    let written = File::create(&staged.temporary).and_then(|file| {
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        write(&mut writer)?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    });
    written.map_err(|error| storage(target, error))?;
    Ok(staged)
}

impl Staged {
    /// Takes its place; durable once the folder is synced.
    pub fn publish(self) -> Result<()> {
        std::fs::rename(&self.temporary, &self.target).map_err(|error| storage(&self.target, error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `publish` there is nothing here any more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Replaces `target` durably.
pub(super) fn replace(target: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    stage(target, write)?.publish()?;
    sync_folder(target.parent().unwrap_or(Path::new(".")))
}

/// `value` as Python's `json.dumps(value, indent=1, ensure_ascii=False)` writes it, and a line end.
pub(super) fn write_json(writer: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *writer, formatter))?;
    writer.write_all(b"\n")
}

/// Makes what was created, renamed and removed in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| storage(folder, error))
}

/// What failed when `path` was written or read.
pub(super) fn storage(path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::with_source(
            ErrorKind::StorageFull,
            format!("the storage is full at `{shown}`"),
            error,
        ),
        _ => Error::with_source(ErrorKind::Unavailable, format!("`{shown}` failed: {error}"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("COVID.json");
        replace(&target, |file| file.write_all(b"old")).unwrap();
        let full = replace(&target, |file| {
            file.write_all(b"new")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn json_is_laid_out_as_pythons() {
        let mut bytes = Vec::new();
        write_json(&mut bytes, &serde_json::json!({"a": ["ü", 1], "b": {}, "c": null})).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\n \"a\": [\n  \"ü\",\n  1\n ],\n \"b\": {},\n \"c\": null\n}\n"
        );
    }
}
