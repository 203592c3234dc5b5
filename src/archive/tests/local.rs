//! Vectors in files of this machine: the same bits as in memory, for as long as someone holds them.

use super::*;

fn all(state: &State) -> Vec<u32> {
    let spots: Vec<(usize, u32)> = state.live().collect();
    let vectors = state.vectors(&spots).unwrap();
    vectors.iter().map(|x| x.to_bits()).collect()
}

async fn filled(images: u32) -> Place {
    let place = Place::new(IdentityMode::Anonymous).await;
    for part in 0..2 {
        let numbers = part * images / 2..(part + 1) * images / 2;
        let images = numbers
            .map(|number| image(&place.archive, number, Some("COVID")))
            .collect();
        place.archive.append(images, None).await.unwrap();
    }
    place
}

#[tokio::test]
async fn rows_are_the_same_in_memory_and_in_files() {
    let place = filled(40).await;
    let state = State::load(&place.again().await).await.unwrap();
    assert!(state.rows.iter().all(|rows| rows.is_in_file()));
    let held = State::load(&Archive::open(&place.url(), secret()).await.unwrap())
        .await
        .unwrap();
    assert!(!held.rows.iter().any(|rows| rows.is_in_file()), "so few stay in memory");
    assert_eq!(all(&state), all(&held));

    let mut spots: Vec<(usize, u32)> = state.live().collect();
    spots.reverse();
    spots.extend_from_within(5..15);
    let one_by_one: Vec<f32> = spots
        .iter()
        .flat_map(|&(object, row)| state.rows[object].vector(row).unwrap().into_owned())
        .collect();
    assert_eq!(state.vectors(&spots).unwrap(), one_by_one);
    assert_eq!(held.vectors(&spots).unwrap(), one_by_one);
}

#[tokio::test]
async fn what_is_open_stays_readable_when_it_is_deleted() {
    let place = filled(10).await;
    let state = State::load(&place.again().await).await.unwrap();
    let before = all(&state);
    compact_after(&place.again().await, Duration::ZERO, Duration::ZERO)
        .await
        .unwrap();
    for rows in &state.rows {
        assert!(!place.path().join(&rows.name).exists(), "collected");
    }
    std::fs::remove_dir_all(place.path()).unwrap();
    assert_eq!(all(&state), before);
}

#[tokio::test]
async fn what_a_writer_holds_is_left_to_files_too() {
    let place = filled(10).await;
    let archive = place.again().await;
    let writer = writer(&archive).await;
    writer.write(insert(&archive, 100, Some("COVID"))).await.unwrap();
    compact_after(&archive, Duration::ZERO, Duration::ZERO).await.unwrap();
    let relabel = Change::Relabel {
        id: id(&archive, 3),
        class: Some(class("Normal")),
        label_source: None,
    };
    writer.write(relabel).await.unwrap();
    let state = State::load(&archive).await.unwrap();
    assert!(state.rows.len() == 2 && state.rows.iter().all(|rows| rows.is_in_file()));
    for at in state.live() {
        let number = (0..=100)
            .find(|&number| id(&archive, number) == state.at(at).id)
            .unwrap();
        let vector = state.rows[at.0].vector(at.1).unwrap();
        assert_eq!(*vector, *image(&archive, number, None).vector);
    }
}

#[tokio::test]
async fn what_a_disk_spoils_is_not_copied() {
    let place = filled(10).await;
    let archive = place.again().await;
    let state = State::load(&archive).await.unwrap();
    let rows = &state.rows[0];
    let path = place.path().join(&rows.name);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let row = rows.rows() - 1;
    assert_eq!(rows.vector(row).unwrap_err().kind(), ErrorKind::Damaged);
    assert!(rows.vector(0).is_ok());
    let refused = compact_after(&archive, Duration::ZERO, Duration::ZERO)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    let version = archive.latest().await.unwrap().version;
    assert_eq!(version, state.manifest.version);
    assert_eq!(archive.storage_figures().damage, [("storage", 2), ("cache", 0)]);
    // What is written again takes its vector along, and so is refused; others are not.
    let spoilt = rows.records[row as usize].id;
    let writer = writer(&archive).await;
    let relabel = |id| Change::Relabel {
        id,
        class: None,
        label_source: None,
    };
    let error = writer.write(relabel(spoilt)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    writer.write(relabel(rows.records[0].id)).await.unwrap();
    writer.write(Change::Delete { id: spoilt }).await.unwrap();
}

#[tokio::test]
async fn requests_are_counted() {
    let place = filled(2).await;
    let archive = place.again().await;
    State::load(&archive).await.unwrap();
    let figures = archive.storage_figures();
    let count = |operation, outcome| {
        let found = figures
            .requests
            .iter()
            .find(|&&(o, e, _)| (o, e) == (operation, outcome));
        found.unwrap().2
    };
    assert_eq!(count("list", "ok"), 1);
    // A manifest and two rows objects; then there is no newer version.
    assert_eq!(count("get", "ok"), 3);
    assert_eq!(count("get", "missing"), 1);
    assert_eq!(figures.cache_bytes, 0);
    let none = archive
        .store()
        .put_if_absent(&Manifest::name(1), Bytes::new())
        .await
        .unwrap();
    assert_eq!(none, super::store::Put::Exists);
    let figures = archive.storage_figures();
    assert!(figures.requests.contains(&("put", "taken", 1)));
}
