//! Copies of a picture that are not equal to it: noticed as they come, shown once, counted once.

use serde_json::{Value, json};

use crate::files;
use crate::harness::{Part, TestApp, spawn_app};

async fn ok(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn add(app: &TestApp, file: &[u8], class: &str, patient: &str) -> Value {
    let parts = [
        Part::Text("class", class.as_bytes()),
        Part::Text("patient_id", patient.as_bytes()),
        Part::File("image", file),
    ];
    ok(app.form("/v1/images", &parts)).await
}

async fn search(app: &TestApp, file: &[u8], version: &Value, options: &[(&str, &str)]) -> Value {
    let version = version.to_string();
    let mut parts = vec![Part::Text("min_version", version.as_bytes())];
    parts.extend(options.iter().map(|(name, value)| Part::Text(name, value.as_bytes())));
    parts.push(Part::File("image", file));
    ok(app.form("/v1/search", &parts)).await
}

async fn image(app: &TestApp, id: &Value) -> Value {
    ok(app.request("GET", &format!("/v1/images/{}", id.as_str().unwrap()))).await
}

/// Those of the answer's neighbors that are among `ids`.
fn found<'a>(answer: &'a Value, ids: &[&Value]) -> Vec<&'a Value> {
    let neighbors = answer["neighbors"].as_array().unwrap().iter();
    neighbors.filter(|neighbor| ids.contains(&&neighbor["id"])).collect()
}

#[actix_web::test]
async fn a_copy_in_another_size_is_one_result_and_one_vote() {
    let app = spawn_app().await;
    let first = add(&app, &files::scene_png(1, 320, 240, 0.0), "COVID", "P1").await;
    search(&app, &files::scene_png(1, 320, 240, 0.0), &first["version"], &[]).await;
    let smaller = add(&app, &files::scene_png(1, 200, 150, 0.0), "COVID", "P2").await;
    assert_eq!(
        (&first["near_identical_to"], &first["outcome"]),
        (&Value::Null, &json!("inserted"))
    );
    assert_eq!(smaller["near_identical_to"], first["id"], "{smaller}");
    assert_eq!(smaller["label_conflict"], false);

    let ids = [&first["id"], &smaller["id"]];
    // Another patient's picture that resembles it.
    let query = files::scene_png(1, 320, 240, 0.6);
    let answer = search(&app, &query, &smaller["version"], &[("k", "30")]).await;
    let hits = found(&answer, &ids);
    assert_eq!(hits.len(), 1, "{answer:#}");
    assert_eq!(
        (&hits[0]["near_identical"], &hits[0]["label_conflict"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(answer["query"]["near_identical"], "collapse");
    let voters = answer["suggestion"]["voters"].as_array().unwrap();
    assert_eq!(voters.iter().filter(|id| ids.contains(id)).count(), 1);
    let kept = search(
        &app,
        &query,
        &smaller["version"],
        &[("k", "30"), ("near_identical", "keep")],
    )
    .await;
    assert_eq!(found(&kept, &ids).len(), 2);
    assert_eq!(kept["query"]["near_identical"], "keep");
    let all = |answer: &Value| answer["neighbors"].as_array().unwrap().len();
    assert_eq!(all(&kept), all(&answer) + 1);

    // Each names the other, and a search by one leaves the other out unless it is asked for.
    let shown = image(&app, &first["id"]).await;
    assert_eq!(shown["near_identical"], json!([smaller["id"]]));
    let by_id = |exclude: &str| json!({"ids": [first["id"]], "k": 100, "exclude": [exclude]}).to_string();
    let body = |text: String| app.body("/v1/search/by-id", "application/json", text.into_bytes());
    assert_eq!(found(&ok(body(by_id("pixels"))).await, &ids).len(), 0);
    assert_eq!(found(&ok(body(by_id("none"))).await, &ids).len(), 1);
    let archive = ok(app.request("GET", "/v1/archive")).await;
    assert_eq!(archive["near_identical"], 2);

    // The first goes, the copy stays and is one of a kind.
    let path = format!("/v1/images/{}", first["id"].as_str().unwrap());
    let gone = ok(app.request("DELETE", &path)).await;
    let answer = search(&app, &query, &gone["version"], &[("k", "30")]).await;
    let hits = found(&answer, &ids);
    assert_eq!(
        (hits.len(), &hits[0]["id"], &hits[0]["near_identical"]),
        (1, &smaller["id"], &json!(0))
    );
    assert_eq!(image(&app, &smaller["id"]).await["near_identical"], json!([]));
}

#[actix_web::test]
async fn copies_under_different_classes_do_not_vote_until_that_is_settled() {
    let app = spawn_app().await;
    let first = add(&app, &files::scene_png(2, 300, 300, 0.0), "COVID", "P1").await;
    search(&app, &files::scene_png(2, 300, 300, 0.0), &first["version"], &[]).await;
    let other = add(&app, &files::scene_png(2, 180, 180, 0.0), "Normal", "P2").await;
    assert_eq!(
        (&other["near_identical_to"], &other["label_conflict"]),
        (&first["id"], &json!(true))
    );
    let ids = [&first["id"], &other["id"]];
    let query = files::scene_png(2, 300, 300, 0.6);
    for options in [&[("k", "30")][..], &[("k", "30"), ("near_identical", "keep")]] {
        let answer = search(&app, &query, &other["version"], options).await;
        let hits = found(&answer, &ids);
        assert!(
            !hits.is_empty() && hits.iter().all(|hit| hit["label_conflict"] == true),
            "{answer:#}"
        );
        let voters = answer["suggestion"]["voters"].as_array().unwrap();
        assert!(voters.iter().all(|id| !ids.contains(&id)));
    }
    let archive = ok(app.request("GET", "/v1/archive")).await;
    assert_eq!(archive["conflicts"], 2);
    let path = format!("/v1/images/{}", other["id"].as_str().unwrap());
    let label = app
        .request("PATCH", &path)
        .json(&json!({"class": "COVID", "label_source": "biopsy"}));
    let settled = ok(label).await;
    assert_eq!(settled["label_conflict"], false);
    let answer = search(&app, &query, &settled["version"], &[("k", "30")]).await;
    let voters = answer["suggestion"]["voters"].as_array().unwrap();
    assert_eq!(voters.iter().filter(|id| ids.contains(id)).count(), 1);
}

#[actix_web::test]
async fn a_word_that_is_neither_is_refused() {
    let app = spawn_app().await;
    let parts = [
        Part::Text("near_identical", b"hide"),
        Part::File("image", &files::scene_png(3, 60, 60, 0.0)),
    ];
    let response = app.form("/v1/search", &parts).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("`near_identical` is one of collapse, keep")
    );
}
