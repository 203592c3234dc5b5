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
    let all = futures_util::future::join_all((0..10).map(|number| writer.write(insert(archive, number, None)))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len(), 2);
    assert!(
        refused
            .into_iter()
            .all(|error| error.unwrap_err().kind() == ErrorKind::Overloaded)
    );
    for number in 10..12 {
        writer.write(insert(archive, number, None)).await.unwrap();
    }
    let error = writer.write(insert(archive, 12, None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        writer.write(Change::Delete { id: id(archive, 11) }).await.is_ok(),
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
        let done = writer.write(insert(archive, number, Some("COVID"))).await.unwrap();
        if number % 4 == 3 {
            writer
                .write(Change::Delete {
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
        assert_eq!(state.rows[object].vector(row).unwrap()[0], number as f32 + 0.5);
    }
    assert!(verify(&archive).await.unwrap().damaged.is_empty());
}

/// Whether any file below `folder` has these bytes.
pub fn on_disk(folder: &std::path::Path, bytes: &[u8]) -> bool {
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
    writer.write(insert(archive, 5, Some("COVID"))).await.unwrap();
    writer.write(Change::Delete { id: id(archive, 3) }).await.unwrap();
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
async fn a_manifest_does_not_grow_with_the_number_of_versions() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let mut longest = [0, 0];
    for number in 0..240 {
        writer.write(insert(archive, number % 4, Some("COVID"))).await.unwrap();
        let delete = Change::Delete {
            id: id(archive, number % 4),
        };
        let version = writer.write(delete).await.unwrap().version;
        let bytes = std::fs::metadata(place.path().join(Manifest::name(version)))
            .unwrap()
            .len();
        let half = &mut longest[number as usize / 120];
        *half = bytes.max(*half);
    }
    let [first, second] = longest;
    assert!(
        second <= first + 100,
        "{first} bytes at most in the first half, {second} in the second"
    );
}

/// How many of these objects are on the disk.
fn still_there(place: &Place, names: &BTreeSet<String>) -> usize {
    names.iter().filter(|name| place.path().join(name).exists()).count()
}

#[tokio::test]
async fn what_no_version_knows_of_goes_by_its_age() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(insert(archive, 1, None)).await.unwrap();
    let named = archive.latest().await.unwrap();
    writer.write(Change::Delete { id: id(archive, 1) }).await.unwrap();
    writer.write(insert(archive, 2, None)).await.unwrap();
    // Nobody knows any more what they named.
    for version in 1..=named.version + 1 {
        std::fs::remove_file(place.path().join(Manifest::name(version))).unwrap();
    }
    let named = named.names();
    assert!(still_there(&place, &named) >= 2);
    for (hours, left) in [(2, true), (19, true), (21, false)] {
        let later = place.at(SignedDuration::from_hours(hours)).await;
        maintain(&later, CompactSettings::default()).await.unwrap();
        assert_eq!(still_there(&place, &named) > 0, left, "after {hours} hours");
    }
    assert_eq!(contents(&place.again().await).await.len(), 1);
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn one_old_version_that_can_not_be_read_keeps_nothing_else() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let mut named = BTreeSet::new();
    for number in 0..4 {
        writer.write(insert(archive, number, None)).await.unwrap();
        named.append(&mut archive.latest().await.unwrap().names());
        let delete = Change::Delete {
            id: id(archive, number),
        };
        writer.write(delete).await.unwrap();
    }
    writer.write(insert(archive, 9, None)).await.unwrap();
    let broken = Manifest::name(archive.latest().await.unwrap().version - 3);
    std::fs::write(place.path().join(broken), "{").unwrap();
    let before = still_there(&place, &named);
    for (hours, left) in [(2, true), (21, false)] {
        let later = place.at(SignedDuration::from_hours(hours)).await;
        maintain(&later, CompactSettings::default()).await.unwrap();
        let there = still_there(&place, &named);
        assert!(there < before, "what the other versions knew is gone");
        assert_eq!(there > 0, left, "what the broken one knew goes by age");
    }
    assert_eq!(contents(&place.again().await).await.len(), 1);
}

#[tokio::test]
async fn a_clock_that_was_wrong_once_keeps_nothing_for_ever() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    for number in 0..4 {
        writer.write(insert(archive, number, None)).await.unwrap();
    }
    let version = archive.latest().await.unwrap().version;
    let wrong = std::fs::File::options()
        .append(true)
        .open(place.path().join(Manifest::name(version - 2)))
        .unwrap();
    let ahead = std::time::SystemTime::now() + Duration::from_secs(1_000_000);
    wrong.set_modified(ahead).unwrap();
    let later = place.at(SignedDuration::from_hours(2)).await;
    maintain(&later, CompactSettings::default()).await.unwrap();
    for gone in 1..version {
        assert!(
            !place.path().join(Manifest::name(gone)).exists(),
            "version {gone} of {version}"
        );
    }
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

#[tokio::test]
async fn upkeep_rewrites_what_is_due_and_nothing_else() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (0..100).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let large = archive
        .latest()
        .await
        .unwrap()
        .objects()
        .map(|(name, _)| name.to_owned())
        .collect::<Vec<_>>();
    let writer = writer(archive).await;
    let has_large = |manifest: &Manifest| {
        let names: BTreeSet<&str> = manifest.objects().map(|(name, _)| name).collect();
        large.iter().all(|name| names.contains(name.as_str()))
    };
    for number in 200..203 {
        writer.write(insert(archive, number, Some("COVID"))).await.unwrap();
    }
    writer.write(Change::Delete { id: id(archive, 77) }).await.unwrap();
    let of_one =
        || on_disk(&place.path(), b"pixels 77") || on_disk(&place.path(), id(archive, 77).to_string().as_bytes());

    // Small writes are merged; the large object and its packs stay although a row of them is dead.
    for hour in [0, 1, 11] {
        let later = place.at(SignedDuration::from_hours(hour)).await;
        maintain(&later, CompactSettings::default()).await.unwrap();
        assert!(has_large(&later.latest().await.unwrap()), "hour {hour}");
    }
    let quiet = archive.latest().await.unwrap();
    assert_eq!(quiet.deltas(), 1, "{:?}", quiet.rows.len());
    let later = place.at(SignedDuration::from_hours(11)).await;
    let done = maintain(&later, CompactSettings::default()).await.unwrap();
    assert_eq!(done.version, quiet.version, "nothing to do, nothing written");
    assert!(of_one());

    // Half of the time is over.
    for hour in [13, 15] {
        let later = place.at(SignedDuration::from_hours(hour)).await;
        maintain(&later, CompactSettings::default()).await.unwrap();
    }
    assert!(!of_one(), "erased in time");
    let fresh = place.again().await;
    assert!(fresh.latest().await.unwrap().tombstones.is_empty());
    assert_eq!(contents(&fresh).await.len(), 102);
    assert!(verify(&fresh).await.unwrap().damaged.is_empty());

    // More than a tenth.
    for number in 10..25 {
        writer
            .write(Change::Delete {
                id: id(archive, number),
            })
            .await
            .unwrap();
    }
    maintain(&place.again().await, CompactSettings::default())
        .await
        .unwrap();
    let fresh = place.again().await;
    assert!(fresh.latest().await.unwrap().tombstones.is_empty());
    assert_eq!(contents(&fresh).await.len(), 87);
    assert!(verify(&fresh).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn a_pack_that_can_not_be_read_is_not_tried_for_ever() {
    for missing in [false, true] {
        let place = Place::new(IdentityMode::Anonymous).await;
        let archive = &place.archive;
        let images = (0..4).map(|number| image(archive, number, Some("COVID"))).collect();
        archive.append(images, None).await.unwrap();
        let pack = archive.latest().await.unwrap().packs[0].object.clone();
        let path = place.path().join(&pack);
        match missing {
            true => std::fs::remove_file(&path).unwrap(),
            false => std::fs::write(&path, "broken").unwrap(),
        }
        writer(archive)
            .await
            .write(Change::Delete { id: id(archive, 3) })
            .await
            .unwrap();
        let later = || place.at(SignedDuration::from_hours(13));
        let first = maintain(&later().await, CompactSettings::default()).await.unwrap();
        let manifest = place.again().await.latest().await.unwrap();
        assert!(manifest.tombstones.is_empty(), "the rows are merged all the same");
        assert!(manifest.packs.iter().any(|entry| entry.object == pack && entry.damaged));
        let again = maintain(&later().await, CompactSettings::default()).await.unwrap();
        assert_eq!(again.version, first.version);
        let by_hand = compact(&place.again().await, CompactSettings::default()).await.unwrap();
        assert_eq!(by_hand.version, first.version);
        assert_eq!(contents(&place.again().await).await.len(), 3);
    }
}

#[tokio::test]
async fn ages_that_are_not_safe_beside_others_are_refused() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let safe = CompactSettings::default();
    for (manifests, objects) in [(179, 13 * 3600), (180, 13 * 3600 - 1), (0, 0)] {
        let settings = CompactSettings {
            manifest_age_min: Duration::from_secs(manifests),
            object_age_min: Duration::from_secs(objects),
            ..safe.clone()
        };
        let error = compact(&place.archive, settings.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains("--offline"), "{error}");
        compact(
            &place.archive,
            CompactSettings {
                offline: true,
                ..settings
            },
        )
        .await
        .unwrap();
    }
    compact(&place.archive, safe).await.unwrap();
}

#[tokio::test]
async fn sweeping_beside_a_writer_does_not_mind_what_is_gone() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let folder = place.path().join("pixels");
    std::fs::create_dir_all(&folder).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let others = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for number in 0..50 {
                std::fs::write(folder.join(format!("half#{number}")), "x").unwrap();
            }
            for number in 0..50 {
                // The sweeper may have been first.
                let _ = std::fs::remove_file(folder.join(format!("half#{number}")));
            }
        }
    });
    for _ in 0..300 {
        place
            .archive
            .store()
            .sweep_interrupted("pixels", Timestamp::now())
            .await
            .unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    others.join().unwrap();
}
