//! Files of several frames that are pushed: which of them become images, each once, whatever comes between.

use medsearch::app::{App, Settings};
use medsearch::archive::Archive;
use medsearch::domain::Frames;
use serde_json::{Value, json};

use crate::archive::secret;
use crate::cluster::eventually;
use crate::dicom_web::{BEFORE, failed, images, instance, row, store, stored, until_images};
use crate::files::{BLANK, Instance, instance_pixels};
use crate::harness::{Part, TestApp, spawn_for};

/// Series and study of every [`instance`].
const PATH: &str = "/dicom-web/studies/1.2.3/series/1.2.3.5/instances/1.2.3.4";

async fn waits(app: &TestApp) -> (usize, usize) {
    let archive = Archive::open(app.archive_folder().to_str().unwrap(), secret())
        .await
        .unwrap();
    let inbox = archive.inbox();
    (inbox.list().await.unwrap().len(), inbox.failed_count().await.unwrap())
}

async fn until_waits(app: &TestApp, expected: (usize, usize)) {
    eventually("the inbox is as it should be", async || waits(app).await == expected).await;
}

async fn metadata(app: &TestApp) -> Value {
    let answer = app.request("GET", &format!("{PATH}/metadata"));
    let answer = answer.header("accept", "application/dicom+json").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let sets: Value = answer.json().await.unwrap();
    assert_eq!(sets.as_array().unwrap().len(), 1);
    sets[0].clone()
}

/// Whether a frame, by its number, has these pixels.
async fn is_frame(app: &TestApp, number: usize, seed: u32) -> bool {
    let answer = app.get(&format!("{PATH}/frames/{number}")).await;
    assert_eq!(answer.status(), 200, "{number}");
    let body = answer.bytes().await.unwrap();
    let pixels = instance_pixels(seed);
    body.windows(pixels.len()).any(|window| window == pixels)
}

async fn delete_patient(app: &TestApp) -> u64 {
    let deleted = app
        .request("POST", "/v1/patients/delete")
        .json(&json!({"patient_id": "P-1"}));
    let deleted: Value = deleted.send().await.unwrap().json().await.unwrap();
    deleted["deleted"].as_u64().unwrap()
}

#[actix_web::test]
async fn every_frame_is_an_image_and_the_instance_is_one() {
    let app = spawn_for(Frames::All, None).await;
    let file = instance("1.2.3.4").frames(&[1, 2, 3]);
    let (status, set) = store(&app, std::slice::from_ref(&file)).await;
    assert_eq!((status, stored(&set)), (200, vec![row("1.2.3.4", None)]));
    until_images(&app, BEFORE + 3).await;
    until_waits(&app, (0, 0)).await;
    let answer = app.request("GET", "/dicom-web/studies/1.2.3/instances?includefield=all");
    let found: Value = answer
        .header("accept", "application/dicom+json")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found[0]["00280008"]["Value"], json!([3]));
    let said = metadata(&app).await;
    assert_eq!(said["00280008"]["Value"], json!([3]));
    assert_eq!(said.get("00082112"), None, "all of the file");
    for (number, seed) in [(1, 1), (2, 2), (3, 3)] {
        assert!(is_frame(&app, number, seed).await, "{number}");
    }
    assert_eq!(app.get(&format!("{PATH}/frames/4")).await.status(), 404);

    // The same bytes are known; the same pixels with another header are the same images.
    let (status, set) = store(&app, std::slice::from_ref(&file)).await;
    assert_eq!((status, stored(&set)), (202, vec![row("1.2.3.4", Some(0xb006))]));
    let corrected = Instance {
        view: "AP",
        ..instance("1.2.3.4")
    };
    let (status, _) = store(&app, &[corrected.frames(&[1, 2, 3])]).await;
    assert_eq!(status, 200);
    until_waits(&app, (0, 0)).await;
    assert_eq!(images(&app).await, BEFORE + 3);
    assert_eq!(metadata(&app).await["00280008"]["Value"], json!([3]));
    assert_eq!(delete_patient(&app).await, 3);
    until_images(&app, BEFORE).await;
}

#[actix_web::test]
async fn one_frame_of_each_is_known_when_it_comes_again() {
    for (frames, seed) in [("middle", 2), ("3", 3), ("7", 3), ("first", 1)] {
        let app = spawn_for(frames.parse().unwrap(), None).await;
        let file = instance("1.2.3.4").frames(&[1, 2, 3]);
        store(&app, std::slice::from_ref(&file)).await;
        until_images(&app, BEFORE + 1).await;
        assert!(is_frame(&app, 1, seed).await, "{frames}");
        let (status, set) = store(&app, &[file]).await;
        assert_eq!(
            (status, stored(&set)),
            (202, vec![row("1.2.3.4", Some(0xb006))]),
            "{frames}"
        );
        let (status, set) = store(&app, &[instance("1.2.3.4").frames(&[7, 8, 9])]).await;
        assert_eq!(
            (status, failed(&set)),
            (409, vec![row("1.2.3.4", Some(0x0111))]),
            "{frames}"
        );
        let fewer = instance("1.2.3.4").frames(&[9]);
        assert_eq!(store(&app, &[fewer]).await.0, 409, "{frames}");
        // A file of one frame has no other.
        store(&app, &[instance("1.2.3.6").file(6)]).await;
        until_images(&app, BEFORE + 2).await;
    }
}

#[actix_web::test]
async fn what_is_missing_of_a_file_comes_when_it_is_sent_again() {
    let app = spawn_for(Frames::All, None).await;
    let file = instance("1.2.3.4").frames(&[1, 2, 3]);
    store(&app, std::slice::from_ref(&file)).await;
    until_images(&app, BEFORE + 3).await;
    // One of them goes, and only that: whichever it is, the others are no reason to leave it out.
    let of_second = [
        Part::File("image", &file),
        Part::Text("frame", b"2"),
        Part::Text("k", b"1"),
        Part::Text("exclude", b"none"),
    ];
    let found = app.form("/v1/search", &of_second).send().await.unwrap();
    let found: Value = found.json().await.unwrap();
    let path = format!("/v1/images/{}", found["neighbors"][0]["id"].as_str().unwrap());
    assert!(app.request("DELETE", &path).send().await.unwrap().status().is_success());
    until_images(&app, BEFORE + 2).await;
    assert_eq!(store(&app, std::slice::from_ref(&file)).await.0, 200);
    until_images(&app, BEFORE + 3).await;
    assert_eq!(store(&app, &[file]).await.0, 202);
}

#[actix_web::test]
async fn a_frame_that_shows_nothing_costs_only_itself() {
    let app = spawn_for(Frames::All, None).await;
    let file = instance("1.2.3.4").frames(&[BLANK, 2, BLANK, 3]);
    assert_eq!(store(&app, &[file]).await.0, 200);
    until_images(&app, BEFORE + 2).await;
    until_waits(&app, (0, 0)).await;
    let said = metadata(&app).await;
    assert_eq!(said["00280008"]["Value"], json!([2]));
    assert!(is_frame(&app, 1, 2).await && is_frame(&app, 2, 3).await);
    // They are counted from 1; which of the file they are is said.
    let source = &said["00082112"]["Value"][0];
    assert_eq!(source["00081160"]["Value"], json!([2, 4]));
    assert_eq!(source["00081155"]["Value"], json!(["1.2.3.4"]));
    // One that shows nothing at all is set aside.
    let blank = instance("1.2.3.6").frames(&[BLANK, BLANK]);
    assert_eq!(store(&app, &[blank]).await.0, 200);
    until_waits(&app, (0, 1)).await;
    // Frames with equal pixels are one picture, found under both numbers.
    let twice = Instance {
        patient_id: "P-2",
        ..instance("1.2.3.7")
    };
    assert_eq!(store(&app, &[twice.frames(&[5, 5, 6])]).await.0, 200);
    until_images(&app, BEFORE + 4).await;
    until_waits(&app, (0, 1)).await;
}

#[actix_web::test]
async fn a_frame_that_is_broken_keeps_the_others_from_nothing_and_its_file_is_set_aside() {
    let app = spawn_for(Frames::All, None).await;
    let file = instance("1.2.3.4").rle_frames(&[Some(1), None, Some(3)]);
    assert_eq!(store(&app, &[file]).await.0, 200);
    until_waits(&app, (0, 1)).await;
    assert_eq!(images(&app).await, BEFORE + 2);
    assert!(is_frame(&app, 1, 1).await && is_frame(&app, 2, 3).await);
    let source = &metadata(&app).await["00082112"]["Value"][0];
    assert_eq!(source["00081160"]["Value"], json!([1, 3]));
    let archive = Archive::open(app.archive_folder().to_str().unwrap(), secret())
        .await
        .unwrap();
    let failed = archive.inbox().failed(2).await.unwrap();
    assert!(
        failed[0].reason.message.starts_with("frame 2: "),
        "{}",
        failed[0].reason.message
    );
}

#[actix_web::test]
async fn deleting_a_frame_costs_none_that_waits() {
    let app = spawn_for(Frames::All, None).await;
    let frames: Vec<u32> = (1..=60).collect();
    let file = instance("1.2.3.4").frames(&frames);
    store(&app, std::slice::from_ref(&file)).await;
    eventually("the first frame is an image", async || images(&app).await > BEFORE).await;
    let of_first = [
        Part::File("image", &file),
        Part::Text("k", b"1"),
        Part::Text("exclude", b"none"),
    ];
    let found = app.form("/v1/search", &of_first).send().await.unwrap();
    let found: Value = found.json().await.unwrap();
    let path = format!("/v1/images/{}", found["neighbors"][0]["id"].as_str().unwrap());
    let answer = app.request("DELETE", &path).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    until_images(&app, BEFORE + 60).await;
    until_waits(&app, (0, 0)).await;
    assert_eq!(app.request("DELETE", &path).send().await.unwrap().status(), 200);
    until_images(&app, BEFORE + 59).await;
}

#[actix_web::test]
async fn other_pixels_in_a_later_frame_are_set_aside() {
    let app = spawn_for(Frames::All, None).await;
    store(&app, &[instance("1.2.3.4").frames(&[1, 2, 3])]).await;
    until_images(&app, BEFORE + 3).await;
    until_waits(&app, (0, 0)).await;
    let (status, _) = store(&app, &[instance("1.2.3.4").frames(&[1, 2, 9])]).await;
    assert_eq!(status, 200, "only its frames tell");
    until_waits(&app, (0, 1)).await;
    assert_eq!(images(&app).await, BEFORE + 3);
    assert!(is_frame(&app, 3, 3).await);
}

#[actix_web::test]
async fn a_start_in_the_middle_adds_what_is_missing() {
    let app = spawn_for(Frames::All, None).await;
    // As a server left it that ended after the third frame.
    let file = instance("1.2.3.4").frames(&[1, 2, 3, 4]);
    let third = [Part::File("image", &file), Part::Text("frame", b"3")];
    assert_eq!(app.form("/v1/images", &third).send().await.unwrap().status(), 201);
    until_images(&app, BEFORE + 1).await;
    let archive = Archive::open(app.archive_folder().to_str().unwrap(), secret())
        .await
        .unwrap();
    let (inbox, identity) = (archive.inbox(), archive.identity());
    let patient = identity.patient_keys(None, "P-1");
    let id = inbox.id(&file, patient, identity.sop_key("1.2.3.4"));
    inbox.put(id, file.into()).await.unwrap();
    let settings = Settings {
        program: env!("CARGO_BIN_EXE_medsearch").into(),
        frames: Frames::All,
        ..Settings::local(app.archive_folder().display().to_string(), secret())
    };
    let next = App::build(settings).await.unwrap();
    let handle = next.handle();
    actix_web::rt::spawn(next.run_until_stopped());
    until_images(&app, BEFORE + 4).await;
    until_waits(&app, (0, 0)).await;
    assert_eq!(metadata(&app).await["00280008"]["Value"], json!([4]));
    for number in 1..=4 {
        assert!(is_frame(&app, number, number as u32).await, "{number}");
    }
    handle.stop(false).await;
}
