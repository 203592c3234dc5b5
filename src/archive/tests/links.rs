//! Copies of a picture: what is remembered of them, and what becomes of it when images go.

use super::*;

/// Image `number`, said to be a copy of image `of`.
fn copy(archive: &Archive, number: u32, of: u32) -> Change {
    let mut image = image(archive, number, Some("COVID"));
    image.record.near_identical_to = Some(id(archive, of));
    Change::Insert(Box::new(image))
}

async fn links(archive: &Archive) -> BTreeMap<ImageId, Option<ImageId>> {
    let found = contents(archive).await.into_iter();
    found.map(|(id, record)| (id, record.near_identical_to)).collect()
}

/// Whether an id stands in any object that the newest version names.
async fn is_named(place: &Place, id: ImageId) -> bool {
    let archive = place.again().await;
    let manifest = archive.latest().await.unwrap();
    let named = |entry: &RowsEntry| std::fs::read(place.path().join(&entry.object)).unwrap();
    let id = id.to_string();
    let bytes = manifest.rows.iter().map(named).collect::<Vec<_>>();
    bytes
        .iter()
        .any(|bytes| bytes.windows(id.len()).any(|part| part == id.as_bytes()))
}

#[tokio::test]
async fn copies_of_a_deleted_image_stay_one_picture_and_nothing_names_it() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let images = (1..=6).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let mut ids: Vec<ImageId> = (1..=6).map(|number| id(archive, number)).collect();
    let (pair, mut four) = (ids.split_off(4), ids.clone());
    four.sort_unstable();
    let seen = [four.clone(), pair.clone()];
    archive.link(seen.concat(), seen.to_vec()).await.unwrap();
    let writer = writer(archive).await;
    for _ in 0..3 {
        // The one that the others name.
        let gone = four.remove(0);
        assert!(is_named(&place, gone).await);
        writer.write(Change::Delete { id: gone }).await.unwrap();
        let left = links(&place.again().await).await;
        for &own in &four {
            assert_eq!(left[&own], Some(four[0]).filter(|&root| root != own));
        }
        assert!(left.values().flatten().all(|to| left.contains_key(to)));
        compact_after(&place.again().await, Duration::ZERO, Duration::ZERO)
            .await
            .unwrap();
        assert!(!is_named(&place, gone).await);
        assert_eq!(links(&place.again().await).await, left);
    }
    // A chain: what a deleted image was a copy of takes over its copies.
    for (number, of) in [(7, 5), (8, 7)] {
        let done = writer.write(copy(archive, number, of)).await.unwrap();
        assert_eq!(done.near_identical_to, Some(id(archive, of)));
    }
    writer.write(Change::Delete { id: id(archive, 7) }).await.unwrap();
    assert_eq!(links(&place.again().await).await[&id(archive, 8)], Some(id(archive, 5)));
}

#[tokio::test]
async fn a_patient_goes_with_all_images_though_they_are_copies_of_each_other() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let whose = |number: u32| {
        let mut image = image(archive, number, Some("COVID"));
        image.record.patient = archive.identity().patient_key(None, "one");
        image.record.id = archive.identity().image_id(image.record.patient, &[number as u8; 32]);
        image
    };
    let (first, mut second) = (whose(1), whose(2));
    let of = first.record.id;
    second.record.near_identical_to = Some(of);
    writer.write(Change::Insert(Box::new(first))).await.unwrap();
    writer.write(Change::Insert(Box::new(second))).await.unwrap();
    writer.write(insert(archive, 3, None)).await.unwrap();
    let patient = archive.identity().patient_keys(None, "one").unwrap();
    let done = writer
        .write(Change::DeletePatient { patient, waited: false })
        .await
        .unwrap();
    assert_eq!(done.outcome, Outcome::Deleted { images: 2 });
    assert!(contents(&place.again().await).await.keys().eq([&id(archive, 3)]));
}

#[tokio::test]
async fn a_copy_under_another_class_is_a_conflict_and_one_of_an_unknown_image_is_none() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(insert(archive, 1, Some("Normal"))).await.unwrap();
    let done = writer.write(copy(archive, 2, 1)).await.unwrap();
    assert_eq!((done.outcome, done.label_conflict), (Outcome::Inserted, true));
    let relabel = Change::Relabel {
        id: id(archive, 1),
        class: Some(class("COVID")),
        label_source: None,
    };
    assert!(!writer.write(relabel).await.unwrap().label_conflict);
    let done = writer.write(copy(archive, 3, 9)).await.unwrap();
    assert_eq!((done.near_identical_to, done.label_conflict), (None, false));
}

#[tokio::test]
async fn what_is_found_among_all_takes_the_place_of_what_was_known() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let images = (1..=4).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let ids: Vec<ImageId> = (1..=4).map(|number| id(archive, number)).collect();
    let smallest = |of: &[ImageId]| of.iter().min().copied();
    let version = archive.link(ids.clone(), vec![ids[..3].to_vec()]).await.unwrap();
    let known = links(&place.again().await).await;
    for own in &ids[..3] {
        assert_eq!(known[own], smallest(&ids[..3]).filter(|root| root != own));
    }
    assert_eq!(known[&ids[3]], None);
    assert_eq!(
        archive.link(ids.clone(), vec![ids[..3].to_vec()]).await.unwrap(),
        version,
        "nothing new"
    );
    // An image that has gone meanwhile is left out, one that was not seen stays linked.
    writer(archive)
        .await
        .write(Change::Delete { id: ids[0] })
        .await
        .unwrap();
    let pair = [ids[1], ids[2]];
    let left = links(&place.again().await).await;
    assert_eq!(
        left.values().flatten().count(),
        1,
        "the two that are left are one picture"
    );
    archive.link(ids[..2].to_vec(), vec![]).await.unwrap();
    assert_eq!(
        links(&place.again().await).await,
        left,
        "nothing is known of the third now"
    );
    archive.link(pair.to_vec(), vec![]).await.unwrap();
    let known = links(&place.again().await).await;
    assert_eq!(known.values().flatten().count(), 0);
    archive
        .link(ids.clone(), vec![vec![ids[0], ids[2]], vec![ids[1], ids[3]]])
        .await
        .unwrap();
    let known = links(&place.again().await).await;
    assert_eq!(known[&ids[2]], None);
    let pair = [ids[1], ids[3]];
    assert!(
        pair.iter()
            .all(|own| known[own] == smallest(&pair).filter(|root| root != own))
    );
}

#[tokio::test]
async fn what_was_not_seen_stays_a_copy_of_what_it_was_one_of() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let images = (1..=5).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let ids: Vec<ImageId> = (1..=5).map(|number| id(archive, number)).collect();
    let both = |a: usize, b: usize| vec![ids[a], ids[b]];
    for (a, b) in [(0, 1), (3, 4)] {
        archive.link(both(a, b), vec![both(a, b)]).await.unwrap();
    }
    // The picture of the first could not be read this time, nor that of the fourth, which names or is named by what was seen.
    archive
        .link(vec![ids[1], ids[2], ids[4]], vec![both(1, 2)])
        .await
        .unwrap();
    let known = links(&place.again().await).await;
    for picture in [&ids[..3], &ids[3..]] {
        let root = picture.iter().min();
        for own in picture {
            assert_eq!(known[own].as_ref(), root.filter(|root| *root != own));
        }
    }
}

#[tokio::test]
async fn a_folder_joins_what_it_finds_to_what_is_there() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    archive
        .append(vec![image(archive, 1, None), image(archive, 2, None)], None)
        .await
        .unwrap();
    let mut bulk = archive.bulk().await.unwrap();
    for number in 3..6 {
        bulk.push(image(archive, number, None)).await.unwrap();
    }
    let ids: Vec<ImageId> = (1..=5).map(|number| id(archive, number)).collect();
    // One that is there goes before the rest is written.
    writer(archive)
        .await
        .write(Change::Delete { id: ids[1] })
        .await
        .unwrap();
    bulk.link(vec![vec![ids[0], ids[1], ids[2]], vec![ids[3], ids[4]]]);
    bulk.commit(None).await.unwrap();
    let known = links(&place.again().await).await;
    for picture in [[ids[0], ids[2]], [ids[3], ids[4]]] {
        let root = picture.into_iter().min();
        assert!(picture.iter().all(|own| known[own] == root.filter(|root| root != own)));
    }
}
