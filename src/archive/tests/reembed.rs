//! Another model, beside whoever writes.

use super::switch::{graphs, metric};
use super::*;
use crate::domain::Space;

const IMAGES: u32 = 20;
/// Of the new space.
const NEW_DIMENSION: usize = 6;

fn new_space() -> Space {
    Space {
        weights_sha256: "1".repeat(64),
        ..manifest::tests::space(NEW_DIMENSION)
    }
}

fn new() -> NewSpace {
    NewSpace {
        space: new_space(),
        model: NewModel {
            card: serde_json::json!({"name": "other"}),
            torchscript: Some(Bytes::from_static(b"network")),
        },
        provenance: RowsProvenance {
            precision: "f16".into(),
            device: "cuda:0".into(),
            engine: "test".into(),
        },
    }
}

/// A model that looks at the kept picture, and says how many it was shown.
#[derive(Default)]
struct OfPixels {
    asked: usize,
}

impl Reembed for OfPixels {
    async fn vectors(&mut self, archive: &Archive, records: &[Arc<Record>]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::new();
        for record in records {
            let pixels = archive.read_pack(&record.pixels.as_ref().unwrap().pack).await?;
            let number: f32 = std::str::from_utf8(&pixels).unwrap()["pixels ".len()..]
                .parse()
                .unwrap();
            vectors.push((0..NEW_DIMENSION).map(|at| number - at as f32 - 0.25).collect());
        }
        self.asked += records.len();
        Ok(vectors)
    }
}

async fn filled() -> Place {
    let place = Place::new(IdentityMode::Linked).await;
    let images = (0..IMAGES).map(|number| image(&place.archive, number, Some("COVID")));
    place.archive.append(images.collect(), Some(graphs())).await.unwrap();
    place
}

/// Every image that should be there is, once, as it was but for its vector, which the new model made.
async fn has_moved(archive: &Archive, numbers: impl IntoIterator<Item = u32>) {
    let state = State::load(archive).await.unwrap();
    let manifest = &state.manifest;
    assert_eq!(manifest.space, new_space());
    assert_eq!(manifest.precisions, ["f16"]);
    assert!(manifest.metric.is_none() && manifest.calibration.is_none() && manifest.evaluation.is_none());
    let model = manifest.model.as_ref().unwrap();
    assert_eq!(archive.read_model(model).await.unwrap(), "network");
    for graph in &manifest.graphs {
        assert_eq!(archive.read_graph(graph).await.unwrap(), "None", "by no metric");
    }
    let found = contents(archive).await;
    let numbers: Vec<u32> = numbers.into_iter().collect();
    assert_eq!(found.len(), numbers.len());
    for number in numbers {
        let record = &found[&id(archive, number)];
        let (object, row) = state.find(record.id).unwrap();
        let vector = state.rows[object].vector(row).unwrap().into_owned();
        assert_eq!((vector.len(), vector[0]), (NEW_DIMENSION, number as f32 - 0.25));
        let thumbnail = archive.read_pack(record.thumbnail.as_ref().unwrap()).await.unwrap();
        assert_eq!(thumbnail, format!("thumbnail {number}"));
        let before = image(archive, number, label(record)).record;
        assert_eq!(
            (record.patient, record.file_key, &record.file),
            (before.patient, before.file_key, &before.file)
        );
    }
    assert!(verify(archive).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn an_archive_moves_to_another_model_in_one_version() {
    // And one before it, which asks writers to wait.
    let place = filled().await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    writer.write(Change::Delete { id: id(archive, 7) }).await.unwrap();
    writer.write(insert(archive, IMAGES, None)).await.unwrap();
    let before = archive.switch(metric(4), Some(graphs())).await.unwrap();

    let mut model = OfPixels::default();
    let done = archive.reembed(new(), &mut model, Some(graphs())).await.unwrap();
    assert_eq!(
        done,
        Reembedded {
            version: before + 2,
            images: IMAGES as usize
        }
    );
    assert_eq!(model.asked, IMAGES as usize);
    let other = place.again().await;
    has_moved(&other, (0..=IMAGES).filter(|&number| number != 7)).await;
    let manifest = other.latest().await.unwrap();
    assert_eq!(
        (manifest.deltas(), manifest.graphs.len()),
        (1, 1),
        "as it was cut before"
    );

    // It is in that space already.
    let again = archive.reembed(new(), &mut model, Some(graphs())).await.unwrap();
    assert_eq!(
        again,
        Reembedded {
            version: before + 2,
            images: 0
        }
    );

    // Vectors of the old model are refused, whatever their length; what needs none goes on.
    let error = writer.write(insert(archive, 50, None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    let mut as_long = image(archive, 50, None);
    as_long.vector = vec![1.0; NEW_DIMENSION];
    let error = writer.write(Change::Insert(Box::new(as_long))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    let error = archive.switch(metric(4), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDimension);
    let change = Change::Relabel {
        id: id(archive, 1),
        class: Some(class("Normal")),
        label_source: None,
    };
    writer.write(change).await.unwrap();
    has_moved(&place.again().await, (0..=IMAGES).filter(|&number| number != 7)).await;
}

#[tokio::test]
async fn what_others_write_meanwhile_moves_too() {
    type Meanwhile = fn(Archive) -> futures_util::future::BoxFuture<'static, ()>;
    async fn changed(other: &Archive) {
        let writer = writer(other).await;
        writer.write(insert(other, IMAGES, Some("COVID"))).await.unwrap();
        writer.write(Change::Delete { id: id(other, 3) }).await.unwrap();
        let change = Change::Relabel {
            id: id(other, 4),
            class: Some(class("Normal")),
            label_source: None,
        };
        writer.write(change).await.unwrap();
    }
    let cases: [(&str, Meanwhile); 4] = [
        ("changes", |other| Box::pin(async move { changed(&other).await })),
        ("a merge", |other| {
            Box::pin(async move {
                changed(&other).await;
                compact(&other, CompactSettings::default()).await.unwrap();
            })
        }),
        ("a metric", |other| {
            Box::pin(async move {
                changed(&other).await;
                other.switch(metric(4), Some(graphs())).await.unwrap();
            })
        }),
        ("other shards", |other| {
            Box::pin(async move {
                changed(&other).await;
                other.reshard(3, Some(graphs())).await.unwrap();
            })
        }),
    ];
    for (what, meanwhile) in cases {
        let place = filled().await;
        let faults = Arc::new(Faults::default());
        let slow = place.faulty(&faults).await.unwrap();
        *lock(&faults.meanwhile) = Some(meanwhile(place.again().await));
        let mut model = OfPixels::default();
        let done = slow.reembed(new(), &mut model, Some(graphs())).await.unwrap();
        assert!(lock(&faults.meanwhile).is_none(), "{what} did happen");
        assert_eq!(done.images, IMAGES as usize + 1, "{what}: none is embedded twice");
        let other = place.again().await;
        has_moved(&other, (0..=IMAGES).filter(|&number| number != 3)).await;
        lies_in_its_shards(&State::load(&other).await.unwrap());
    }
}

#[tokio::test]
async fn what_was_prepared_in_the_old_space_is_refused() {
    for step in 0..2 {
        let place = filled().await;
        let faults = Arc::new(Faults::default());
        let slow = place.faulty(&faults).await.unwrap();
        let other = place.again().await;
        *lock(&faults.meanwhile) = Some(Box::pin(async move {
            other.reembed(new(), &mut OfPixels::default(), None).await.unwrap();
        }));
        let refused = match step {
            0 => slow.append(vec![image(&slow, IMAGES, None)], None).await.map(|_| ()),
            _ => slow.switch(metric(4), None).await.map(|_| ()),
        };
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::SpaceMismatch);
        assert!(lock(&faults.meanwhile).is_none(), "it did happen");
        has_moved(&place.again().await, 0..IMAGES).await;
    }
}

#[tokio::test]
async fn a_model_that_fails_changes_nothing() {
    struct Fails(ErrorKind);
    impl Reembed for Fails {
        async fn vectors(&mut self, _: &Archive, records: &[Arc<Record>]) -> Result<Vec<Vec<f32>>> {
            match self.0 {
                ErrorKind::WrongDimension => Ok(vec![vec![1.0; DIMENSION_OLD]; records.len()]),
                ErrorKind::InvalidRequest => Ok(vec![vec![f32::NAN; NEW_DIMENSION]; records.len()]),
                ErrorKind::Internal => Ok(vec![]),
                kind => Err(Error::new(kind, "on purpose")),
            }
        }
    }
    const DIMENSION_OLD: usize = super::super::testing::DIMENSION;
    let place = filled().await;
    let before = place.archive.latest().await.unwrap();
    for kind in [
        ErrorKind::WrongDimension,
        ErrorKind::InvalidRequest,
        ErrorKind::Internal,
        ErrorKind::PixelsNotKept,
    ] {
        let error = place.archive.reembed(new(), &mut Fails(kind), None).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    assert_eq!(*place.again().await.latest().await.unwrap(), *before);
}

#[tokio::test]
async fn writers_wait_for_the_last_images_and_no_longer() {
    /// Adds an image while the first is looked at, and one more at the end, by another program.
    struct Watched(OfPixels, Archive, Vec<Result<Outcome>>);
    impl Reembed for Watched {
        async fn vectors(&mut self, archive: &Archive, records: &[Arc<Record>]) -> Result<Vec<Vec<f32>>> {
            let number = 100 + self.2.len() as u32;
            let writer = writer(&self.1).await;
            let written = writer.write(insert(&self.1, number, Some("COVID"))).await;
            self.2.push(written.map(|done| done.outcome));
            if self.1.latest().await?.moving_until.is_some() {
                // What needs no model goes on.
                writer.write(Change::Delete { id: id(&self.1, 3) }).await?;
            }
            self.0.vectors(archive, records).await
        }
    }
    let place = filled().await;
    let mut by = Watched(OfPixels::default(), place.again().await, vec![]);
    place.archive.reembed(new(), &mut by, None).await.unwrap();
    let taken = by.2.iter().filter(|written| written.is_ok()).count();
    assert_eq!(taken, by.2.len() - 1, "all but the last");
    let refused = by.2.pop().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let added = 100..100 + taken as u32;
    has_moved(
        &place.again().await,
        (0..IMAGES).filter(|&number| number != 3).chain(added),
    )
    .await;
    assert!(place.again().await.latest().await.unwrap().moving_until.is_none());

    // Whoever fell asleep with the archive on the move keeps nobody waiting for long.
    let other = filled().await;
    let until = Some(Timestamp::now() + SignedDuration::from_secs(60));
    let state = Arc::new(State::load(&other.archive).await.unwrap());
    commit::commit(&other.archive, &state, &mut crate::archive::reembed::Pause(until))
        .await
        .unwrap();
    let now = writer(&other.archive).await;
    let refused = now.write(insert(&other.archive, 100, None)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let later = other.at(SignedDuration::from_secs(61)).await;
    writer(&later).await.write(insert(&later, 100, None)).await.unwrap();
}
