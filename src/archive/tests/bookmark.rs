//! Bookmarks: the highest number counts, and whoever was overtaken is told so.

use super::*;
use crate::archive::{Cursor, Mark};

fn cursor(seq: u64) -> Cursor {
    Cursor {
        seq,
        date: format!("20260101T{seq:06}"),
    }
}

fn objects(place: &Place) -> Vec<String> {
    let folder = place.path().join("bookmarks/front");
    let names = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_of_two_writes_a_number_and_the_other_is_told() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let (one, two) = (place.archive.bookmark("front"), place.again().await.bookmark("front"));
    assert_eq!(one.read().await.unwrap(), None);
    let first = one.write(0, Some("one"), &cursor(0)).await.unwrap().unwrap();
    assert_eq!(two.write(0, Some("two"), &cursor(0)).await.unwrap(), None);
    assert_eq!(two.read().await.unwrap(), Some(first.clone()));
    // Whoever waited long enough takes over with the next number; the first one's next write fails.
    let taken = two.write(first.number, Some("two"), &cursor(7)).await.unwrap().unwrap();
    assert_eq!(one.write(first.number, Some("one"), &cursor(9)).await.unwrap(), None);
    assert_eq!(one.read().await.unwrap(), Some(taken.clone()));
    let expected = Mark {
        number: 2,
        holder: Some("two".into()),
        cursor: cursor(7),
    };
    assert_eq!(taken, expected);
    assert_eq!(place.archive.bookmark("other").read().await.unwrap(), None);
}

#[tokio::test]
async fn who_slept_while_others_wrote_has_no_effect() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let bookmark = place.archive.bookmark("front");
    let mut number = 0;
    for seq in 1..=6 {
        number = bookmark
            .write(number, Some("awake"), &cursor(seq))
            .await
            .unwrap()
            .unwrap()
            .number;
    }
    // Old ones are tidied away, so that the sleeper's number is free again.
    assert_eq!(objects(&place), [format!("{:020}", 5), format!("{:020}", 6)]);
    assert_eq!(bookmark.write(1, Some("asleep"), &cursor(99)).await.unwrap(), None);
    assert_eq!(bookmark.read().await.unwrap().unwrap().cursor, cursor(6));
    bookmark.write(number, None, &cursor(6)).await.unwrap().unwrap();
    assert_eq!(bookmark.read().await.unwrap().unwrap().holder, None);
}

#[tokio::test]
async fn a_damaged_one_is_said_to_be() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let bookmark = place.archive.bookmark("front");
    bookmark.write(0, Some("one"), &cursor(3)).await.unwrap();
    std::fs::write(place.path().join(format!("bookmarks/front/{:020}", 1)), "{").unwrap();
    assert_eq!(bookmark.read().await.unwrap_err().kind(), ErrorKind::Damaged);
}
