//! What followed systems had: written down before it is taken, sealed, and there after a restore.

use std::collections::HashSet;

use super::*;
use crate::archive::{ConfirmedSweep, Cursor, NAME_BYTES, Origin, RefusedSweep, backup, restore};
use crate::audit::{Head, ProcessId};
use crate::domain::{InstanceKeys, Key};

fn origin(number: u8) -> Origin {
    let file = (!number.is_multiple_of(2)).then_some(Key([number; 16]));
    let keys = InstanceKeys {
        sop: Key([number; 16]),
        file,
    };
    Origin {
        name: [number; NAME_BYTES],
        keys,
    }
}

async fn read(archive: &Archive, name: &str) -> Vec<u8> {
    let read = archive.origins(name).read().await.unwrap();
    let mut numbers: Vec<u8> = read.iter().map(|found| found.name[0]).collect();
    assert!(read.iter().all(|found| *found == origin(found.name[0])));
    numbers.sort_unstable();
    numbers
}

fn lists(place: &Place) -> usize {
    std::fs::read_dir(place.path().join("origins/front")).unwrap().count()
}

#[tokio::test]
async fn lists_add_up_and_are_put_together() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let book = place.archive.origins("front");
    assert_eq!(read(&place.archive, "front").await, Vec::<u8>::new());
    let one = book.note(&[origin(1), origin(2)]).await.unwrap();
    let two = book.note(&[origin(3)]).await.unwrap();
    let bytes = std::fs::read(place.path().join(&one)).unwrap();
    assert!(!bytes.windows(NAME_BYTES).any(|window| window == [1; NAME_BYTES]));
    assert_eq!(read(&place.again().await, "front").await, [1, 2, 3]);
    book.fold(&[one, two], &[origin(1), origin(2), origin(3)])
        .await
        .unwrap();
    book.note(&[origin(3), origin(4)]).await.unwrap();
    assert_eq!(
        (lists(&place), read(&place.archive, "front").await),
        (2, vec![1, 2, 3, 3, 4])
    );
    let known = book.read().await.unwrap();
    // What somebody else writes down meanwhile stays.
    place.again().await.origins("front").note(&[origin(5)]).await.unwrap();
    book.let_go(&known, &HashSet::from([[2; NAME_BYTES]])).await.unwrap();
    assert_eq!(
        (lists(&place), read(&place.archive, "front").await),
        (2, vec![1, 3, 4, 5])
    );
    let others = ["front".to_owned()];
    for (own, waits) in [("another", false), ("other", true)] {
        let elsewhere = place.archive.origins(own).elsewhere(&others).await.unwrap();
        let has = |number| elsewhere.has(Key([number; 16]));
        assert!([1, 3, 4, 5].into_iter().all(has) && !has(2));
        // The last by name keeps in mind what an earlier one has.
        assert_eq!(elsewhere.waits_for_earlier(Key([1; 16])), waits, "{own}");
    }
    let followed_no_more = place.archive.origins("other").elsewhere(&[]).await.unwrap();
    assert!(!followed_no_more.has(Key([1; 16])));
    assert_eq!(place.archive.origin_books().await.unwrap(), ["front"]);
    maintain(&place.archive, CompactSettings::default()).await.unwrap();
    assert_eq!(read(&place.archive, "front").await, [1, 3, 4, 5]);
    // Another list's name, or other bytes, and it does not open.
    let name = std::fs::read_dir(place.path().join("origins/front"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::rename(&name, name.with_file_name("0".repeat(32))).unwrap();
    assert_eq!(book.read().await.unwrap_err().kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn what_was_refused_and_confirmed_is_said_once() {
    let place = Place::new(IdentityMode::Linked).await;
    let book = place.archive.origins("front");
    let since = Timestamp::from_second(1_800_000_000).unwrap();
    let refused = |images| RefusedSweep { images, of: 9, since };
    assert!(book.refused().await.unwrap().is_none() && book.confirmed().await.unwrap().is_none());
    for images in [4, 5] {
        book.refuse(Some(&refused(images))).await.unwrap();
    }
    let other = place.again().await;
    assert_eq!(
        other.refused_sweeps().await.unwrap(),
        [("front".to_owned(), refused(5))]
    );
    let confirmed = ConfirmedSweep { images: 5, since };
    other.origins("front").confirm(Some(&confirmed)).await.unwrap();
    assert_eq!(book.confirmed().await.unwrap(), Some(confirmed));
    assert_eq!(
        read(&place.archive, "front").await,
        Vec::<u8>::new(),
        "they are no lists"
    );
    book.confirm(None).await.unwrap();
    book.refuse(None).await.unwrap();
    assert!(other.refused_sweeps().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_went_in_a_day_is_added_up() {
    let place = Place::new(IdentityMode::Linked).await;
    let book = place.archive.origins("front");
    let at = |minutes: i64| Timestamp::from_second(1_800_000_000 + 60 * minutes).unwrap();
    assert_eq!(book.gone_lately(at(0)).await.unwrap(), 0);
    for (minutes, images) in [(0, 3), (59, 4), (61, 5), (120, 6)] {
        book.let_images_go(images, at(minutes)).await.unwrap();
    }
    let lately = |minutes| {
        let book = place.archive.origins("front");
        async move { book.gone_lately(at(minutes)).await.unwrap() }
    };
    assert_eq!(lately(121).await, 18);
    // Within an hour of the first they count as long as that one.
    assert_eq!((lately(24 * 60 - 1).await, lately(24 * 60).await), (18, 11));
    assert_eq!(
        (
            lately(25 * 60 + 1).await,
            place.archive.origins("other").gone_lately(at(0)).await.unwrap()
        ),
        (0, 0)
    );
    assert_eq!(read(&place.archive, "front").await, Vec::<u8>::new(), "it is no list");
}

#[tokio::test]
async fn a_backup_has_them_and_a_bookmark_that_is_never_ahead() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let folder = |name: &str| place.dir.path().join(name).to_str().unwrap().to_owned();
    let cursor = |seq| Cursor {
        seq,
        date: "20260101T000000".into(),
    };
    let book = archive.origins("front");
    book.note(&[origin(1)]).await.unwrap();
    let bookmark = archive.bookmark("front");
    let mark = bookmark.write(0, Some("one"), &cursor(7)).await.unwrap().unwrap();
    let head = Head {
        process: ProcessId::random(),
        replica: "r".to_owned(),
        seq: 3,
        hash: "ab".repeat(32).parse().unwrap(),
        time: "2026-11-30T00:00:00Z".parse().unwrap(),
    };
    archive.keep_audit_head(&head).await.unwrap();
    backup(&place.url(), &folder("copy"), false, &|_| {}).await.unwrap();

    let known = book.read().await.unwrap();
    book.note(&[origin(2)]).await.unwrap();
    book.let_go(&known, &HashSet::from([[1; NAME_BYTES]])).await.unwrap();
    bookmark
        .write(mark.number, Some("one"), &cursor(9))
        .await
        .unwrap()
        .unwrap();
    let later = Head { seq: 5, ..head.clone() };
    archive.keep_audit_head(&later).await.unwrap();
    archive.drop_audit_head(head.process, head.seq).await.unwrap();
    let restored = async |name: &str| {
        restore(&folder("copy"), &folder(name), false, &|_| {}).await.unwrap();
        let restored = Archive::open(&folder(name), secret()).await.unwrap();
        let mark = restored.bookmark("front").read().await.unwrap().unwrap();
        let heads = restored.audit_heads().await.unwrap().heads;
        (mark.cursor.seq, read(&restored, "front").await, heads)
    };
    assert_eq!(restored("first").await, (7, vec![1], vec![head]));
    // The bookmark is read first: what happens while the rest is copied is done again after a restore.
    let faults = Arc::new(Faults::default());
    let moves = place.again().await;
    let meanwhile = async move {
        let mark = moves.bookmark("front").read().await.unwrap().unwrap();
        moves
            .bookmark("front")
            .write(mark.number, Some("two"), &cursor(11))
            .await
            .unwrap()
            .unwrap();
    };
    *lock(&faults.meanwhile) = Some(Box::pin(meanwhile));
    writer(archive).await.write(insert(archive, 1, None)).await.unwrap();
    let copy = crate::archive::copy::Copy {
        from: archive.store().clone(),
        to: crate::archive::testing::faulty(&crate::archive::store::Store::open(&folder("copy")).unwrap(), &faults),
        purpose: crate::archive::copy::Purpose::Backup,
        reread: false,
        tuning: tuning(),
        step: &|_| {},
    };
    copy.run().await.unwrap();
    assert!(
        lock(&faults.meanwhile).is_none(),
        "it moved while the version was written"
    );
    assert_eq!(restored("second").await, (9, vec![2], vec![later]));
}
