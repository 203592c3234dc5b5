//! Which instances a followed system had: `origins/<name>/<random>`, sealed lists of what it calls an instance and of the pseudonyms of instance and file. All of them
//! together count, so that nobody waits for anybody: whoever takes an instance over writes it down first, and whoever folds lists writes the new one before the old ones go.
//!
//! - `origins/<name>/refused.json` says that so many vanished from there at once that nothing was deleted.
//! - `origins/<name>/confirmed.json` says that somebody has looked, and that so many may go.
//! - `origins/<name>/gone.json` says how many went lately that nobody has looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::blocking;
use super::{Archive, Identity};
use crate::domain::{InstanceKeys, Key};
use crate::error::{Error, ErrorKind, Result};

/// The folder of origins.
pub(super) const ORIGINS: &str = "origins";
const REFUSED: &str = "refused.json";
const CONFIRMED: &str = "confirmed.json";
const GONE: &str = "gone.json";
/// What went counts for so long.
const GONE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// What goes within so long is counted together.
const GONE_TOGETHER: Duration = Duration::from_secs(3600);
/// Bytes of an instance's name there: SHA-1.
pub const NAME_BYTES: usize = 20;
/// Bytes of one entry: the name, the pseudonym of the instance, whether the file is known, its pseudonym.
const ENTRY_BYTES: usize = NAME_BYTES + 16 + 1 + 16;
/// Most entries of one list.
const ENTRIES_MAX: usize = 100_000;
/// Lists with fewer are put together.
const ENTRIES_FEW: usize = ENTRIES_MAX / 2;
/// Hex digits of a list's name.
const DIGITS: usize = 32;

/// An instance that a followed system had.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// What it is called there: a digest of its UIDs.
    pub name: [u8; NAME_BYTES],
    /// Its pseudonyms here. No file: it was not fetched.
    pub keys: InstanceKeys,
}

/// Not the name: whoever knows UIDs could tell whose it is.
impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What is written down of a followed system, list by list.
#[derive(Debug, Default)]
pub struct Origins {
    lists: Vec<(String, Vec<Origin>)>,
}

impl Origins {
    /// Each instance, some of them twice.
    pub fn iter(&self) -> impl Iterator<Item = &Origin> {
        self.lists.iter().flat_map(|(_, list)| list)
    }
}

impl FromIterator<Origin> for Origins {
    /// As one list that nobody wrote.
    fn from_iter<I: IntoIterator<Item = Origin>>(origins: I) -> Self {
        Self {
            lists: vec![(String::new(), origins.into_iter().collect())],
        }
    }
}

/// So many images would have gone that nothing was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSweep {
    /// Images here, and files that are none yet, of instances that the system had and has no more.
    pub images: usize,
    /// The same of all instances that it had.
    pub of: usize,
    /// Since when.
    pub since: Timestamp,
}

/// So many may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedSweep {
    /// Images.
    pub images: usize,
    /// Since when.
    pub since: Timestamp,
}

/// So many images went since then, within an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Gone {
    images: usize,
    since: Timestamp,
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Instances that other followed systems had, by their pseudonyms.
#[derive(Debug, Default)]
pub struct Elsewhere(HashMap<Key, bool>);

impl Elsewhere {
    /// Those of one more, whose name comes `later` than that of the system that is looked at, or earlier.
    pub fn add(&mut self, origins: &Origins, later: bool) {
        for origin in origins.iter() {
            *self.0.entry(origin.keys.sop).or_default() |= later;
        }
    }

    /// Whether another one had it.
    pub fn has(&self, sop: Key) -> bool {
        self.0.contains_key(&sop)
    }

    /// Whether the system that is looked at is the last that had it: what goes from all of them at the same time is kept in mind by one.
    pub fn waits_for_earlier(&self, sop: Key) -> bool {
        self.0.get(&sop).is_some_and(|later| !later)
    }
}

/// The place where it is written down which instances a followed system had. Cheap to clone.
#[derive(Clone)]
pub struct OriginBook {
    archive: Archive,
    folder: String,
}

impl Archive {
    /// That of the system of this name, which is as for [`Archive::bookmark`].
    pub fn origins(&self, name: &str) -> OriginBook {
        OriginBook {
            archive: self.clone(),
            folder: format!("{ORIGINS}/{name}"),
        }
    }

    /// The names of systems of which it is written down what they had, ascending.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn origin_books(&self) -> Result<Vec<String>> {
        let listed = self.store().list(ORIGINS).await?;
        let name = |name: &str| -> Option<String> {
            let (folder, _) = name.strip_prefix(ORIGINS)?.strip_prefix('/')?.rsplit_once('/')?;
            Some(folder.to_owned())
        };
        let books: BTreeSet<String> = listed.iter().filter_map(|object| name(&object.name)).collect();
        Ok(books.into_iter().collect())
    }

    /// Sweeps that were refused and not done since, by the name of the system.
    ///
    /// # Errors
    /// `Unavailable`; `Damaged` for one that can't be read.
    pub async fn refused_sweeps(&self) -> Result<Vec<(String, RefusedSweep)>> {
        let mut refused = Vec::new();
        for object in self.store().list(ORIGINS).await? {
            let name = object
                .name
                .strip_prefix(ORIGINS)
                .and_then(|name| name.strip_prefix('/'));
            let name = name.and_then(|name| name.strip_suffix(REFUSED)?.strip_suffix('/'));
            let Some(name) = name else { continue };
            if let Some(sweep) = self.origins(name).refused().await? {
                refused.push((name.to_owned(), sweep));
            }
        }
        Ok(refused)
    }
}

impl OriginBook {
    /// Writes instances down. `Ok` means that it is durable. Gives the list's name.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub async fn note(&self, origins: &[Origin]) -> Result<String> {
        let name = format!("{}/{}", self.folder, uuid::Uuid::new_v4().simple());
        let (identity, plain, context) = (self.archive.identity().clone(), encode(origins), name.clone());
        let sealed = blocking(move || identity.seal_origins(&context, &plain)).await??;
        self.archive.store().put_object(&name, Bytes::from(sealed)).await?;
        Ok(name)
    }

    /// Puts lists together that were written one after the other, and are `origins` together.
    ///
    /// # Errors
    /// As [`OriginBook::note`].
    pub async fn fold(&self, lists: &[String], origins: &[Origin]) -> Result<String> {
        let folded = self.note(origins).await?;
        for list in lists {
            self.archive.store().delete(list).await?;
        }
        Ok(folded)
    }

    /// Everything that is written down.
    ///
    /// # Errors
    /// `Unavailable`; `Damaged` for a list that can't be opened.
    pub async fn read(&self) -> Result<Origins> {
        let mut read = Origins::default();
        for name in self.lists().await? {
            let sealed = match self.archive.store().get(&name).await {
                // Folded since.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                sealed => sealed?,
            };
            let (identity, context) = (self.archive.identity().clone(), name.clone());
            let opened = blocking(move || open(&identity, &context, &sealed)).await?;
            let list = opened.map_err(|error| self.archive.store().damaged(error))?;
            read.lists.push((name, list));
        }
        Ok(read)
    }

    /// Lets go of the instances of these names, and puts small lists together.
    ///
    /// # Errors
    /// As [`OriginBook::note`]: then everything is there as before.
    pub async fn let_go(&self, known: &Origins, gone: &HashSet<[u8; NAME_BYTES]>) -> Result<()> {
        let is_touched = |list: &[Origin]| list.iter().any(|origin| gone.contains(&origin.name));
        let is_few = |list: &[Origin]| list.len() < ENTRIES_FEW;
        let several = known.lists.iter().filter(|(_, list)| is_few(list)).count() > 1;
        let anew = |list: &[Origin]| is_touched(list) || several && is_few(list);
        let anew: Vec<&(String, Vec<Origin>)> = known.lists.iter().filter(|(_, list)| anew(list)).collect();
        let mut seen = HashSet::new();
        let left: Vec<Origin> = (anew.iter().flat_map(|(_, list)| list))
            .filter(|origin| !gone.contains(&origin.name) && seen.insert(**origin))
            .copied()
            .collect();
        for list in left.chunks(ENTRIES_MAX) {
            self.note(list).await?;
        }
        for (name, _) in anew {
            self.archive.store().delete(name).await?;
        }
        Ok(())
    }

    /// What these other followed systems had.
    ///
    /// # Errors
    /// As [`OriginBook::read`].
    pub async fn elsewhere(&self, others: &[String]) -> Result<Elsewhere> {
        let mut elsewhere = Elsewhere::default();
        for name in others {
            let book = self.archive.origins(name);
            elsewhere.add(&book.read().await?, book.folder > self.folder);
        }
        Ok(elsewhere)
    }

    /// How many images went in the last 24 hours that nobody has looked at.
    ///
    /// # Errors
    /// `Unavailable`; `Damaged`.
    pub async fn gone_lately(&self, now: Timestamp) -> Result<usize> {
        Ok(self.gone(now).await?.iter().map(|gone| gone.images).sum())
    }

    /// So many images are about to go, and nobody has looked.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`; `Damaged`.
    pub async fn let_images_go(&self, images: usize, now: Timestamp) -> Result<()> {
        let mut gone = self.gone(now).await?;
        match gone.last_mut().filter(|last| age(last.since, now) < GONE_TOGETHER) {
            Some(last) => last.images += images,
            None => gone.push(Gone { images, since: now }),
        }
        self.write_json(GONE, Some(&gone)).await
    }

    async fn gone(&self, now: Timestamp) -> Result<Vec<Gone>> {
        let mut gone: Vec<Gone> = self.read_json(GONE).await?.unwrap_or_default();
        gone.retain(|gone| age(gone.since, now) < GONE_AGE_MAX);
        Ok(gone)
    }

    /// The sweep that was refused, if the last one was.
    ///
    /// # Errors
    /// `Unavailable`; `Damaged`.
    pub async fn refused(&self) -> Result<Option<RefusedSweep>> {
        self.read_json(REFUSED).await
    }

    /// Says that a sweep was refused; none: that the last one was not.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub async fn refuse(&self, sweep: Option<&RefusedSweep>) -> Result<()> {
        self.write_json(REFUSED, sweep).await
    }

    /// How many may go, where somebody has said so.
    ///
    /// # Errors
    /// `Unavailable`; `Damaged`.
    pub async fn confirmed(&self) -> Result<Option<ConfirmedSweep>> {
        self.read_json(CONFIRMED).await
    }

    /// Says how many may go; none: no more than the settings let.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub async fn confirm(&self, sweep: Option<&ConfirmedSweep>) -> Result<()> {
        self.write_json(CONFIRMED, sweep).await
    }

    async fn lists(&self) -> Result<Vec<String>> {
        let listed = self.archive.store().list(&self.folder).await?;
        let is_list = |name: &String| {
            let own = name.strip_prefix(&self.folder).and_then(|name| name.strip_prefix('/'));
            own.is_some_and(|own| own.len() == DIGITS && own.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        Ok(listed.into_iter().map(|object| object.name).filter(is_list).collect())
    }

    async fn read_json<T: serde::de::DeserializeOwned>(&self, file: &str) -> Result<Option<T>> {
        let name = format!("{}/{file}", self.folder);
        let bytes = match self.archive.store().get(&name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let error = Error::with_source(ErrorKind::Damaged, format!("`{name}` is damaged"), error);
            self.archive.store().damaged(error)
        })
    }

    async fn write_json(&self, file: &str, value: Option<&impl Serialize>) -> Result<()> {
        let name = format!("{}/{file}", self.folder);
        // A folder never replaces an object.
        self.archive.store().delete(&name).await?;
        let Some(value) = value else { return Ok(()) };
        let json = serde_json::to_vec(value)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "a sweep can't be written as JSON", error))?;
        self.archive.store().put_object(&name, json.into()).await
    }
}

/// By the name: what is known of each instance, where one list knows more than another.
pub fn by_name<'a>(origins: impl Iterator<Item = &'a Origin>) -> HashMap<[u8; NAME_BYTES], HashSet<InstanceKeys>> {
    let mut found: HashMap<_, HashSet<InstanceKeys>> = HashMap::new();
    for origin in origins {
        found.entry(origin.name).or_default().insert(origin.keys);
    }
    found
}

fn encode(origins: &[Origin]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(origins.len() * ENTRY_BYTES);
    for Origin { name, keys } in origins {
        bytes.extend(name);
        bytes.extend(keys.sop.0);
        bytes.push(u8::from(keys.file.is_some()));
        bytes.extend(keys.file.map_or([0; 16], |file| file.0));
    }
    bytes
}

fn open(identity: &Identity, name: &str, sealed: &[u8]) -> Result<Vec<Origin>> {
    let plain = identity.open_origins(name, sealed)?;
    let damaged = || Error::new(ErrorKind::Damaged, format!("`{name}` is damaged"));
    let (entries, rest) = plain.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(damaged());
    }
    let decode = |entry: &[u8; ENTRY_BYTES]| {
        let (name, rest) = entry.split_first_chunk::<NAME_BYTES>()?;
        let (sop, rest) = rest.split_first_chunk::<16>()?;
        let (has_file, rest) = rest.split_first()?;
        let file = rest.first_chunk::<16>()?;
        let keys = InstanceKeys {
            sop: Key(*sop),
            file: (*has_file == 1).then_some(Key(*file)),
        };
        Some(Origin { name: *name, keys })
    };
    entries.iter().map(|entry| decode(entry).ok_or_else(damaged)).collect()
}
