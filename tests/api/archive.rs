//! A small archive in thumbnail space, made once as `medsearch embed` and `index` make it, and copied for every test.

use std::path::Path;
use std::sync::OnceLock;

use medsearch::archive::Secret;
use tempfile::TempDir;

use crate::files;

/// Classes, one of them with a space.
pub const CLASSES: [&str; 3] = ["COVID", "Normal", "Viral Pneumonia"];
/// Images of each class.
pub const PER_CLASS: u32 = 8;

static MADE: OnceLock<TempDir> = OnceLock::new();

/// The archive's secret.
pub fn secret() -> Secret {
    Secret::from_bytes([7; 32])
}

/// A folder with `archive` in it that nobody else uses.
pub fn copy() -> TempDir {
    let made = MADE.get_or_init(make);
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&made.path().join("archive"), &copy.path().join("archive"));
    copy
}

/// The picture of image `number` of class `class`: no two are alike, those of a class are similar.
pub fn image(class: usize, number: u32) -> Vec<u8> {
    files::pattern_png(class as u32, number)
}

fn make() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (at, class) in CLASSES.iter().enumerate() {
        std::fs::create_dir_all(data.join(class)).unwrap();
        for number in 0..PER_CLASS {
            std::fs::write(data.join(class).join(format!("{number}.png")), image(at, number)).unwrap();
        }
    }
    std::fs::write(folder.path().join("secret"), hex::encode([7; 32])).unwrap();
    let embeddings = folder.path().join("embeddings");
    let run = |arguments: &[&Path]| {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_medsearch")).args(arguments).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    };
    let path = Path::new;
    run(&[path("embed"), path("--data"), &data, path("--out"), &embeddings, path("--model"), path("thumbnail")]);
    let archive = folder.path().join("archive");
    let secret = folder.path().join("secret");
    run(&[
        path("index"),
        path("--embeddings"),
        &embeddings,
        path("--data"),
        &data,
        path("--model"),
        path("thumbnail"),
        path("--demo"),
        path("--archive"),
        &archive,
        path("--secret-file"),
        &secret,
    ]);
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
