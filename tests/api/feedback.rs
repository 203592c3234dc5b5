//! Reports about labels: who may write, who may read, what is refused, when they go.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{KEY, TestApp, problem, spawn_app, spawn_with_key};

async fn an_image(app: &TestApp) -> (String, String) {
    let request = app.request("GET", "/v1/archive").header("x-api-key", KEY);
    let archive: Value = request.send().await.unwrap().json().await.unwrap();
    let sample = &archive["samples"][0];
    let text = |name: &str| sample[name].as_str().unwrap().to_owned();
    (text("id"), text("class"))
}

async fn list(app: &TestApp) -> Value {
    app.get("/v1/feedback").await.json().await.unwrap()
}

#[actix_web::test]
async fn a_report_is_stored_listed_and_resolved() {
    let app = spawn_app().await;
    let (image, class) = an_image(&app).await;
    let body = json!({"image": image, "suggested": "Normal", "reason": " Jane Doe: no sign of it "});
    let response = app.request("POST", "/v1/feedback").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let receipt: Value = response.json().await.unwrap();
    assert_eq!(receipt["image"], image);
    let unsure = json!({"image": image, "suggested": null, "reason": "blurred"});
    let response = app.request("POST", "/v1/feedback").json(&unsure).send().await.unwrap();
    assert_eq!(response.status(), 201);

    let all = list(&app).await;
    let reports = all["reports"].as_array().unwrap();
    assert_eq!((reports.len(), &all["next"]), (2, &Value::Null));
    let report = reports.iter().find(|report| report["id"] == receipt["id"]).unwrap();
    assert_eq!(
        (&report["class"], &report["suggested"], &report["reason"]),
        (&json!(class), &json!("Normal"), &json!("Jane Doe: no sign of it"))
    );
    let page: Value = app.get("/v1/feedback?limit=1").await.json().await.unwrap();
    assert_eq!(page["reports"].as_array().unwrap().len(), 1);
    let next = page["next"].as_str().unwrap();
    let page: Value = app
        .get(&format!("/v1/feedback?limit=1&after={next}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (page["reports"].as_array().unwrap().len(), &page["next"]),
        (1, &Value::Null)
    );

    // The command line sees the same.
    let run = |arguments: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_medsearch"))
            .arg("feedback")
            .args(["--archive".as_ref(), app.archive_folder().as_os_str()])
            .args(["--secret-file".as_ref(), app.secret_file().as_os_str()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    };
    let lines = run(&["--json"]);
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.contains("Jane Doe"));
    assert!(run(&["--resolve", receipt["id"].as_str().unwrap()]).contains("resolved"));
    let left = list(&app).await["reports"].clone();
    assert_eq!(left.as_array().unwrap().len(), 1);
    let path = format!("/v1/feedback/{}", left[0]["id"].as_str().unwrap());
    assert_eq!(app.request("DELETE", &path).send().await.unwrap().status(), 200);
    let again = app.request("DELETE", &path).send().await.unwrap();
    assert_eq!(problem(again).await.1, "not-found");
    assert_eq!(list(&app).await["reports"], json!([]));
}

#[actix_web::test]
async fn a_report_goes_with_its_image_and_no_searcher_sees_it() {
    let app = spawn_app().await;
    let (image, _) = an_image(&app).await;
    let body = json!({"image": image, "suggested": null, "reason": "Doe, Jane"});
    let response = app.request("POST", "/v1/feedback").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let details = app.get(&format!("/v1/images/{image}")).await.text().await.unwrap();
    let search = json!({"ids": [image], "exclude": []});
    let found = app
        .request("POST", "/v1/search/by-id")
        .json(&search)
        .send()
        .await
        .unwrap();
    let papers = app.get("/v1/archive/datasheet").await.text().await.unwrap();
    for shown in [details, found.text().await.unwrap(), papers] {
        assert!(!shown.contains("Doe"));
    }
    let path = format!("/v1/images/{image}");
    assert_eq!(app.request("DELETE", &path).send().await.unwrap().status(), 200);
    let left = || {
        std::fs::read_dir(app.archive_folder().join("feedback"))
            .unwrap()
            .count()
    };
    for _ in 0..300 {
        if left() == 0 {
            break;
        }
        actix_web::rt::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(left(), 0, "its file is gone too");
}

#[actix_web::test]
async fn what_can_not_be_meant_is_refused_and_nothing_stored() {
    let app = spawn_app().await;
    let (image, class) = an_image(&app).await;
    let none = "0".repeat(36);
    for (body, slug) in [
        (
            json!({"image": image, "reason": "x", "suggested": "New"}),
            "unknown-class",
        ),
        (
            json!({"image": image, "reason": "x", "suggested": class}),
            "invalid-request",
        ),
        (json!({"image": image, "reason": " "}), "invalid-request"),
        (json!({"image": image, "reason": "x".repeat(501)}), "invalid-request"),
        (json!({"image": image, "reason": "a\u{0}b"}), "invalid-request"),
        (json!({"image": image}), "invalid-request"),
        (
            json!({"image": image, "reason": "x", "patient_id": "P"}),
            "invalid-request",
        ),
        (json!({"image": "x", "reason": "x"}), "invalid-request"),
        (json!({"image": none, "reason": "x"}), "not-found"),
        (
            json!({"image": image, "reason": "x".repeat((1 << 20) + 1)}),
            "too-large",
        ),
    ] {
        let response = app.request("POST", "/v1/feedback").json(&body).send().await.unwrap();
        assert_eq!(problem(response).await.1, slug, "{slug}");
    }
    let text = app.body("/v1/feedback", "text/plain", b"{}".to_vec());
    assert_eq!(problem(text.send().await.unwrap()).await.1, "unsupported-media");
    for path in ["/v1/feedback?limit=0", "/v1/feedback?after=x", "/v1/feedback?all=1"] {
        assert_eq!(problem(app.get(path).await).await.1, "invalid-request", "{path}");
    }
    assert_eq!(list(&app).await["reports"], json!([]));

    let body = json!({"image": image, "reason": "x"});
    for _ in 0..20 {
        let response = app.request("POST", "/v1/feedback").json(&body).send().await.unwrap();
        assert_eq!(response.status(), 201);
    }
    let response = app.request("POST", "/v1/feedback").json(&body).send().await.unwrap();
    assert_eq!(problem(response).await.1, "storage-full", "twenty of one image");
}

#[actix_web::test]
async fn with_a_key_all_of_it_needs_the_key() {
    let app = spawn_with_key().await;
    let (image, _) = an_image(&app).await;
    let body = json!({"image": image, "reason": "x"});
    for method in ["POST", "GET"] {
        let response = app.request(method, "/v1/feedback").json(&body).send().await.unwrap();
        assert_eq!(problem(response).await.1, "unauthorized", "{method}");
    }
    let with_key = app.request("POST", "/v1/feedback").header("x-api-key", KEY).json(&body);
    assert_eq!(with_key.send().await.unwrap().status(), 201);
}
