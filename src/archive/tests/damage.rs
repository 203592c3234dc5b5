//! A flipped byte in anything is named and counted by whoever reads it, and what can be made again is.

use super::evaluation::evaluation;
use super::switch::{calibration, direction, graphs};
use super::*;
use crate::archive::feedback::FEEDBACK;
use crate::archive::store::Store;

/// An archive with an object of every kind.
async fn whole() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("archive");
    let url = url.to_str().unwrap();
    let mut new = new_archive(IdentityMode::Linked);
    new.model = Some(NewModel {
        card: serde_json::json!({"name": "m"}),
        torchscript: Some(Bytes::from_static(b"torchscript")),
    });
    let archive = Archive::create_in(Store::create(url).unwrap(), url, new, secret(), tuning())
        .await
        .unwrap();
    let images = (0..3).map(|number| image(&archive, number, Some("COVID"))).collect();
    archive.append(images, Some(graphs())).await.unwrap();
    let learned = Learned {
        metric: Some(direction(archive.latest().await.unwrap().space.dimension)),
        calibration: Some(calibration()),
    };
    archive.switch(learned, Some(graphs())).await.unwrap();
    archive.keep_evaluation(evaluation(1, 0.5)).await.unwrap();
    let report = NewReport::new(id(&archive, 2), Some(class("COVID")), None, "look again").unwrap();
    archive.report(&report).await.unwrap();
    Place { dir, archive }
}

/// The name of everything that the newest version consists of, and of the report beside it.
async fn names(archive: &Archive) -> BTreeSet<String> {
    let manifest = archive.latest().await.unwrap();
    let mut names = manifest.names();
    names.insert(manifest.model.as_ref().unwrap().object().unwrap());
    names.insert(Manifest::name(manifest.version));
    let reports = archive.store().list(FEEDBACK).await.unwrap();
    names.extend(reports.into_iter().map(|listed| listed.name));
    names
}

fn kind(name: &str) -> &str {
    name.split('/').next().unwrap()
}

/// Reads one object as whoever needs it does.
async fn read(store: &Store, url: &str, name: &str) -> Result<()> {
    let archive = Archive::open_in(store.clone(), url, secret(), tuning()).await?;
    let manifest = archive.latest().await?;
    match kind(name) {
        "rows" => State::load(&archive).await.map(drop),
        "graphs" => archive.read_graph(&manifest.graphs[0]).await.map(drop),
        "metrics" => archive.read_metric(manifest.metric.as_ref().unwrap()).await.map(drop),
        "calibrations" => archive
            .read_calibration(manifest.calibration.as_ref().unwrap())
            .await
            .map(drop),
        "evaluations" => archive
            .read_evaluation(manifest.evaluation.as_ref().unwrap())
            .await
            .map(drop),
        "models" => archive.read_model(manifest.model.as_ref().unwrap()).await.map(drop),
        "thumbnails" | "pixels" => {
            for record in contents(&archive).await.into_values() {
                let slices = [record.thumbnail.unwrap(), record.pixels.unwrap().pack];
                for slice in slices.iter().filter(|slice| slice.object == name) {
                    archive.read_pack(slice).await?;
                }
            }
            Ok(())
        }
        "feedback" => match archive.reports(None, 10).await?.unreadable.first() {
            Some(id) => Err(Error::new(ErrorKind::Damaged, format!("feedback/{id}"))),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_flipped_byte_in_anything_is_named_and_counted() {
    let place = whole().await;
    let names = names(&place.archive).await;
    assert_eq!(names.len(), 10, "one of each kind: {names:?}");
    for name in &names {
        let path = place.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        // Of a pack pictures are read, not what is before them.
        let is_pack = matches!(kind(name), "thumbnails" | "pixels");
        for at in [0, whole.len() / 2, whole.len() - 1] {
            if is_pack && at < whole.len() - 1 {
                continue;
            }
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            let store = Store::open(&place.url()).unwrap();
            let error = read(&store, &place.url(), name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {error}");
            assert!(error.message().contains(name), "{name}: {error}");
            assert_eq!(store.figures().damage, [("storage", 1), ("cache", 0)], "{name}");
        }
        std::fs::write(&path, whole).unwrap();
        let store = Store::open(&place.url()).unwrap();
        read(&store, &place.url(), name).await.unwrap();
        assert_eq!(store.figures().damage, [("storage", 0), ("cache", 0)], "{name}");
    }
    for name in names
        .iter()
        .filter(|name| !matches!(kind(name), "manifest" | "feedback"))
    {
        let path = place.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let damaged = verify(&place.again().await).await.unwrap().damaged;
    assert_eq!(damaged.len(), 8, "{damaged:?}");
}

#[tokio::test]
async fn a_graph_that_can_not_be_read_is_built_again() {
    for (missing, by_hand) in [(false, false), (false, true), (true, false), (true, true)] {
        let place = whole().await;
        let before = place.archive.latest().await.unwrap();
        let lost = before.graphs[0].object.clone();
        let path = place.path().join(&lost);
        match missing {
            true => std::fs::remove_file(path).unwrap(),
            false => std::fs::write(path, "broken").unwrap(),
        }
        let settings = |lost_graphs| CompactSettings {
            graphs: Some(graphs()),
            lost_graphs,
            ..CompactSettings::default()
        };
        let archive = place.again().await;
        let quiet = maintain(&archive, settings(BTreeSet::new())).await.unwrap();
        assert_eq!(quiet.version, before.version, "nobody looks every hour");
        let done = match by_hand {
            true => compact(&archive, settings(BTreeSet::new())).await.unwrap(),
            false => maintain(&archive, settings([lost.clone()].into())).await.unwrap(),
        };
        assert_eq!(done.version, before.version + 1);
        let after = place.again().await.latest().await.unwrap();
        assert_eq!((&after.rows, &after.packs), (&before.rows, &before.packs));
        assert_eq!(after.graphs.len(), before.graphs.len());
        assert_eq!(after.superseded, [lost]);
        assert_eq!(
            verify(&place.again().await).await.unwrap().damaged,
            Vec::<String>::new()
        );
        let again = compact(&archive, settings(BTreeSet::new())).await.unwrap();
        assert_eq!(again.version, done.version, "once is enough");
    }
}

#[tokio::test]
async fn a_spoilt_manifest_stops_nobody_who_knows_it() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(insert(archive, 1, None)).await.unwrap();
    let newest = place
        .path()
        .join(Manifest::name(archive.latest().await.unwrap().version));
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).unwrap();
    let opened = Archive::open(&place.url(), secret()).await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Damaged);

    // The next version is made of what the writer has in memory, and all is well.
    writer.write(insert(archive, 2, None)).await.unwrap();
    assert_eq!(contents(&place.again().await).await.len(), 2);
    let later = place.at(SignedDuration::from_hours(2)).await;
    maintain(&later, CompactSettings::default()).await.unwrap();
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
}
