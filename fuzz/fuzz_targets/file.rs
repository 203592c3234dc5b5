//! A folder of this process for readers that take a path.

use std::path::PathBuf;
use std::sync::LazyLock;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("medsearch-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder
});

/// A path in the folder.
pub fn named(name: &str) -> PathBuf {
    FOLDER.join(name)
}

/// A file there with these bytes.
pub fn holding(name: &str, bytes: &[u8]) -> PathBuf {
    let path = named(name);
    std::fs::write(&path, bytes).expect("a small file can be written");
    path
}
