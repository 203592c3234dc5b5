//! Bounds, merging, compaction.

use super::*;

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
    let writer = Writer::spawn(archive.clone(), settings, unread_metrics(), watch::channel(0).0)
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
    let writer = Writer::spawn(archive.clone(), settings, unread_metrics(), watch::channel(0).0)
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
    let done = compact_after(archive, hour, 24 * hour).await.unwrap();
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
    let done = compact_after(&later, hour, 24 * hour).await.unwrap();
    assert!(done.manifests_deleted >= 3 && done.objects_deleted >= 4, "{done:?}");
    assert!(!of_three("pixels") && !of_three("thumbnail") && !named());
    let fresh = place.again().await;
    assert_eq!(contents(&fresh).await.len(), 5);
    let verified = verify(&fresh).await.unwrap();
    assert_eq!((verified.damaged, verified.objects, verified.images), (vec![], 3, 5));
    let done = compact_after(&fresh, Duration::ZERO, Duration::ZERO).await.unwrap();
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
    assert_eq!(compact_after(&soon, hour, day).await.unwrap().objects_deleted, 0);
    bulk.commit(None).await.unwrap();
    let later = place.at(SignedDuration::from_hours(25)).await;
    assert_eq!(compact_after(&later, hour, day).await.unwrap().objects_deleted, 2);
    assert!(!place.path().join(&name).exists());
    assert!(place.path().join("pixels/README").exists());
    assert_eq!(contents(&place.again().await).await.len(), 1);
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
}
