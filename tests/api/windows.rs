//! An archive with windows of its own: every DICOM image of it, and every one that is asked about, is windowed by its table.

use std::path::Path;
use std::process::{Command, Output};

use medsearch::imaging::{Limits, Samples, png};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::eventually;
use crate::files::{EXPLICIT, Instance, dicom, element, even, pattern_png};
use crate::harness::{Part, TestApp, problem, spawn_app, spawn_over};

const TABLE: &str =
    r#"[{"modality": "CT", "body_part": "CHEST", "center": -600, "width": 1500}, {"modality": "CR", "use": "file"}]"#;
const SIDE: u16 = 96;
/// What is stored where nothing is.
const INTERCEPT: i32 = -1024;

/// Stored values of a picture that is another one for every number.
fn stored(number: u32) -> Vec<u16> {
    let value = |at: u32| {
        let (x, y) = (at % u32::from(SIDE), at / u32::from(SIDE));
        ((x * (3 + number) + y * (29 - number) + x * y * number / 9) % 2048) as u16
    };
    (0..u32::from(SIDE) * u32::from(SIDE)).map(value).collect()
}

/// A file of 16 bits with a rescale and, if it says one, its own window.
fn file(modality: &str, number: u32, window: Option<(&str, &str)>) -> Vec<u8> {
    let uid = format!("1.2.3.4.{number}");
    let instance = Instance {
        modality,
        body_part: "CHEST",
        sop_uid: &uid,
        study_uid: &uid,
        ..Instance::default()
    };
    let mut data = instance.header();
    data.extend(element(0x0028, 0x0002, b"US", &1u16.to_le_bytes()));
    data.extend(element(0x0028, 0x0004, b"CS", b"MONOCHROME2 "));
    for (tag, value) in [
        (0x0010, SIDE),
        (0x0011, SIDE),
        (0x0100, 16),
        (0x0101, 16),
        (0x0102, 15),
        (0x0103, 0),
    ] {
        data.extend(element(0x0028, tag, b"US", &value.to_le_bytes()));
    }
    if let Some((center, width)) = window {
        data.extend(element(0x0028, 0x1050, b"DS", &even(center)));
        data.extend(element(0x0028, 0x1051, b"DS", &even(width)));
    }
    data.extend(element(0x0028, 0x1052, b"DS", &even(&INTERCEPT.to_string())));
    data.extend(element(0x0028, 0x1053, b"DS", b"1 "));
    let pixels: Vec<u8> = stored(number).iter().flat_map(|value| value.to_le_bytes()).collect();
    data.extend(element(0x7fe0, 0x0010, b"OB", &pixels));
    dicom(EXPLICIT, &data)
}

fn medsearch(arguments: &[&str], folder: &Path) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_medsearch"))
        .args(arguments)
        .current_dir(folder)
        .output();
    run.unwrap()
}

fn done(arguments: &[&str], folder: &Path) {
    let run = medsearch(arguments, folder);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

const INDEX: [&str; 11] = [
    "index",
    "--data",
    "data",
    "--model",
    "thumbnail",
    "--archive",
    "archive",
    "--secret-file",
    "secret",
    "--embeddings",
    "vectors",
];

/// An archive of three CT slices and two radiographs, of which one proposes a window.
fn made() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (class, name, file) in [
        ("A", "1.dcm", file("CT", 1, None)),
        ("A", "2.dcm", file("CT", 2, Some(("40", "400")))),
        ("B", "3.dcm", file("CT", 3, None)),
        ("B", "4.dcm", file("CR", 4, Some(("-24\\40", "1001\\400")))),
        ("B", "5.dcm", file("CR", 5, None)),
    ] {
        std::fs::create_dir_all(path.join("data").join(class)).unwrap();
        std::fs::write(path.join("data").join(class).join(name), file).unwrap();
    }
    std::fs::write(path.join("secret"), hex::encode([7; 32])).unwrap();
    std::fs::write(path.join("windows.json"), TABLE).unwrap();
    let embed = [
        "embed",
        "--data",
        "data",
        "--out",
        "vectors",
        "--model",
        "thumbnail",
        "--windows",
        "windows.json",
    ];
    done(&embed, path);
    done(&INDEX, path);
    folder
}

async fn found(app: &TestApp, image: &[u8]) -> Value {
    let form = [
        Part::File("image", image),
        Part::Text("exclude", b"none"),
        Part::Text("k", b"1"),
    ];
    let response = app.form("/v1/search", &form).send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    response.json().await.unwrap()
}

async fn json_of(app: &TestApp, path: &str) -> Value {
    app.get(path).await.json().await.unwrap()
}

#[actix_web::test]
async fn queries_and_images_get_the_windows_of_the_archive() {
    let app = spawn_over(made(), |_| {}).await;
    let shown = json_of(&app, "/v1/archive").await;
    let pipeline = shown["space"]["pixel_pipeline"].as_str().unwrap();
    assert!(pipeline.ends_with(" windows=CT/CHEST:-600,1500;CR:file"), "{pipeline}");
    assert_eq!(
        shown["windows"],
        json!([
            {"modality": "CT", "body_part": "CHEST", "use": "fixed", "center": -600.0, "width": 1500.0},
            {"modality": "CR", "body_part": null, "use": "file", "center": null, "width": null},
        ])
    );
    let lung = json!({"kind": "fixed", "low": -326.0, "high": 1173.0});
    let own = json!({"kind": "file", "low": 499.5, "high": 1499.5, "sigmoid": false});
    for (modality, number, window, expected) in [
        ("CT", 1, None, Some(&lung)),
        ("CT", 2, Some(("40", "400")), Some(&lung)),
        ("CR", 4, Some(("-24\\40", "1001\\400")), Some(&own)),
        ("CR", 5, None, None),
    ] {
        let answer = found(&app, &file(modality, number, window)).await;
        let nearest = &answer["neighbors"][0];
        assert!(
            nearest["similarity"].as_f64().unwrap() > 0.999_999,
            "{modality} {number}: {nearest}"
        );
        let image = json_of(&app, &format!("/v1/images/{}", nearest["id"].as_str().unwrap())).await;
        for used in [&answer["query"]["image"]["window"], &image["window"]] {
            match expected {
                Some(expected) => assert_eq!(used, expected, "{modality} {number}"),
                None => assert_eq!(used["kind"], "percentile", "{modality} {number}"),
            }
        }
    }
    // No modality, no rule.
    let png = found(&app, &pattern_png(1, 1)).await;
    assert_eq!(png["query"]["image"]["window"], json!({"kind": "identity"}));
}

#[actix_web::test]
async fn an_image_is_shown_in_the_window_that_was_embedded() {
    let app = spawn_over(made(), |_| {}).await;
    let new = file("CT", 9, None);
    let form = [Part::File("image", &new), Part::Text("class", b"A")];
    let added = app.form("/v1/images", &form).send().await.unwrap();
    assert_eq!(added.status(), 201, "{}", added.text().await.unwrap());
    let id = added.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/images/{id}");
    eventually("it is served", async || app.get(&path).await.status() == 200).await;
    let image = json_of(&app, &path).await;
    assert_eq!(image["window"], json!({"kind": "fixed", "low": -326.0, "high": 1173.0}));
    let rendered = app
        .get(&format!("/v1/images/{id}/rendered"))
        .await
        .bytes()
        .await
        .unwrap();
    let raster = png::decode(&rendered, &Limits::default()).unwrap();
    let Samples::Gray8(levels) = raster.samples() else {
        panic!("not grey of 8 bits");
    };
    // PS3.3, C.11.2.1.2.1, over Hounsfield units.
    for (stored, &level) in stored(9).into_iter().zip(levels) {
        let value = f64::from(i32::from(stored) + INTERCEPT);
        let exact = ((value + 600.5) / 1499.0 + 0.5) * 255.0;
        assert!(
            (f64::from(level) - exact.clamp(0.0, 255.0)).abs() <= 0.5,
            "{stored} is {level}"
        );
    }
}

#[actix_web::test]
async fn vectors_by_another_table_are_of_another_space() {
    let folder = made();
    let path = folder.path();
    std::fs::write(path.join("other.json"), TABLE.replace("-600", "-500")).unwrap();
    let other = [
        "embed",
        "--data",
        "data",
        "--out",
        "other",
        "--model",
        "thumbnail",
        "--windows",
        "other.json",
    ];
    done(&other, path);
    done(
        &["embed", "--data", "data", "--out", "none", "--model", "thumbnail"],
        path,
    );
    for vectors in ["other", "none"] {
        let run = medsearch(&[&INDEX[..10], &[vectors]].concat(), path);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(
            !run.status.success() && said.contains("the archive is of space"),
            "{vectors}: {said}"
        );
    }
    std::fs::write(path.join("odd.json"), r#"[{"modality": "CT", "width": 5}]"#).unwrap();
    let odd = medsearch(&[&other[..8], &["odd.json"]].concat(), path);
    assert!(!odd.status.success() && String::from_utf8_lossy(&odd.stderr).contains("has a `center`"));

    // What one archive embeds, with its table, is nothing to another that has none.
    let (app, plain) = (spawn_over(folder, |_| {}).await, spawn_app().await);
    let file = file("CT", 1, None);
    let embedded = app
        .form("/v1/embeddings", &[Part::File("image", &file)])
        .send()
        .await
        .unwrap();
    let embedded: Value = embedded.json().await.unwrap();
    let query = json!({"vector": embedded["embeddings"][0]["vector"], "space": embedded["space"], "k": 1});
    let ask = |app: &TestApp| {
        let body = serde_json::to_vec(&query).unwrap();
        app.body("/v1/search/by-vector", "application/json", body).send()
    };
    let answer = ask(&app).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["neighbors"][0]["similarity"].as_f64().unwrap() > 0.999_999);
    let (status, ..) = problem(ask(&plain).await.unwrap()).await;
    assert_eq!(status, 409);
}
