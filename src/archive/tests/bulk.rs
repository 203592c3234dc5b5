//! Many images at once.

use super::*;

#[tokio::test]
async fn many_at_once_with_duplicates_and_conflicts() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(insert(archive, 1, Some("COVID"))).await.unwrap();
    writer.write(insert(archive, 2, Some("COVID"))).await.unwrap();
    let file = |number: u32, label: Option<&str>, file: &str| {
        let mut image = image(archive, number, label);
        image.record.file = Some(file.to_owned());
        image.record.sealed = archive
            .identity()
            .seal(&serde_json::json!({"file": file}), image.record.file_key)
            .unwrap();
        image
    };
    let images = || {
        vec![
            image(archive, 1, Some("COVID")),         // known as it is
            file(1, Some("COVID"), "COVID/copy.png"), // known under another name: an alias
            file(2, Some("Normal"), "Normal/2.png"),  // known under another class
            file(3, None, "none/3.png"),              // new, without a class
            file(3, Some("COVID"), "COVID/3.png"),    // the same with one: counts
            file(4, Some("COVID"), "COVID/4.png"),
            file(4, Some("Normal"), "Normal/4.png"), // a conflict within the set
            file(5, Some("Normal"), "Normal/5.png"),
        ]
    };
    let built = Arc::new(AtomicUsize::new(0));
    let graphs: GraphBuilder = {
        let built = Arc::clone(&built);
        Arc::new(move |rows: &_, _: Option<&_>| {
            built.fetch_add(rows.rows() as usize, Ordering::SeqCst);
            let parameters = GraphParameters {
                connectivity: 16,
                expansion_add: 128,
                expansion_search: 128,
                scalar: "f16".into(),
                other: Default::default(),
            };
            let class = rows.records[0].class.clone();
            Ok(vec![NewGraph {
                class,
                rows: 1,
                parameters,
                bytes: b"graph".to_vec(),
            }])
        })
    };
    let done = archive.append(images(), Some(Arc::clone(&graphs))).await.unwrap();
    assert_eq!(
        done,
        Appended {
            version: 4,
            inserted: 3,
            duplicates: 3,
            conflicts: 2
        }
    );
    assert_eq!(built.load(Ordering::SeqCst), 3);

    let other = place.again().await;
    let found = contents(&other).await;
    let aliases = |number| {
        found[&id(archive, number)]
            .aliases
            .iter()
            .map(|alias| alias.file.clone().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(aliases(1), ["COVID/copy.png"]);
    assert_eq!(aliases(2), ["Normal/2.png"]);
    assert_eq!(label(&found[&id(archive, 3)]), Some("COVID"));
    assert_eq!(aliases(3), ["COVID/3.png"], "the label came with the second file");
    assert_eq!(found[&id(archive, 3)].history.len(), 1);
    assert_eq!(aliases(4), ["Normal/4.png"]);
    let conflict = |number| found[&id(archive, number)].label_conflict();
    assert!(conflict(2) && conflict(4) && !conflict(1) && !conflict(5));
    let manifest = other.latest().await.unwrap();
    assert_eq!(other.read_graph(&manifest.graphs[0]).await.unwrap(), "graph");
    let pixels = found[&id(archive, 5)].pixels.as_ref().unwrap();
    assert_eq!(other.read_pack(&pixels.pack).await.unwrap(), "pixels 5");

    let done = archive.append(images(), Some(graphs)).await.unwrap();
    assert_eq!((done.version, done.inserted), (4, 0), "the same again changes nothing");
    assert!(verify(&other).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn bulk_and_single_writes_race() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let mut bulk = archive.bulk().await.unwrap();
    for number in 0..20 {
        bulk.push(image(archive, number, Some("COVID"))).await.unwrap();
    }
    // Another process comes first, with one of the same images.
    let other = place.again().await;
    let writer = writer(&other).await;
    writer.write(insert(&other, 3, Some("COVID"))).await.unwrap();
    writer.write(insert(&other, 50, Some("COVID"))).await.unwrap();
    let done = bulk.commit(None).await.unwrap();
    assert_eq!((done.inserted, done.duplicates), (19, 1));
    assert_eq!(contents(&place.again().await).await.len(), 21);
}

#[tokio::test]
async fn shards_hold_their_own_slots() {
    let dir = tempfile::tempdir().unwrap();
    let mut new = new_archive(IdentityMode::Anonymous);
    new.shards = 3;
    let archive = Archive::create(dir.path().join("a").to_str().unwrap(), new, secret())
        .await
        .unwrap();
    let images = (0..30).map(|number| image(&archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    writer(&archive).await.write(insert(&archive, 99, None)).await.unwrap();
    let check = async |objects: usize| {
        let state = State::load(&archive).await.unwrap();
        assert_eq!(state.rows.len(), objects);
        for at in state.live() {
            let shard = state.manifest.shard(state.at(at).id.slot());
            assert!(state.manifest.rows[at.0].shards.contains(&shard));
        }
        assert_eq!(state.live().count(), 31);
    };
    check(4).await;
    compact_after(&archive, Duration::ZERO, Duration::ZERO).await.unwrap();
    check(3).await;
}
