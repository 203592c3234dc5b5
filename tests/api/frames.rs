//! Files with several frames: each may be asked about, and each is an image of its own.

use std::process::Command;

use reqwest::Response;
use serde_json::Value;

use crate::files::{DEFLATED, EXPLICIT, pattern_dicom, pattern_png};
use crate::harness::{Part, TestApp, problem, spawn_app};

/// Pictures that the archive does not have: class and number.
const PICTURES: [(u32, u32); 3] = [(0, 30), (1, 31), (2, 32)];

fn three() -> Vec<u8> {
    pattern_dicom(EXPLICIT, &PICTURES)
}

fn alone(frame: usize) -> Vec<u8> {
    let (class, number) = PICTURES[frame - 1];
    pattern_png(class, number)
}

async fn ask(app: &TestApp, path: &str, file: &[u8], fields: &[(&str, &str)]) -> Response {
    let fields = fields.iter().map(|&(name, value)| Part::Text(name, value.as_bytes()));
    let form: Vec<Part<'_>> = [Part::File("image", file)].into_iter().chain(fields).collect();
    app.form(path, &form).send().await.unwrap()
}

async fn answer(app: &TestApp, path: &str, file: &[u8], fields: &[(&str, &str)]) -> Value {
    let response = ask(app, path, file, fields).await;
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    response.json().await.unwrap()
}

#[actix_web::test]
async fn a_search_by_a_frame_is_one_by_its_picture() {
    let app = spawn_app().await;
    for file in [three(), pattern_dicom(DEFLATED, &PICTURES)] {
        for frame in 1..=3 {
            let number = frame.to_string();
            let found = answer(&app, "/v1/search", &file, &[("frame", &number)]).await;
            let image = &found["query"]["image"];
            assert_eq!(image["format"], "dicom");
            assert_eq!(
                (image["frame"].as_u64(), image["frames"].as_u64()),
                (Some(frame as u64), Some(3))
            );
            let of_picture = answer(&app, "/v1/search", &alone(frame), &[]).await;
            assert_eq!(found["neighbors"], of_picture["neighbors"], "{frame}");
        }
    }
    // The first is what a client gets that knows nothing of frames.
    let (first, unsaid) = (
        answer(&app, "/v1/search", &three(), &[("frame", "1")]).await,
        answer(&app, "/v1/search", &three(), &[]).await,
    );
    assert_eq!(first["neighbors"], unsaid["neighbors"]);
    assert_eq!(unsaid["query"]["image"]["frame"], 1);
    let png = answer(&app, "/v1/search", &alone(1), &[("frame", "1")]).await;
    assert!(png["query"]["image"].get("frame").is_none() && png["query"]["image"].get("frames").is_none());
}

#[actix_web::test]
async fn a_frame_that_is_not_there_is_a_wrong_request() {
    let app = spawn_app().await;
    let deflated = pattern_dicom(DEFLATED, &PICTURES);
    let (dicom, png) = (three(), alone(1));
    let rows: [(&[u8], &str, &str); 8] = [
        (&dicom, "4", "there is no frame `4`: the number of frames is `3`"),
        (&deflated, "4", "there is no frame `4`: the number of frames is `3`"),
        (&png, "2", "there is no frame `2`: the number of frames is `1`"),
        (&dicom, "0", "`frame`: a frame is a whole number from 1 to 10000"),
        (&dicom, "10001", "`frame`: a frame is"),
        (&dicom, "-1", "`frame`: a frame is"),
        (&dicom, "1.5", "`frame`: a frame is"),
        (&dicom, "last", "`frame`: a frame is"),
    ];
    for path in ["/v1/search", "/v1/embeddings", "/v1/images"] {
        for (file, frame, says) in rows {
            let (status, slug, problem) = problem(ask(&app, path, file, &[("frame", frame)]).await).await;
            assert_eq!((status, slug.as_str()), (400, "invalid-request"), "{path} {frame}");
            assert!(problem.detail.contains(says), "{}", problem.detail);
        }
    }
}

#[actix_web::test]
async fn a_frame_is_searched_on_the_command_line() {
    let app = spawn_app().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("three");
    std::fs::write(&file, three()).unwrap();
    let search = |frame: &str| {
        let mut search = Command::new(env!("CARGO_BIN_EXE_medsearch"));
        search.arg("search").arg("--archive").arg(app.archive_folder());
        search.arg("--secret-file").arg(app.secret_file());
        search.args(["--json", "--frame", frame]).arg(&file).output().unwrap()
    };
    let found = search("2");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["query"]["image"]["frame"], 2);
    let of_picture = answer(&app, "/v1/search", &alone(2), &[]).await;
    assert_eq!(found["neighbors"], of_picture["neighbors"]);
    for (frame, says) in [("4", "the number of frames is `3`"), ("0", "from 1 to 10000")] {
        let refused = search(frame);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(says), "{said}");
    }
}

#[actix_web::test]
async fn one_frame_of_each_file_is_embedded() {
    let app = spawn_app().await;
    let other = pattern_dicom(EXPLICIT, &[(2, 40), (0, 41)]);
    let dicom = three();
    let form = [
        Part::File("image", &dicom),
        Part::Text("frame", b"2"),
        Part::File("image", &other),
    ];
    let both: Value = app
        .form("/v1/embeddings", &form)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    for (at, picture) in [alone(2), pattern_png(0, 41)].iter().enumerate() {
        let alone = answer(&app, "/v1/embeddings", picture, &[]).await;
        assert_eq!(
            both["embeddings"][at]["vector"], alone["embeddings"][0]["vector"],
            "{at}"
        );
    }
}

#[actix_web::test]
async fn a_frame_is_explained_like_its_picture() {
    let app = spawn_app().await;
    let found = answer(&app, "/v1/search", &three(), &[("frame", "3")]).await;
    let neighbor = found["neighbors"][0]["id"].as_str().unwrap();
    let fields = [("neighbor", neighbor), ("frame", "3")];
    let of_frame = answer(&app, "/v1/explanations", &three(), &fields).await;
    let of_picture = answer(&app, "/v1/explanations", &alone(3), &fields[..1]).await;
    assert_eq!(of_frame["query"], of_picture["query"]);
    assert_eq!(of_frame["similarity"], found["neighbors"][0]["similarity"]);
}

#[actix_web::test]
async fn each_frame_is_an_image_of_its_own() {
    let app = spawn_app().await;
    let mut added = Vec::new();
    for frame in ["1", "2", "3"] {
        let fields = [("frame", frame), ("class", "COVID")];
        let response = ask(&app, "/v1/images", &three(), &fields).await;
        assert_eq!(response.status(), 201, "{frame}");
        let written: Value = response.json().await.unwrap();
        assert_eq!(written["outcome"], "inserted");
        let again = ask(&app, "/v1/images", &three(), &fields).await;
        assert_eq!(again.status(), 200, "{frame}");
        let again: Value = again.json().await.unwrap();
        assert_eq!(again["id"], written["id"]);
        assert_eq!(again["outcome"], "duplicate");
        added.push(written);
    }
    for (number, written) in (1..).zip(&added) {
        let id = written["id"].as_str().unwrap();
        let (frame, version) = (number.to_string(), added[2]["version"].to_string());
        let fields = [
            ("frame", frame.as_str()),
            ("exclude", "none"),
            ("min_version", version.as_str()),
        ];
        let found = answer(&app, "/v1/search", &three(), &fields).await;
        let nearest = &found["neighbors"][0];
        assert_eq!(nearest["id"], id);
        let details: Value = app.get(&format!("/v1/images/{id}")).await.json().await.unwrap();
        let frame = details["record"].get("frame").map(|frame| frame.as_u64().unwrap());
        assert_eq!(frame, (number > 1).then_some(number), "the first goes without saying");
        assert_eq!(nearest["record"].get("frame"), details["record"].get("frame"));
        // Without itself it is not found.
        let others = answer(&app, "/v1/search", &three(), &[fields[0], fields[2]]).await;
        assert!(
            others["neighbors"]
                .as_array()
                .unwrap()
                .iter()
                .all(|other| other["id"] != id)
        );
    }
}
