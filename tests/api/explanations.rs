//! Why two images are similar, as a client asks.

use serde_json::Value;

use crate::archive::image;
use crate::harness::{Part, TestApp, problem, spawn_app};

async fn neighbor(app: &TestApp, file: &[u8]) -> Value {
    let answer = app
        .form("/v1/search", &[Part::File("image", file), Part::Text("k", b"1")])
        .send();
    let answer: Value = answer.await.unwrap().json().await.unwrap();
    answer["neighbors"][0].clone()
}

#[actix_web::test]
async fn an_explanation_has_a_map_of_each_image() {
    let app = spawn_app().await;
    let file = image(2, 3);
    let neighbor = neighbor(&app, &file).await;
    let id = neighbor["id"].as_str().unwrap();
    let form = [
        Part::File("image", &file),
        Part::Text("neighbor", id.as_bytes()),
        Part::Text("space", app.space.as_bytes()),
    ];
    let response = app.form("/v1/explanations", &form).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["neighbor"], id);
    assert_eq!(answer["similarity"], neighbor["similarity"]);
    // The thumbnail embedder has no cells.
    assert_eq!(answer["method"], "occlusion");
    assert_eq!(answer["why_not"], Value::Null);
    assert_eq!(answer["space"], app.space);
    assert_eq!(answer["intended_use"], "research use only, not for diagnosis");
    for map in ["query", "neighbor_map"] {
        let map = &answer[map];
        let rows = map["cells"].as_array().unwrap();
        assert_eq!((map["rows"].as_u64(), rows.len()), (Some(8), 8), "{map}");
        let cells: Vec<f64> = rows
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|x| x.as_f64().unwrap())
            .collect();
        assert_eq!(cells.len(), 64);
        assert!((cells.iter().sum::<f64>() - map["sum"].as_f64().unwrap()).abs() < 1e-9);
        // Covering a window changes something, and not everywhere the same.
        assert!(cells.iter().any(|&share| share > 1e-3) && cells.iter().any(|share| (share - cells[0]).abs() > 1e-4));
        assert_eq!(map["area"], serde_json::json!([0.0, 0.0, 1.0, 1.0]));
    }
    assert_eq!(answer["neighbor_map"]["from_thumbnail"], false);
}

#[actix_web::test]
async fn a_region_is_explained_where_it_is() {
    let app = spawn_app().await;
    let file = image(1, 1);
    let neighbor = neighbor(&app, &file).await;
    let form = [
        Part::File("image", &file),
        Part::Text("neighbor", neighbor["id"].as_str().unwrap().as_bytes()),
        Part::Text("region", b"0.5,0,0.5,1"),
    ];
    let answer: Value = app
        .form("/v1/explanations", &form)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["query"]["area"], serde_json::json!([0.5, 0.0, 0.5, 1.0]));
    assert_eq!(answer["neighbor_map"]["area"], serde_json::json!([0.0, 0.0, 1.0, 1.0]));
    assert_ne!(answer["similarity"], neighbor["similarity"]);
}

#[actix_web::test]
async fn what_cannot_be_explained_is_named() {
    let app = spawn_app().await;
    let file = image(0, 2);
    let id = neighbor(&app, &file).await["id"].as_str().unwrap().to_owned();
    let (image, known) = (Part::File("image", &file), Part::Text("neighbor", id.as_bytes()));
    let unknown = "0".repeat(36);
    let rows: Vec<(Vec<Part<'_>>, u16, &str, &str)> = vec![
        (vec![image], 400, "invalid-request", "missing field `neighbor`"),
        (vec![known], 400, "missing-image", "`image`"),
        (
            vec![image, Part::Text("neighbor", b"x")],
            400,
            "invalid-request",
            "`neighbor`",
        ),
        (
            vec![image, Part::Text("neighbor", unknown.as_bytes())],
            404,
            "not-found",
            "no image",
        ),
        (
            vec![image, known, Part::Text("space", &[b'0'; 32])],
            409,
            "space-mismatch",
            "of space",
        ),
        (
            vec![image, known, Part::Text("space", b"here")],
            400,
            "invalid-request",
            "`space`",
        ),
        (
            vec![image, known, Part::Text("region", b"1")],
            400,
            "invalid-request",
            "`region`",
        ),
        (
            vec![image, known, Part::Text("k", b"1")],
            400,
            "invalid-request",
            "unknown field `k`",
        ),
        (
            vec![Part::File("image", b"no image"), known],
            415,
            "unsupported-media",
            "",
        ),
    ];
    for (form, status, slug, says) in rows {
        let answer = problem(app.form("/v1/explanations", &form).send().await.unwrap()).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, slug), "{says}");
        assert!(answer.2.detail.contains(says), "{}", answer.2.detail);
    }
}

#[actix_web::test]
async fn one_at_a_time_and_more_than_a_few_are_refused() {
    let app = spawn_app().await;
    let file = image(1, 2);
    let id = neighbor(&app, &file).await["id"].as_str().unwrap().to_owned();
    let form = [Part::File("image", &file), Part::Text("neighbor", id.as_bytes())];
    let all = (0..24).map(|_| app.form("/v1/explanations", &form).send());
    let mut made = 0;
    for response in futures_util::future::join_all(all).await {
        let response = response.unwrap();
        if response.status() == 429 {
            assert_eq!(response.headers()["retry-after"], "1");
            assert_eq!(problem(response).await.1, "overloaded");
        } else {
            assert_eq!(response.status(), 200);
            made += 1;
        }
    }
    assert!(made >= 4, "{made}");
    // Whoever was refused took no place along.
    let response = app.form("/v1/explanations", &form).send().await.unwrap();
    assert_eq!(response.status(), 200);
}
