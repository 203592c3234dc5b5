//! How far another system's events were followed, and by whom: `bookmarks/<name>/<n>`, numbered and put-if-absent, of which the highest counts.
//!
//! Whoever follows writes the next number, with the place that it has reached, every few seconds. Two that believe to be the one can't both write a number, so that
//! the later one notices. No clock is compared with another's: who waits looks whether the number changes, by its own.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Archive;
use super::store::Put;
use crate::error::{Error, ErrorKind, Result};

/// The folder of bookmarks.
pub(super) const BOOKMARKS: &str = "bookmarks";
/// Digits of a number in a name.
const DIGITS: usize = 20;

/// A place in a system's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The last event that needs no second look; 0: none.
    pub seq: u64,
    /// The latest time of an event up to there, as the system writes it.
    pub date: String,
}

/// What is written under a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its number: each write is a later one.
    #[serde(skip)]
    pub number: u64,
    /// Who follows; none: nobody since.
    pub holder: Option<String>,
    /// How far.
    pub cursor: Cursor,
}

/// The place that a system's events were followed to. Cheap to clone.
#[derive(Clone)]
pub struct Bookmark {
    archive: Archive,
    folder: String,
}

impl Archive {
    /// That of the system of this name: letters, digits, `-`, `_`, `.`, the first of them no dot.
    pub fn bookmark(&self, name: &str) -> Bookmark {
        Bookmark {
            archive: self.clone(),
            folder: format!("{BOOKMARKS}/{name}"),
        }
    }
}

impl Bookmark {
    /// The newest; none: nobody ever followed.
    ///
    /// # Errors
    /// `Unavailable`; `Damaged` for one that can't be read.
    pub async fn read(&self) -> Result<Option<Mark>> {
        loop {
            let Some(number) = self.numbers().await?.into_iter().max() else {
                return Ok(None);
            };
            match self.archive.store().get(&self.object(number)).await {
                Ok(bytes) => return self.parse(number, &bytes).map(Some),
                // A later one was written since, and this one tidied away.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the one after number `after` (0: the first). None: somebody else has written since, and whoever asks follows no more.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then it may or may not have been written.
    pub async fn write(&self, after: u64, holder: Option<&str>, cursor: &Cursor) -> Result<Option<Mark>> {
        let mark = Mark {
            number: after + 1,
            holder: holder.map(str::to_owned),
            cursor: cursor.clone(),
        };
        let json = serde_json::to_vec(&mark)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "a bookmark can't be written as JSON", error))?;
        let object = self.object(mark.number);
        if self.archive.store().put_if_absent(&object, Bytes::from(json)).await? == Put::Exists {
            // In a bucket it may be one's own, whose answer was lost.
            let there = self.archive.store().get(&object).await;
            let own = there
                .and_then(|bytes| self.parse(mark.number, &bytes))
                .is_ok_and(|there| there == mark);
            if !own || holder.is_none() {
                return Ok(None);
            }
        }
        // Whoever slept while others wrote and tidied finds its number free: only the highest counts.
        let numbers = self.numbers().await?;
        if numbers.iter().any(|number| *number > mark.number) {
            return Ok(None);
        }
        for old in numbers.into_iter().filter(|number| number + 1 < mark.number) {
            self.archive.store().delete(&self.object(old)).await?;
        }
        Ok(Some(mark))
    }

    async fn numbers(&self) -> Result<Vec<u64>> {
        let listed = self.archive.store().list(&self.folder).await?;
        let number = |name: &str| name.strip_prefix(&self.folder)?.strip_prefix('/')?.parse().ok();
        Ok(listed.iter().filter_map(|object| number(&object.name)).collect())
    }

    fn object(&self, number: u64) -> String {
        format!("{}/{number:0DIGITS$}", self.folder)
    }

    fn parse(&self, number: u64, bytes: &[u8]) -> Result<Mark> {
        let mark: Mark = serde_json::from_slice(bytes).map_err(|error| {
            let message = format!("`{}` is damaged", self.object(number));
            self.archive
                .store()
                .damaged(Error::with_source(ErrorKind::Damaged, message, error))
        })?;
        Ok(Mark { number, ..mark })
    }
}
