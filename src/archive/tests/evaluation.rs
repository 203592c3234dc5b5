//! An evaluation is kept, replaced, carried along and collected.

use serde_json::json;

use super::*;

pub fn evaluation(archive_version: u64, accuracy: f64) -> NewEvaluation {
    NewEvaluation {
        made: Made {
            made_at: Timestamp::UNIX_EPOCH,
            made_on: archive_version,
            images: BTreeMap::from([(class("COVID"), 4)]),
            split: "Each image without its group.".into(),
            space: new_archive(IdentityMode::Anonymous).space.id(),
            metric: None,
            learned: false,
            other: Default::default(),
        },
        report: json!({"accuracy": accuracy}),
    }
}

#[tokio::test]
async fn one_is_kept_and_carried_along_by_every_writer() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (0..4).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let before = archive.latest().await.unwrap();
    assert!(before.evaluation.is_none());

    let new = evaluation(before.version, 0.5);
    let version = archive.keep_evaluation(new.clone()).await.unwrap();
    assert_eq!(version, before.version + 1);
    let entry = archive.latest().await.unwrap().evaluation.clone().unwrap();
    assert_eq!(entry.made, new.made);
    let other = place.again().await;
    assert_eq!(other.read_evaluation(&entry).await.unwrap(), new.report);
    assert!(verify(&other).await.unwrap().damaged.is_empty());

    archive
        .append(vec![image(archive, 4, Some("COVID"))], None)
        .await
        .unwrap();
    let writer = writer(archive).await;
    writer.write(Change::Delete { id: id(archive, 0) }).await.unwrap();
    archive.switch(Learned::default(), None).await.unwrap();
    let settings = CompactSettings {
        manifest_age_min: Duration::ZERO,
        object_age_min: Duration::ZERO,
        graphs: None,
        offline: true,
        ..CompactSettings::default()
    };
    compact(archive, settings.clone()).await.unwrap();
    let latest = archive.latest().await.unwrap();
    assert_eq!(latest.evaluation.as_ref(), Some(&entry));
    assert_eq!(archive.read_evaluation(&entry).await.unwrap(), new.report);

    // The next takes its place, and collection the first.
    archive.keep_evaluation(evaluation(latest.version, 0.75)).await.unwrap();
    let latest = archive.latest().await.unwrap();
    assert_eq!(latest.superseded, std::slice::from_ref(&entry.object));
    compact(archive, settings).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(place.path().join("evaluations")).unwrap().collect();
    assert_eq!(left.len(), 1);
    let second = latest.evaluation.clone().unwrap();
    assert_eq!(
        archive.read_evaluation(&second).await.unwrap(),
        json!({"accuracy": 0.75})
    );
}

#[tokio::test]
async fn a_damaged_one_is_named_and_one_that_is_too_large_refused() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let mut large = evaluation(1, 0.5);
    large.report = json!("x".repeat(17 << 20));
    let error = archive.keep_evaluation(large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(archive.latest().await.unwrap().version, 1);

    archive.keep_evaluation(evaluation(1, 0.5)).await.unwrap();
    let entry = archive.latest().await.unwrap().evaluation.clone().unwrap();
    let path = place.path().join(&entry.object);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = verify(archive).await.unwrap().damaged;
    assert!(
        matches!(damaged.as_slice(), [one] if one.contains(&entry.object)),
        "{damaged:?}"
    );
    let error = archive.read_evaluation(&entry).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}
