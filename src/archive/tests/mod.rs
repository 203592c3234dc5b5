//! The archive's promises, tried on real folders: what was acknowledged is there, once, whatever fails.

mod audit;
mod backup;
mod bookmark;
mod bulk;
mod damage;
mod erasure;
mod evaluation;
mod exchange;
mod faults;
mod feedback;
mod inbox;
mod labels;
mod links;
mod local;
mod measure;
mod origins;
mod patients;
mod reembed;
mod reshard;
mod s3;
mod switch;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;
use tokio::sync::watch;

use super::testing::{
    Faults, Place, Write as _, class, image, insert, new_archive, secret, tuning, unread_metrics, writer,
};
use super::*;
use crate::domain::{ImageId, LabelSource, PatientKeys, Record};

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

/// Each rows object lies where its rows' slots say; large ones in one shard.
fn lies_in_its_shards(state: &State) {
    let manifest = &state.manifest;
    for (entry, object) in manifest.rows.iter().zip(&state.rows) {
        let of: BTreeSet<u32> = (object.records.iter())
            .map(|record| manifest.shard(record.id.slot()))
            .collect();
        assert!(entry.shards.iter().copied().eq(of));
        assert!(entry.delta || entry.shards.len() == 1, "large ones are of one shard");
    }
}

fn label(record: &Record) -> Option<&str> {
    record.class.as_ref().map(|class| class.as_str())
}

fn told(done: &Committed) -> (u64, Outcome, Option<ImageId>) {
    (done.version, done.outcome, done.id)
}

fn id(archive: &Archive, number: u32) -> ImageId {
    image(archive, number, None).record.id
}

#[tokio::test]
async fn an_image_goes_through_its_life() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let (versions, version) = watch::channel(0);
    let writer = Writer::spawn(archive.clone(), WriterSettings::default(), unread_metrics(), versions)
        .await
        .unwrap();
    let one = id(archive, 1);

    let done = writer.write(insert(archive, 1, Some("COVID"))).await.unwrap();
    assert_eq!(told(&done), (2, Outcome::Inserted, Some(one)));
    assert_eq!(*version.borrow(), 2);
    for known in [Some("COVID"), None] {
        let done = writer.write(insert(archive, 1, known)).await.unwrap();
        assert_eq!(told(&done), (2, Outcome::Duplicate, Some(one)));
    }
    let done = writer.write(insert(archive, 1, Some("Normal"))).await.unwrap();
    assert_eq!(told(&done), (3, Outcome::Conflict, Some(one)));
    let done = writer.write(insert(archive, 1, Some("Normal"))).await.unwrap();
    assert_eq!(told(&done), (3, Outcome::Conflict, Some(one)));
    let found = contents(&place.again().await).await;
    assert!(found[&one].label_conflict() && !found[&one].votes());
    assert_eq!(found[&one].aliases.len(), 1);
    assert_eq!(archive.latest().await.unwrap().classes, [class("COVID")]);

    let change = Change::Relabel {
        id: one,
        class: Some(class("Normal")),
        label_source: Some(LabelSource::Pcr),
    };
    let done = writer.write(change.clone()).await.unwrap();
    assert_eq!(told(&done), (4, Outcome::Relabelled, Some(one)));
    assert_eq!(
        writer.write(change).await.unwrap().version,
        4,
        "a label that stands already is not written again"
    );
    let found = &contents(&place.again().await).await[&one];
    assert!(found.votes());
    assert_eq!(
        (label(found), found.label_source.clone()),
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

    let done = writer.write(Change::Delete { id: one }).await.unwrap();
    assert_eq!(told(&done), (5, Outcome::Deleted { images: 1 }, Some(one)));
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
        assert_eq!(writer.write(gone).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let done = writer.write(insert(archive, 1, None)).await.unwrap();
    assert_eq!((done.version, done.outcome), (6, Outcome::Inserted));

    let patient = PatientKeys::of(&image(archive, 1, None).record).unwrap();
    let done = writer
        .write(Change::DeletePatient { patient, waited: false })
        .await
        .unwrap();
    assert_eq!((done.version, done.outcome), (7, Outcome::Deleted { images: 1 }));
    let done = writer
        .write(Change::DeletePatient { patient, waited: false })
        .await
        .unwrap();
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
    let all = futures_util::future::join_all(changes.into_iter().map(|change| writer.write(change))).await;
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
        let error = writer.write(Change::Insert(Box::new(image))).await.unwrap_err();
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
    assert!(writer.write(insert(archive, 1, None)).await.is_ok());
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
    assert_eq!(archive.read_model(&model).await.unwrap(), b"torchscript".as_slice());
    std::fs::write(url.join(format!("models/{}/model.pt", model.digest)), "other code").unwrap();
    assert_eq!(archive.read_model(&model).await.unwrap_err().kind(), ErrorKind::Damaged);
}

/// Compaction without graphs that spares what is younger.
async fn compact_after(archive: &Archive, manifest_age_min: Duration, object_age_min: Duration) -> Result<Collected> {
    let settings = CompactSettings {
        manifest_age_min,
        object_age_min,
        offline: true,
        ..CompactSettings::default()
    };
    compact(archive, settings).await
}
