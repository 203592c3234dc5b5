//! What was read from a bucket is kept on this machine: whole, for one user, within a bound, and no longer than the archive names it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const PLENTY: u64 = 1 << 30;

/// A handle of another process, with a cache in `folder`.
async fn cached(server: &Server, folder: &Path, bytes_max: u64) -> Archive {
    let settings = CacheSettings {
        folder: folder.to_owned(),
        bytes_max,
    };
    let store = server.store().cached(&settings).unwrap();
    Archive::open_in(store, URL, secret(), tuning()).await.unwrap()
}

/// An archive with a rows object for each of `parts`.
async fn filled(server: &Server, parts: u32) -> Archive {
    let archive = create(server).await;
    for part in 0..parts {
        let images = (0..8)
            .map(|number| image(&archive, part * 100 + number, None))
            .collect();
        archive.append(images, None).await.unwrap();
    }
    archive
}

fn vectors(state: &State) -> Vec<f32> {
    let spots: Vec<(usize, u32)> = state.live().collect();
    state.vectors(&spots).unwrap()
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn file_of(folder: &Path, object: &str) -> std::path::PathBuf {
    folder.join(object.replace('/', "-"))
}

fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Rows objects that were fetched since the last call.
fn fetched(server: &Server) -> usize {
    let requests = server.requests();
    let rows = |request: &&String| request.starts_with("GET") && request.contains("/rows/");
    requests.iter().filter(rows).count()
}

#[tokio::test]
async fn objects_are_fetched_once() {
    let server = Server::start().await;
    let archive = filled(&server, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("not/there");
    let expected = vectors(&State::load(&archive).await.unwrap());
    fetched(&server);
    for times in [3, 0, 0] {
        let archive = cached(&server, &folder, PLENTY).await;
        let state = State::load(&archive).await.unwrap();
        assert!(state.rows.iter().all(|rows| rows.is_in_file()));
        assert_eq!(vectors(&state), expected);
        assert_eq!(fetched(&server), times);
        assert_eq!(archive.storage_figures().damage, [("storage", 0), ("cache", 0)]);
    }
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(files(&folder).len(), 3);
    for file in files(&folder) {
        assert_eq!(mode(&folder.join(file)), 0o600);
    }

    // Whether it is there or not, what is on the storage is what `verify` is about.
    let name = archive.latest().await.unwrap().rows[0].object.clone();
    std::fs::write(server.path().join(name), "spoilt").unwrap();
    let verified = verify(&cached(&server, &folder, PLENTY).await).await.unwrap();
    assert_eq!(verified.damaged.len(), 1);
}

#[tokio::test]
async fn without_a_cache_vectors_stay_in_memory() {
    let server = Server::start().await;
    filled(&server, 1).await;
    let archive = Archive::open_in(server.store(), URL, secret(), tuning()).await.unwrap();
    let state = State::load(&archive).await.unwrap();
    assert!(!state.rows[0].is_in_file());
}

#[tokio::test]
async fn damaged_files_heal() {
    let server = Server::start().await;
    filled(&server, 1).await;
    let dir = tempfile::tempdir().unwrap();
    let load = async || {
        let archive = cached(&server, dir.path(), PLENTY).await;
        let state = State::load(&archive).await.unwrap();
        (archive.storage_figures().damage, vectors(&state))
    };
    let (_, expected) = load().await;
    let file = dir.path().join(files(dir.path()).first().unwrap());
    let whole = std::fs::read(&file).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let longer = [whole.as_slice(), b"x"].concat();
    for spoilt in [&whole[..whole.len() - 1], &[], &changed, &longer] {
        std::fs::write(&file, spoilt).unwrap();
        fetched(&server);
        assert_eq!(load().await, ([("storage", 0), ("cache", 1)], expected.clone()));
        assert_eq!(fetched(&server), 1);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
        assert_eq!(load().await, ([("storage", 0), ("cache", 0)], expected.clone()));
    }
}

#[tokio::test]
async fn the_bound_holds_and_what_was_used_longest_ago_goes_first() {
    let server = Server::start().await;
    filled(&server, 6).await;
    let dir = tempfile::tempdir().unwrap();
    let all = cached(&server, dir.path(), PLENTY).await;
    let state = State::load(&all).await.unwrap();
    let expected = vectors(&state);
    let total = bytes(dir.path());
    assert_eq!(all.storage_figures().cache_bytes, total);
    let largest = state.manifest.rows.iter().map(|entry| entry.bytes).max().unwrap();

    // Room for three: one of those that are there already is asked for, so that it stays.
    for entry in &state.manifest.rows {
        let file = std::fs::File::open(file_of(dir.path(), &entry.object)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    let used = &state.manifest.rows[2];
    all.store().load_object(&used.object).await.unwrap();
    let bound = 3 * largest;
    let archive = cached(&server, dir.path(), bound).await;
    assert!(bytes(dir.path()) <= bound && archive.storage_figures().cache_bytes == bytes(dir.path()));
    assert!(file_of(dir.path(), &used.object).exists());
    assert_eq!(vectors(&State::load(&archive).await.unwrap()), expected);
    assert!(bytes(dir.path()) <= bound);
    assert_eq!(files(dir.path()).len(), 3);

    // What is larger than all of it is not kept, and read all the same.
    let empty = tempfile::tempdir().unwrap();
    let archive = cached(&server, empty.path(), 10).await;
    assert_eq!(vectors(&State::load(&archive).await.unwrap()), expected);
    assert_eq!(files(empty.path()).len(), 0);
    // Both still have what was evicted.
    assert_eq!(vectors(&state), expected);
}

#[tokio::test]
async fn what_is_no_longer_named_is_deleted() {
    let server = Server::start().await;
    let writer = filled(&server, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let named = async |archive: &Archive| -> BTreeSet<String> {
        let manifest = archive.latest().await.unwrap();
        manifest
            .rows
            .iter()
            .map(|entry| entry.object.replace('/', "-"))
            .collect()
    };
    let reader = cached(&server, dir.path(), PLENTY).await;
    let old = State::load(&reader).await.unwrap();
    let before = vectors(&old);
    assert_eq!(files(dir.path()), named(&reader).await);

    // A reader that polls; what it holds it goes on reading.
    compact_after(&writer, Duration::ZERO, Duration::ZERO).await.unwrap();
    let manifest = reader.after(old.manifest.version).await.unwrap().unwrap();
    assert_eq!(files(dir.path()).len(), 0);
    assert_eq!(reader.storage_figures().cache_bytes, 0);
    assert_eq!(vectors(&old), before);
    // An object of the version before, loaded late, is not kept.
    let loaded = reader.store().load_object(&old.rows[0].name).await;
    assert_eq!(loaded.err().unwrap().kind(), ErrorKind::Unavailable, "collected");
    let next = old.advance(&reader, manifest).await.unwrap();
    assert_eq!(vectors(&next), before);
    assert_eq!(files(dir.path()), named(&reader).await);

    // A reader that was away: at its start. What crashes left goes with it, and what is somebody else's stays.
    let gone = format!("graphs-{}", "a".repeat(64));
    let (partial, fresh) = (".partial-left", ".partial-fresh");
    for name in [&gone, partial, fresh, "notes.txt", "rows-of-mine"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let partial = std::fs::File::open(dir.path().join(partial)).unwrap();
    partial.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let reader = cached(&server, dir.path(), PLENTY).await;
    let mut expected = named(&reader).await;
    expected.extend([fresh, "notes.txt", "rows-of-mine"].map(str::to_owned));
    assert_eq!(files(dir.path()), expected);
}

#[tokio::test]
async fn what_was_superseded_and_not_collected_is_not_kept() {
    let server = Server::start().await;
    let writer = filled(&server, 2).await;
    let dir = tempfile::tempdir().unwrap();
    let old = writer.latest().await.unwrap();
    compact_after(&writer, Duration::from_secs(3600), Duration::from_secs(3600))
        .await
        .unwrap();
    let reader = cached(&server, dir.path(), PLENTY).await;
    reader.read_rows(&old.rows[0]).await.unwrap();
    assert_eq!(files(dir.path()).len(), 0);
}

#[tokio::test]
async fn large_objects_of_a_writer_leave_memory_for_the_cache() {
    let server = Server::start().await;
    filled(&server, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let writer = cached(&server, dir.path(), PLENTY).await;
    compact_after(&writer, Duration::ZERO, Duration::ZERO).await.unwrap();
    fetched(&server);
    let state = State::load(&writer).await.unwrap();
    assert!(state.rows.len() == 1 && state.rows[0].is_in_file());
    assert_eq!(vectors(&state).len(), 24 * crate::archive::testing::DIMENSION);
    let again = cached(&server, dir.path(), PLENTY).await;
    State::load(&again).await.unwrap();
    assert_eq!(fetched(&server), 0);
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_cache_that_fails_costs_no_answer() {
    let server = Server::start().await;
    let writer = filled(&server, 2).await;
    let expected = vectors(&State::load(&writer).await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    let archive = cached(&server, &folder, PLENTY).await;
    std::fs::remove_dir_all(&folder).unwrap();
    let state = State::load(&archive).await.unwrap();
    assert_eq!(vectors(&state), expected);
    assert!(!state.rows.iter().any(|rows| rows.is_in_file()));

    // At the start it is told.
    std::fs::write(&folder, "a file").unwrap();
    let settings = CacheSettings {
        folder,
        bytes_max: PLENTY,
    };
    let error = server.store().cached(&settings).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_share_a_cache() {
    let server = Server::start().await;
    let writer = filled(&server, 2).await;
    let dir = tempfile::tempdir().unwrap();
    // Small enough that each evicts what the other has.
    let bound = 2 * writer.latest().await.unwrap().rows[0].bytes;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let archive = cached(&server, dir.path(), bound).await;
        readers.push(tokio::spawn(async move {
            let mut state = State::load(&archive).await.unwrap();
            loop {
                if let Some(manifest) = archive.after(state.manifest.version).await.unwrap() {
                    // What it names may be merged and collected meanwhile, as without a cache.
                    match state.advance(&archive, manifest).await {
                        Ok(next) => state = next,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                    }
                }
                for at in state.live() {
                    let vector = state.rows[at.0].vector(at.1).unwrap();
                    let first = vector[0] - 0.5;
                    assert_eq!(state.at(at).id, id(&archive, first as u32));
                }
                if state.manifest.images() == 16 + 12 * 8 {
                    return archive.storage_figures().damage;
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for part in 10..22 {
        let images = (0..8).map(|number| image(&writer, part * 100 + number, None)).collect();
        writer.append(images, None).await.unwrap();
        if part % 4 == 0 {
            compact_after(&writer, Duration::ZERO, Duration::ZERO).await.unwrap();
        }
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), [("storage", 0), ("cache", 0)]);
    }
}
