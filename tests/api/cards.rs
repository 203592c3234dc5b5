//! The archive's papers: model card and datasheet, before and after an evaluation was kept.

use std::process::Command;

use serde_json::Value;

use crate::harness::{TestApp, spawn_app};

async fn json(app: &TestApp, path: &str) -> Value {
    let response = app.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

fn section<'a>(document: &'a Value, id: &str) -> &'a Value {
    let sections = document["sections"].as_array().unwrap();
    sections.iter().find(|section| section["id"] == id).expect(id)
}

#[actix_web::test]
async fn papers_say_what_is_known_and_what_is_not() {
    let app = spawn_app().await;
    let card = json(&app, "/v1/model/card").await;
    let ids: Vec<&str> = (card["sections"].as_array().unwrap().iter())
        .map(|section| section["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "model-details",
            "intended-use",
            "factors",
            "metrics",
            "evaluation-data",
            "training-data",
            "quantitative-analyses",
            "ethical-considerations",
            "caveats",
            "source-attributes"
        ]
    );
    assert!(
        section(&card, "quantitative-analyses")
            .to_string()
            .contains("Not measured")
    );
    assert!(section(&card, "factors").to_string().contains("not known"));
    assert_eq!(json(&app, "/v1/model").await["evaluation"], Value::Null);

    let sheet = json(&app, "/v1/archive/datasheet").await;
    let composition = section(&sheet, "composition").to_string();
    assert!(composition.contains(r#"["COVID","8","8"]"#), "{composition}");
    for (path, title) in [
        ("/v1/model/card.md", "# Model card of"),
        ("/v1/archive/datasheet.md", "# Datasheet of"),
    ] {
        let response = app.get(path).await;
        assert_eq!(response.headers()["content-type"], "text/markdown; charset=utf-8");
        let text = response.text().await.unwrap();
        assert!(text.starts_with(title) && text.contains("Research use only"), "{text}");
    }
}

#[actix_web::test]
async fn a_kept_evaluation_stands_in_the_card_and_says_when_it_is_old() {
    let app = spawn_app().await;
    let run = |arguments: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_medsearch"))
            .args(arguments)
            .args(["--archive".as_ref(), app.archive_folder().as_os_str()])
            .args(["--secret-file".as_ref(), app.secret_file().as_os_str()])
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    };
    let said = run(&["evaluate", "--keep", "--resamples", "20", "--seeds", "1"]);
    assert!(
        said.contains("version 3 keeps") || said.contains("version 2 keeps"),
        "{said}"
    );
    let version = said.split("version ").nth(1).unwrap().split(' ').next().unwrap();
    let ids: Value = json(&app, "/v1/archive").await;
    let some = ids["samples"][0]["id"].as_str().unwrap().to_owned();
    // A server takes it over.
    let search = serde_json::json!({"ids": [some], "min_version": version.parse::<u64>().unwrap()});
    let answer = app
        .request("POST", "/v1/search/by-id")
        .json(&search)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);

    let evaluation = json(&app, "/v1/model").await["evaluation"].clone();
    assert_eq!(
        (&evaluation["readable"], &evaluation["caveats"]),
        (&true.into(), &serde_json::json!([]))
    );
    let value = evaluation["balanced_accuracy"]["value"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&value));
    let text = app.get("/v1/model/card.md").await.text().await.unwrap();
    assert!(text.contains(&format!("| Balanced accuracy | {value:.3} (")), "{text}");
    assert!(!text.contains(&some), "no ids");

    // Two of eight images of a class fewer is more than a fifth.
    let mut left = 24;
    for sample in ids["samples"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|sample| sample["class"] == "COVID")
    {
        let path = format!("/v1/images/{}", sample["id"].as_str().unwrap());
        assert_eq!(app.request("DELETE", &path).send().await.unwrap().status(), 200);
        left -= 1;
    }
    assert_eq!(left, 22);
    for _ in 0..300 {
        if json(&app, "/v1/archive").await["images"] == left {
            break;
        }
        actix_web::rt::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(
        json(&app, "/v1/archive").await["images"],
        left,
        "a server has a deletion within two seconds"
    );
    let caveats = json(&app, "/v1/model").await["evaluation"]["caveats"].to_string();
    assert!(caveats.contains("COVID had 8 images"), "{caveats}");

    let out = app.archive_folder().with_file_name("papers");
    run(&["card", "--out", out.to_str().unwrap()]);
    for name in ["MODEL_CARD.md", "DATASHEET.md"] {
        let text = std::fs::read_to_string(out.join(name)).unwrap();
        assert!(text.contains("COVID"), "{text}");
    }
}
