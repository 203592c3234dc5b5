//! Reports about labels: durable, bounded, unreadable without the secret, gone with their image.

use super::*;

fn report(image: ImageId, reason: &str) -> NewReport {
    NewReport::new(image, Some(class("COVID")), Some(class("Normal")), reason).unwrap()
}

async fn with_images(count: u32) -> Place {
    let place = Place::new(IdentityMode::Anonymous).await;
    let images = (0..count)
        .map(|number| image(&place.archive, number, Some("COVID")))
        .collect();
    place.archive.append(images, None).await.unwrap();
    place
}

#[tokio::test]
async fn one_is_kept_listed_and_resolved() {
    let place = with_images(2).await;
    let archive = &place.archive;
    let version = archive.latest().await.unwrap().version;
    let kept = archive
        .report(&report(id(archive, 0), "  Jane Doe has no pneumonia \n"))
        .await
        .unwrap();
    assert_eq!(kept.reason, "Jane Doe has no pneumonia");
    assert_eq!(
        archive.latest().await.unwrap().version,
        version,
        "it does not make a version"
    );
    let second = archive.report(&report(id(archive, 1), "no")).await.unwrap();
    let other = place.again().await;
    let all = other.reports(None, 10).await.unwrap();
    let mut expected = vec![kept.clone(), second];
    expected.sort_by_key(|report| report.id);
    assert_eq!((&all.open, all.more), (&expected, false));
    let page = other.reports(None, 1).await.unwrap();
    assert_eq!((&page.open[..], page.more), (&expected[..1], true));
    let page = other.reports(Some(page.open[0].id), 10).await.unwrap();
    assert_eq!((&page.open[..], page.more), (&expected[1..], false));
    assert_eq!(kept.id.to_string().parse::<FeedbackId>().unwrap(), kept.id);
    assert!(!format!("{kept:?}").contains("Jane"));

    for file in std::fs::read_dir(place.path().join("feedback")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"Jane" || window == b"COVI"));
    }
    other.resolve(kept.id).await.unwrap();
    assert_eq!(archive.reports(None, 10).await.unwrap().open.len(), 1);
    assert_eq!(other.resolve(kept.id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn one_goes_with_its_image_and_no_other() {
    let place = with_images(3).await;
    let archive = &place.archive;
    for number in 0..3 {
        archive.report(&report(id(archive, number), "why")).await.unwrap();
    }
    assert_eq!(archive.erase_reports().await.unwrap(), 0);
    let writer = writer(archive).await;
    writer.write(Change::Delete { id: id(archive, 1) }).await.unwrap();
    // What a server does every hour.
    maintain(archive, CompactSettings::default()).await.unwrap();
    let left: BTreeSet<ImageId> = (archive.reports(None, 10).await.unwrap().open.iter())
        .map(|report| report.id.image)
        .collect();
    assert_eq!(left, BTreeSet::from([id(archive, 0), id(archive, 2)]));
}

#[tokio::test]
async fn one_image_takes_so_many_and_moved_or_changed_ones_do_not_open() {
    let place = with_images(2).await;
    let archive = &place.archive;
    let first = archive.report(&report(id(archive, 0), "why")).await.unwrap();
    for _ in 1..20 {
        archive.report(&report(id(archive, 0), "why")).await.unwrap();
    }
    let error = archive.report(&report(id(archive, 0), "why")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let second = archive.report(&report(id(archive, 1), "why")).await.unwrap();

    let path = |id: FeedbackId| place.path().join(format!("feedback/{id}"));
    std::fs::copy(path(second.id), path(first.id)).unwrap();
    let mut bytes = std::fs::read(path(second.id)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path(second.id), bytes).unwrap();
    let all = archive.reports(None, 100).await.unwrap();
    let mut unreadable = vec![first.id, second.id];
    unreadable.sort();
    assert_eq!((all.unreadable, all.open.len()), (unreadable, 19));
}

#[test]
fn what_says_nothing_or_too_much_is_refused() {
    let image = ImageId::new(crate::domain::Slot(1), crate::domain::Key([0; 16]));
    let new = |suggested: Option<&str>, reason: &str| {
        NewReport::new(image, Some(class("COVID")), suggested.map(class), reason).map(|_| ())
    };
    assert!(new(None, &"ä".repeat(500)).is_ok());
    assert!(new(Some("Normal"), "two\nlines").is_ok());
    for (suggested, reason) in [
        (None, " \n "),
        (None, "a\u{7}"),
        (Some("COVID"), "it is"),
        (None, &"a".repeat(501)),
    ] {
        assert_eq!(
            new(suggested, reason).unwrap_err().kind(),
            ErrorKind::InvalidRequest,
            "{reason}"
        );
    }
    for odd in [
        "",
        "x",
        "../../secret",
        &"0".repeat(69),
        &format!("{image}-{}", "A".repeat(32)),
    ] {
        assert!(odd.parse::<FeedbackId>().is_err(), "{odd}");
    }
}
