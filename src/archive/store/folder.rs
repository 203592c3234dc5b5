//! What only a local folder needs: made and synced so that a power cut undoes nothing, swept of what interrupted writes left.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

/// Makes a folder with its parents so that a power cut does not undo it.
pub(super) fn create(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create(parent)?;
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync(parent)
}

/// Makes durable which files a folder has.
pub(super) fn sync(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Writes a file again in place. False when there is none.
pub(super) fn mend(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    Ok(true)
}

/// Deletes what interrupted writes left behind (`name#1`) and is older than `before`. Returns how many.
pub(super) fn sweep(folder: &Path, before: Timestamp) -> std::io::Result<usize> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut swept = 0;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let staged = name
            .to_str()
            .and_then(|name| name.rsplit_once('#'))
            .is_some_and(|(_, suffix)| !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit()));
        if !staged {
            continue;
        }
        // Its writer may be done with it at any moment, and then it is gone.
        let old =
            |metadata: std::fs::Metadata| Ok(Timestamp::try_from(metadata.modified()?).is_ok_and(|at| at <= before));
        let removed = match entry.metadata().and_then(old) {
            Ok(true) => std::fs::remove_file(entry.path()).map(|()| 1),
            Ok(false) => Ok(0),
            Err(error) => Err(error),
        };
        swept += match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            removed => removed?,
        };
    }
    Ok(swept)
}
