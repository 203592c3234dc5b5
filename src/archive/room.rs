//! Bytes that may be in memory at a time, of those who read whole objects side by side.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind, Result};

/// So many MiB. An object that is larger goes alone.
pub(super) struct Room {
    mib: Semaphore,
    mib_max: u32,
}

impl Room {
    /// All of it free.
    pub fn of_mib(mib_max: u32) -> Self {
        let mib = Semaphore::new(mib_max as usize);
        Self { mib, mib_max }
    }

    /// Waits until so many bytes may be held.
    ///
    /// # Errors
    /// `Internal`, which does not happen.
    pub async fn take(&self, bytes: u64) -> Result<SemaphorePermit<'_>> {
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).map_or(self.mib_max, |mib| mib.clamp(1, self.mib_max));
        let taken = self.mib.acquire_many(mib).await;
        taken.map_err(|error| Error::with_source(ErrorKind::Internal, "nobody closes it", error))
    }
}
