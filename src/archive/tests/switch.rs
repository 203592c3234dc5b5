//! A learned metric comes, goes, and stands beside other writers.

use super::*;
use crate::domain::{Calibration, Distribution, Metric, ShareCalibration, VoteMethod};

fn fitted() -> Fitted {
    Fitted {
        method: "by hand".into(),
        shrinkage: 0.5,
        fitted_at: Timestamp::UNIX_EPOCH,
        fitted_on: 1,
        images: BTreeMap::from([(class("COVID"), 2)]),
        groups: 2,
        held_out: HeldOut {
            without: 0.5,
            with: 0.75,
            parts: 4,
        },
    }
}

/// Two directions of the test's vectors.
pub fn direction(dimension: usize) -> (Arc<Metric>, Fitted) {
    let projection = (0..2 * dimension).map(|at| 1.0 / (at + 1) as f32).collect();
    (
        Arc::new(Metric::new(vec![0.25; dimension], projection).unwrap()),
        fitted(),
    )
}

pub fn calibration() -> NewCalibration {
    NewCalibration {
        calibration: Calibration {
            k: 10,
            vote: VoteMethod::Majority,
            images: vec![2, 2],
            classes: vec![class("COVID"), class("Normal")],
            shares: ShareCalibration::none(2, 0.01),
            levels: vec![],
            home_min: 0.5,
            distribution: Distribution {
                mean: vec![1.0, 0.0],
                directions: vec![],
                variances: vec![],
                rest: 0.1,
            },
            distance_max: 1.5,
            appearances: None,
        },
        fitted_on: 1,
        fitted_at: Timestamp::UNIX_EPOCH,
        groups: BTreeMap::from([(class("COVID"), 2)]),
    }
}

pub fn metric(dimension: usize) -> Learned {
    Learned {
        metric: Some(direction(dimension)),
        calibration: None,
    }
}

/// A graph of each rows object whose bytes say by what it was built.
pub fn graphs() -> GraphBuilder {
    Arc::new(|rows: &RowsObject, metric: Option<&Metric>| {
        Ok(vec![NewGraph {
            class: rows.records[0].class.clone(),
            rows: 1,
            parameters: GraphParameters {
                connectivity: 16,
                expansion_add: 128,
                expansion_search: 128,
                scalar: "f16".into(),
                other: Default::default(),
            },
            bytes: format!("{:?}", metric.map(Metric::components)).into_bytes(),
        }])
    })
}

async fn bytes_of_graphs(archive: &Archive) -> Vec<Bytes> {
    let manifest = archive.latest().await.unwrap();
    let mut bytes = Vec::new();
    for entry in &manifest.graphs {
        bytes.push(archive.read_graph(entry).await.unwrap());
    }
    bytes
}

#[tokio::test]
async fn a_metric_and_its_graphs_come_and_go_in_one_version() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (0..4).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, Some(graphs())).await.unwrap();
    assert_eq!(bytes_of_graphs(archive).await, ["None"]);
    let before = archive.latest().await.unwrap();
    let dimension = before.space.dimension;

    let (new, fitted) = direction(dimension);
    let with = |new: &Arc<Metric>| Learned {
        metric: Some((Arc::clone(new), fitted.clone())),
        calibration: None,
    };
    let version = archive.switch(with(&new), Some(graphs())).await.unwrap();
    let after = archive.latest().await.unwrap();
    assert_eq!((after.version, version), (before.version + 1, before.version + 1));
    let entry = after.metric.clone().unwrap();
    assert_eq!((entry.components, &entry.fitted), (2, &fitted));
    assert_eq!(bytes_of_graphs(archive).await, ["Some(2)"]);
    assert_eq!(after.superseded, [before.graphs[0].object.clone()]);
    // Another program reads it from the storage.
    let other = place.again().await;
    assert_eq!(*other.read_metric(&entry).await.unwrap(), *new);
    assert!(verify(&other).await.unwrap().damaged.is_empty());

    // New rows get graphs by it.
    let images = (4..6).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, Some(graphs())).await.unwrap();
    assert_eq!(bytes_of_graphs(archive).await, ["Some(2)", "Some(2)"]);
    let settings = CompactSettings {
        manifest_age_min: Duration::ZERO,
        object_age_min: Duration::ZERO,
        graphs: Some(graphs()),
        offline: true,
        ..CompactSettings::default()
    };
    compact(archive, settings.clone()).await.unwrap();
    assert_eq!(bytes_of_graphs(archive).await, ["Some(2)"]);
    assert_eq!(
        *place.again().await.read_metric(&entry).await.unwrap(),
        *new,
        "collection leaves it"
    );

    // The same numbers once more are another object: the first may be collected.
    archive.switch(with(&new), Some(graphs())).await.unwrap();
    let again = archive.latest().await.unwrap().metric.clone().unwrap();
    assert_ne!(again.object, entry.object);
    let version = archive.switch(Learned::default(), Some(graphs())).await.unwrap();
    assert_eq!(bytes_of_graphs(archive).await, ["None"]);
    assert_eq!(
        archive.switch(Learned::default(), Some(graphs())).await.unwrap(),
        version,
        "nothing to change"
    );
    compact(archive, settings.clone()).await.unwrap();
    let left = std::fs::read_dir(place.path().join("metrics")).unwrap().count();
    assert_eq!(left, 0, "no version needs them");
}

#[tokio::test]
async fn what_is_built_again_after_a_change_of_mind_is_not_collected_for_its_past() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    archive
        .append(vec![image(archive, 1, Some("COVID"))], Some(graphs()))
        .await
        .unwrap();
    let dimension = archive.latest().await.unwrap().space.dimension;
    let first = archive.latest().await.unwrap();
    archive.switch(metric(dimension), Some(graphs())).await.unwrap();
    archive.switch(Learned::default(), Some(graphs())).await.unwrap();
    let again = archive.latest().await.unwrap();
    assert_ne!(
        again.graphs[0].object, first.graphs[0].object,
        "the same graph has another name"
    );
    archive.switch(metric(dimension), Some(graphs())).await.unwrap();

    // All but the last two versions are old: what the kept one names has to stay.
    for version in 1..again.version {
        let file = std::fs::File::options()
            .write(true)
            .open(place.path().join(Manifest::name(version)));
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 3600);
        file.unwrap().set_modified(long_ago).unwrap();
    }
    let collected = maintain(archive, CompactSettings::default()).await.unwrap();
    assert!(
        collected.manifests_deleted > 0 && collected.objects_deleted > 0,
        "{collected:?}"
    );
    assert!(archive.read_graph(&again.graphs[0]).await.is_ok());
}

#[tokio::test]
async fn a_damaged_metric_keeps_nothing_from_being_erased_or_added() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (0..3).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, Some(graphs())).await.unwrap();
    let dimension = archive.latest().await.unwrap().space.dimension;
    archive.switch(metric(dimension), Some(graphs())).await.unwrap();
    writer(archive)
        .await
        .write(Change::Delete { id: id(archive, 1) })
        .await
        .unwrap();
    let entry = archive.latest().await.unwrap().metric.clone().unwrap();
    for damage in [b"MSMETRIC".as_slice(), b""] {
        match damage.is_empty() {
            true => std::fs::remove_file(place.path().join(&entry.object)).unwrap(),
            false => std::fs::write(place.path().join(&entry.object), damage).unwrap(),
        }
        let other = place.again().await;
        let number = 10 + damage.len() as u32;
        other
            .append(vec![image(&other, number, Some("COVID"))], Some(graphs()))
            .await
            .unwrap();
        let settings = CompactSettings {
            graphs: Some(graphs()),
            ..CompactSettings::default()
        };
        compact(&other, settings).await.unwrap();
        assert!(other.latest().await.unwrap().tombstones.is_empty());
    }
    let other = place.again().await;
    let version = other.switch(Learned::default(), Some(graphs())).await.unwrap();
    assert_eq!(other.latest().await.unwrap().version, version);
    assert_eq!(contents(&other).await.len(), 4);
    assert!(verify(&other).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn a_metric_of_other_vectors_is_refused_and_a_damaged_one_is_found() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    archive
        .append(vec![image(archive, 1, Some("COVID"))], None)
        .await
        .unwrap();
    let dimension = archive.latest().await.unwrap().space.dimension;
    let error = archive.switch(metric(dimension + 1), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDimension);
    assert!(archive.latest().await.unwrap().metric.is_none());

    archive.switch(metric(dimension), None).await.unwrap();
    let entry = archive.latest().await.unwrap().metric.clone().unwrap();
    let file = place.path().join(&entry.object);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let other = place.again().await;
    assert_eq!(other.read_metric(&entry).await.unwrap_err().kind(), ErrorKind::Damaged);
    let damaged = verify(&other).await.unwrap().damaged;
    assert!(damaged.len() == 1 && damaged[0].contains(&entry.object), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_beside_writers_loses_nothing_and_mixes_nothing() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let dimension = place.archive.latest().await.unwrap().space.dimension;
    let mut tasks = Vec::new();
    for number in 0..6u32 {
        let archive = place.again().await;
        tasks.push(tokio::spawn(async move {
            let images = vec![image(&archive, number, Some("COVID"))];
            archive.append(images, Some(graphs())).await.map(|done| done.version)
        }));
    }
    for turn in 0..4 {
        let archive = place.again().await;
        tasks.push(tokio::spawn(async move {
            let new = if turn % 2 == 0 {
                metric(dimension)
            } else {
                Learned::default()
            };
            archive.switch(new, Some(graphs())).await
        }));
    }
    for number in 10..14u32 {
        let archive = place.again().await;
        tasks.push(tokio::spawn(async move {
            let done = writer(&archive)
                .await
                .write(insert(&archive, number, Some("COVID")))
                .await;
            done.map(|done| done.version)
        }));
    }
    let collector = place.again().await;
    tasks.push(tokio::spawn(async move {
        let mut version = 0;
        for _ in 0..4 {
            let settings = CompactSettings {
                graphs: Some(graphs()),
                ..CompactSettings::default()
            };
            version = maintain(&collector, settings).await?.version;
        }
        Ok(version)
    }));
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let archive = place.again().await;
    assert_eq!(contents(&archive).await.len(), 10);
    // `Manifest::check` refuses graphs of another metric; none is missing either.
    let manifest = archive.latest().await.unwrap();
    let large = manifest.rows.iter().filter(|entry| !entry.delta).count();
    assert_eq!(manifest.graphs.len(), large);
    let expected = format!(
        "{:?}",
        archive
            .latest()
            .await
            .unwrap()
            .metric
            .as_ref()
            .map(|entry| entry.components)
    );
    assert!(bytes_of_graphs(&archive).await.iter().all(|bytes| *bytes == expected));
    assert!(verify(&archive).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn a_calibration_comes_and_goes_with_the_metric_that_it_holds_for() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    archive
        .append(vec![image(archive, 1, Some("COVID"))], Some(graphs()))
        .await
        .unwrap();
    let dimension = archive.latest().await.unwrap().space.dimension;
    let alone = Learned {
        metric: None,
        calibration: Some(calibration()),
    };
    let before = archive.latest().await.unwrap();
    archive.switch(alone, Some(graphs())).await.unwrap();
    let calibrated = archive.latest().await.unwrap();
    assert_eq!(
        calibrated.graphs, before.graphs,
        "the measure is the same, so are the graphs"
    );
    let entry = calibrated.calibration.clone().unwrap();
    assert_eq!(entry.metric, None);
    let read = place.again().await.read_calibration(&entry).await.unwrap();
    assert_eq!(read, calibration().calibration);

    let both = Learned {
        calibration: Some(calibration()),
        ..metric(dimension)
    };
    archive.switch(both, Some(graphs())).await.unwrap();
    let both = archive.latest().await.unwrap();
    let (metric, entry) = (both.metric.clone().unwrap(), both.calibration.clone().unwrap());
    assert_eq!(entry.metric, Some(metric.object));
    assert!(verify(archive).await.unwrap().damaged.is_empty());
    // Other writes carry it along.
    writer(archive)
        .await
        .write(insert(archive, 2, Some("Normal")))
        .await
        .unwrap();
    assert_eq!(archive.latest().await.unwrap().calibration, Some(entry.clone()));

    let file = place.path().join(&entry.object);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("0.5", "0.6")).unwrap();
    let other = place.again().await;
    assert_eq!(
        other.read_calibration(&entry).await.unwrap_err().kind(),
        ErrorKind::Damaged
    );
    let damaged = verify(&other).await.unwrap().damaged;
    assert!(damaged.len() == 1 && damaged[0].contains(&entry.object), "{damaged:?}");

    let settings = CompactSettings {
        manifest_age_min: Duration::ZERO,
        object_age_min: Duration::ZERO,
        graphs: None,
        offline: true,
        ..CompactSettings::default()
    };
    other.switch(Learned::default(), None).await.unwrap();
    compact(&other, settings).await.unwrap();
    assert_eq!(std::fs::read_dir(place.path().join("calibrations")).unwrap().count(), 0);
}
