//! Objects whose bytes lie on this machine: in an archive's own folder, or in the cache of one in a bucket.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::counts::{Counts, Holder};

/// An object that was read and verified.
pub(in crate::archive) struct Loaded {
    /// All of it.
    pub bytes: Bytes,
    /// Where it can be read again without the storage.
    pub local: Option<Local>,
}

/// An open file with the bytes of an object. It stays readable when collection or the cache deletes it.
pub(in crate::archive) struct Local {
    file: File,
    holder: Holder,
    counts: Arc<Counts>,
}

impl Local {
    pub(super) fn new(file: File, holder: Holder, counts: &Arc<Counts>) -> Self {
        let counts = Arc::clone(counts);
        Self { file, holder, counts }
    }

    /// A file that no store opened.
    #[cfg(test)]
    pub fn of(file: File) -> Self {
        Self::new(file, Holder::Storage, &Arc::default())
    }

    /// Fills `bytes` from `offset` on. From several threads at a time, since there is no position.
    ///
    /// # Errors
    /// Those of the system; `UnexpectedEof` where the file ends.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Takes note that it is not what it was when it was verified.
    pub fn note_damage(&self) {
        self.counts.damage(self.holder);
    }
}
