//! Backup and restore: the newest version of an archive, copied to another place object by object, each held against its digest, the manifest last.
//!
//! - A place is claimed before anything is written to it: an object [`CLAIM`] says whose copy it is to hold. Nothing is written to a place that
//!   holds something without such a claim, and nothing is ever removed there. A backup keeps it; a restore takes it away when it is done, and what it leaves is an archive.
//! - An object that lies at the target under its name and with its size is not copied again, unless it is to be read: names are digests, and
//!   a place has an object whole or not at all.
//! - What no version at the target names goes after the new manifest is durable. An old version of a backup serves nobody: whoever
//!   restores from it at that moment begins again with the newest, as whoever copies from an archive that is collected meanwhile. An
//!   object that no manifest there has ever named may be what another backup just wrote, and goes by its age as in any archive.
//! - How far other systems were followed ([`BOOKMARKS`]) is read before everything else and written after it: a copy that is behind repeats what it has, one that is ahead
//!   would never have it. What those systems had ([`ORIGINS`]) may be more than what the version has, and is copied before and after. Heads of audits come last.
//! - Two backups at a time may take from each other what they rely on. So each looks at the end whether the newest version is whole, and begins again where it is not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::audit::AUDIT;
use super::bookmark::BOOKMARKS;
use super::commit::{Placed, place};
use super::feedback::{FEEDBACK, FeedbackId};
use super::gc::{FOLDERS, OBJECT_AGE, before};
use super::inbox::{ERASED, Erased, FAILED, INBOX, erased, whose};
use super::manifest::{MANIFESTS, MODELS};
use super::newest::{newest_listed, read_manifest};
use super::origins::ORIGINS;
use super::room::Room;
use super::store::{Listed, Put, Store, is_object_name};
use super::{Manifest, Tuning, read_model};
use crate::error::{Error, ErrorKind, Result};

/// Says which archive's copy a place is to hold.
const CLAIM: &str = "copy";
/// Objects on their way at a time.
pub(super) const COPIES_MAX: usize = 8;
/// Their bytes at a time, in MiB; a larger object goes alone.
pub(super) const COPIED_MIB_MAX: u32 = 256;
/// Times that a copy is begun because what it relied on went away.
pub(super) const STARTS_MAX: usize = 5;

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// The version that is there now.
    pub version: u64,
    /// Objects written, without the manifest.
    pub objects_copied: usize,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Objects that were there already.
    pub objects_present: usize,
    /// Objects and manifests of older versions removed.
    pub objects_removed: usize,
    /// Their bytes.
    pub bytes_removed: u64,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStep {
    /// It is known what there is to do: again whenever a copy begins again.
    Planned {
        /// Objects to look at or to write.
        objects: usize,
    },
    /// One of them is there.
    Done,
}

/// Copies the newest version of the archive at `archive` to `to`, and removes from there what it does not name.
/// `reread`: what is there already is read too, and replaced where it is damaged.
///
/// # Errors
/// `NotFound` without an archive; `InvalidRequest` for what can't be two places; `Conflict` when the target holds anything but an older or interrupted backup of this archive, or a
/// storage that can't hold one; `Damaged` for an object that is not what its name says: no manifest is written then. `StorageFull`, `Unavailable`: what was done up to then stays done, and is not done again.
pub async fn backup(archive: &str, to: &str, reread: bool, step: &(dyn Fn(CopyStep) + Sync)) -> Result<Copied> {
    begin(archive, to, Purpose::Backup, reread, step).await
}

/// Copies the newest version of a backup at `from` to `archive`, where there is nothing, or what an interrupted restore left.
///
/// # Errors
/// As [`backup`].
pub async fn restore(from: &str, archive: &str, reread: bool, step: &(dyn Fn(CopyStep) + Sync)) -> Result<Copied> {
    begin(from, archive, Purpose::Restore, reread, step).await
}

async fn begin(
    from_url: &str,
    to_url: &str,
    purpose: Purpose,
    reread: bool,
    step: &(dyn Fn(CopyStep) + Sync),
) -> Result<Copied> {
    let from = Store::open(from_url)?;
    // A mistyped source shall leave no folder behind.
    if newest_listed(&from).await?.is_none() {
        return Err(no_archive(from_url));
    }
    let copy = Copy {
        from,
        to: Store::create(to_url)?,
        purpose,
        reread,
        tuning: Tuning::default(),
        step,
    };
    copy.run().await
}

pub(super) fn no_archive(place: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no archive at `{place}`"))
}

fn conflict<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Conflict, message))
}

/// What a copy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Backup,
    Restore,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

/// From where to where, and how.
pub(super) struct Copy<'a> {
    pub from: Store,
    pub to: Store,
    pub purpose: Purpose,
    pub reread: bool,
    pub tuning: Tuning,
    pub step: &'a (dyn Fn(CopyStep) + Sync),
}

/// One object to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub name: String,
    pub bytes: u64,
    pub check: Check,
}

/// What its bytes are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// The digest in its name.
    Name,
    /// The digest of the manifest's model.
    Model,
    /// Nothing: a report is sealed, and opens only as it was written.
    Report,
}

/// Objects, apart by whether they lie at the target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    present: Vec<Object>,
    missing: Vec<Object>,
}

impl Plan {
    /// What a version needs, with the model and the reports as the source lists them, held against what the target lists.
    fn new(manifest: &Manifest, beside: Vec<Object>, there: &BTreeMap<String, Listed>) -> Self {
        let named = manifest.objects().map(|(name, bytes)| Object {
            name: name.to_owned(),
            bytes,
            check: Check::Name,
        });
        let is_there = |object: &Object| there.get(&object.name).is_some_and(|there| there.bytes == object.bytes);
        let (present, missing) = named.chain(beside).partition(is_there);
        Self { present, missing }
    }
}

/// What became of one attempt.
enum Attempt {
    Done,
    /// What it relied on went away, by a collection at the source or another backup at the target.
    Overtaken,
}

impl Copy<'_> {
    /// Copies until the newest version is whole at the target.
    pub async fn run(&self) -> Result<Copied> {
        if self.from.is_same_place(&self.to) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "an archive can't be copied to where it is",
            ));
        }
        let mut copied = Copied::default();
        for _ in 0..STARTS_MAX {
            if let Attempt::Done = self.attempt(&mut copied).await? {
                return Ok(copied);
            }
            tracing::info!("what was being copied was collected meanwhile: begun again with the newest version");
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "versions are collected faster than they can be copied: run it again, what was copied stays",
        ))
    }

    async fn attempt(&self, copied: &mut Copied) -> Result<Attempt> {
        let newest = async || {
            let found = newest_listed(&self.from).await?;
            found.ok_or_else(|| no_archive(&self.from.to_string()))
        };
        let there = listing(&self.to).await?;
        self.claim(&newest().await?, &there).await?;
        let bookmarks = self.read_small(BOOKMARKS).await?;
        let mut origins = self.copy_origins(copied).await?;
        // Before the version is read: what leaves the inbox meanwhile is in it.
        let waiting = self.copy_inbox(&there, copied).await?;
        let manifest = newest().await?;
        let reports = reports(&self.from).await?;
        let mut beside = self.model(&manifest).await?;
        beside.extend(reports.values().cloned());
        let Plan { present, mut missing } = Plan::new(&manifest, beside, &there);
        let looked_at = if self.reread { present.len() } else { 0 };
        (self.step)(CopyStep::Planned {
            objects: missing.len() + looked_at,
        });
        copied.objects_present = present.len();
        if self.reread {
            let damaged = self.damaged(&manifest, &present).await?;
            copied.objects_present -= damaged.len();
            missing.extend(damaged);
        }
        if let Attempt::Overtaken = self.write(&manifest, &missing, &there, copied).await? {
            return Ok(Attempt::Overtaken);
        }
        // Another run may have written what is there and not synced its folder yet: one name of each is enough.
        let folders: BTreeMap<&str, &str> = present.iter().filter_map(|object| folder_of(&object.name)).collect();
        for name in folders.into_values() {
            self.to.settle(name).await?;
        }
        if place(&self.to, &manifest, self.tuning.patience).await? == Placed::Theirs {
            return self.refuse_diverged(manifest.version);
        }
        self.tidy_inbox(&waiting, copied).await?;
        // Also what was folded meanwhile.
        origins.extend(self.copy_origins(copied).await?);
        self.drop_others(ORIGINS, &origins, copied).await?;
        self.write_small(BOOKMARKS, bookmarks, copied).await?;
        self.write_small(AUDIT, self.read_small(AUDIT).await?, copied).await?;
        if self.purpose == Purpose::Backup {
            self.remove(&manifest, &reports, copied).await?;
        }
        match whole_version(&self.to).await? {
            Some(version) => copied.version = version,
            None => return Ok(Attempt::Overtaken),
        }
        if self.purpose == Purpose::Restore {
            self.to.delete(CLAIM).await?;
        }
        Ok(Attempt::Done)
    }

    /// Makes sure that the target is this archive's, or makes it so when it is empty.
    async fn claim(&self, manifest: &Manifest, there: &BTreeMap<String, Listed>) -> Result<()> {
        let ours = Bytes::from(format!("{} of {}\n", self.purpose.name(), manifest.archive.id));
        let newest_there = newest_listed(&self.to).await?;
        let claimed = match self.to.get(CLAIM).await {
            Ok(claim) => Some(claim),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match (claimed, &newest_there) {
            (None, None) if there.is_empty() => {
                self.to.prove_put_if_absent().await?;
                let put = self.to.put_if_absent(CLAIM, ours.clone()).await;
                if matches!(put, Ok(Put::Done)) {
                    return Ok(());
                }
                match (put, self.to.get(CLAIM).await) {
                    // Its own, and the answer was lost.
                    (_, Ok(found)) if found == ours => return Ok(()),
                    (Err(error), _) | (_, Err(error)) => return Err(error),
                    // Another copy was faster.
                    (Ok(_), Ok(_)) => {}
                }
            }
            (None, None) => {
                return conflict(format!(
                    "`{}` holds objects that no manifest names: choose an empty place",
                    self.to
                ));
            }
            (None, Some(found)) if self.purpose == Purpose::Restore => {
                return conflict(format!(
                    "there is an archive at `{}` already, in version {}: choose an empty place",
                    self.to, found.version
                ));
            }
            (None, Some(_)) => {
                return conflict(format!(
                    "`{}` holds an archive, not a backup: choose another place",
                    self.to
                ));
            }
            (Some(claim), _) if claim == ours => return self.check_line(manifest, newest_there.as_ref()).await,
            (Some(_), _) => {}
        }
        conflict(format!(
            "`{}` holds the backup of another archive, or an interrupted copy for another purpose: choose another place",
            self.to
        ))
    }

    /// Refuses to put a version before, or in place of, one that the source does not have.
    async fn check_line(&self, manifest: &Manifest, there: Option<&Manifest>) -> Result<()> {
        let Some(there) = there else {
            return Ok(());
        };
        if there.version > manifest.version {
            return conflict(format!(
                "`{}` holds version {}, newer than version {} that is to be copied: keep it, and choose another place",
                self.to, there.version, manifest.version
            ));
        }
        // What the source has collected can't be compared any more.
        match read_manifest(&self.from, there.version).await? {
            Some(known) if known.commit != there.commit => self.refuse_diverged(there.version),
            _ => Ok(()),
        }
    }

    fn refuse_diverged<T>(&self, version: u64) -> Result<T> {
        conflict(format!(
            "`{}` holds another version {version}: both were written to since they were the same; keep it, and choose another place",
            self.to
        ))
    }

    /// The model's object, with its size.
    async fn model(&self, manifest: &Manifest) -> Result<Vec<Object>> {
        let Some(name) = manifest.model.as_ref().and_then(super::ModelRef::object) else {
            return Ok(vec![]);
        };
        let listed = self.from.list(MODELS).await?;
        let found = listed.into_iter().find(|listed| listed.name == name);
        let bytes = found.ok_or_else(|| missing(&name))?.bytes;
        let check = Check::Model;
        Ok(vec![Object { name, bytes, check }])
    }

    /// Those of `present` that the target does not have as they should be.
    async fn damaged(&self, manifest: &Manifest, present: &[Object]) -> Result<Vec<Object>> {
        let room = Room::of_mib(COPIED_MIB_MAX);
        let looks: Vec<_> = present
            .iter()
            .map(|object| async {
                let _held = room.take(object.bytes).await?;
                let read = match object.check {
                    // It can't be told from another: it is small, and copied.
                    Check::Report => return Ok(Some(object.clone())),
                    _ => read(&self.to, manifest, object).await,
                };
                match read {
                    Ok(_) => {
                        (self.step)(CopyStep::Done);
                        Ok(None)
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                        tracing::warn!(error = %error, "what was copied before is copied again");
                        Ok(Some(object.clone()))
                    }
                    Err(error) => Err(error),
                }
            })
            .collect();
        stream::iter(looks)
            .buffer_unordered(COPIES_MAX)
            .try_filter_map(async |damaged| Ok(damaged))
            .try_collect()
            .await
    }

    async fn write(
        &self,
        manifest: &Manifest,
        objects: &[Object],
        there: &BTreeMap<String, Listed>,
        copied: &mut Copied,
    ) -> Result<Attempt> {
        let room = Room::of_mib(COPIED_MIB_MAX);
        let writes: Vec<_> = objects
            .iter()
            .map(|object| async {
                let _held = room.take(object.bytes).await?;
                let bytes = match read(&self.from, manifest, object).await {
                    Ok(bytes) => bytes,
                    // Resolved since it was listed.
                    Err(error) if error.kind() == ErrorKind::NotFound && object.check == Check::Report => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                let size = bytes.len() as u64;
                // A folder never replaces an object, and this one is not whole.
                if there.contains_key(&object.name) {
                    self.to.delete(&object.name).await?;
                }
                self.to.put_object(&object.name, bytes).await?;
                (self.step)(CopyStep::Done);
                Ok(Some(size))
            })
            .collect();
        let mut writes = stream::iter(writes).buffer_unordered(COPIES_MAX);
        while let Some(written) = writes.next().await {
            match written {
                Ok(Some(bytes)) => {
                    copied.objects_copied += 1;
                    copied.bytes_copied += bytes;
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound && self.is_superseded(manifest).await? => {
                    return Ok(Attempt::Overtaken);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Attempt::Done)
    }

    /// Copies what waits in the inbox, and what failed there. Gives what was there, whether it is still there or not.
    async fn copy_inbox(&self, there: &BTreeMap<String, Listed>, copied: &mut Copied) -> Result<BTreeSet<String>> {
        let mut waiting = BTreeSet::new();
        for object in self.from.list(INBOX).await? {
            if whose(&object.name).is_none() {
                continue;
            }
            if there.get(&object.name).is_none_or(|there| there.bytes != object.bytes) {
                match self.from.get(&object.name).await {
                    Ok(bytes) => {
                        if there.contains_key(&object.name) {
                            self.to.delete(&object.name).await?;
                        }
                        self.to.put_object(&object.name, bytes).await?;
                        copied.objects_copied += 1;
                        copied.bytes_copied += object.bytes;
                    }
                    // Embedded since it was listed.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            waiting.insert(object.name);
        }
        Ok(waiting)
    }

    /// Removes from the target's inbox what did not wait when this copy began, and what is of a patient who was deleted since.
    async fn tidy_inbox(&self, waiting: &BTreeSet<String>, copied: &mut Copied) -> Result<()> {
        let erased: Vec<Erased> = (self.from.list(ERASED).await?.iter())
            .filter_map(|mark| erased(&mark.name))
            .collect();
        let still: BTreeSet<String> = (self.from.list(INBOX).await?.into_iter())
            .map(|object| object.name)
            .collect();
        for object in self.to.list(INBOX).await? {
            let Some(id) = whose(&object.name) else { continue };
            let is_erased = || erased.iter().any(|erased| erased.covers(id));
            if waiting.contains(&object.name) && (still.contains(&object.name) || !is_erased()) {
                continue;
            }
            self.to.delete(&object.name).await?;
            copied.objects_removed += 1;
            copied.bytes_removed += object.bytes;
        }
        Ok(())
    }

    /// Copies what followed systems had. Gives the names.
    async fn copy_origins(&self, copied: &mut Copied) -> Result<BTreeSet<String>> {
        let there: BTreeSet<String> = self
            .to
            .list(ORIGINS)
            .await?
            .into_iter()
            .map(|object| object.name)
            .collect();
        let mut names = BTreeSet::new();
        for object in self.from.list(ORIGINS).await? {
            // Whoever has to confirm something does so where it is.
            if object.name.ends_with(".json") {
                continue;
            }
            if !there.contains(&object.name) {
                let bytes = match self.from.get(&object.name).await {
                    // Folded since it was listed.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    bytes => bytes?,
                };
                self.put(&object.name, bytes, copied).await?;
            }
            names.insert(object.name);
        }
        Ok(names)
    }

    /// The few and small objects of a folder.
    async fn read_small(&self, folder: &str) -> Result<BTreeMap<String, Bytes>> {
        let mut read = BTreeMap::new();
        for object in self.from.list(folder).await? {
            match self.from.get(&object.name).await {
                Ok(bytes) => drop(read.insert(object.name, bytes)),
                // A later one took its place.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Makes the target's folder what was read of the source's.
    async fn write_small(&self, folder: &str, read: BTreeMap<String, Bytes>, copied: &mut Copied) -> Result<()> {
        let names: BTreeSet<String> = read.keys().cloned().collect();
        for (name, bytes) in read {
            match self.to.get(&name).await {
                Ok(there) if there == bytes => continue,
                // A folder never replaces an object.
                Ok(_) => self.to.delete(&name).await?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.put(&name, bytes, copied).await?;
        }
        self.drop_others(folder, &names, copied).await
    }

    async fn put(&self, name: &str, bytes: Bytes, copied: &mut Copied) -> Result<()> {
        let size = bytes.len() as u64;
        self.to.put_object(name, bytes).await?;
        copied.objects_copied += 1;
        copied.bytes_copied += size;
        Ok(())
    }

    /// Removes what else the target has in a folder.
    async fn drop_others(&self, folder: &str, names: &BTreeSet<String>, copied: &mut Copied) -> Result<()> {
        for object in self.to.list(folder).await? {
            if !names.contains(&object.name) {
                self.to.delete(&object.name).await?;
                copied.objects_removed += 1;
                copied.bytes_removed += object.bytes;
            }
        }
        Ok(())
    }

    async fn is_superseded(&self, manifest: &Manifest) -> Result<bool> {
        let found = newest_listed(&self.from).await?;
        Ok(found.is_some_and(|found| found.commit != manifest.commit))
    }

    /// Removes what the newest version at the target does not name: older versions, oldest first, each after what it named.
    async fn remove(&self, manifest: &Manifest, reports: &BTreeMap<String, Object>, copied: &mut Copied) -> Result<()> {
        // Listed before the newest version is read: an object that is named meanwhile is not in the list.
        let mut objects = listing(&self.to).await?;
        let manifests = self.to.list(MANIFESTS).await?;
        let Some(newest_there) = newest_listed(&self.to).await? else {
            return Err(missing(&Manifest::name(manifest.version)));
        };
        let kept = newest_there.names();
        objects.retain(|name, _| !kept.contains(name));
        let mut removed = Vec::new();
        for listed in manifests {
            let Some(version) = Manifest::version_of(&listed.name).filter(|&version| version < newest_there.version)
            else {
                continue;
            };
            let named = match read_manifest(&self.to, version).await {
                Ok(old) => old.map(|old| old.names()).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    tracing::warn!(error = %error, "an old version can't be read: what only it named goes by its age");
                    BTreeSet::new()
                }
                Err(error) => return Err(error),
            };
            removed.extend(named.iter().filter_map(|name| objects.remove(name)));
            removed.push(listed);
        }
        let written_before = before((self.tuning.clock)(), OBJECT_AGE)?;
        let is_resolved = |name: &str| is_report(name) && !reports.contains_key(name);
        let is_ours = |name: &str| FOLDERS.iter().any(|folder| is_object_name(name, folder));
        removed.extend(
            objects.into_values().filter(|object| {
                is_resolved(&object.name) || is_ours(&object.name) && object.modified <= written_before
            }),
        );
        for object in removed {
            self.to.delete(&object.name).await?;
            copied.objects_removed += 1;
            copied.bytes_removed += object.bytes;
        }
        for folder in FOLDERS
            .iter()
            .chain(&[MANIFESTS, FEEDBACK, INBOX, FAILED, BOOKMARKS, ORIGINS, AUDIT])
        {
            copied.objects_removed += self.to.sweep_interrupted(folder, written_before).await?;
        }
        Ok(())
    }
}

/// Reads an object and holds it against what is known of it.
pub(super) async fn read(store: &Store, manifest: &Manifest, object: &Object) -> Result<Bytes> {
    let read = match (&object.check, &manifest.model) {
        (Check::Report, _) => return store.get(&object.name).await,
        (Check::Model, Some(model)) => read_model(store, model).await,
        _ => store.get_object(&object.name).await,
    };
    let bytes = match read {
        Err(error) if error.kind() == ErrorKind::Unavailable && store.is_missing(&object.name).await => {
            return Err(missing(&object.name));
        }
        read => read?,
    };
    if bytes.len() as u64 == object.bytes {
        return Ok(bytes);
    }
    Err(Error::new(
        ErrorKind::Damaged,
        format!("`{}` has not the size that it should", object.name),
    ))
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("`{name}` is missing from the archive"))
}

/// The newest version, when it can be read and everything that it names is there.
async fn whole_version(store: &Store) -> Result<Option<u64>> {
    let there = listing(store).await?;
    let Some(manifest) = newest_listed(store).await? else {
        return Ok(None);
    };
    let model = manifest.model.as_ref().and_then(super::ModelRef::object);
    let has = |name: &str, bytes: u64| there.get(name).is_some_and(|there| there.bytes == bytes);
    let whole =
        manifest.objects().all(|(name, bytes)| has(name, bytes)) && model.is_none_or(|name| there.contains_key(&name));
    Ok(whole.then_some(manifest.version))
}

/// Whatever an archive keeps but for its manifests.
async fn listing(store: &Store) -> Result<BTreeMap<String, Listed>> {
    let mut listed = BTreeMap::new();
    for folder in FOLDERS
        .iter()
        .chain(&[MODELS, FEEDBACK, INBOX, BOOKMARKS, ORIGINS, AUDIT])
    {
        let found = store.list(folder).await?;
        listed.extend(found.into_iter().map(|object| (object.name.clone(), object)));
    }
    Ok(listed)
}

/// Open reports about labels, by name.
async fn reports(store: &Store) -> Result<BTreeMap<String, Object>> {
    let listed = store.list(FEEDBACK).await?;
    let ours = listed.into_iter().filter(|listed| is_report(&listed.name));
    let object = |Listed { name, bytes, .. }| {
        let check = Check::Report;
        (name.clone(), Object { name, bytes, check })
    };
    Ok(ours.map(object).collect())
}

fn is_report(name: &str) -> bool {
    FeedbackId::of_object(name).is_some()
}

/// The folder of a name, and the name.
fn folder_of(name: &str) -> Option<(&str, &str)> {
    Some((name.rsplit_once('/')?.0, name))
}
