//! Puts what an archive has lost back in its place, from its backup: an object is what the digest in its name says, wherever it is read.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::copy::{COPIED_MIB_MAX, COPIES_MAX, Check, CopyStep, Object, STARTS_MAX, no_archive, read};
use super::newest::newest_listed;
use super::room::Room;
use super::store::Store;
use super::{Manifest, ModelRef, read_model};
use crate::error::{Error, ErrorKind, Result};

/// Not healed.
const GRAPHS: &str = "graphs/";
/// Room for a model on its way, whose size the manifest does not say.
const MODEL_BYTES: u64 = 128 << 20;

/// What was looked at, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healed {
    /// The version that was read.
    pub version: u64,
    /// Its objects, but for its graphs.
    pub objects: usize,
    /// Those that were damaged or missing and are whole again.
    pub healed: Vec<String>,
    /// Those that still are, a sentence each: the backup does not have them, or not whole.
    pub damaged: Vec<String>,
}

/// Reads what the newest version of the archive at `archive` names, and puts what is damaged or missing back from the backup at `from`.
///
/// Programs may have the archive open meanwhile: nothing that is whole is touched, what is written is what its name says, and what no version needs any more when it was
/// written goes again. Not looked at are graphs, which a server or `compact` builds again and takes up at once, and reports about labels: without the archive's secret nobody can tell whether one is whole.
///
/// # Errors
/// `NotFound` without an archive or a backup; `InvalidRequest` when both are one place; `Conflict` when they are of different archives; `Damaged` when a newest manifest can't be read;
/// `StorageFull`, `Unavailable`: what was healed up to then stays so, and nothing is worse.
pub async fn heal(archive: &str, from: &str, step: &(dyn Fn(CopyStep) + Sync)) -> Result<Healed> {
    let (archive, backup) = (Store::open(archive)?, Store::open(from)?);
    Heal { archive, backup, step }.run().await
}

/// What, from where.
pub(super) struct Heal<'a> {
    pub archive: Store,
    pub backup: Store,
    pub step: &'a (dyn Fn(CopyStep) + Sync),
}

/// What was found of one object.
enum Found {
    Whole,
    Healed,
    Damaged(String),
}

impl Heal<'_> {
    /// Heals until the version that was read is still the newest afterwards.
    pub async fn run(&self) -> Result<Healed> {
        let Self { archive, backup, .. } = self;
        if archive.is_same_place(backup) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "an archive can't be healed from itself",
            ));
        }
        let kept = newest_listed(backup)
            .await?
            .ok_or_else(|| no_archive(&backup.to_string()))?;
        let mut manifest = newest_listed(archive)
            .await?
            .ok_or_else(|| no_archive(&archive.to_string()))?;
        if kept.archive.id != manifest.archive.id {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("`{backup}` is the backup of another archive than `{archive}`"),
            ));
        }
        let (mut whole, mut healed) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..STARTS_MAX {
            let objects = objects(&manifest);
            let damaged = self.heal(&manifest, &objects, &mut whole, &mut healed).await?;
            let found = newest_listed(archive)
                .await?
                .ok_or_else(|| no_archive(&archive.to_string()))?;
            let named: BTreeSet<String> = self::objects(&found).into_iter().map(|object| object.name).collect();
            // It may have been collected before it was written, and then nobody would look for it again. Whoever still reads the version before finds it
            // missing, as it was.
            for name in healed.iter().filter(|name| !named.contains(*name)) {
                archive.delete(name).await?;
            }
            healed.retain(|name| named.contains(name));
            let is_whole = named.is_subset(&whole);
            if found.commit == manifest.commit || is_whole {
                return Ok(Healed {
                    version: found.version,
                    objects: named.len(),
                    healed: healed.into_iter().collect(),
                    damaged: if is_whole { vec![] } else { damaged },
                });
            }
            manifest = found;
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "versions come faster than they can be read: run it again, what was healed stays",
        ))
    }

    /// What still is damaged of a version, a sentence each.
    async fn heal(
        &self,
        manifest: &Manifest,
        objects: &[Object],
        whole: &mut BTreeSet<String>,
        healed: &mut BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let objects: Vec<&Object> = objects.iter().filter(|object| !whole.contains(&object.name)).collect();
        (self.step)(CopyStep::Planned { objects: objects.len() });
        let room = Room::of_mib(COPIED_MIB_MAX);
        let looks: Vec<_> = objects
            .iter()
            .map(|object| async {
                let _held = room.take(object.bytes).await?;
                let found = self.heal_object(manifest, object).await?;
                (self.step)(CopyStep::Done);
                Ok::<_, Error>((object.name.clone(), found))
            })
            .collect();
        let mut looks = stream::iter(looks).buffer_unordered(COPIES_MAX);
        let mut damaged = Vec::new();
        while let Some((name, found)) = looks.try_next().await? {
            match found {
                Found::Damaged(why) => {
                    damaged.push(why);
                    continue;
                }
                Found::Healed => drop(healed.insert(name.clone())),
                Found::Whole => {}
            }
            whole.insert(name);
        }
        damaged.sort();
        Ok(damaged)
    }

    async fn heal_object(&self, manifest: &Manifest, object: &Object) -> Result<Found> {
        let why = match look(&self.archive, manifest, object).await {
            Ok(_) => return Ok(Found::Whole),
            // A disk that can't read one file reads the next.
            Err(error) if is_lost(&error) || self.archive.is_folder() => error,
            Err(error) => return Err(error),
        };
        let bytes = match look(&self.backup, manifest, object).await {
            Ok(bytes) => bytes,
            Err(error) if is_lost(&error) || self.backup.is_folder() => {
                return Ok(Found::Damaged(format!("{why}; in the backup: {error}")));
            }
            Err(error) => return Err(error),
        };
        self.archive.mend_object(&object.name, bytes).await?;
        match look(&self.archive, manifest, object).await {
            Ok(_) => {
                tracing::warn!(object = object.name, was = %why, "an object was put back from the backup");
                Ok(Found::Healed)
            }
            Err(error) if is_lost(&error) => Ok(Found::Damaged(format!("{error}, and was not written again"))),
            Err(error) => Err(error),
        }
    }
}

fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}

/// Reads an object and holds it against its digest.
async fn look(store: &Store, manifest: &Manifest, object: &Object) -> Result<Bytes> {
    match (&object.check, &manifest.model) {
        // Nothing says how large it is, and nothing has to.
        (Check::Model, Some(model)) => read_model(store, model).await,
        _ => read(store, manifest, object).await,
    }
}

/// What the version names, but for its graphs.
fn objects(manifest: &Manifest) -> Vec<Object> {
    let named = manifest.objects().filter(|(name, _)| !name.starts_with(GRAPHS));
    let named = named.map(|(name, bytes)| Object {
        name: name.to_owned(),
        bytes,
        check: Check::Name,
    });
    let model = manifest.model.as_ref().and_then(ModelRef::object);
    let model = model.map(|name| Object {
        name,
        bytes: MODEL_BYTES,
        check: Check::Model,
    });
    named.chain(model).collect()
}
