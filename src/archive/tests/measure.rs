//! Figures.

use super::*;

/// `cargo test --release --lib archive::tests::measure -- --ignored --nocapture`, with `TMPDIR` on the disk to measure.
#[tokio::test]
#[ignore = "prints figures"]
async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let mut new = new_archive(IdentityMode::Linked);
    new.space = manifest::tests::space(1280);
    let archive = Archive::create(dir.path().join("a").to_str().unwrap(), new, secret())
        .await
        .unwrap();
    let big = |number: u32| {
        let mut image = image(&archive, number, Some("COVID"));
        image.vector = (0..1280).map(|i| (number * 1280 + i) as f32).collect();
        image.thumbnail = Some(vec![1; 30_000]);
        image.pixels.as_mut().unwrap().png = vec![2; 80_000];
        image
    };
    let begin = Instant::now();
    archive
        .append(
            (0..21_165)
                .map(|number| {
                    let mut image = big(number);
                    image.thumbnail = None;
                    image.pixels = None;
                    image
                })
                .collect(),
            None,
        )
        .await
        .unwrap();
    println!("append of 21,165 rows without pictures: {:?}", begin.elapsed());
    let begin = Instant::now();
    State::load(
        &Archive::open(dir.path().join("a").to_str().unwrap(), secret())
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    println!("load of 21,165 rows: {:?}", begin.elapsed());
    let writer = writer(&archive).await;
    let mut single = Vec::new();
    for number in 100_000..100_200 {
        let change = Change::Insert(Box::new(big(number)));
        let begin = Instant::now();
        writer.write(change).await.unwrap();
        single.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    single.sort();
    println!(
        "single insert: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
        single[100], single[180], single[198], single[199]
    );
    let changes: Vec<_> = (200_000..201_000)
        .map(|number| Change::Insert(Box::new(big(number))))
        .collect();
    let begin = Instant::now();
    let version = archive.latest().await.unwrap().version;
    let all = futures_util::future::join_all(changes.into_iter().map(|change| writer.write(change))).await;
    assert!(all.iter().all(Result::is_ok));
    let versions = archive.latest().await.unwrap().version - version;
    println!("1000 inserts at once: {:?}, {versions} versions", begin.elapsed());
    let begin = Instant::now();
    println!(
        "{:?}",
        compact_after(&archive, Duration::ZERO, Duration::ZERO).await.unwrap()
    );
    println!("compaction: {:?}", begin.elapsed());
}

/// With `TMPDIR` on a file system of a few megabytes: fills it, makes room, goes on.
#[tokio::test]
#[ignore = "needs a small disk"]
async fn a_disk_that_is_really_full() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let filler = place.dir.path().join("filler");
    std::fs::write(&filler, vec![1; 500_000]).unwrap();
    let settings = WriterSettings {
        deltas_merge_at: 4,
        ..WriterSettings::default()
    };
    let writer = Writer::spawn(archive.clone(), settings, unread_metrics(), watch::channel(0).0)
        .await
        .unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match writer.write(insert(archive, acknowledged, Some("COVID"))).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    println!("{acknowledged} images, then: {error}");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(contents(&place.again().await).await.len(), acknowledged as usize);
    std::fs::remove_file(filler).unwrap();
    for number in acknowledged..acknowledged + 5 {
        writer.write(insert(archive, number, Some("COVID"))).await.unwrap();
    }
    assert_eq!(contents(&place.again().await).await.len(), acknowledged as usize + 5);
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
}
