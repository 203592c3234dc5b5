//! Backup and restore: the same archive elsewhere, whatever fails in between, and nothing of it that the archive has erased.

use hyper::Method;

use super::s3::{Fault, LIMITS, Server, URL};
use super::*;
use crate::archive::copy::{Copy, Purpose};
use crate::archive::heal::{Heal, Healed};
use crate::archive::manifest::MODELS;
use crate::archive::store::Store;
use crate::archive::testing::{faulty, faulty_at};

/// Copies between two stores.
async fn copy(from: Store, to: Store, purpose: Purpose, reread: bool) -> Result<Copied> {
    copy_later(from, to, purpose, reread, SignedDuration::ZERO).await
}

/// The same at another time, and giving up soon.
async fn copy_later(from: Store, to: Store, purpose: Purpose, reread: bool, later: SignedDuration) -> Result<Copied> {
    let tuning = Tuning {
        clock: Arc::new(move || Timestamp::now() + later),
        patience: Duration::from_millis(20),
        ..tuning()
    };
    let copy = Copy {
        from,
        to,
        purpose,
        reread,
        tuning,
        step: &|_| {},
    };
    copy.run().await
}

/// An archive with everything that one can have, and room for its copies.
struct Copies {
    place: Place,
}

impl Copies {
    async fn new() -> Self {
        let place = Place::new(IdentityMode::Linked).await;
        let archive = &place.archive;
        let images = (0..5).map(|number| image(archive, number, Some("COVID"))).collect();
        archive.append(images, None).await.unwrap();
        let writer = writer(archive).await;
        writer.write(insert(archive, 5, Some("Normal"))).await.unwrap();
        writer.write(Change::Delete { id: id(archive, 1) }).await.unwrap();
        let report = NewReport::new(id(archive, 2), Some(class("COVID")), None, "look again").unwrap();
        archive.report(&report).await.unwrap();
        Self { place }
    }

    fn url(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.dir.path().join(name)
    }

    fn source(&self) -> Store {
        self.place.archive.store().clone()
    }

    fn folder(&self, name: &str) -> Store {
        Store::create(&self.url(name)).unwrap()
    }

    async fn backup(&self, name: &str) -> Result<Copied> {
        copy(self.source(), self.folder(name), Purpose::Backup, false).await
    }

    async fn restore(&self, from: &str, name: &str) -> Result<Copied> {
        copy(self.folder(from), self.folder(name), Purpose::Restore, false).await
    }

    async fn opened(&self, name: &str) -> Archive {
        Archive::open(&self.url(name), secret()).await.unwrap()
    }

    async fn write(&self, number: u32) {
        let images = vec![image(&self.place.archive, number, Some("COVID"))];
        self.place.archive.append(images, None).await.unwrap();
    }
}

/// The same version with the same records, vectors, pictures and reports, bit by bit.
async fn assert_same(one: &Archive, two: &Archive) {
    let states = [State::load(one).await.unwrap(), State::load(two).await.unwrap()];
    assert_eq!(states[0].manifest, states[1].manifest);
    let mut told = Vec::new();
    for (archive, state) in [one, two].into_iter().zip(&states) {
        let mut images = BTreeMap::new();
        for (object, row) in state.live() {
            let record = Record::clone(state.at((object, row)));
            let vector: Vec<u32> = (state.rows[object].vector(row).unwrap().iter())
                .map(|x| x.to_bits())
                .collect();
            let picture = archive.read_pack(record.thumbnail.as_ref().unwrap()).await.unwrap();
            let pixels = archive.read_pack(&record.pixels.as_ref().unwrap().pack).await.unwrap();
            images.insert(record.id, (record, vector, picture, pixels));
        }
        told.push((images, archive.reports(None, 100).await.unwrap()));
    }
    assert_eq!(told[0], told[1]);
    assert!(!told[0].0.is_empty() && !told[0].1.open.is_empty());
    assert_eq!(verify(two).await.unwrap().damaged, Vec::<String>::new());
}

/// Names of all files below a folder, from there.
fn files(folder: &std::path::Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => found.extend(files(&path).iter().map(|inner| format!("{name}/{inner}"))),
            false => drop(found.insert(name)),
        }
    }
    found
}

#[tokio::test]
async fn an_archive_goes_to_a_folder_and_a_bucket_and_back() {
    let copies = Copies::new().await;
    let archive = &copies.place.archive;
    let server = Server::start().await;
    let in_folder = copies.backup("backup").await.unwrap();
    let in_bucket = copy(copies.source(), server.store(), Purpose::Backup, false)
        .await
        .unwrap();
    assert_eq!(in_folder, in_bucket);
    let manifest = archive.latest().await.unwrap();
    let objects = manifest.objects().count() + 1;
    assert_eq!(
        (in_folder.version, in_folder.objects_copied, in_folder.objects_present),
        (manifest.version, objects, 0)
    );
    assert_eq!(
        files(&copies.path("backup")).len(),
        objects + 2,
        "with manifest and claim"
    );

    // The archive is lost.
    let before = copies.place.dir.path().join("before");
    std::fs::rename(copies.place.path(), &before).unwrap();
    let before = copies.opened("before").await;
    copies.restore("backup", "archive").await.unwrap();
    copy(server.store(), copies.folder("from-bucket"), Purpose::Restore, false)
        .await
        .unwrap();
    copy(
        copies.folder("backup"),
        server.store_at("s3://bucket/new"),
        Purpose::Restore,
        false,
    )
    .await
    .unwrap();
    let in_bucket = Archive::open_in(server.store_at("s3://bucket/new"), URL, secret(), Tuning::default())
        .await
        .unwrap();
    for restored in [
        copies.opened("archive").await,
        copies.opened("from-bucket").await,
        in_bucket,
    ] {
        assert_same(&before, &restored).await;
    }
    let wrong = Archive::open(&copies.url("archive"), Secret::from_bytes([6; 32])).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn answers_that_are_lost_make_no_other_backup() {
    let copies = Copies::new().await;
    let server = Server::start().await;
    for part in ["/copy", "/rows/", "/feedback/", "/manifest/"] {
        server.plan(Fault::Lost, Method::PUT, part, 1);
    }
    copy(copies.source(), server.store(), Purpose::Backup, false)
        .await
        .unwrap();
    assert_eq!(server.spared(), 0, "each did happen");
    let found = Archive::open_in(server.store(), URL, secret(), Tuning::default()).await;
    assert_same(&copies.place.archive, &found.unwrap()).await;

    // An outage names no version, and the next run goes on.
    copies.write(8).await;
    server.plan(Fault::Full, Method::PUT, "/rows/", 1 + LIMITS.retries_max);
    let full = copy(copies.source(), server.store(), Purpose::Backup, false).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
    let old = Archive::open_in(server.store(), URL, secret(), Tuning::default()).await;
    let old = old.unwrap().latest().await.unwrap().version;
    let done = copy(copies.source(), server.store(), Purpose::Backup, false).await;
    assert_eq!(done.unwrap().version, old + 1);
}

#[tokio::test]
async fn a_restored_archive_is_written_to_merged_and_collected() {
    let copies = Copies::new().await;
    copies.backup("backup").await.unwrap();
    let first = copies.restore("backup", "restored").await.unwrap().version;
    assert!(first > 1, "its oldest manifest is not the first");
    let restored = copies.opened("restored").await;
    let writer = writer(&restored).await;
    let done = writer.write(insert(&restored, 7, Some("COVID"))).await.unwrap();
    assert_eq!((done.version, done.outcome), (first + 1, Outcome::Inserted));
    assert_eq!(
        writer.write(insert(&restored, 2, Some("COVID"))).await.unwrap().outcome,
        Outcome::Duplicate
    );
    writer.write(Change::Delete { id: id(&restored, 3) }).await.unwrap();
    let done = compact_after(&restored, Duration::ZERO, Duration::ZERO).await.unwrap();
    assert_eq!(done.manifests_deleted, 3, "{done:?}");
    let again = copies.opened("restored").await;
    let found: BTreeSet<ImageId> = contents(&again).await.into_keys().collect();
    let expected = [0, 2, 4, 5, 7].map(|number| id(&again, number));
    assert_eq!(found, expected.into_iter().collect());
    assert_eq!(verify(&again).await.unwrap().damaged, Vec::<String>::new());
    let left = files(&copies.path("restored"));
    let named = again.latest().await.unwrap().names();
    assert_eq!(
        left.len(),
        named.len() + 2,
        "manifest, report and nothing else: {left:?}"
    );
}

#[tokio::test]
async fn what_is_interrupted_is_never_whole_and_goes_on() {
    let whole = Copies::new().await;
    whole.backup("backup").await.unwrap();
    let expected = files(&whole.path("backup"));
    for purpose in [Purpose::Backup, Purpose::Restore] {
        let (mut stopped, mut kept) = (0, 0);
        for number in 0.. {
            let faults = Arc::new(Faults {
                stop_at: Some(number),
                ..Faults::default()
            });
            let name = format!("{purpose:?} {number}");
            let faulty = faulty(&whole.folder(&name), &faults);
            let from = whole.folder("backup");
            let first = copy(from.clone(), faulty, purpose, false).await;
            let manifests = whole.path(&name).join("manifest");
            if first.is_err() {
                stopped += 1;
                if manifests.is_dir() && !files(&manifests).is_empty() {
                    let opened = whole.opened(&name).await;
                    assert_same(&whole.place.archive, &opened).await;
                }
            }
            let again = copy(from, whole.folder(&name), purpose, false).await;
            if first.is_ok() {
                if purpose == Purpose::Restore {
                    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
                }
                break;
            }
            kept += again.unwrap().objects_present;
            let mut found = files(&whole.path(&name));
            if purpose == Purpose::Restore {
                assert!(found.insert("copy".to_owned()), "the claim is gone");
            }
            assert_eq!(found, expected, "{name}");
            assert_same(&whole.place.archive, &whole.opened(&name).await).await;
        }
        assert!(stopped > expected.len() && kept > expected.len(), "{stopped} {kept}");
    }
}

#[tokio::test]
async fn what_is_there_is_not_copied_again_and_read_when_asked() {
    let copies = Copies::new().await;
    let first = copies.backup("backup").await.unwrap();
    let second = copies.backup("backup").await.unwrap();
    assert_eq!(
        (second.objects_copied, second.objects_present, second.objects_removed),
        (0, first.objects_copied, 0)
    );
    copies.write(8).await;
    let third = copies.backup("backup").await.unwrap();
    assert_eq!(third.objects_copied, 3, "rows and two packs");
    assert_eq!(third.objects_removed, 1, "the manifest before");

    let manifest = copies.place.archive.latest().await.unwrap();
    for (name, _) in manifest.objects() {
        let path = copies.path("backup").join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        // Of the same size it is seen when it is read, of another size always.
        for (damage, reread) in [(damaged, true), (whole[1..].to_vec(), false)] {
            std::fs::write(&path, damage).unwrap();
            copy(copies.source(), copies.folder("backup"), Purpose::Backup, reread)
                .await
                .unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole, "{name}");
        }
    }
}

#[tokio::test]
async fn damage_is_named_and_makes_no_version() {
    let copies = Copies::new().await;
    let manifest = copies.place.archive.latest().await.unwrap();
    for (number, (name, _)) in manifest.objects().enumerate() {
        let path = copies.place.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for (damage, kind) in [(Some(damaged), ErrorKind::Damaged), (None, ErrorKind::NotFound)] {
            match damage {
                Some(damage) => std::fs::write(&path, damage).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let backup = format!("backup {number}");
            let error = copies.backup(&backup).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(name), "{error}");
            assert!(!copies.path(&backup).join("manifest").exists());
        }
        std::fs::write(&path, whole).unwrap();
        copies.backup(&format!("backup {number}")).await.unwrap();
    }
}

async fn heal(archive: Store, backup: Store) -> Result<Healed> {
    let step = &|_| {};
    Heal { archive, backup, step }.run().await
}

/// Removes a file, cuts it off, adds to it, or flips a bit of it.
fn spoil(folder: &std::path::Path, name: &str, how: usize) {
    let path = folder.join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    match how % 4 {
        0 => std::fs::remove_file(&path).unwrap(),
        1 => std::fs::write(&path, &bytes[1..]).unwrap(),
        3 => std::fs::write(&path, [bytes.as_slice(), b"more"].concat()).unwrap(),
        _ => {
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_lost_is_healed_in_place() {
    let copies = Copies::new().await;
    copies.backup("backup").await.unwrap();
    copies.backup("whole").await.unwrap();
    let manifest = copies.place.archive.latest().await.unwrap();
    let names: Vec<String> = manifest.names().into_iter().collect();
    let whole = Healed {
        version: manifest.version,
        objects: names.len(),
        ..Healed::default()
    };
    assert_eq!(heal(copies.source(), copies.folder("backup")).await.unwrap(), whole);

    for turn in 0..4 {
        for (number, name) in names.iter().enumerate() {
            spoil(&copies.place.path(), name, number + turn);
        }
        let healed = heal(copies.source(), copies.folder("backup")).await.unwrap();
        assert_eq!((healed.healed, healed.damaged), (names.clone(), vec![]));
        assert_eq!(heal(copies.source(), copies.folder("backup")).await.unwrap(), whole);
        assert_same(&copies.opened("whole").await, &copies.place.again().await).await;
    }

    // What the backup has lost too, and what was written since, is named and left.
    copies.write(8).await;
    let newer = copies.place.archive.latest().await.unwrap();
    let since = newer.names().into_iter().find(|name| !names.contains(name)).unwrap();
    for (folder, name) in [
        ("archive", &since),
        ("archive", &names[0]),
        ("archive", &names[1]),
        ("backup", &names[1]),
    ] {
        spoil(&copies.path(folder), name, 2);
    }
    let healed = heal(copies.source(), copies.folder("backup")).await.unwrap();
    assert_eq!(healed.healed, names[..1]);
    assert_eq!(healed.damaged.len(), 2, "{:?}", healed.damaged);
    for name in [&since, &names[1]] {
        assert!(
            healed.damaged.iter().any(|why| why.contains(name)),
            "{:?}",
            healed.damaged
        );
    }

    let other = Copies::new().await;
    for (archive, kind) in [
        (other.source(), ErrorKind::Conflict),
        (copies.folder("backup"), ErrorKind::InvalidRequest),
    ] {
        let refused = heal(archive, copies.folder("backup")).await;
        assert_eq!(refused.unwrap_err().kind(), kind);
    }
    let nothing = heal(copies.source(), copies.folder("nothing")).await;
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Nobody else is there.
fn offline() -> CompactSettings {
    CompactSettings {
        manifest_age_min: Duration::ZERO,
        object_age_min: Duration::ZERO,
        offline: true,
        ..CompactSettings::default()
    }
}

#[tokio::test]
async fn what_is_erased_meanwhile_is_not_healed() {
    let copies = Copies::new().await;
    copies.backup("backup").await.unwrap();
    let place = &copies.place;
    let last = id(&place.archive, 5);
    let pack = contents(&place.archive).await[&last]
        .thumbnail
        .as_ref()
        .unwrap()
        .object
        .clone();
    std::fs::remove_file(place.path().join(&pack)).unwrap();

    // Its image is deleted, and all of it collected, between what heal read and what it writes.
    let faults = Arc::new(Faults::default());
    let other = place.again().await;
    *faults.meanwhile.lock().unwrap() = Some(Box::pin(async move {
        writer(&other).await.write(Change::Delete { id: last }).await.unwrap();
        compact(&other, offline()).await.unwrap();
    }));
    let archive = faulty_at(&copies.source(), &faults, "thumbnails/");
    let healed = heal(archive, copies.folder("backup")).await.unwrap();
    assert!(faults.meanwhile.lock().unwrap().is_none(), "it happened");
    let newest = place.again().await.latest().await.unwrap();
    assert!(!newest.names().contains(&pack));
    assert_eq!(
        (healed.version, healed.healed, healed.damaged),
        (newest.version, vec![], vec![])
    );
    assert!(!place.path().join(&pack).exists());
    let found = remains(&place.again().await, &[last]).await.unwrap();
    assert!(found.is_clean(), "{found:?}");
}

#[tokio::test]
async fn a_pack_that_a_merge_left_for_damaged_is_merged_once_it_is_healed() {
    let copies = Copies::new().await;
    copies.backup("backup").await.unwrap();
    let place = &copies.place;
    for name in place.archive.latest().await.unwrap().names() {
        if !name.starts_with("rows/") {
            spoil(&place.path(), &name, 2);
        }
    }
    let marked = async || {
        let manifest = place.again().await.latest().await.unwrap();
        manifest.packs.iter().filter(|pack| pack.damaged).count()
    };
    compact(&place.again().await, offline()).await.unwrap();
    assert!(marked().await > 0);
    heal(copies.source(), copies.folder("backup")).await.unwrap();
    let archive = place.again().await;
    writer(&archive)
        .await
        .write(Change::Delete { id: id(&archive, 2) })
        .await
        .unwrap();
    compact(&place.again().await, offline()).await.unwrap();
    assert_eq!(marked().await, 0);
    let found = remains(&place.again().await, &[]).await.unwrap();
    assert!(found.is_clean(), "{found:?}");
    assert_eq!(
        verify(&place.again().await).await.unwrap().damaged,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_bucket_is_healed_too() {
    let copies = Copies::new().await;
    copies.backup("backup").await.unwrap();
    let server = Server::start().await;
    copy(copies.source(), server.store(), Purpose::Restore, false)
        .await
        .unwrap();
    let names: Vec<String> = copies
        .place
        .archive
        .latest()
        .await
        .unwrap()
        .names()
        .into_iter()
        .collect();
    for (number, name) in names.iter().enumerate() {
        match number % 3 {
            0 => server.store().delete(name).await.unwrap(),
            1 => server.store().put_object(name, Bytes::from_static(b"")).await.unwrap(),
            _ => server
                .store()
                .put_object(name, Bytes::from_static(b"something else"))
                .await
                .unwrap(),
        }
    }
    let healed = heal(server.store(), copies.folder("backup")).await.unwrap();
    assert_eq!((healed.healed, healed.damaged), (names, vec![]));
    let found = Archive::open_in(server.store(), URL, secret(), Tuning::default()).await;
    assert_same(&copies.place.archive, &found.unwrap()).await;
}

#[tokio::test]
async fn models_come_along_verified() {
    let dir = tempfile::tempdir().unwrap();
    let url = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut new = new_archive(IdentityMode::Anonymous);
    new.model = Some(NewModel {
        card: serde_json::json!({"name": "m"}),
        torchscript: Some(Bytes::from_static(b"torchscript")),
    });
    let archive = Archive::create(&url("archive"), new, secret()).await.unwrap();
    backup(&url("archive"), &url("backup"), false, &|_| {}).await.unwrap();
    restore(&url("backup"), &url("restored"), false, &|_| {}).await.unwrap();
    let restored = Archive::open(&url("restored"), secret()).await.unwrap();
    let model = restored.latest().await.unwrap().model.clone().unwrap();
    assert_eq!(restored.read_model(&model).await.unwrap(), b"torchscript".as_slice());
    assert_eq!(archive.latest().await.unwrap(), restored.latest().await.unwrap());

    std::fs::write(dir.path().join("archive").join(model.object().unwrap()), "torchscripT").unwrap();
    let error = backup(&url("archive"), &url("other"), false, &|_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains(MODELS), "{error}");
    let stores = ["archive", "backup"].map(|name| Store::open(&url(name)).unwrap());
    let [there, kept] = stores;
    assert_eq!(heal(there, kept).await.unwrap().healed, [model.object().unwrap()]);
    assert_eq!(archive.read_model(&model).await.unwrap(), b"torchscript".as_slice());

    let none = backup(&url("nowhere"), &url("never"), false, &|_| {}).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!dir.path().join("never").exists());
    let itself = backup(&url("backup"), &format!("{}/", url("backup")), false, &|_| {}).await;
    assert_eq!(itself.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn an_archive_that_is_collected_meanwhile_is_copied_from_its_newest_version() {
    let copies = Copies::new().await;
    let faults = Arc::new(Faults::default());
    let other = copies.place.again().await;
    // While the first object is written to the backup: the others are merged away.
    *lock(&faults.meanwhile) = Some(Box::pin(async move {
        compact_after(&other, Duration::ZERO, Duration::ZERO).await.unwrap();
    }));
    let old = copies.place.archive.latest().await.unwrap();
    let to = faulty_at(&copies.folder("backup"), &faults, "copy");
    let done = copy(copies.source(), to, Purpose::Backup, false).await.unwrap();
    assert!(lock(&faults.meanwhile).is_none(), "it did happen");
    let newest = copies.place.archive.latest().await.unwrap();
    assert!(newest.version > old.version && newest.names().is_disjoint(&old.names()));
    assert_eq!(done.version, newest.version);
    assert_same(&copies.place.archive, &copies.opened("backup").await).await;
}

#[tokio::test]
async fn other_archives_and_other_lines_are_refused() {
    let copies = Copies::new().await;
    let refused = |done: Result<Copied>, word: &str| {
        let error = done.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.message().contains(word), "{error}");
    };
    let foreign = Copies::new().await;
    foreign.backup("backup").await.unwrap();
    let before = files(&foreign.path("backup"));
    refused(
        copy(copies.source(), foreign.folder("backup"), Purpose::Backup, false).await,
        "another archive",
    );
    refused(
        copy(copies.source(), foreign.source(), Purpose::Backup, false).await,
        "not a backup",
    );
    refused(
        copy(copies.source(), foreign.source(), Purpose::Restore, false).await,
        "already",
    );
    assert_eq!(files(&foreign.path("backup")), before);
    std::fs::create_dir_all(copies.path("junk/rows")).unwrap();
    std::fs::write(copies.path("junk/rows/abc"), "whose?").unwrap();
    refused(copies.backup("junk").await, "empty place");

    // Restored and written to, beside the archive that goes on too.
    copies.backup("old").await.unwrap();
    copies.restore("old", "twin").await.unwrap();
    copies.write(8).await;
    copies.backup("backup").await.unwrap();
    refused(
        copy(copies.folder("twin"), copies.folder("backup"), Purpose::Backup, false).await,
        "newer",
    );
    let twin = copies.opened("twin").await;
    twin.append(vec![image(&twin, 9, None)], None).await.unwrap();
    refused(
        copy(copies.folder("twin"), copies.folder("backup"), Purpose::Backup, false).await,
        "both were written to",
    );
    twin.append(vec![image(&twin, 10, None)], None).await.unwrap();
    refused(
        copy(copies.folder("twin"), copies.folder("backup"), Purpose::Backup, false).await,
        "both were written to",
    );
    assert_same(&copies.place.archive, &copies.opened("backup").await).await;
}

#[tokio::test]
async fn what_is_erased_is_gone_from_the_backup_after_its_next_run() {
    let copies = Copies::new().await;
    let archive = &copies.place.archive;
    copies.backup("backup").await.unwrap();
    let report = NewReport::new(id(archive, 3), Some(class("COVID")), None, "not mine").unwrap();
    archive.report(&report).await.unwrap();
    copies.backup("backup").await.unwrap();
    // What an interrupted backup left, and no version there names.
    let left = copies.path("backup").join(format!("pixels/{}", "0".repeat(64)));
    std::fs::write(&left, "pixels 3").unwrap();
    let has = |text: String| super::upkeep::on_disk(&copies.path("backup"), text.as_bytes());
    let image = id(archive, 3).to_string();
    assert!(has("pixels 3".into()) && has("thumbnail 3".into()) && has(image.clone()));

    writer(archive)
        .await
        .write(Change::Delete { id: id(archive, 3) })
        .await
        .unwrap();
    compact_after(archive, Duration::ZERO, Duration::ZERO).await.unwrap();
    let done = copies.backup("backup").await.unwrap();
    assert!(done.objects_removed >= 4, "{done:?}");
    assert!(left.exists(), "another backup may just have written it");
    copy_later(
        copies.source(),
        copies.folder("backup"),
        Purpose::Backup,
        false,
        SignedDuration::from_hours(21),
    )
    .await
    .unwrap();
    assert!(!has("pixels 3".into()) && !has("thumbnail 3".into()) && !has(image.clone()));
    assert!(
        files(&copies.path("backup")).iter().all(|name| !name.contains(&image)),
        "its report"
    );
    assert_eq!(files(&copies.path("backup/manifest")).len(), 1);
    assert_same(archive, &copies.opened("backup").await).await;
}

#[tokio::test]
async fn two_backups_at_a_time_leave_a_whole_one() {
    let copies = Copies::new().await;
    copies.backup("backup").await.unwrap();
    let faults = Arc::new(Faults::default());
    copies.write(8).await;
    let (from, to) = (copies.source(), copies.folder("backup"));
    let other = copies.place.again().await;
    // While the first one puts its manifest the archive goes on, and a second backup is made.
    *lock(&faults.meanwhile) = Some(Box::pin(async move {
        compact_after(&other, Duration::ZERO, Duration::ZERO).await.unwrap();
        copy(from, to, Purpose::Backup, false).await.unwrap();
    }));
    let slow = faulty(&copies.folder("backup"), &faults);
    copy(copies.source(), slow, Purpose::Backup, false).await.unwrap();
    assert!(lock(&faults.meanwhile).is_none(), "it did happen");
    assert_same(&copies.place.archive, &copies.opened("backup").await).await;
    assert_eq!(files(&copies.path("backup/manifest")).len(), 1);
}
