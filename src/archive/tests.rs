//! The archive's promises, tried on real folders: what was acknowledged is there, once, whatever fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;
use tokio::sync::watch;

use super::testing::{Faults, Place, class, image, insert, new_archive, secret, writer};
use super::*;
use crate::domain::{ImageId, LabelSource, Record};

/// Live records by id; fails when an image is there twice.
async fn contents(archive: &Archive) -> BTreeMap<ImageId, Record> {
    let state = State::load(archive).await.unwrap();
    let mut found = BTreeMap::new();
    for at in state.live() {
        let record = state.at(at);
        assert!(
            found.insert(record.id, Record::clone(record)).is_none(),
            "image {} is there twice",
            record.id
        );
        assert_eq!(state.find(record.id), Some(at));
    }
    assert_eq!(state.manifest.images(), found.len() as u64);
    found
}

fn label(record: &Record) -> Option<&str> {
    record.class.as_ref().map(|class| class.as_str())
}

fn id(archive: &Archive, number: u32) -> ImageId {
    image(archive, number, None).record.id
}

#[tokio::test]
async fn an_image_goes_through_its_life() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let (versions, version) = watch::channel(0);
    let writer = Writer::spawn(archive.clone(), WriterSettings::default(), versions)
        .await
        .unwrap();
    let one = id(archive, 1);

    let done = writer.submit(insert(archive, 1, Some("COVID"))).await.unwrap();
    assert_eq!(
        done,
        Committed {
            version: 2,
            outcome: Outcome::Inserted,
            id: Some(one)
        }
    );
    assert_eq!(*version.borrow(), 2);
    for known in [Some("COVID"), None] {
        let done = writer.submit(insert(archive, 1, known)).await.unwrap();
        assert_eq!(
            done,
            Committed {
                version: 2,
                outcome: Outcome::Duplicate,
                id: Some(one)
            }
        );
    }
    let done = writer.submit(insert(archive, 1, Some("Normal"))).await.unwrap();
    assert_eq!(
        done,
        Committed {
            version: 3,
            outcome: Outcome::Conflict,
            id: Some(one)
        }
    );
    let done = writer.submit(insert(archive, 1, Some("Normal"))).await.unwrap();
    assert_eq!(
        done,
        Committed {
            version: 3,
            outcome: Outcome::Conflict,
            id: Some(one)
        },
        "told once, written once"
    );
    let found = contents(&place.again().await).await;
    assert!(found[&one].label_conflict() && !found[&one].votes());
    assert_eq!(found[&one].aliases.len(), 1);
    assert_eq!(archive.latest().await.unwrap().classes, [class("COVID")]);

    let change = Change::Relabel {
        id: one,
        class: Some(class("Normal")),
        label_source: Some(LabelSource::Pcr),
    };
    let done = writer.submit(change.clone()).await.unwrap();
    assert_eq!(
        done,
        Committed {
            version: 4,
            outcome: Outcome::Relabelled,
            id: Some(one)
        }
    );
    assert_eq!(
        writer.submit(change).await.unwrap().version,
        4,
        "a label that stands already is not written again"
    );
    let found = &contents(&place.again().await).await[&one];
    assert!(found.votes());
    assert_eq!(
        (label(found), found.label_source),
        (Some("Normal"), Some(LabelSource::Pcr))
    );
    assert_eq!(found.history.len(), 1);
    assert_eq!(found.history[0].class, Some(class("COVID")));
    assert_eq!(
        archive.read_pack(found.thumbnail.as_ref().unwrap()).await.unwrap(),
        "thumbnail 1"
    );
    assert_eq!(
        archive.read_pack(&found.pixels.as_ref().unwrap().pack).await.unwrap(),
        "pixels 1"
    );
    assert_eq!(archive.latest().await.unwrap().classes, [class("Normal")]);

    let done = writer.submit(Change::Delete { id: one }).await.unwrap();
    assert_eq!(
        done,
        Committed {
            version: 5,
            outcome: Outcome::Deleted { images: 1 },
            id: Some(one)
        }
    );
    assert!(contents(&place.again().await).await.is_empty());
    assert!(archive.latest().await.unwrap().classes.is_empty());
    for gone in [
        Change::Delete { id: one },
        Change::Relabel {
            id: one,
            class: None,
            label_source: None,
        },
    ] {
        assert_eq!(writer.submit(gone).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let done = writer.submit(insert(archive, 1, None)).await.unwrap();
    assert_eq!((done.version, done.outcome), (6, Outcome::Inserted));

    let patient = image(archive, 1, None).record.patient.unwrap();
    let done = writer.submit(Change::DeletePatient { key: patient }).await.unwrap();
    assert_eq!((done.version, done.outcome), (7, Outcome::Deleted { images: 1 }));
    let done = writer.submit(Change::DeletePatient { key: patient }).await.unwrap();
    assert_eq!((done.version, done.outcome), (7, Outcome::Deleted { images: 0 }));
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn changes_of_one_commit_see_each_other() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let one = id(archive, 1);
    let changes = [
        insert(archive, 1, Some("COVID")),
        insert(archive, 1, Some("Normal")),
        Change::Relabel {
            id: one,
            class: Some(class("Normal")),
            label_source: None,
        },
        Change::Delete { id: one },
        Change::Delete { id: one },
        insert(archive, 1, Some("COVID")),
        insert(archive, 2, Some("COVID")),
        Change::Delete { id: id(archive, 2) },
    ];
    // The first is written alone, the others while it is.
    let all = futures_util::future::join_all(changes.into_iter().map(|change| writer.submit(change))).await;
    let outcomes: Vec<_> = all
        .iter()
        .map(|done| done.as_ref().ok().map(|done| done.outcome))
        .collect();
    let deleted = Some(Outcome::Deleted { images: 1 });
    let inserted = Some(Outcome::Inserted);
    assert_eq!(
        outcomes,
        [
            inserted,
            Some(Outcome::Conflict),
            Some(Outcome::Relabelled),
            deleted,
            None,
            inserted,
            inserted,
            deleted
        ]
    );
    let found = contents(&place.again().await).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&one]);
    assert!(found[&one].aliases.is_empty() && found[&one].history.is_empty());
    assert!(archive.latest().await.unwrap().version <= 3);
}

#[tokio::test]
async fn what_can_not_be_stored_is_refused_and_nothing_else() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let check = async |change: fn(&mut NewImage), kind: ErrorKind| {
        let mut image = image(&place.archive, 1, None);
        change(&mut image);
        let error = writer.submit(Change::Insert(Box::new(image))).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    };
    check(|image| image.vector.push(1.0), ErrorKind::WrongDimension).await;
    check(|image| image.vector[1] = f32::NAN, ErrorKind::InvalidRequest).await;
    check(|image| image.vector.fill(0.0), ErrorKind::InvalidRequest).await;
    check(
        |image| image.provenance.precision = "bf16".into(),
        ErrorKind::SpaceMismatch,
    )
    .await;
    check(|image| image.record.sealed = None, ErrorKind::Internal).await;
    check(
        |image| image.record.id = super::testing::record(1).id,
        ErrorKind::Internal,
    )
    .await;
    assert_eq!(archive.latest().await.unwrap().version, 1);
    assert!(writer.submit(insert(archive, 1, None)).await.is_ok());
}

#[tokio::test]
async fn archives_are_made_once_and_opened_with_their_secret() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let again = Archive::create(&place.url(), new_archive(IdentityMode::Anonymous), secret()).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
    let other = Archive::open(&place.url(), Secret::from_bytes([6; 32])).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::InvalidRequest);
    let empty = tempfile::tempdir().unwrap();
    let none = Archive::open(empty.path().to_str().unwrap(), secret()).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NotFound);
    let none = Archive::open(empty.path().join("none").to_str().unwrap(), secret()).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn models_come_back_verified() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("archive");
    let mut new = new_archive(IdentityMode::Anonymous);
    let torchscript = Some(Bytes::from_static(b"torchscript"));
    new.model = Some(NewModel {
        card: serde_json::json!({"name": "m"}),
        torchscript,
    });
    let archive = Archive::create(url.to_str().unwrap(), new, secret()).await.unwrap();
    let model = archive.latest().await.unwrap().model.clone().unwrap();
    assert!(!model.is_thumbnail());
    let out = dir.path().join("out");
    archive.read_model(&model, &out).await.unwrap();
    assert_eq!(std::fs::read(out.join("model.pt")).unwrap(), b"torchscript");
    std::fs::write(url.join(format!("models/{}/model.pt", model.digest)), "other code").unwrap();
    assert_eq!(
        archive.read_model(&model, &out).await.unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

/// What the fault tests do, one step after the other, and what has to be there afterwards.
struct Script {
    archive: Archive,
    writer: Option<Writer>,
    /// Image -> class, of what was acknowledged; `None`: deleted.
    acknowledged: BTreeMap<ImageId, Option<&'static str>>,
    /// Images whose last change was not acknowledged: either is right.
    open: BTreeSet<ImageId>,
    kinds: Vec<ErrorKind>,
}

impl Script {
    fn new(archive: Archive) -> Self {
        Self {
            archive,
            writer: None,
            acknowledged: BTreeMap::new(),
            open: BTreeSet::new(),
            kinds: vec![],
        }
    }

    async fn submit(&mut self, image: u32, change: Change, then: Option<&'static str>) {
        let id = id(&self.archive, image);
        let done = match &self.writer {
            Some(writer) => writer.submit(change).await,
            None => {
                // Merges come along: they are writes too.
                let settings = WriterSettings {
                    deltas_merge_at: 3,
                    ..WriterSettings::default()
                };
                match Writer::spawn(self.archive.clone(), settings, watch::channel(0).0).await {
                    Ok(writer) => {
                        let done = writer.submit(change).await;
                        self.writer = Some(writer);
                        done
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match done {
            Ok(_) => {
                self.acknowledged.insert(id, then);
                self.open.remove(&id);
            }
            Err(error) => {
                // A change of an image whose insertion failed finds none.
                if error.kind() != ErrorKind::NotFound {
                    self.open.insert(id);
                }
                self.kinds.push(error.kind());
            }
        }
    }

    async fn run(&mut self) {
        for number in 1..=4 {
            self.submit(
                number,
                insert(&self.archive.clone(), number, Some("COVID")),
                Some("COVID"),
            )
            .await;
        }
        let relabel = Change::Relabel {
            id: id(&self.archive, 2),
            class: Some(class("Normal")),
            label_source: None,
        };
        self.submit(2, relabel, Some("Normal")).await;
        let delete = Change::Delete {
            id: id(&self.archive, 3),
        };
        self.submit(3, delete, None).await;
        self.submit(5, insert(&self.archive.clone(), 5, Some("COVID")), Some("COVID"))
            .await;
    }

    async fn check(&self, archive: &Archive) {
        let found = contents(archive).await;
        for (id, expected) in &self.acknowledged {
            if !self.open.contains(id) {
                assert_eq!(found.get(id).and_then(label), *expected, "{id}");
            }
        }
        for record in found.values() {
            assert!(self.acknowledged.contains_key(&record.id) || self.open.contains(&record.id));
            archive.read_pack(record.thumbnail.as_ref().unwrap()).await.unwrap();
        }
        let verified = verify(archive).await.unwrap();
        assert!(verified.damaged.is_empty(), "{:?}", verified.damaged);
    }
}

/// Runs the script with a fault at every operation, then again without.
async fn at_every_operation(fault: fn(usize) -> Faults, reached: fn(&Faults) -> usize) -> Vec<ErrorKind> {
    let mut kinds = Vec::new();
    for number in 0.. {
        let place = Place::new(IdentityMode::Anonymous).await;
        let faults = Arc::new(fault(number));
        if let Ok(archive) = place.faulty(&faults).await {
            let mut script = Script::new(archive);
            script.run().await;
            script.check(&place.again().await).await;
            kinds.append(&mut script.kinds);
        }
        let mut again = Script::new(place.again().await);
        again.run().await;
        assert_eq!(again.kinds, [], "fault {number}");
        again.check(&place.again().await).await;
        if reached(&faults) <= number {
            println!("{number} operations");
            return kinds;
        }
    }
    unreachable!("the script ends")
}

#[tokio::test]
async fn killed_between_any_two_operations() {
    let stop = |number| Faults {
        stop_at: Some(number),
        ..Faults::default()
    };
    let kinds = at_every_operation(stop, Faults::operations).await;
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::NotFound)),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn an_unknown_outcome_at_any_operation() {
    let lie = |number| Faults {
        lie_at: Some(number),
        ..Faults::default()
    };
    let kinds = at_every_operation(lie, Faults::operations).await;
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::NotFound)),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_full_disk_at_any_write() {
    let full = |number| Faults {
        full_at: Some((number, number + 2)),
        ..Faults::default()
    };
    let kinds = at_every_operation(full, Faults::puts).await;
    assert!(kinds.contains(&ErrorKind::StorageFull));
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::NotFound)),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_writer_goes_on_when_there_is_space_again() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let faults = Arc::new(Faults {
        full_at: Some((0, 3)),
        ..Faults::default()
    });
    let archive = place.faulty(&faults).await.unwrap();
    let writer = writer(&archive).await;
    let refused = writer.submit(insert(&archive, 1, None)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    while faults.puts() <= 3 {
        let _ = writer.submit(insert(&archive, 1, None)).await;
    }
    assert!(writer.submit(insert(&archive, 1, None)).await.is_ok());
    assert_eq!(contents(&place.again().await).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_lose_nothing_and_double_nothing() {
    const WRITERS: u32 = 8;
    const EACH: u32 = 6;
    let place = Place::new(IdentityMode::Anonymous).await;
    let mut tasks = Vec::new();
    for number in 0..WRITERS {
        let archive = place.again().await;
        tasks.push(tokio::spawn(async move {
            let writer = writer(&archive).await;
            for image in 0..EACH {
                let own = insert(&archive, 100 * (number + 1) + image, Some("COVID"));
                // Everybody has the same one, too.
                let shared = insert(&archive, image, Some("COVID"));
                let (own, shared) = tokio::join!(writer.submit(own), writer.submit(shared));
                assert_eq!(own.unwrap().outcome, Outcome::Inserted);
                assert!(matches!(
                    shared.unwrap().outcome,
                    Outcome::Inserted | Outcome::Duplicate
                ));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let found = contents(&place.again().await).await;
    assert_eq!(found.len() as u32, WRITERS * EACH + EACH);
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
    // Every version names the one before.
    let store = place.archive.store();
    let newest = place.archive.latest().await.unwrap();
    for version in 2..=newest.version {
        let this = read_manifest(store, version).await.unwrap().unwrap();
        let before = read_manifest(store, version - 1).await.unwrap().unwrap();
        assert_eq!(this.parent, Some(before.commit));
    }
}

#[tokio::test]
async fn a_full_queue_and_too_many_deltas_send_callers_away() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let settings = WriterSettings {
        queue_max: 2,
        deltas_merge_at: 100,
        deltas_refuse_at: 3,
        ..WriterSettings::default()
    };
    let writer = Writer::spawn(archive.clone(), settings, watch::channel(0).0)
        .await
        .unwrap();
    let all = futures_util::future::join_all((0..10).map(|number| writer.submit(insert(archive, number, None)))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len(), 2);
    assert!(
        refused
            .into_iter()
            .all(|error| error.unwrap_err().kind() == ErrorKind::Overloaded)
    );
    for number in 10..12 {
        writer.submit(insert(archive, number, None)).await.unwrap();
    }
    let error = writer.submit(insert(archive, 12, None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        writer.submit(Change::Delete { id: id(archive, 11) }).await.is_ok(),
        "deleting makes room"
    );
}

#[tokio::test]
async fn small_writes_are_merged_and_keep_their_pictures() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let settings = WriterSettings {
        deltas_merge_at: 8,
        ..WriterSettings::default()
    };
    let writer = Writer::spawn(archive.clone(), settings, watch::channel(0).0)
        .await
        .unwrap();
    let mut state = State::load(archive).await.unwrap();
    for number in 0..40 {
        let done = writer.submit(insert(archive, number, Some("COVID"))).await.unwrap();
        if number % 4 == 3 {
            writer
                .submit(Change::Delete {
                    id: id(archive, number),
                })
                .await
                .unwrap();
        }
        if let Some(newer) = archive.after(state.manifest.version).await.unwrap() {
            state = state.advance(archive, newer).await.unwrap();
            assert!(state.manifest.version >= done.version);
            assert!(state.manifest.rows.len() <= 12, "{}", state.manifest.rows.len());
        }
    }
    // The last merge may still run behind the answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let archive = place.again().await;
    let manifest = archive.latest().await.unwrap();
    assert!(manifest.packs.len() <= 2 * manifest.rows.len());
    let found = contents(&archive).await;
    assert_eq!(found.len(), 30);
    for number in (0..40).filter(|number| number % 4 != 3) {
        let record = &found[&id(&archive, number)];
        let pixels = archive.read_pack(&record.pixels.as_ref().unwrap().pack).await.unwrap();
        assert_eq!(pixels, format!("pixels {number}"));
        let state = State::load(&archive).await.unwrap();
        let (object, row) = state.find(record.id).unwrap();
        assert_eq!(state.rows[object].vector(row)[0], number as f32 + 0.5);
    }
    assert!(verify(&archive).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn many_at_once_with_duplicates_and_conflicts() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.submit(insert(archive, 1, Some("COVID"))).await.unwrap();
    writer.submit(insert(archive, 2, Some("COVID"))).await.unwrap();
    let file = |number: u32, label: Option<&str>, file: &str| {
        let mut image = image(archive, number, label);
        image.record.file = Some(file.to_owned());
        image.record.sealed = archive.identity().seal(&serde_json::json!({"file": file})).unwrap();
        image
    };
    let images = || {
        vec![
            image(archive, 1, Some("COVID")),         // known as it is
            file(1, Some("COVID"), "COVID/copy.png"), // known under another name: an alias
            file(2, Some("Normal"), "Normal/2.png"),  // known under another class
            file(3, None, "none/3.png"),              // new, without a class
            file(3, Some("COVID"), "COVID/3.png"),    // the same with one: counts
            file(4, Some("COVID"), "COVID/4.png"),
            file(4, Some("Normal"), "Normal/4.png"), // a conflict within the set
            file(5, Some("Normal"), "Normal/5.png"),
        ]
    };
    let built = Arc::new(AtomicUsize::new(0));
    let graphs: GraphBuilder = {
        let built = Arc::clone(&built);
        Arc::new(move |rows| {
            built.fetch_add(rows.rows() as usize, Ordering::SeqCst);
            let parameters = GraphParameters {
                connectivity: 16,
                expansion_add: 128,
                expansion_search: 128,
                scalar: "f16".into(),
            };
            let class = rows.records[0].class.clone();
            Ok(vec![NewGraph {
                class,
                rows: 1,
                metric: None,
                parameters,
                bytes: b"graph".to_vec(),
            }])
        })
    };
    let done = archive.append(images(), Some(Arc::clone(&graphs))).await.unwrap();
    assert_eq!(
        done,
        Appended {
            version: 4,
            inserted: 3,
            duplicates: 3,
            conflicts: 2
        }
    );
    assert_eq!(built.load(Ordering::SeqCst), 3);

    let other = place.again().await;
    let found = contents(&other).await;
    let aliases = |number| {
        found[&id(archive, number)]
            .aliases
            .iter()
            .map(|alias| alias.file.clone().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(aliases(1), ["COVID/copy.png"]);
    assert_eq!(aliases(2), ["Normal/2.png"]);
    assert_eq!(label(&found[&id(archive, 3)]), Some("COVID"));
    assert_eq!(aliases(3), ["none/3.png"]);
    assert_eq!(aliases(4), ["Normal/4.png"]);
    let conflict = |number| found[&id(archive, number)].label_conflict();
    assert!(conflict(2) && conflict(4) && !conflict(1) && !conflict(5));
    let manifest = other.latest().await.unwrap();
    assert_eq!(other.read_graph(&manifest.graphs[0]).await.unwrap(), "graph");
    let pixels = found[&id(archive, 5)].pixels.as_ref().unwrap();
    assert_eq!(other.read_pack(&pixels.pack).await.unwrap(), "pixels 5");

    let done = archive.append(images(), Some(graphs)).await.unwrap();
    assert_eq!((done.version, done.inserted), (4, 0), "the same again changes nothing");
    assert!(verify(&other).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn bulk_and_single_writes_race() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let mut bulk = archive.bulk().await.unwrap();
    for number in 0..20 {
        bulk.push(image(archive, number, Some("COVID"))).await.unwrap();
    }
    // Another process comes first, with one of the same images.
    let other = place.again().await;
    let writer = writer(&other).await;
    writer.submit(insert(&other, 3, Some("COVID"))).await.unwrap();
    writer.submit(insert(&other, 50, Some("COVID"))).await.unwrap();
    let done = bulk.commit(None).await.unwrap();
    assert_eq!((done.inserted, done.duplicates), (19, 1));
    assert_eq!(contents(&place.again().await).await.len(), 21);
}

#[tokio::test]
async fn shards_hold_their_own_slots() {
    let dir = tempfile::tempdir().unwrap();
    let mut new = new_archive(IdentityMode::Anonymous);
    new.shards = 3;
    let archive = Archive::create(dir.path().join("a").to_str().unwrap(), new, secret())
        .await
        .unwrap();
    let images = (0..30).map(|number| image(&archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    writer(&archive).await.submit(insert(&archive, 99, None)).await.unwrap();
    let check = async |objects: usize| {
        let state = State::load(&archive).await.unwrap();
        assert_eq!(state.rows.len(), objects);
        for at in state.live() {
            let shard = state.manifest.shard(state.at(at).id.slot());
            assert!(state.manifest.rows[at.0].shards.contains(&shard));
        }
        assert_eq!(state.live().count(), 31);
    };
    check(4).await;
    compact(&archive, Duration::ZERO, Duration::ZERO).await.unwrap();
    check(3).await;
}

/// Whether any file below `folder` has these bytes.
fn on_disk(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .any(|path| match path.is_dir() {
            true => on_disk(&path, bytes),
            false => std::fs::read(&path)
                .unwrap()
                .windows(bytes.len())
                .any(|window| window == bytes),
        })
}

#[tokio::test]
async fn deletion_takes_the_bytes_along() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (0..5).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let writer = writer(archive).await;
    writer.submit(insert(archive, 5, Some("COVID"))).await.unwrap();
    writer.submit(Change::Delete { id: id(archive, 3) }).await.unwrap();
    let of_three = |text: &str| on_disk(&place.path(), format!("{text} 3").as_bytes());
    let named = || on_disk(&place.path(), id(archive, 3).to_string().as_bytes());
    assert!(
        of_three("pixels") && of_three("thumbnail") && named(),
        "kept until compaction"
    );

    let reader = State::load(archive).await.unwrap();
    let hour = Duration::from_secs(3600);
    let done = compact(archive, hour, 24 * hour).await.unwrap();
    assert_eq!(
        (done.manifests_deleted, done.objects_deleted),
        (0, 0),
        "a reader may be on the version before"
    );
    assert_eq!(reader.live().count(), 5);
    assert!(
        archive
            .read_pack(reader.record(id(archive, 2)).unwrap().thumbnail.as_ref().unwrap())
            .await
            .is_ok()
    );

    let later = place.at(SignedDuration::from_mins(61)).await;
    let done = compact(&later, hour, 24 * hour).await.unwrap();
    assert!(done.manifests_deleted >= 3 && done.objects_deleted >= 4, "{done:?}");
    assert!(!of_three("pixels") && !of_three("thumbnail") && !named());
    let fresh = place.again().await;
    assert_eq!(contents(&fresh).await.len(), 5);
    let verified = verify(&fresh).await.unwrap();
    assert_eq!((verified.damaged, verified.objects, verified.images), (vec![], 3, 5));
    let done = compact(&fresh, Duration::ZERO, Duration::ZERO).await.unwrap();
    assert_eq!(
        (done.version, done.objects_deleted),
        (fresh.latest().await.unwrap().version, 0),
        "nothing left to do"
    );
}

#[tokio::test]
async fn collection_spares_what_is_on_its_way() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let mut bulk = archive.bulk().await.unwrap();
    bulk.push(image(archive, 1, None)).await.unwrap();
    let orphan = Bytes::from_static(b"uploaded, never named");
    let (name, bytes) = store::object_name("pixels", orphan).await.unwrap();
    archive.store().put_object(&name, bytes).await.unwrap();
    std::fs::write(place.path().join("pixels/half#1"), "interrupted").unwrap();
    std::fs::write(place.path().join("pixels/README"), "not ours").unwrap();

    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
    let soon = place.at(SignedDuration::from_hours(23)).await;
    assert_eq!(compact(&soon, hour, day).await.unwrap().objects_deleted, 0);
    bulk.commit(None).await.unwrap();
    let later = place.at(SignedDuration::from_hours(25)).await;
    assert_eq!(compact(&later, hour, day).await.unwrap().objects_deleted, 2);
    assert!(!place.path().join(&name).exists());
    assert!(place.path().join("pixels/README").exists());
    assert_eq!(contents(&place.again().await).await.len(), 1);
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn whoever_slept_does_not_take_a_number_again() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let sleepy_clock = Arc::new(std::sync::Mutex::new(Timestamp::now()));
    let clock = Arc::clone(&sleepy_clock);
    let tuning = Tuning {
        clock: Arc::new(move || *lock(&clock)),
        ..Tuning::default()
    };
    let sleeper = Archive::open_in(
        store::Store::open(&place.url()).unwrap(),
        &place.url(),
        secret(),
        tuning,
    )
    .await
    .unwrap();
    let sleeping = writer(&sleeper).await;

    let awake = writer(&place.archive).await;
    for number in 1..=4 {
        awake.submit(insert(&place.archive, number, None)).await.unwrap();
    }
    compact(&place.archive, Duration::ZERO, Duration::ZERO).await.unwrap();
    let newest = place.archive.latest().await.unwrap().version;
    assert!(
        read_manifest(place.archive.store(), 2).await.unwrap().is_none(),
        "version 2 is collected"
    );

    *lock(&sleepy_clock) += SignedDuration::from_hours(2);
    let done = sleeping.submit(insert(&sleeper, 5, None)).await.unwrap();
    assert_eq!(done.version, newest + 1);
    assert_eq!(contents(&place.again().await).await.len(), 5);
}

#[tokio::test]
async fn damage_is_named() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (0..3).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let manifest = archive.latest().await.unwrap();
    assert_eq!(manifest.objects().count(), 3);
    for (name, _) in manifest.objects() {
        let path = place.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        for broken in [damaged, whole[..last].to_vec(), vec![]] {
            std::fs::write(&path, broken).unwrap();
            let found = verify(archive).await.unwrap().damaged;
            assert!(found.len() == 1 && found[0].contains(name), "{found:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let found = verify(archive).await.unwrap().damaged;
        assert!(
            found.len() == 1 && found[0].contains(name) && found[0].contains("missing"),
            "{found:?}"
        );
        std::fs::write(&path, whole).unwrap();
    }
    assert!(verify(archive).await.unwrap().damaged.is_empty());
    let path = place.path().join(Manifest::name(manifest.version));
    std::fs::write(path, "{").unwrap();
    assert_eq!(
        Archive::open(&place.url(), secret()).await.unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

#[tokio::test]
async fn a_linked_archive_gives_back_what_came_in() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let record = |number: u32, file: &str| {
        serde_json::json!({"id": format!("{number:032x}"), "file": file, "sha256": format!("{number:064x}"),
            "patient_id": format!("Patient {number}"), "added": {"by": ["others", 1.5]}})
    };
    let provenance = VectorProvenance {
        model: "unknown".into(),
        precision: "f32".into(),
        device: "cpu".into(),
        engine: "test".into(),
    };
    let file = |label: Option<&str>, records| ClassFile {
        space: manifest::tests::space(4),
        provenance: provenance.clone(),
        class: label.map(class),
        pseudonyms_of: None,
        records,
    };
    let covid = file(
        Some("COVID"),
        vec![
            record(1, "COVID/1.png"),
            record(1, "COVID/1 copy.png"),
            record(2, "COVID/ü.png"),
        ],
    );
    let none = file(None, vec![record(3, "3.png")]);
    let mut images = Vec::new();
    for (file, first) in [(&covid, 0.125f32), (&none, 7.0)] {
        for index in 0..file.records.len() {
            let record = file.record(index, archive.identity(), "2026-01-01T00:00:00Z").unwrap();
            // Two files with the same bytes have the same vector.
            let seed = if index == 1 { first } else { first + index as f32 };
            let vector = vec![seed, -0.0, f32::MIN_POSITIVE, 3e38];
            images.push(NewImage {
                record,
                vector,
                thumbnail: None,
                pixels: None,
                provenance: file.provenance.rows(),
            });
        }
    }
    let vectors: Vec<_> = images.iter().map(|image| image.vector.clone()).collect();
    assert_eq!(archive.append(images, None).await.unwrap().inserted, 3);

    let out = place.dir.path().join("out");
    assert_eq!(
        export(archive, &out).await.unwrap(),
        Exported { records: 4, classes: 2 }
    );
    assert_eq!(
        export(archive, &out).await.unwrap(),
        Exported { records: 4, classes: 2 },
        "again over the first"
    );
    let classes = load_folder(&out).unwrap();
    let mut expected = covid.clone();
    expected.records.swap(0, 1); // sorted by file
    assert_eq!(classes[0].file, expected);
    assert_eq!(classes[1].file, none);
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(classes[0].vectors.row(2)), bits(&vectors[2]));
    assert_eq!(bits(classes[0].vectors.row(1)), bits(&vectors[0]));
    assert_eq!(bits(classes[1].vectors.row(0)), bits(&vectors[3]));

    // A label of today comes along; another archive's files are not mixed in.
    let id = covid.record(2, archive.identity(), "").unwrap().id;
    let relabel = Change::Relabel {
        id,
        class: Some(class("Normal")),
        label_source: Some(LabelSource::Pcr),
    };
    writer(archive).await.submit(relabel).await.unwrap();
    let other = place.dir.path().join("other");
    export(archive, &other).await.unwrap();
    let normal = ClassFile::read(&other.join("Normal.json")).unwrap();
    assert_eq!(normal.records[0]["label_source"], "PCR");
    assert_eq!(normal.records[0]["patient_id"], "Patient 2");
    std::fs::write(out.join("Old.npy"), "").unwrap();
    assert_eq!(
        export(archive, &out).await.unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
}

#[tokio::test]
async fn an_anonymous_archive_gives_pseudonyms_that_can_be_indexed_again() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let mut alias = image(archive, 2, Some("COVID"));
    alias.record.file = Some("COVID/2 copy.png".into());
    let images = vec![
        image(archive, 1, Some("COVID")),
        image(archive, 2, Some("COVID")),
        alias,
        image(archive, 3, None),
    ];
    archive.append(images, None).await.unwrap();
    let out = place.dir.path().join("out");
    assert_eq!(
        export(archive, &out).await.unwrap(),
        Exported { records: 4, classes: 2 }
    );
    let text = std::fs::read_to_string(out.join("COVID.json")).unwrap();
    assert!(text.contains("\"identity\": \"pseudonym\"") && !text.contains("patient 1"));

    let again = Place::new(IdentityMode::Anonymous).await;
    let mut images = Vec::new();
    for ClassData { file, vectors } in load_folder(&out).unwrap() {
        for index in 0..vectors.rows {
            let record = file
                .record(index, again.archive.identity(), "2026-01-01T00:00:00Z")
                .unwrap();
            let provenance = file.provenance.rows();
            images.push(NewImage {
                record,
                vector: vectors.row(index).to_vec(),
                thumbnail: None,
                pixels: None,
                provenance,
            });
        }
    }
    let done = again.archive.append(images, None).await.unwrap();
    assert_eq!((done.inserted, done.duplicates, done.conflicts), (3, 1, 0));
    let (before, after) = (contents(archive).await, contents(&again.archive).await);
    for (id, old) in before {
        let new = &after[&id];
        assert_eq!(
            (new.patient, new.file_key, new.pixel_key),
            (old.patient, old.file_key, old.pixel_key)
        );
        assert_eq!(
            (&new.class, new.label_source, new.aliases.len()),
            (&old.class, old.label_source, old.aliases.len())
        );
    }
}

/// `cargo test --release --lib archive::tests::measure -- --ignored --nocapture`, with `TMPDIR` on the disk to measure.
#[tokio::test]
#[ignore = "prints figures"]
async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let mut new = new_archive(IdentityMode::Linked);
    new.space = manifest::tests::space(1280);
    let archive = Archive::create(dir.path().join("a").to_str().unwrap(), new, secret())
        .await
        .unwrap();
    let big = |number: u32| {
        let mut image = image(&archive, number, Some("COVID"));
        image.vector = (0..1280).map(|i| (number * 1280 + i) as f32).collect();
        image.thumbnail = Some(vec![1; 30_000]);
        image.pixels.as_mut().unwrap().png = vec![2; 80_000];
        image
    };
    let begin = Instant::now();
    archive
        .append(
            (0..21_165)
                .map(|number| {
                    let mut image = big(number);
                    image.thumbnail = None;
                    image.pixels = None;
                    image
                })
                .collect(),
            None,
        )
        .await
        .unwrap();
    println!("append of 21,165 rows without pictures: {:?}", begin.elapsed());
    let begin = Instant::now();
    State::load(
        &Archive::open(dir.path().join("a").to_str().unwrap(), secret())
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    println!("load of 21,165 rows: {:?}", begin.elapsed());
    let writer = writer(&archive).await;
    let mut single = Vec::new();
    for number in 100_000..100_200 {
        let change = Change::Insert(Box::new(big(number)));
        let begin = Instant::now();
        writer.submit(change).await.unwrap();
        single.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    single.sort();
    println!(
        "single insert: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
        single[100], single[180], single[198], single[199]
    );
    let changes: Vec<_> = (200_000..201_000)
        .map(|number| Change::Insert(Box::new(big(number))))
        .collect();
    let begin = Instant::now();
    let version = archive.latest().await.unwrap().version;
    let all = futures_util::future::join_all(changes.into_iter().map(|change| writer.submit(change))).await;
    assert!(all.iter().all(Result::is_ok));
    let versions = archive.latest().await.unwrap().version - version;
    println!("1000 inserts at once: {:?}, {versions} versions", begin.elapsed());
    let begin = Instant::now();
    println!("{:?}", compact(&archive, Duration::ZERO, Duration::ZERO).await.unwrap());
    println!("compaction: {:?}", begin.elapsed());
}
