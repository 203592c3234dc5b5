//! Which version is the newest, at a cost that does not grow with how many there are.
//!
//! An hour keeps every version of it, which may be many thousands, and a bucket lists a thousand names at a time. But a version is only ever written after
//! the one before it, and the oldest go first: above one that is there, all are there up to the newest. So the newest is found by asking whether single
//! numbers exist, in steps that double and then halve.

use super::manifest::{MANIFESTS, Manifest};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// Names that are listed before single numbers are asked for: what a bucket gives in one page.
const LISTED_MAX: usize = 1000;
/// How often the newest version is looked for that is gone when it is read.
const TRIES_MAX: usize = 8;

/// The number of an archive's newest version; none: there is no archive.
///
/// What is listed first are the oldest versions, below which the lone number of a writer that slept may lie (`commit::still_in_line`): never a page of them.
pub(super) async fn newest_version(store: &Store) -> Result<Option<u64>> {
    let (names, all) = store.list_first(MANIFESTS, LISTED_MAX).await?;
    let listed = names.iter().filter_map(|name| Manifest::version_of(name)).max();
    match listed {
        Some(listed) if !all => Ok(Some(last_from(store, listed).await?)),
        // A page of what is not ours.
        None if !all => listed_version(store).await,
        _ => Ok(listed),
    }
}

/// The number of the newest version in a place where numbers may have gaps: a backup has single versions.
async fn listed_version(store: &Store) -> Result<Option<u64>> {
    let listed = store.list(MANIFESTS).await?;
    Ok(listed
        .iter()
        .filter_map(|listed| Manifest::version_of(&listed.name))
        .max())
}

/// An archive's newest manifest; none: there is no archive.
pub(super) async fn newest(store: &Store) -> Result<Option<Manifest>> {
    read_newest(store, || newest_version(store)).await
}

/// The newest manifest of an archive or of a backup, by listing all of them; none: there is neither.
pub(super) async fn newest_listed(store: &Store) -> Result<Option<Manifest>> {
    read_newest(store, || listed_version(store)).await
}

async fn read_newest<F: Future<Output = Result<Option<u64>>>>(
    store: &Store,
    find: impl Fn() -> F,
) -> Result<Option<Manifest>> {
    // What was the newest may be superseded and deleted before it is read, if this process was asleep in between.
    for _ in 0..TRIES_MAX {
        let Some(version) = find().await? else {
            return Ok(None);
        };
        if let Some(manifest) = read_manifest(store, version).await? {
            return Ok(Some(manifest));
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "the newest manifest can't be read"))
}

/// The newest of an archive's versions after `version`, which was the newest less than [`super::BASE_AGE_MAX`] ago; none: it still is.
pub(super) async fn newest_after(store: &Store, version: u64) -> Result<Option<Manifest>> {
    let Some(next) = read_manifest(store, version + 1).await? else {
        return Ok(None);
    };
    let last = last_from(store, next.version).await?;
    if last == next.version {
        return Ok(Some(next));
    }
    match read_manifest(store, last).await? {
        // This process was asleep meanwhile.
        None => newest(store).await,
        newest => Ok(newest),
    }
}

async fn last_from(store: &Store, version: u64) -> Result<u64> {
    last_of_run(version, |version| async move {
        store.exists(&Manifest::name(version)).await
    })
    .await
}

/// The last number of the run that `first` is in: `first` is in it, and of those behind it `holds` says whether they are.
async fn last_of_run<F: Future<Output = Result<bool>>>(first: u64, holds: impl Fn(u64) -> F) -> Result<u64> {
    let (mut last, mut step) = (first, 1_u64);
    let mut beyond = first.saturating_add(step);
    while beyond > last && holds(beyond).await? {
        last = beyond;
        step = step.saturating_mul(2);
        beyond = last.saturating_add(step);
    }
    while beyond - last > 1 {
        let middle = last + (beyond - last) / 2;
        match holds(middle).await? {
            true => last = middle,
            false => beyond = middle,
        }
    }
    Ok(last)
}

/// One version; none: there is no such version, or it is deleted.
pub(super) async fn read_manifest(store: &Store, version: u64) -> Result<Option<Manifest>> {
    let name = Manifest::name(version);
    match store.get(&name).await {
        Ok(bytes) => {
            let manifest = Manifest::decode(&name, &bytes).map_err(|error| store.damaged(error))?;
            if manifest.version != version {
                return Err(store.damaged(Error::new(
                    ErrorKind::Damaged,
                    format!("`{name}` is another version's manifest"),
                )));
            }
            Ok(Some(manifest))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_end_of_a_run_is_found_in_twice_its_logarithm(first in 0u64..1_000_000, behind in 0u64..1_000_000) {
            let asked = Cell::new(0);
            let holds = |number| {
                asked.set(asked.get() + 1);
                std::future::ready(Ok(number <= first + behind))
            };
            let last = futures_util::FutureExt::now_or_never(last_of_run(first, holds)).unwrap().unwrap();
            prop_assert_eq!(last, first + behind);
            prop_assert!(asked.get() <= 1 + 2 * (behind + 1).ilog2(), "{} for {behind}", asked.get());
        }
    }

    #[test]
    fn a_storage_that_has_everything_comes_to_an_end() {
        let last = last_of_run(7, |_| std::future::ready(Ok(true)));
        assert_eq!(futures_util::FutureExt::now_or_never(last).unwrap().unwrap(), u64::MAX);
    }
}
