//! The one way to write: create manifest n+1 with put-if-absent. Works on every storage; conditional update does not on local files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::manifest::FORMAT;
use super::newest::{newest_version, read_manifest};
use super::store::{Put, Store};
use super::{Archive, BASE_AGE_MAX, Manifest, RowsObject, State};
use crate::domain::ClassLabel;
use crate::error::{Error, ErrorKind, Result};

/// How long a commit is tried against other writers or a failing storage.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Times that a change is prepared again because preparing it took longer than its base may be old.
const STALE_MAX: usize = 3;
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Something to commit. It is asked again, on a newer base, whenever another writer came first.
pub(super) trait Propose: Send {
    /// The next version on top of `base`: objects written, manifest not. `None` when there is nothing to change.
    fn propose(
        &mut self,
        archive: &Archive,
        base: &Arc<State>,
        commit: &str,
    ) -> impl Future<Output = Result<Option<Proposed>>> + Send;
}

/// The next version.
pub(super) struct Proposed {
    /// A copy of the base's manifest with the change made; number, parent, commit, time, writer and classes are filled in here.
    pub manifest: Manifest,
    /// Rows objects that the base does not have.
    pub rows: Vec<Arc<RowsObject>>,
}

/// Commits `work` on the newest version and gives the state after it, durable. The state is `base`'s or a newer one when nothing changed.
///
/// # Cancel safety
/// Dropped before it ends, the commit may or may not have happened.
///
/// # Errors
/// What `work` refuses; `StorageFull`; `Unavailable` when the storage fails or other writers keep coming first.
pub(super) async fn commit(archive: &Archive, base: &Arc<State>, work: &mut impl Propose) -> Result<Arc<State>> {
    let mut base = Arc::clone(base);
    let mut pause = PAUSE_MIN;
    let mut stale = 0;
    let mut first_conflict = None;
    loop {
        let read_at = archive.moment();
        if let Some(newer) = archive.after(base.manifest.version).await? {
            base = Arc::new(base.advance(archive, newer).await?);
            // An answer that relies on what another writer did must not be undone by a power cut.
            archive.store().settle(&Manifest::name(base.manifest.version)).await?;
        }
        let commit = uuid::Uuid::new_v4().to_string();
        let Some(proposed) = work.propose(archive, &base, &commit).await? else {
            return Ok(base);
        };
        let (manifest, objects) = complete(proposed, &base, commit, archive)?;
        if read_at.age(archive.moment()) > BASE_AGE_MAX {
            stale += 1;
            if stale > STALE_MAX {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the archive's storage is too slow to write to",
                ));
            }
            continue;
        }
        if place(archive.store(), &manifest, archive.patience()).await? == Placed::Ours {
            if read_at.age(archive.moment()) > BASE_AGE_MAX {
                still_in_line(archive.store(), &manifest).await?;
            }
            objects.iter().for_each(|object| archive.hold(object));
            let manifest = Arc::new(manifest);
            archive.learn(Arc::clone(&manifest), read_at);
            return Ok(Arc::new(State::from_parts(manifest, &objects)?));
        }
        if first_conflict.get_or_insert_with(Instant::now).elapsed() > archive.patience() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "other writers keep changing the archive first",
            ));
        }
        tokio::time::sleep(jittered(pause)?).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The newest version to base a change on, durable.
///
/// # Errors
/// `Unavailable`, `Damaged`; `Conflict` when the storage can't hold an archive that changes.
pub(super) async fn base(archive: &Archive) -> Result<Arc<State>> {
    let state = State::load(archive).await?;
    match archive.store().prove_put_if_absent().await {
        Err(error) if error.kind() == ErrorKind::Conflict => return Err(error),
        // A storage that takes no writes at the moment is told so by the next one.
        _ => {}
    }
    archive.store().settle(&Manifest::name(state.manifest.version)).await?;
    Ok(Arc::new(state))
}

/// Fills in what every new manifest has, and drops objects of which no row lives.
fn complete(
    proposed: Proposed,
    base: &State,
    commit: String,
    archive: &Archive,
) -> Result<(Manifest, Vec<Arc<RowsObject>>)> {
    let Proposed { mut manifest, rows } = proposed;
    let now = archive.now();
    let mut known = base.manifest.names();
    known.append(&mut manifest.names());
    let objects: Vec<_> = base.rows.iter().chain(&rows).map(Arc::clone).collect();
    let lifeless: BTreeSet<String> = manifest
        .tombstones
        .iter()
        .filter(|dead| {
            let of = manifest.rows.iter().find(|entry| entry.object == dead.rows_object);
            of.is_some_and(|entry| entry.rows == dead.rows.len() as u64)
        })
        .map(|dead| dead.rows_object.clone())
        .collect();
    if !lifeless.is_empty() {
        manifest.remove_rows(&lifeless);
    }
    // What was written for this version and has died before it is named, in a race that was lost, is listed too.
    manifest.superseded = known.difference(&manifest.names()).cloned().collect();
    manifest.classes = living_classes(&manifest, &objects);
    manifest.format = FORMAT;
    manifest.version = base.manifest.version + 1;
    manifest.parent = Some(base.manifest.commit.clone());
    manifest.commit = commit;
    manifest.created_at = now;
    manifest.writer = writer_name();
    Ok((manifest, objects))
}

fn living_classes(manifest: &Manifest, objects: &[Arc<RowsObject>]) -> Vec<ClassLabel> {
    let mut images: BTreeMap<&ClassLabel, u64> = BTreeMap::new();
    for (class, rows) in manifest.rows.iter().flat_map(|entry| &entry.classes) {
        *images.entry(class).or_default() += rows;
    }
    for dead in &manifest.tombstones {
        let Some(object) = objects.iter().find(|object| object.name == dead.rows_object) else {
            continue;
        };
        for class in dead
            .rows
            .iter()
            .filter_map(|&row| object.records[row as usize].class.as_ref())
        {
            if let Some(images) = images.get_mut(class) {
                *images = images.saturating_sub(1);
            }
        }
    }
    images
        .into_iter()
        .filter(|&(_, images)| images > 0)
        .map(|(class, _)| class.clone())
        .collect()
}

/// Whose manifest stands under the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Ours,
    Theirs,
}

/// Creates a manifest. After a conflict or an unknown outcome the number is read: our commit, done; another's, theirs; nothing, again.
///
/// # Errors
/// `StorageFull` when nothing was written; `Unavailable` when the storage keeps failing: then the outcome is unknown.
pub(super) async fn place(store: &Store, manifest: &Manifest, patience: Duration) -> Result<Placed> {
    let name = Manifest::name(manifest.version);
    let bytes = manifest.encode()?;
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let failure = match store.put_if_absent(&name, bytes.clone()).await {
            Ok(Put::Done) => return Ok(Placed::Ours),
            Ok(Put::Exists) => None,
            Err(error) => Some(error),
        };
        match read_manifest(store, manifest.version).await {
            Ok(Some(found)) if found.commit == manifest.commit => {
                // It is there, but the failed call may have stopped short of making it durable.
                store.settle(&name).await?;
                return Ok(Placed::Ours);
            }
            Ok(Some(_)) => return Ok(Placed::Theirs),
            Ok(None) => {
                if let Some(error) = failure
                    && (error.kind() == ErrorKind::StorageFull || started.elapsed() > patience)
                {
                    return Err(error);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable) && started.elapsed() <= patience => {}
            Err(error) => return Err(error.context("it is unknown whether the change was written")),
        }
        if started.elapsed() > patience {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("`{name}` can neither be written nor read"),
            ));
        }
        tokio::time::sleep(jittered(pause)?).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A process that was frozen between reading its base and writing may have taken a number that was superseded and collected long ago.
async fn still_in_line(store: &Store, manifest: &Manifest) -> Result<()> {
    let newest = newest_version(store).await?;
    if newest == Some(manifest.version) {
        return Ok(());
    }
    let next = read_manifest(store, manifest.version + 1).await?;
    if next.is_some_and(|next| next.parent.as_ref() == Some(&manifest.commit)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "this process was asleep while others wrote: the change has no effect",
    ))
}

pub(super) fn writer_name() -> String {
    concat!("medsearch ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Between half of `pause` and all of it, so that writers that met once don't meet again.
fn jittered(pause: Duration) -> Result<Duration> {
    let random = getrandom::u32()
        .map_err(|error| Error::with_source(ErrorKind::Internal, "the system gives no random bytes", error))?;
    Ok(pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::{Place, image};
    use crate::archive::{IdentityMode, manifest::Tombstones};

    #[tokio::test]
    async fn what_died_in_a_lost_race_before_it_was_named_is_listed_to_be_collected() {
        let place = Place::new(IdentityMode::Anonymous).await;
        let archive = &place.archive;
        let base = base(archive).await.unwrap();
        archive.append(vec![image(archive, 1, None)], None).await.unwrap();
        let written = State::load(archive).await.unwrap();
        let names = written.manifest.names();
        assert!(names.len() >= 2, "rows and pictures");

        // Written for the version after `base`; then another writer's deletion of its only image came first.
        let mut manifest = Manifest::clone(&written.manifest);
        manifest.tombstones.push(Tombstones {
            rows_object: written.rows[0].name.clone(),
            rows: vec![0],
            since: None,
            other: Default::default(),
        });
        let rows = written.rows.clone();
        let (manifest, _) = complete(Proposed { manifest, rows }, &base, "c".into(), archive).unwrap();
        assert_eq!(manifest.names(), base.manifest.names());
        let listed: BTreeSet<String> = manifest.superseded.into_iter().collect();
        assert_eq!(listed, &names - &base.manifest.names());
    }
}
