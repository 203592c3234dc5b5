//! A matrix that is accepted has as many finite numbers as it says, and comes back as it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::archive::{NpyWriter, read_npy};

mod driver;
mod file;

fuzz_target!(|bytes: &[u8]| {
    let Ok(matrix) = read_npy(&file::holding("given.npy", bytes)) else {
        return;
    };
    assert_eq!(matrix.data.len(), matrix.rows * matrix.dimension);
    assert!(matrix.data.iter().all(|value| value.is_finite()));
    let path = file::named("again.npy");
    let mut writer = NpyWriter::create(&path, matrix.rows, matrix.dimension).expect("a file can be made");
    for row in 0..matrix.rows {
        writer
            .push(matrix.row(row))
            .expect("a row of what was read can be written");
    }
    writer.finish().expect("every row is there");
    assert!(read_npy(&path).expect("what was written can be read") == matrix);
});
