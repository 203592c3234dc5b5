//! A class file that is accepted describes every record, or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::archive::ClassFile;

mod driver;
mod file;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(class) = ClassFile::read(&file::holding("class.json", bytes)) {
        assert!(!class.stem().is_empty());
        for record in 0..class.records.len() {
            let _ = class.described(record);
        }
    }
});
