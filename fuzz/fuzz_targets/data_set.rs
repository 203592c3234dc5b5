//! A zip with its documents (CSV, XLSX): whatever is listed can be asked for, and every document is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::ingest::Dataset;
use medsearch::ingest::metadata::Metadata;

mod driver;
mod file;

fuzz_target!(|bytes: &[u8]| {
    let Ok(dataset) = Dataset::open(&file::holding("data.zip", bytes)) else {
        return;
    };
    for entry in dataset.entries().iter().take(4) {
        let _ = dataset.read(&entry.file);
    }
    if let Ok(metadata) = Metadata::read(&dataset) {
        for entry in dataset.entries() {
            let _ = metadata.class_of(entry);
        }
    }
});
