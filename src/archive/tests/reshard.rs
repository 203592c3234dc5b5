//! Other shards, beside whoever writes.

use super::switch::{graphs, metric};
use super::*;

const IMAGES: u32 = 40;

async fn filled() -> Place {
    let place = Place::new(IdentityMode::Linked).await;
    let images = (0..IMAGES).map(|number| image(&place.archive, number, Some("COVID")));
    place.archive.append(images.collect(), Some(graphs())).await.unwrap();
    place
}

/// Every image that should be there is, once, with its vector and its pictures, in the shard that its slot says; nothing is damaged.
async fn is_whole(archive: &Archive, numbers: impl IntoIterator<Item = u32>, shards: u32) {
    let state = State::load(archive).await.unwrap();
    let manifest = &state.manifest;
    assert_eq!(manifest.shards, manifest::even_shards(shards));
    lies_in_its_shards(&state);
    for graph in &manifest.graphs {
        let of = manifest.rows.iter().find(|entry| entry.object == graph.rows_object);
        assert_eq!(of.unwrap().shards, [graph.shard]);
    }
    let found = contents(archive).await;
    let numbers: Vec<u32> = numbers.into_iter().collect();
    assert_eq!(found.len(), numbers.len());
    for number in numbers {
        let record = &found[&id(archive, number)];
        let (object, row) = state.find(record.id).unwrap();
        assert_eq!(state.rows[object].vector(row).unwrap()[0], number as f32 + 0.5);
        let pixels = archive.read_pack(&record.pixels.as_ref().unwrap().pack).await.unwrap();
        assert_eq!(pixels, format!("pixels {number}"));
    }
    assert!(verify(archive).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn an_archive_is_cut_into_more_shards_and_fewer() {
    let place = filled().await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(Change::Delete { id: id(archive, 7) }).await.unwrap();
    writer.write(insert(archive, IMAGES, None)).await.unwrap();
    let numbers = || (0..=IMAGES).filter(|&number| number != 7);
    for shards in [4, 7, 1] {
        let before = archive.latest().await.unwrap().version;
        let version = archive.reshard(shards, Some(graphs())).await.unwrap();
        assert_eq!(version, before + 1, "in one version");
        let other = place.again().await;
        is_whole(&other, numbers(), shards).await;
        let manifest = other.latest().await.unwrap();
        assert_eq!(manifest.deltas(), 1, "what came last stays anybody's");
        assert!(manifest.tombstones.is_empty(), "what is dead is left behind");
        assert_eq!(manifest.graphs.len(), manifest.rows.len() - 1);
        // The same again changes nothing.
        assert_eq!(archive.reshard(shards, Some(graphs())).await.unwrap(), version);
    }
    for count in [0, 65_537] {
        let error = archive.reshard(count, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
}

#[tokio::test]
async fn an_archive_without_images_is_cut_too() {
    let place = Place::new(IdentityMode::Anonymous).await;
    place.archive.reshard(8, None).await.unwrap();
    is_whole(&place.again().await, [], 8).await;
}

#[tokio::test]
async fn what_others_write_meanwhile_is_in_the_new_shards() {
    type Meanwhile = fn(Archive) -> futures_util::future::BoxFuture<'static, ()>;
    let cases: [(&str, Meanwhile); 5] = [
        ("a delta", |other| {
            Box::pin(async move {
                let writer = writer(&other).await;
                writer.write(insert(&other, IMAGES, Some("Normal"))).await.unwrap();
                writer.write(Change::Delete { id: id(&other, 3) }).await.unwrap();
            })
        }),
        ("a large object", |other| {
            Box::pin(async move {
                let writer = writer(&other).await;
                writer.write(Change::Delete { id: id(&other, 3) }).await.unwrap();
                let more = vec![image(&other, IMAGES, Some("COVID"))];
                other.append(more, Some(graphs())).await.unwrap();
            })
        }),
        ("a merge", |other| {
            Box::pin(async move {
                let writer = writer(&other).await;
                writer.write(insert(&other, IMAGES, Some("Normal"))).await.unwrap();
                writer.write(Change::Delete { id: id(&other, 3) }).await.unwrap();
                let settings = CompactSettings {
                    graphs: Some(graphs()),
                    ..CompactSettings::default()
                };
                compact(&other, settings).await.unwrap();
            })
        }),
        ("a metric", |other| {
            Box::pin(async move {
                let writer = writer(&other).await;
                writer.write(insert(&other, IMAGES, Some("Normal"))).await.unwrap();
                writer.write(Change::Delete { id: id(&other, 3) }).await.unwrap();
                other.switch(metric(4), Some(graphs())).await.unwrap();
            })
        }),
        ("other shards", |other| {
            Box::pin(async move {
                let writer = writer(&other).await;
                writer.write(insert(&other, IMAGES, Some("Normal"))).await.unwrap();
                writer.write(Change::Delete { id: id(&other, 3) }).await.unwrap();
                other.reshard(3, Some(graphs())).await.unwrap();
            })
        }),
    ];
    for (what, meanwhile) in cases {
        let place = filled().await;
        let faults = Arc::new(Faults::default());
        let slow = place.faulty(&faults).await.unwrap();
        *lock(&faults.meanwhile) = Some(meanwhile(place.again().await));
        slow.reshard(5, Some(graphs())).await.unwrap();
        assert!(lock(&faults.meanwhile).is_none(), "{what} did happen");
        let other = place.again().await;
        is_whole(&other, (0..=IMAGES).filter(|&number| number != 3), 5).await;
    }
}

#[tokio::test]
async fn what_was_prepared_for_the_old_shards_is_prepared_again() {
    let place = filled().await;
    let faults = Arc::new(Faults::default());
    let slow = place.faulty(&faults).await.unwrap();
    let other = place.again().await;
    *lock(&faults.meanwhile) = Some(Box::pin(async move {
        other.reshard(6, Some(graphs())).await.unwrap();
    }));
    let more = (IMAGES..IMAGES + 20).map(|number| image(&slow, number, Some("COVID")));
    slow.append(more.collect(), Some(graphs())).await.unwrap();
    assert!(lock(&faults.meanwhile).is_none(), "it did happen");
    is_whole(&place.again().await, 0..IMAGES + 20, 6).await;

    // And a merge.
    let slow = place.faulty(&faults).await.unwrap();
    let writer = writer(&place.archive).await;
    writer.write(Change::Delete { id: id(&slow, 3) }).await.unwrap();
    let other = place.again().await;
    *lock(&faults.meanwhile) = Some(Box::pin(async move {
        other.reshard(4, Some(graphs())).await.unwrap();
    }));
    let settings = CompactSettings {
        graphs: Some(graphs()),
        ..CompactSettings::default()
    };
    compact(&slow, settings).await.unwrap();
    assert!(lock(&faults.meanwhile).is_none(), "it did happen");
    is_whole(&place.again().await, (0..IMAGES + 20).filter(|&number| number != 3), 4).await;
}
