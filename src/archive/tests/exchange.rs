//! Export and back.

use super::*;

#[tokio::test]
async fn a_linked_archive_gives_back_what_came_in() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let record = |number: u32, file: &str| {
        serde_json::json!({"id": format!("{number:032x}"), "file": file, "sha256": format!("{number:064x}"),
            "patient_id": format!("Patient {number}"), "added": {"by": ["others", 1.5]}})
    };
    let provenance = VectorProvenance {
        model: "unknown".into(),
        precision: "f32".into(),
        device: "cpu".into(),
        engine: "test".into(),
    };
    let file = |label: Option<&str>, records| ClassFile {
        space: manifest::tests::space(4),
        provenance: provenance.clone(),
        class: label.map(class),
        vectors_sha256: None,
        pseudonyms_of: None,
        records,
    };
    let covid = file(
        Some("COVID"),
        vec![
            record(1, "COVID/1.png"),
            record(1, "COVID/1 copy.png"),
            record(2, "COVID/ü.png"),
        ],
    );
    let none = file(None, vec![record(3, "3.png")]);
    let mut images = Vec::new();
    for (file, first) in [(&covid, 0.125f32), (&none, 7.0)] {
        for index in 0..file.records.len() {
            let record = file
                .record(index, archive.identity(), &Shown::default(), "2026-01-01T00:00:00Z")
                .unwrap();
            // Two files with the same bytes, the vectors a rounding apart, as another batch makes them.
            let vector = vec![first + index as f32 * 1e-6, -0.0, f32::MIN_POSITIVE, 3e38];
            images.push(NewImage {
                record,
                vector,
                space: manifest::tests::space(4).id(),
                thumbnail: None,
                pixels: None,
                provenance: file.provenance.rows(),
            });
        }
    }
    let vectors: Vec<_> = images.iter().map(|image| image.vector.clone()).collect();
    let again = images.clone();
    assert_eq!(archive.append(images, None).await.unwrap().inserted, 3);
    assert_eq!(
        archive.append(again, None).await.unwrap().version,
        2,
        "the same again changes nothing"
    );

    let out = place.dir.path().join("out");
    assert_eq!(
        export(archive, &out).await.unwrap(),
        Exported { records: 4, classes: 2 }
    );
    assert_eq!(
        export(archive, &out).await.unwrap(),
        Exported { records: 4, classes: 2 },
        "again over the first"
    );
    let mut classes = load_folder(&out).unwrap();
    for class in &mut classes {
        assert!(class.file.vectors_sha256.take().is_some());
    }
    let mut expected = covid.clone();
    expected.records.swap(0, 1); // sorted by file
    assert_eq!(classes[0].file, expected);
    assert_eq!(classes[1].file, none);
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(classes[0].vectors.row(2)), bits(&vectors[2]));
    assert_eq!(bits(classes[0].vectors.row(1)), bits(&vectors[0]));
    assert_eq!(bits(classes[0].vectors.row(0)), bits(&vectors[1]));
    assert_eq!(bits(classes[1].vectors.row(0)), bits(&vectors[3]));

    // A label of today comes along; another archive's files are not mixed in.
    let id = covid.record(2, archive.identity(), &Shown::default(), "").unwrap().id;
    let relabel = Change::Relabel {
        id,
        class: Some(class("Normal")),
        label_source: Some(LabelSource::Pcr),
    };
    writer(archive).await.write(relabel).await.unwrap();
    let other = place.dir.path().join("other");
    export(archive, &other).await.unwrap();
    let normal = ClassFile::read(&other.join("Normal.json")).unwrap();
    assert_eq!(normal.records[0]["label_source"], "PCR");
    assert_eq!(normal.records[0]["patient_id"], "Patient 2");
    std::fs::write(out.join("Old.npy"), "").unwrap();
    assert_eq!(
        export(archive, &out).await.unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
}

#[tokio::test]
async fn an_anonymous_archive_gives_pseudonyms_that_can_be_indexed_again() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let mut alias = image(archive, 2, Some("COVID"));
    alias.record.file = Some("COVID/2 copy.png".into());
    let images = vec![
        image(archive, 1, Some("COVID")),
        image(archive, 2, Some("COVID")),
        alias,
        image(archive, 3, None),
    ];
    archive.append(images, None).await.unwrap();
    let out = place.dir.path().join("out");
    assert_eq!(
        export(archive, &out).await.unwrap(),
        Exported { records: 4, classes: 2 }
    );
    let text = std::fs::read_to_string(out.join("COVID.json")).unwrap();
    assert!(text.contains("\"identity\": \"pseudonym\"") && !text.contains("patient 1"));

    let again = Place::new(IdentityMode::Anonymous).await;
    let mut images = Vec::new();
    for ClassData { file, vectors } in load_folder(&out).unwrap() {
        for index in 0..vectors.rows {
            let record = file
                .record(
                    index,
                    again.archive.identity(),
                    &Shown::default(),
                    "2026-01-01T00:00:00Z",
                )
                .unwrap();
            let provenance = file.provenance.rows();
            images.push(NewImage {
                record,
                vector: vectors.row(index).to_vec(),
                space: manifest::tests::space(4).id(),
                thumbnail: None,
                pixels: None,
                provenance,
            });
        }
    }
    let done = again.archive.append(images, None).await.unwrap();
    assert_eq!((done.inserted, done.duplicates, done.conflicts), (3, 1, 0));
    let (before, after) = (contents(archive).await, contents(&again.archive).await);
    // Of names nothing is kept, so the second file of equal bytes can't be told from the first.
    for (id, old) in before {
        let new = &after[&id];
        assert_eq!(
            (new.patient, new.file_key, new.pixel_key),
            (old.patient, old.file_key, old.pixel_key)
        );
        assert_eq!(
            (&new.class, &new.label_source, &new.file),
            (&old.class, &old.label_source, &None)
        );
    }
}

#[tokio::test]
async fn frames_of_a_file_are_images_of_their_own_wherever_they_go() {
    for mode in [IdentityMode::Linked, IdentityMode::Anonymous] {
        let place = Place::new(mode).await;
        let archive = &place.archive;
        let record = |frame: u32| {
            let mut record = serde_json::json!({"id": format!("{frame:032x}"), "file": "COVID/1.dcm", "sha256": "ab".repeat(32),
                "patient_id": "Patient 1"});
            if frame > 1 {
                record["frame"] = frame.into();
            }
            record
        };
        let file = ClassFile {
            space: manifest::tests::space(4),
            provenance: VectorProvenance {
                model: "unknown".into(),
                precision: "f32".into(),
                device: "cpu".into(),
                engine: "test".into(),
            },
            class: Some(class("COVID")),
            vectors_sha256: None,
            pseudonyms_of: None,
            // As strings 10 would come before 2.
            records: [1, 2, 10].map(record).to_vec(),
        };
        let images = |file: &ClassFile| -> Vec<NewImage> {
            let image = |index: usize| NewImage {
                record: file
                    .record(index, archive.identity(), &Shown::default(), "2026-01-01T00:00:00Z")
                    .unwrap(),
                vector: vec![1.0 + index as f32; 4],
                space: manifest::tests::space(4).id(),
                thumbnail: None,
                pixels: None,
                provenance: file.provenance.rows(),
            };
            (0..file.records.len()).map(image).collect()
        };
        assert_eq!(archive.append(images(&file), None).await.unwrap().inserted, 3);
        let found = contents(&place.again().await).await;
        let mut frames: Vec<u32> = found.values().map(|record| record.frame.get()).collect();
        frames.sort_unstable();
        assert_eq!(frames, [1, 2, 10]);
        let first = found.values().find(|record| record.frame.is_first()).unwrap();
        assert_eq!(
            first.file_key,
            archive.identity().file_key(&[0xab; 32]),
            "as before there were frames"
        );

        let out = place.dir.path().join("out");
        export(archive, &out).await.unwrap();
        let classes = load_folder(&out).unwrap();
        let back = &classes[0];
        let numbers =
            |file: &ClassFile| -> Vec<_> { file.records.iter().map(|record| record.get("frame").cloned()).collect() };
        assert_eq!(numbers(&back.file), numbers(&file));
        if mode == IdentityMode::Linked {
            assert_eq!(back.file.records, file.records);
        }
        // They are known again, each as itself.
        let again = archive.append(images(&back.file), None).await.unwrap();
        assert_eq!((again.inserted, again.duplicates), (0, 3));
    }
}
