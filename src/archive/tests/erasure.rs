//! Nothing is left of whoever was deleted, and a command that says so when something is.

use std::path::Path;

use super::*;

/// The files under a folder that hold some bytes.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if std::fs::read(&path)
            .unwrap()
            .windows(needle.len())
            .any(|bytes| bytes == needle)
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// What an image leaves in files: its id, its vector, its pictures.
fn traces(archive: &Archive, number: u32) -> Vec<Vec<u8>> {
    let image = image(archive, number, None);
    let vector = image.vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    vec![
        image.record.id.to_string().into_bytes(),
        vector,
        image.thumbnail.unwrap(),
        image.pixels.unwrap().png,
    ]
}

#[tokio::test]
async fn what_was_deleted_is_found_until_it_is_collected_and_never_after() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (10..16).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let deleted = id(archive, 12);
    let folder = place.dir.path();
    let left = |number| -> Vec<usize> {
        let traces = traces(archive, number);
        traces.iter().map(|trace| files_with(folder, trace).len()).collect()
    };
    assert!(
        left(12).iter().all(|&files| files > 0),
        "the search finds what is there"
    );
    let before = remains(archive, &[deleted]).await.unwrap();
    assert_eq!((before.living.as_slice(), before.found.len()), (&[deleted][..], 0));

    let writer = writer(archive).await;
    writer.write(Change::Delete { id: deleted }).await.unwrap();
    let dead = remains(archive, &[deleted]).await.unwrap();
    assert!(!dead.is_clean() && dead.living.is_empty() && dead.since.is_some());
    assert_eq!(dead.found.len(), 1);
    assert!(dead.found[0].1.starts_with("rows/"));

    // Rewritten, but the old objects are still there for whoever reads an older version.
    let hour = Duration::from_secs(3600);
    compact_after(archive, hour, hour).await.unwrap();
    let kept = remains(archive, &[deleted]).await.unwrap();
    assert!(!kept.is_clean() && kept.found.len() == 1 && !kept.unnamed.is_empty() && kept.versions > 0);

    compact_after(archive, Duration::ZERO, Duration::ZERO).await.unwrap();
    let clean = remains(archive, &[deleted]).await.unwrap();
    assert!(clean.is_clean(), "{clean:?}");
    assert_eq!(left(12), [0; 4], "id, vector, small picture, picture");
    assert!(left(13).iter().all(|&files| files > 0));
}

/// As beside a server: every hour, and never before its time.
#[tokio::test]
async fn upkeep_leaves_nothing_within_a_day() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    // Too little of it for its own sake.
    let images = (10..40).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let deleted = id(archive, 12);
    let left = |number| {
        let traces = traces(archive, number);
        traces
            .iter()
            .filter(|trace| !files_with(place.dir.path(), trace).is_empty())
            .count()
    };
    writer(archive)
        .await
        .write(Change::Delete { id: deleted })
        .await
        .unwrap();
    let mut gone_after = None;
    for hour in 1..=24 {
        let later = place.at(SignedDuration::from_hours(hour)).await;
        maintain(&later, CompactSettings::default()).await.unwrap();
        if left(12) == 0 {
            gone_after = gone_after.or(Some(hour));
        }
    }
    let gone_after = gone_after.expect("it is gone within a day");
    assert!(
        gone_after > 2,
        "nothing is written for one image before it is due: {gone_after}"
    );
    assert_eq!((left(12), left(13)), (0, 4));
    assert!(remains(&place.again().await, &[deleted]).await.unwrap().is_clean());
}

#[tokio::test]
async fn what_can_t_be_read_is_no_proof() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    archive.append(vec![image(archive, 1, None)], None).await.unwrap();
    assert!(remains(archive, &[]).await.unwrap().is_clean());
    let rows = archive.latest().await.unwrap().rows[0].object.clone();
    let file = files_with(place.dir.path(), b"MSROWS1");
    std::fs::write(&file[0], b"MSROWS1 damaged").unwrap();
    let damaged = remains(&place.again().await, &[]).await.unwrap();
    assert_eq!((damaged.is_clean(), damaged.unread), (false, vec![rows]));
}
