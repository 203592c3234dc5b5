//! Labels: what one more file says of a known image, and what was settled.

use super::*;
use crate::domain::LabelledBy;

/// File `bytes` of the pixels of image `number`, under a name of its own.
fn file(archive: &Archive, number: u32, bytes: u8, label: Option<&str>) -> NewImage {
    let mut image = image(archive, number, label);
    if bytes > 0 {
        image.record.file_key = archive.identity().file_key(&[bytes; 32]);
        image.record.file = Some(format!("{number}-{bytes}.png"));
        let original = serde_json::json!({"file": image.record.file});
        image.record.sealed = archive.identity().seal(&original, image.record.file_key).unwrap();
    }
    image
}

fn relabel(archive: &Archive, label: Option<&str>) -> Change {
    Change::Relabel {
        id: id(archive, 1),
        class: label.map(class),
        label_source: label.map(|_| LabelSource::Biopsy),
    }
}

#[tokio::test]
async fn a_corrected_label_outlives_the_folder_that_it_corrects() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let folder = || {
        vec![
            file(archive, 1, 0, Some("COVID")),
            file(archive, 1, 7, Some("Pneumonia")),
        ]
    };
    let done = archive.append(folder(), None).await.unwrap();
    assert_eq!((done.inserted, done.conflicts), (1, 1));
    let writer = writer(archive).await;
    for label in [Some("Normal"), None, Some("Normal")] {
        let version = writer.write(relabel(archive, label)).await.unwrap().version;
        let done = archive.append(folder(), None).await.unwrap();
        assert_eq!((done.version, done.duplicates, done.conflicts), (version, 2, 0));
        for image in folder() {
            let done = writer.write(Change::Insert(Box::new(image))).await.unwrap();
            assert_eq!((done.version, done.outcome), (version, Outcome::Duplicate));
            assert_eq!((done.class, done.label_conflict), (label.map(class), false));
        }
        let found = &contents(&place.again().await).await[&id(archive, 1)];
        assert_eq!((super::label(found), found.votes()), (label, label.is_some()));
    }
    // Another opinion on the same file is one.
    let done = writer.write(insert(archive, 1, Some("Tuberculosis"))).await.unwrap();
    assert_eq!((done.outcome, done.label_conflict), (Outcome::Conflict, true));
    assert_eq!(
        done.class,
        Some(class("Normal")),
        "the one it has, not the one that was asked for"
    );
}

#[tokio::test]
async fn one_by_one_or_all_at_once_is_the_same() {
    let none = |bytes| (bytes, None);
    let some = |bytes, label| (bytes, Some(label));
    let orders: [&[(u8, Option<&str>)]; 7] = [
        &[none(0), some(0, "COVID")],
        &[none(0), some(1, "COVID")],
        &[some(0, "COVID"), none(1)],
        &[none(0), none(1), some(2, "COVID"), some(3, "Normal")],
        &[some(0, "COVID"), some(0, "Normal"), some(0, "COVID")],
        &[none(0), some(1, "COVID"), some(1, "COVID"), none(0)],
        &[some(0, "COVID"), some(1, "Normal"), some(1, "Normal"), none(1)],
    ];
    for order in orders {
        let (singly, at_once, later) = (
            Place::new(IdentityMode::Linked).await,
            Place::new(IdentityMode::Linked).await,
            Place::new(IdentityMode::Linked).await,
        );
        let files = |archive: &Archive, files: &[(u8, Option<&str>)]| -> Vec<_> {
            files
                .iter()
                .map(|&(bytes, label)| file(archive, 1, bytes, label))
                .collect()
        };
        let writer = writer(&singly.archive).await;
        for image in files(&singly.archive, order) {
            writer.write(Change::Insert(Box::new(image))).await.unwrap();
        }
        at_once
            .archive
            .append(files(&at_once.archive, order), None)
            .await
            .unwrap();
        later
            .archive
            .append(files(&later.archive, &order[..1]), None)
            .await
            .unwrap();
        later
            .archive
            .append(files(&later.archive, &order[1..]), None)
            .await
            .unwrap();
        let mut all = Vec::new();
        for place in [&singly, &at_once, &later] {
            let mut found = contents(&place.again().await)
                .await
                .remove(&id(&place.archive, 1))
                .unwrap();
            // Times and nonces differ.
            found.sealed = None;
            found.aliases.iter_mut().for_each(|alias| alias.sealed = None);
            found.history.iter_mut().for_each(|change| change.at.clear());
            found.thumbnail = None;
            found.pixels = None;
            let version = place.archive.latest().await.unwrap().version;
            place.archive.append(files(&place.archive, order), None).await.unwrap();
            assert_eq!(
                place.archive.latest().await.unwrap().version,
                version,
                "again: {order:?}"
            );
            all.push(found);
        }
        assert_eq!(all[0], all[1], "{order:?}");
        assert_eq!(all[0], all[2], "{order:?}");
        let first = order.iter().find_map(|&(_, label)| label);
        assert_eq!(label(&all[0]), first, "{order:?}");
    }
}

#[tokio::test]
async fn an_instance_sent_again_under_another_uid_is_not_lost() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(insert(archive, 1, Some("COVID"))).await.unwrap();
    let mut again = file(archive, 1, 9, Some("COVID"));
    again.record.sop = archive.identity().sop_key("1.2.3");
    again.record.study = archive.identity().study_key("1.2");
    again.record.label_source = Some(LabelSource::Pcr);
    for version in [3, 3] {
        let done = writer.write(Change::Insert(Box::new(again.clone()))).await.unwrap();
        assert_eq!((done.version, done.outcome), (version, Outcome::Duplicate));
    }
    let found = &contents(&place.again().await).await[&id(archive, 1)];
    let [alias] = found.aliases.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((alias.sop, alias.study), (again.record.sop, again.record.study));
    assert_eq!(alias.label_source, Some(LabelSource::Pcr));
    assert_eq!(alias.ingested_at, Some(again.record.ingested_at));
    assert!(found.votes());
}

#[tokio::test]
async fn pixels_of_another_patient_are_told_as_a_conflict() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(insert(archive, 1, Some("COVID"))).await.unwrap();
    let mut other = image(archive, 2, Some("Normal"));
    other.record.pixel_key = image(archive, 1, None).record.pixel_key;
    let done = writer.write(Change::Insert(Box::new(other))).await.unwrap();
    assert_eq!((done.outcome, done.label_conflict), (Outcome::Inserted, true));
    let done = writer.write(relabel(archive, Some("Normal"))).await.unwrap();
    assert_eq!((done.class, done.label_conflict), (Some(class("Normal")), false));
}

#[tokio::test]
async fn classes_are_bounded() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = |numbers: std::ops::Range<u32>| {
        let of = |number: u32| image(archive, number, Some(&format!("class {number:04}")));
        numbers.map(of).collect::<Vec<_>>()
    };
    archive.append(images(0..999), None).await.unwrap();
    let error = archive.append(images(999..1001), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let writer = writer(archive).await;
    writer.write(insert(archive, 999, Some("last"))).await.unwrap();
    for change in [insert(archive, 1000, Some("more")), relabel(archive, Some("more"))] {
        assert_eq!(writer.write(change).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    writer.write(insert(archive, 1000, Some("last"))).await.unwrap();
    writer.write(relabel(archive, Some("last"))).await.unwrap();
    writer
        .write(insert(archive, 1001, Some("in place of the one that is gone")))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rule_disputes_nothing_that_somebody_said() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let by = |by: LabelledBy, bytes, label| {
        let mut image = file(archive, 1, bytes, Some(label));
        image.record.labelled_by = Some(by);
        Change::Insert(Box::new(image))
    };
    writer.write(by(LabelledBy::Tags, 0, "COVID")).await.unwrap();
    let done = writer.write(by(LabelledBy::File, 1, "Normal")).await.unwrap();
    assert_eq!((done.outcome, done.label_conflict), (Outcome::Conflict, true));
    writer.write(relabel(archive, Some("Pneumonia"))).await.unwrap();
    for (bytes, rule) in [(2, LabelledBy::Tags), (3, LabelledBy::File)] {
        let done = writer.write(by(rule, bytes, "Other")).await.unwrap();
        assert_eq!((done.outcome, done.label_conflict), (Outcome::Duplicate, false));
        assert_eq!(done.class, Some(class("Pneumonia")));
    }
    // A label that is taken away stays away.
    writer.write(relabel(archive, None)).await.unwrap();
    let done = writer.write(by(LabelledBy::Tags, 4, "Other")).await.unwrap();
    assert_eq!((done.outcome, done.class), (Outcome::Duplicate, None));
    let found = &contents(&place.again().await).await[&id(archive, 1)];
    assert_eq!(found.labelled_by, Some(LabelledBy::Api));
    let by = |at: usize| found.history[at].labelled_by.clone();
    assert_eq!([by(0), by(1)], [Some(LabelledBy::Tags), Some(LabelledBy::Api)]);
    // What comes with a label of its own is another opinion.
    let done = writer.write(relabel(archive, Some("Normal"))).await.unwrap();
    assert_eq!(done.class, Some(class("Normal")));
    let other = Change::Insert(Box::new(file(archive, 1, 5, Some("Other"))));
    assert_eq!(writer.write(other).await.unwrap().outcome, Outcome::Conflict);
}
